"""The one place that looks at what reaches a node: every input of every node, by type, shape, range and choice.

`checked` wraps a node's functions. ComfyUI itself looks at typed values only where the node does not validate them, and
at linked ones by the name of their type alone. What is wrong raises ValueError in one line, before the node runs.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pid_core.errors import PiDError
from ...pid_core.images.pixels import WHITE, as_floats, with_colour
from ...pid_core.latents.sigma_map import SigmaMap
from ...pid_core.model.guard import all_finite
from ...pid_core.printable import printable
from ..comfy.regions import RegionalCaption
from ..comfy.remedies import explain, explained
from .inputs import ABSENT, Framed

# combos of file names: what is there changes, and the node looks itself
FILES = ("file", "model_name", "encoder", "statistics")


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """A node whose inputs are looked at first: `execute` raises, validate_inputs says, the other hooks stay quiet."""
    schema = functools.cache(node.define_schema)
    _replace(node, "execute", functools.partial(_checked_run, schema))
    for name, answer in _HOOKS.items():
        if name in node.__dict__:
            _replace(node, name, functools.partial(_checked_hook, schema, answer))
    return node


# What a hook answers to a line that says what is wrong.
_HOOKS: dict[str, Callable[[str], object]] = {
    "validate_inputs": lambda line: line,
    "check_lazy_status": lambda line: [],
    "fingerprint_inputs": lambda line: None,
}


def _replace(node: type[io.ComfyNode], name: str, wrap: Callable[[Callable], Callable]) -> None:
    plain = node.__dict__[name].__func__
    function = functools.wraps(plain)(wrap(plain))
    # ComfyUI reads which inputs it takes. type: ignore: functools.wraps hides that it is a function
    function.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    setattr(node, name, classmethod(function))


def _checked_run(schema: Callable[[], io.Schema], plain: Callable) -> Callable:
    signature = inspect.signature(plain)

    def run(cls, *args, **kwargs):
        values = _check_values(schema(), _arguments(signature, cls, args, kwargs))
        for entry in schema().inputs:
            if entry.id not in values and _is_needed(signature, entry.id):
                raise ValueError(f"{entry.id} is missing: connect it, or type a value")
        try:
            return plain(cls, **values)
        except PiDError as error:
            raise explained(error) from error

    return run


def _checked_hook(schema: Callable[[], io.Schema], answer: Callable[[str], object], plain: Callable) -> Callable:
    signature = inspect.signature(plain)

    def run(cls, *args, **kwargs):
        arguments = _arguments(signature, cls, args, kwargs)
        try:
            _check_known(schema(), arguments)
        except ValueError as error:
            return answer(str(error))
        try:
            return plain(cls, *args, **kwargs)
        except (ValueError, OSError) as error:
            return answer(explain(error))

    return run


def _check_values(schema: io.Schema, arguments: dict) -> dict:
    """The values as the node takes them, without those of optional inputs that nothing came through."""
    entries = {entry.id: entry for entry in schema.inputs}
    values = {}
    for name, value in arguments.items():
        entry = entries.get(name)
        if entry is None:
            values[name] = value
        elif not (_may_be_missing(entry) and _is_nothing(value, schema.is_input_list)):
            values[name] = _each(entry, value) if schema.is_input_list else check(entry, value)
    return values


def _check_known(schema: io.Schema, arguments: dict) -> None:
    """Raises ValueError for the first value that is wrong, of those that are known before the run."""
    entries = {entry.id: entry for entry in schema.inputs}
    for name, value in arguments.items():
        values = value if schema.is_input_list and isinstance(value, list | tuple) else [value]
        for one in values:
            if name in entries and one is not None and one is not ABSENT and not isinstance(one, list):
                check(entries[name], one)


def check(entry: io.Input, value):
    """The value as the node takes it. Raises ValueError in one line, with the input's name."""
    if entry.rawLink:
        return value
    if getattr(entry, "lazy", None) and value is None:
        return value
    kinds = entry.get_io_type().split(",")
    if "COMBO" in kinds or isinstance(entry, io.Combo.Input):
        return _combo(entry, value)
    if "PIDKIT_SIGMA_LIST" in kinds:
        return _sigma_list(entry.id, value)
    look = _CHECKS.get(kinds[0])
    return value if look is None else look(entry, value)


def _arguments(signature: inspect.Signature, cls, args: tuple, kwargs: dict) -> dict:
    try:
        bound = signature.bind_partial(cls, *args, **kwargs)
    except TypeError as error:
        raise ValueError(f"the node was given inputs it does not have: {printable(error, 200)}") from None
    arguments = dict(list(bound.arguments.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments


def _is_needed(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    return parameter is not None and parameter.default is parameter.empty


def _is_nothing(value, listed: bool) -> bool:
    if not (listed and isinstance(value, list | tuple)):
        return value is None
    return len(value) > 0 and all(one is None for one in value)


def _may_be_missing(entry: io.Input) -> bool:
    return bool(getattr(entry, "optional", False) or getattr(entry, "lazy", None))


def _each(entry: io.Input, values) -> list:
    """For nodes that get all values of an input as one list."""
    if isinstance(values, tuple):
        values = list(values)
    if not isinstance(values, list):
        raise _wrong(entry.id, values, "a list")
    if not values:
        raise ValueError(f"{entry.id} is empty: what is connected gave nothing")
    return [check(entry, value) for value in values]


def _wrong(name: str, value, expected: str) -> ValueError:
    return ValueError(f"{name} must be {expected}, but is {_kind(value)}")


def _kind(value) -> str:
    if value is None:
        return "nothing: what is connected gave none"
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, str | bool | int | float):
        return printable(repr(value) if isinstance(value, str) else value)
    return f"of the type {printable(type(value).__name__)}"


def _number(value):
    """A number behind what may stand for one; the value itself where nothing does."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 and value.layout == torch.strided and not value.is_meta else value
    if isinstance(value, str):
        try:
            return int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
        except ValueError:
            return value
    return value


def _int(entry: io.Input, value) -> int:
    number = _number(value)
    if isinstance(number, Real) and not isinstance(number, Integral):
        number = math.trunc(number) if math.isfinite(number) and number == math.trunc(number) else None
    if not isinstance(number, Integral):
        raise _wrong(entry.id, value, "a whole number")
    return _in_range(entry, int(number))


def _float(entry: io.Input, value) -> float:
    number = _number(value)
    if not isinstance(number, Real):
        raise _wrong(entry.id, value, "a number")
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(entry.id, value, "a finite number")
    return _in_range(entry, number)


def _in_range(entry: io.Input, number):
    low, high = getattr(entry, "min", None), getattr(entry, "max", None)
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{entry.id} is {printable(number)}, but must be from {_short(low)} to {_short(high)}")
    return number


def _short(limit) -> str:
    if limit == 2**64 - 1:
        return "2^64 - 1"
    return "any" if limit is None else f"{limit:g}"


def _boolean(entry: io.Input, value) -> bool:
    number = _number(value)
    if isinstance(number, bool) or (isinstance(number, Real) and number in (0, 1)):
        return bool(number)
    raise _wrong(entry.id, value, "on or off")


def _string(entry: io.Input, value) -> str:
    if not isinstance(value, str):
        raise _wrong(entry.id, value, "text")
    if not value.isascii() and value.encode("utf-8", "replace").decode("utf-8") != value:
        raise ValueError(f"{entry.id} holds half characters, which are no text: {printable(repr(value))}")
    return value


def _combo(entry: io.Input, value) -> str:
    options = list(getattr(entry, "options", None) or [])
    if not isinstance(value, str):
        raise _wrong(entry.id, value, "a choice from its list")
    if entry.id not in FILES and value not in options:
        known = ", ".join(str(option) for option in options[:MOST_SHOWN])
        raise ValueError(f"{entry.id} is {_kind(value)}, which is not in its list: choose one of {known}")
    return value


def _tensor(name: str, value: Tensor, ranks: tuple[int, ...], shape: str) -> Tensor:
    if value.layout != torch.strided or value.is_quantized:
        raise ValueError(f"{name} is a packed tensor ({printable(value.layout)}): give a plain one, {shape}")
    if value.is_meta:
        raise ValueError(f"{name} is a tensor without values (on the device meta): make it anew")
    if value.ndim not in ranks:
        raise ValueError(f"{name} must have shape {shape}, got {list(value.shape)}")
    if value.is_complex():
        raise ValueError(f"{name} holds complex numbers: give plain ones, {shape}")
    return value


def _image(entry: io.Input, value) -> Tensor:
    """[B, H, W, 3 or 4], floating point; grey becomes three channels, with its transparency where it has some."""
    name = entry.id
    if not isinstance(value, Tensor):
        raise _wrong(name, value, "an image, [B, H, W, 3]")
    value = _tensor(name, value, (4,), "[B, H, W, 3]")
    if value.shape[-1] not in (1, 2, 3, 4):
        raise ValueError(f"{name} has {value.shape[-1]} channels, its shape is {list(value.shape)}: an image has 3")
    if 0 in value.shape:
        raise ValueError(f"{name} is empty, its shape is {list(value.shape)}: what is connected gave no picture")
    if not value.is_floating_point() and value.dtype not in WHITE:
        dtype = str(value.dtype).removeprefix("torch.")
        raise ValueError(f"{name} holds {dtype} numbers, whose white is not known: give floating point, 0 to 1")
    value = as_floats(value)
    if not all_finite(value):
        raise ValueError(f"{name} holds NaN or infinite values: the step that made it failed")
    return with_colour(value)


def _latent(entry: io.Input, value) -> dict:
    name = entry.id
    samples = value.get("samples") if isinstance(value, dict) else None
    if getattr(samples, "is_nested", False):
        raise ValueError(
            f"the {name} holds several streams (audio and video), PiD decodes one image: connect the latent of an image"
        )
    if not isinstance(samples, Tensor):
        raise _wrong(name, value if samples is None else samples, "a latent")
    shape = "[B, C, h, w]"
    if samples.ndim not in (4, 5):
        raise ValueError(f"the {name} must have shape {shape}, got {list(samples.shape)}: connect an image latent")
    samples = _tensor(name, samples, (4, 5), shape)
    if 0 in samples.shape:
        raise ValueError(f"the {name} is empty, its shape is {list(samples.shape)}: make it anew from a picture")
    if not samples.is_floating_point():
        return value | {"samples": samples.to(torch.float32)}
    if samples.element_size() < 2:
        return value | {"samples": samples.to(torch.float32)}
    return value


def _conditioning(entry: io.Input, value) -> list:
    name = entry.id
    if not isinstance(value, list | tuple):
        raise _wrong(name, value, "a text from a text encoder")
    if not value:
        raise ValueError(f"{name} is empty, it holds no text: connect a text encoder")
    for one in value:
        if not (isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[1], dict)):
            raise _wrong(name, one, "a text from a text encoder")
        states = one[0]
        if not isinstance(states, Tensor):
            raise _wrong(name, states, "a text from a text encoder")
        _tensor(name, states, (3,), "[1, tokens, width]")
        if 0 in states.shape or not states.is_floating_point():
            raise _wrong(name, states, "an encoded text, [1, tokens, width]")
        if not all_finite(states):
            raise ValueError(f"{name} holds NaN or infinite values: the text encoder that made it failed")
    return list(value)


def _mask(entry: io.Input, value) -> Tensor:
    """[B, H, W] float32 in 0 to 1; [H, W] is one mask."""
    name, shape = entry.id, "[B, H, W]"
    if not isinstance(value, Tensor):
        raise _wrong(name, value, f"a mask, {shape}")
    value = _tensor(name, value, (2, 3), shape)
    if 0 in value.shape:
        raise ValueError(f"{name} is empty, its shape is {list(value.shape)}: what is connected gave no mask")
    value = value.float()
    if not all_finite(value):
        raise ValueError(f"{name} holds NaN or infinite values: the step that made it failed")
    return value.clamp(0, 1).view(-1, *value.shape[-2:])


def _sigmas(entry: io.Input, value) -> Tensor:
    if not isinstance(value, Tensor):
        raise _wrong(entry.id, value, "a schedule from a scheduler node")
    if value.ndim != 1:
        raise ValueError(f"{entry.id} must list at least two noise levels, got shape {list(value.shape)}")
    value = _tensor(entry.id, value, (1,), "[steps + 1]")
    return value.float()


def _sigma_list(name: str, value):
    """One number, a list of them, or a map."""
    if isinstance(value, SigmaMap):
        return value
    many = value.flatten().tolist() if _is_plain(value) else value
    many = list(many) if isinstance(many, list | tuple) else [many]
    if not many:
        raise ValueError(f"{name} is empty: give one number, or one per image")
    numbers = [_number(one) for one in many]
    for one in numbers:
        is_number = isinstance(one, Real) and not isinstance(one, bool)
        if not is_number:
            raise _wrong(name, one, "numbers, one per image")
        if not 0 <= one <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {printable(one)}")
    return [float(one) for one in numbers]


def _is_plain(value) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _like(expected: str, *attributes: str) -> Callable:
    def look(entry: io.Input, value):
        if value is None or isinstance(value, str | bytes | int | float | dict | list | tuple | Tensor):
            raise _wrong(entry.id, value, expected)
        if not all(hasattr(value, attribute) for attribute in attributes):
            raise _wrong(entry.id, value, expected)
        return value

    return look


def _framed(entry: io.Input, value) -> Framed:
    if not isinstance(value, Framed):
        raise _wrong(entry.id, value, "the framing from PiD Prepare Image")
    return value


def _regions(entry: io.Input, value) -> list[RegionalCaption]:
    if not isinstance(value, list) or not all(isinstance(one, RegionalCaption) for one in value):
        raise _wrong(entry.id, value, "the regions from PiD Regional Caption")
    return value


MOST_SHOWN = 12  # choices in a message
_CHECKS: dict[str, Callable] = {
    "INT": _int,
    "FLOAT": _float,
    "BOOLEAN": _boolean,
    "STRING": _string,
    "IMAGE": _image,
    "MASK": _mask,
    "LATENT": _latent,
    "CONDITIONING": _conditioning,
    "SIGMAS": _sigmas,
    "MODEL": _like("a model, from PiD Loader", "model", "model_options", "clone", "get_model_object"),
    "VAE": _like("a VAE, from Load VAE", "encode", "decode"),
    "CLIP": _like("a text encoder, from Load CLIP", "tokenizer", "cond_stage_model", "patcher"),
    "PIDKIT_FRAMING": _framed,
    "PIDKIT_REGIONS": _regions,
}
