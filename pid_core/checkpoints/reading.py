"""Checkpoint files: read, recognise, bring to one layout, and build the network from them.

Accepted: NVIDIA's .pth (torch.save of a flat dict, keys `net.*`), safetensors of the same names with or without a
prefix, and ComfyUI's own layout, which stores each pixel block's modulation as two tensors.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointFamilyError, CheckpointScheduleError, said_of
from ..latents.families import get_family
from ..model.attention import Attention
from ..model.config import PiDConfig
from ..model.network import PiDNetwork
from ..printable import printable, quoted
from ..sampling.schedule import SCHEDULES
from ..tensor_files import SMALL, check_plain, find_not_finite, read_outline, read_tensors
from .detect import PREFIXES, strip_prefix
from .hints import AUX_HEAD, family_hint, field_hints
from .quantised import Layers, formats_of, take_quantisation

# Training-only tensors: PiD's auxiliary head, and what PixelDiT's own files hold besides.
_LEFT_OVER = (AUX_HEAD, "pos_embed", "_repa_projector.")
# Stored beside the weights, without prefix.
CAPTION_KEY = "default_caption"  # [T, caption_width]
CONFIG_KEY = "pid_config"  # uint8, the metadata entry of that name for files whose writer keeps no metadata

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LORA = "a LoRA"
# What every PiD has in common with PixelDiT, its kin without a latent branch.
_PIXELDIT = {"pixel_embedder.proj.weight", "s_embedder.proj.weight", "patch_blocks.0.attn.qkv_x.weight"}
# What a file without PiD's tensors seems to be: the first row whose every mark occurs in some tensor name.
_KINDS = (
    (("lora_",), _LORA),
    (("double_blocks.",), "a Flux diffusion model"),
    (("joint_blocks.",), "an SD3 diffusion model"),
    (("input_blocks.",), "an SDXL or SD1 diffusion model"),
    (("transformer_blocks.",), "a diffusion transformer, such as Qwen-Image"),
    (("noise_refiner.",), "a Z-Image or Lumina diffusion model"),
    # after the diffusion models: an all-in-one file holds these too
    (("decoder.conv_in.",), "a VAE"),
    (("decoder.conv1.", "encoder.conv1."), "a video VAE (Wan or Qwen-Image)"),
    (("spiece_model",), "a text encoder"),
    (("embed_tokens.",), "a text encoder"),
    (("text_model.encoder.",), "a text encoder (CLIP)"),
    (("shared.weight",), "a text encoder (T5)"),
)


@dataclass
class Checkpoint:
    """A PiD checkpoint in the bare layout: tensors (still on disk where possible), sizes and its own caption."""

    state_dict: dict[str, Tensor]
    config: PiDConfig
    default_caption: Tensor | None = None
    quantised: Layers = field(default_factory=dict)  # of the Linear layers whose weight has 8 bits (quantised.py)

    @property
    def family(self) -> str | None:
        """The latent family, None where nothing tells it."""
        return self.config.family


def load_network(
    source: str | Path | Mapping[str, Tensor],
    *,
    family: str | None = None,
    schedule: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    operations=nn,
    attention: Attention | None = None,
) -> PiDNetwork:
    """Build the network a checkpoint holds, ready for `decode`.

    source: path of a .safetensors or .pth file, or a state dict. family: the latent family, where the file cannot tell
    (16 channels). schedule: "distilled" or "undistilled", where it cannot tell. Weights are
    mapped from disk and converted tensor by tensor, so that two copies never exist. Raises ValueError
    (FileNotFoundError for no such file) in one line that says what the file seems to be.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"the network runs in float32, bfloat16, float16 or float64, not in {dtype}")
    checkpoint = read_checkpoint(source, family=family, schedule=schedule)
    net = _network_of(checkpoint, dtype, operations, attention)
    assign_weights(net, checkpoint.state_dict, device)
    if checkpoint.default_caption is not None:
        net.default_caption = checkpoint.default_caption.to(device, torch.float32)
    return net.eval().requires_grad_(False)


def outline_network(
    path: str | Path, *, family: str | None = None, schedule: str | None = None, dtype: torch.dtype = torch.float32
) -> PiDNetwork:
    """As `load_network`, on the meta device: it cannot draw, and costs the file's header alone.

    What `load_network` finds wrong is found here already, but for values that are not finite.
    """
    checkpoint = outline_checkpoint(path, family=family, schedule=schedule)
    net = _network_of(checkpoint, dtype, nn, None)
    if checkpoint.default_caption is not None:
        net.default_caption = checkpoint.default_caption.to("meta", torch.float32)
    return net.eval().requires_grad_(False)


def _network_of(checkpoint: Checkpoint, dtype: torch.dtype, operations, attention: Attention | None) -> PiDNetwork:
    """On the meta device, without weights."""
    if checkpoint.quantised:
        raise ValueError(
            f"its weights are quantised ({', '.join(formats_of(checkpoint.quantised))}): ComfyUI runs such files, "
            "outside it use the bf16 one"
        )
    return PiDNetwork(checkpoint.config, device="meta", dtype=dtype, operations=operations, attention=attention)


def assign_weights(net: nn.Module, state_dict: MutableMapping[str, Tensor], device: torch.device | str) -> None:
    """Move a checked state dict's tensors into `net`, in the dtypes it was built with, emptying the dict on the way."""
    for name, parameter in list(net.named_parameters()):
        tensor = state_dict.pop(name).to(device, parameter.dtype)
        path, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=False))


Dequantise = Callable[[Tensor, Mapping[str, Tensor]], Tensor]  # a layer's weight and side tensors -> its values


def read_checkpoint(
    source: str | Path | Mapping[str, Tensor],
    *,
    family: str | None = None,
    schedule: str | None = None,
    dequantise: Dequantise | None = None,
    mapped: bool = True,
) -> Checkpoint:
    """Read and check a checkpoint without building the network.

    Every tensor must be there, with the shape its neighbours imply and finite values, and none besides; only
    training-only tensors are ignored. family and schedule say what the file cannot; None takes what its metadata or
    else its name tells. Quantised weights stay as they are, except where `dequantise` is needed to join two of them.
    mapped: weights stay on the disk until they are used (tensor_files.py).
    Raises ValueError or FileNotFoundError with one line otherwise.
    """
    path: Path | None = None
    metadata: dict[str, str] = {}
    if isinstance(source, Mapping):
        state_dict = dict(source)
    else:
        path = Path(source)
        state_dict, metadata = read_tensors(path, mapped=mapped)
    with _named(path):
        _check_flat(state_dict)
        check_plain(state_dict)
        checkpoint = _checkpoint_of(state_dict, metadata, path, family, schedule, dequantise)
        _check_finite(checkpoint)
    return checkpoint


def examine_checkpoint(path: str | Path) -> PiDConfig:
    """The configuration of a checkpoint file, which is checked as `read_checkpoint` does, but for its values."""
    return outline_checkpoint(path, dequantise=lambda weight, side: weight.float()).config


def outline_checkpoint(
    path: str | Path,
    *,
    family: str | None = None,
    schedule: str | None = None,
    dequantise: Dequantise | None = None,
) -> Checkpoint:
    """As `read_checkpoint`, with tensors on the meta device, at the cost of the file's header; values are not looked
    at."""
    path = Path(path)
    state_dict, metadata = read_outline(path)
    with _named(path):
        _check_flat(state_dict)
        return _checkpoint_of(state_dict, metadata, path, family, schedule, dequantise)


@contextlib.contextmanager
def _named(path: Path | None) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise said_of("the state dict" if path is None else printable(path.name), error) from None


def _checkpoint_of(
    state_dict: dict[str, Tensor],
    metadata: Mapping[str, str],
    path: Path | None,
    family: str | None,
    schedule: str | None,
    dequantise: Dequantise | None,
) -> Checkpoint:
    hints = field_hints(state_dict, path)
    layers = take_quantisation(state_dict, metadata)
    _dequantise_halves(state_dict, layers, dequantise)
    state_dict = bare_layout(state_dict)
    layers = {_bare_name(layer, state_dict): side for layer, side in layers.items()}
    caption, config_bytes = (state_dict.pop(key, None) for key in (CAPTION_KEY, CONFIG_KEY))
    if config_bytes is not None:
        metadata = {CONFIG_KEY: _config_text(config_bytes)} | dict(metadata)
    _check_kind(state_dict)
    config = PiDConfig.from_state_dict(state_dict, metadata, hints)
    _check_output_known(config, metadata)
    config = _with_schedule(_with_family(config, family, path), schedule)
    _check_tensors(state_dict, config, layers)
    return Checkpoint(state_dict, config, _check_caption(caption, config), layers)


def _check_finite(checkpoint: Checkpoint) -> None:
    broken = find_not_finite(_all_tensors(checkpoint))
    if broken is not None:
        raise ValueError(
            f"its tensor {printable(broken)} holds NaN or infinite values, so it can draw nothing: it was damaged "
            "when it was trained, merged or converted; use another file"
        )


def _all_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = dict(checkpoint.state_dict)
    for layer, side in checkpoint.quantised.items():
        tensors |= {f"{layer}.{leaf}": tensor for leaf, tensor in side.items()}
    return tensors if checkpoint.default_caption is None else tensors | {CAPTION_KEY: checkpoint.default_caption}


def _check_flat(state_dict: Mapping) -> None:
    if not state_dict:
        raise ValueError("it holds no tensors")
    for name, value in state_dict.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            continue
        named = quoted(name) if isinstance(name, str | int) else f"of the kind {type(name).__name__}"
        raise ValueError(
            f"it is no flat list of tensors (entry {named} is none): a training checkpoint must be converted first"
        )


def bare_layout(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the file's prefix, drop training-only tensors, join ComfyUI's split modulation.

    Returns a new dict of the same tensors. Raises ValueError where it is no flat dict of tensors.
    """
    _check_flat(state_dict)
    beside = {k: v for k, v in state_dict.items() if k in (CAPTION_KEY, CONFIG_KEY)}
    weights = {k: v for k, v in state_dict.items() if k not in beside}
    bare = {k: v for k, v in strip_prefix(weights).items() if not k.startswith(_LEFT_OVER)}
    return _join_modulation(bare) | beside


def config_tensor(config: PiDConfig) -> Tensor:
    """The configuration as a tensor to store beside the weights: uint8 [n], JSON of every field in UTF-8."""
    return torch.tensor(list(json.dumps(asdict(config)).encode()), dtype=torch.uint8)


def _config_text(stored: Tensor) -> str:
    if stored.dtype != torch.uint8 or stored.ndim != 1 or stored.numel() > SMALL:
        raise ValueError(
            f"its {CONFIG_KEY} is {stored.dtype} {list(stored.shape)}, JSON as uint8 [n], n up to {SMALL}, is needed"
        )
    return bytes(stored.tolist()).decode(errors="replace")


def _dequantise_halves(state_dict: dict[str, Tensor], layers: Layers, dequantise: Dequantise | None) -> None:
    """The halves of ComfyUI's split modulation have scales of their own, so they are joined as plain numbers."""
    for layer in [name for name in layers if name.rpartition(".")[2].startswith("adaLN_modulation_m")]:
        if dequantise is None:
            raise ValueError(f"its weights are quantised ({printable(layer)}): ComfyUI runs such files")
        state_dict[f"{layer}.weight"] = dequantise(state_dict[f"{layer}.weight"], layers.pop(layer))


def _bare_name(layer: str, state_dict: Mapping[str, Tensor]) -> str:
    names = (layer.removeprefix(prefix) for prefix in ("", *PREFIXES))
    return next((name for name in names if f"{name}.weight" in state_dict), layer)


def _join_modulation(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """ComfyUI keeps `adaLN_modulation_msa` and `_mlp` apart, each [pixels * 3 * P, D]; ours is [pixels * 6 * P, D]."""
    for name in [k for k in state_dict if ".adaLN_modulation_msa." in k]:
        other = name.replace("_msa.", "_mlp.")
        joined = name.replace("_msa.", ".0.")
        width = state_dict.get("pixel_embedder.proj.weight")
        if other not in state_dict or width is None or joined in state_dict:
            continue  # the check of names reports what is missing
        halves, rows = [state_dict[name], state_dict[other]], 3 * (width.shape[0] if width.ndim else 0)
        dtype = halves[0].dtype
        same = halves[0].shape == halves[1].shape and halves[0].dtype == halves[1].dtype
        if not (same and halves[0].ndim and halves[0].numel() and rows) or halves[0].shape[0] % rows:
            raise ValueError(
                f"{printable(name)} {list(halves[0].shape)} and its _mlp half {list(halves[1].shape)} cannot be "
                f"joined: both need the same shape and dtype, with a multiple of {rows} rows"
            )
        del state_dict[name], state_dict[other]
        if halves[0].dtype.itemsize == 1:  # float8 takes no part in such operations
            halves = [half.contiguous().view(torch.uint8) for half in halves]
        whole = torch.cat([half.unflatten(0, (-1, rows)) for half in halves], dim=1).flatten(0, 1)
        state_dict[joined] = whole.view(dtype)
    return state_dict


def _check_kind(state_dict: Mapping[str, Tensor]) -> None:
    """Raises ValueError, with what it seems to be, for what is neither PiD nor PixelDiT."""
    kind = _guess(state_dict)
    latent_branch = any(k.startswith("lq_proj.") for k in state_dict)
    inside = next((k for k in state_dict if ".lq_proj." in k), None)
    if kind != _LORA and not latent_branch and inside:
        raise ValueError(
            f"its tensor names have several prefixes or an unknown one ({printable(inside)}); a training checkpoint "
            "must be converted first: keep one set of weights, with the prefix net. or none"
        )
    if kind == _LORA or not (latent_branch or state_dict.keys() >= _PIXELDIT):
        raise ValueError(
            f"this is no PiD checkpoint, it seems to be {kind}: choose another file"
            if kind
            else "this is no PiD checkpoint: it has no lq_proj tensors (first names: "
            + ", ".join(printable(name) for name in list(state_dict)[:3])
            + "): choose another file"
        )


def _guess(names: Mapping[str, Tensor]) -> str | None:
    for marks, kind in _KINDS:
        if all(any(mark in name for name in names) for mark in marks):
            return kind
    return None


def _check_output_known(config: PiDConfig, metadata: Mapping[str, str]) -> None:
    if config.family == "rgb" and CONFIG_KEY not in metadata:
        raise ValueError(
            "it takes rgb latents but says nothing of what its output means: its entry pid_config was lost when "
            "another tool saved it; use the original file"
        )


def _with_family(config: PiDConfig, family: str | None, path: Path | None) -> PiDConfig:
    """With the family that the caller names; without one, the file's own, or else what its path suggests."""
    if family is None:
        return config if config.family else replace(config, family=family_hint(config.latent_channels, path))
    row = get_family(family)
    if not config.has_latent:
        raise CheckpointFamilyError("this checkpoint is PixelDiT, which takes no latents")
    if row.channels != config.latent_channels:
        raise CheckpointFamilyError(
            f"family {family} has latents of {row.channels} channels, this checkpoint takes {config.latent_channels}",
        )
    if config.family not in (None, row.name):
        raise CheckpointFamilyError(f"this checkpoint was made for {config.family}, not for {family}")
    return replace(config, family=row.name)


def _with_schedule(config: PiDConfig, schedule: str | None) -> PiDConfig:
    if schedule is None:
        return config
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {quoted(schedule)}; choose one of {', '.join(SCHEDULES)}")
    if schedule == "distilled" and not config.has_latent:
        raise CheckpointScheduleError("this checkpoint is PixelDiT, which has no distilled form")
    return replace(config, schedule=schedule)


def _check_tensors(state_dict: Mapping[str, Tensor], config: PiDConfig, layers: Layers) -> None:
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in PiDNetwork(config).state_dict().items()}
    missing = [k for k in expected if k not in state_dict]
    unexpected = [k for k in state_dict if k not in expected]
    wrong = [
        f"{k} is {list(state_dict[k].shape)}, not {list(shape)}"
        for k, shape in expected.items()
        if k in state_dict and tuple(state_dict[k].shape) != shape
    ]
    plain = [k for k in expected if k in state_dict and k.removesuffix(".weight") not in layers]
    integers = [f"{k} is {state_dict[k].dtype}" for k in plain if not state_dict[k].is_floating_point()]
    problems = [
        f"{len(names)} {what} ({', '.join(map(printable, names[:3]))}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing tensors", missing),
            ("unexpected tensors", unexpected),
            ("wrong shapes", wrong),
            ("tensors that are no floating-point numbers", integers),
        )
        if names
    ]
    if problems:
        raise ValueError(f"it looks like a PiD {config.version} checkpoint, but does not fit: {'; '.join(problems)}")


def _check_caption(caption: Tensor | None, config: PiDConfig) -> Tensor | None:
    if caption is None:
        return None
    if caption.ndim == 2:
        caption = caption[None]
    right = caption.ndim == 3 and caption.shape[0] == 1 and caption.shape[-1] == config.caption_width
    if not right or not caption.shape[1] or not caption.is_floating_point():
        raise ValueError(
            f"its {CAPTION_KEY} has shape {list(caption.shape)} and {caption.dtype}, [tokens, {config.caption_width}] "
            "of floating-point numbers is needed"
        )
    return caption
