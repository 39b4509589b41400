"""Which device runs the Triton kernels, and their registration with PyTorch as `torch.ops.pidkit`.

Kernels run on NVIDIA cards from compute capability 7.5 up where Triton is installed and a first trial gives the right
values; elsewhere, under autograd and in compiled graphs unless compiled.py says otherwise, `ops.py` runs its plain
definitions. PIDKIT_KERNELS=0 in the environment switches the kernels off.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import one_line
from ..log import log

# Kinds beside those of `kind_of`: a call in a compiled graph, with the plain definitions or the kernels in it.
COMPILED, COMPILED_KERNELS = "compiled", "compiled kernels"
SWITCH = "PIDKIT_KERNELS"
OLDEST = (7, 5)
HAVE_BFLOAT16 = (8, 0)  # on cards before these Triton has to compute it in another way, which 3.1 (PyTorch 2.5) cannot
GROUP_PART = 8192  # values of a group that one program of `group_moments` measures

# the kernels, and which of their arguments are written in place
WRITTEN = {
    "norm_modulate": (),
    "gate_add": ("stream",),
    "gate_add_norm_modulate": ("stream",),
    "place_heads": ("q", "k", "v"),
    "silu_mul": (),
    "token_gate": ("stream",),
    "condition_gate": (),
    "pixel_embed": (),
    "pixel_begin": (),
    "pixel_end": ("u",),
    "pixel_out": (),
    "group_moments": (),
    "scale_silu": (),
}

# what each gives, for tensors without values; those that are not here give nothing
SHAPES = {
    "norm_modulate": lambda stream, weight, shift, scale, dtype: torch.empty_like(
        stream, dtype=dtype, memory_format=torch.contiguous_format
    ),
    "gate_add_norm_modulate": lambda stream, gate, x, *_: torch.empty_like(x),
    "silu_mul": lambda a, b: torch.empty_like(a),
    "condition_gate": lambda stream, te, features, *_: torch.empty_like(features),
    "pixel_embed": lambda x, weight, bias, down, across, patch, start, stop: x.new_empty(
        x.shape[0], stop - start, patch**2, weight.shape[0]
    ),
    "pixel_begin": lambda u, weight, modulation: modulation.new_empty(*u.shape[:2], u.shape[2] * u.shape[3]),
    "pixel_out": lambda u, norm, weight, bias: u.new_empty(*u.shape[:-1], weight.shape[0]),
    "group_moments": lambda x, groups: tuple(
        x.new_empty(x.shape[0], groups, -(-(x[0].numel() // groups) // GROUP_PART), dtype=torch.float32)
        for _ in range(2)
    ),
    "scale_silu": lambda x, scale, shift, dtype: torch.empty_like(x, dtype=dtype),
}

_forced: bool | None = None
_in_graphs = False


@contextmanager
def kernels(on: bool) -> Iterator[None]:
    """While this lasts the kernels are used on every CUDA tensor, even a fake one, or on none."""
    global _forced
    before, _forced = _forced, on
    try:
        yield
    finally:
        _forced = before


@contextmanager
def in_graphs(on: bool) -> Iterator[None]:
    """While this lasts a graph that is compiled holds the kernels, or the plain definitions."""
    global _in_graphs
    before, _in_graphs = _in_graphs, on
    try:
        yield
    finally:
        _in_graphs = before


def runs_kernels(x: Tensor) -> bool:
    """Whether work on x goes to the kernels."""
    if not x.is_cuda or torch.is_grad_enabled():
        return False
    return _in_graphs if torch.compiler.is_compiling() else _kernels_on(x.device)


def fit_registers(*widths: int) -> bool:
    """Whether the pixel kernels take these widths: they hold whole pixels, and their products want powers of two."""
    return all(width >= 16 and not width & (width - 1) for width in widths)


def kind_of(device: torch.device) -> str:
    """Its type, or "kernels" where they run: what decides how large chunks are and how much memory they need."""
    if device.type != "cuda" or torch.compiler.is_compiling():
        return device.type
    return "kernels" if _kernels_on(device) else "cuda"


def _kernels_on(device: torch.device) -> bool:
    if _forced is not None:
        return _forced and register()
    return why_not(device.index or 0) is None


@functools.cache
def register() -> bool:
    """Make the kernels known to PyTorch; False where there is no Triton."""
    if importlib.util.find_spec("triton") is None:
        return False
    from . import kernels as implementations

    if not hasattr(torch.ops.pidkit, next(iter(WRITTEN))):  # another copy of this package may have done it
        for name, written in WRITTEN.items():
            kernel = getattr(implementations, name)
            _library.define(name + torch.library.infer_schema(kernel, mutates_args=written))
            _library.impl(name, _on_its_device(kernel), "CUDA")
            torch.library.register_fake(f"pidkit::{name}", SHAPES.get(name, lambda *_: None), lib=_library)
    return True


_library = torch.library.Library("pidkit", "FRAGMENT")


def _on_its_device(kernel: Callable) -> Callable:
    """Triton launches on the current device, which need not be the tensors'."""

    def launch(first: Tensor, *rest):
        if torch.cuda.current_device() == first.device.index:  # setting it costs the host a third of a launch
            return kernel(first, *rest)
        with torch.cuda.device(first.device):
            return kernel(first, *rest)

    return launch


_reasons: dict[int, str | None] = {}


def why_not(device: int = 0) -> str | None:
    """Why the kernels do not run on this card, in words for a user; None where they do. Tried once."""
    if device not in _reasons:
        try:
            _reasons[device] = why = _examined(device)
        except torch.OutOfMemoryError:
            return "no memory was free to try them"  # now; another time there may be
        if why is not None and torch.cuda.is_available():
            log.info("PyTorch's operations instead of the fused kernels: %s", why)
    return _reasons[device]


def _examined(device: int) -> str | None:
    if os.environ.get(SWITCH) == "0":
        return f"switched off by {SWITCH}=0"
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "no NVIDIA card, or a PyTorch without CUDA"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return f"the card's compute capability is {'.'.join(map(str, capability))}, and they need 7.5"
    try:
        if not register():
            return "Triton is not installed (on Windows: triton-windows)"
        right = _trial(torch.device("cuda", device))
        if capability < HAVE_BFLOAT16:
            _trial(torch.device("cuda", device), torch.bfloat16)  # whether it runs; its values are rounded
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # half an installation, no compiler, an old driver, a full folder: all of Triton's kinds
        line = next(iter(str(error).strip().splitlines()), "no message")
        return one_line(f"they do not run here: {type(error).__name__}: {line}")
    return None if right else "they give wrong values here"


def _trial(device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    generator = torch.Generator().manual_seed(0)
    u, weight, w1, w2 = (
        torch.randn(*shape, generator=generator) for shape in ((1, 2, 64, 16), (16,), (64, 16), (16, 64))
    )
    attended, modulation = (torch.randn(1, 2, width, generator=generator) for width in (64 * 16, 64 * 6 * 16))
    b1, b2 = torch.zeros(64), torch.zeros(16)
    gate, shift, scale, gate2 = modulation.view(1, 2, 64, 6, 16)[..., 2:, :].unbind(-2)
    x = u + gate * attended.view(u.shape)
    y = torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-6) * (1 + scale) + shift
    expected = x + gate2 * (torch.nn.functional.gelu(y @ w1.T + b1) @ w2.T + b2)
    found = u.to(device)
    attended, modulation, w1, b1, w2, b2 = (t.to(device, dtype) for t in (attended, modulation, w1, b1, w2, b2))
    torch.ops.pidkit.pixel_end(found, attended, modulation, weight.to(device), w1, b1, w2, b2)
    return torch.allclose(found.cpu(), expected, rtol=1e-3, atol=1e-3)
