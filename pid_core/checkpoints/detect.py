"""Which network a checkpoint holds: its PiDConfig, read from tensor names, shapes and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

from ..entries import read_object
from ..latents.families import families_with, get_family
from ..model.config import RELEASED, PiDConfig
from ..printable import printable, quoted
from ..sampling.schedule import SCHEDULES

PREFIXES = ("net.", "core.", "model.diffusion_model.", "diffusion_model.")  # of tensor names, by who wrote the file

# Names that NVIDIA's own configuration uses for the same things, so that either can stand in a file's metadata.
_REFERENCE_NAMES = {
    "num_groups": "num_heads",
    "pixel_attn_hidden_size": "pixel_attn_size",
    "pixel_num_groups": "pixel_num_heads",
    "txt_embed_dim": "caption_width",
    "txt_max_length": "caption_length",
    "use_text_rope": "text_rope",
    "rope_ref_h": "rope_reference",
    "lq_latent_channels": "latent_channels",
    "lq_hidden_dim": "lq_width",
    "lq_num_res_blocks": "lq_res_blocks",
    "lq_latent_unpatchify_factor": "latent_unpack",
    "lq_conv_padding_mode": "lq_padding",
    "lq_gate_type": "gate",
    "latent_spatial_down_factor": "latent_down",
    "pit_lq_inject": "pit_injection",
    "prediction_type": "prediction",
}

_REFERENCE_GATES = {"sigma_aware_per_token_per_dim": "channel", "sigma_aware_per_token": "token"}

# Training options and repeats in NVIDIA's configuration that change nothing at inference.
_IGNORED = {
    "repa_encoder_index", "lq_inject_mode", "lq_in_channels", "lq_aux_rgb_head", "zero_init_lq", "rope_ref_w",
    "num_text_blocks", "default_caption",
}  # fmt: skip

_CHOICES = {
    "rope_mode": ("ntk_aware", "original"),
    "lq_padding": ("zeros", "replicate"),
    "gate": ("channel", "token"),
    "prediction": ("velocity", "x0"),
    "schedule": SCHEDULES,
}

# Fields that the shapes decide for good; metadata may repeat but not change them.
_SHAPE_FIELDS = {
    "in_channels", "patch_size", "hidden_size", "num_heads", "patch_depth", "mlp_size", "time_features",
    "pixel_hidden_size", "pixel_attn_size", "pixel_num_heads", "pixel_depth", "pixel_mlp_size",
    "caption_width", "caption_length", "lq_width", "lq_res_blocks", "gate", "pit_injection",
}  # fmt: skip

# Fields that no shape tells; they are those of the released network of the same layout.
_RELEASED_FIELDS = ("rope_reference", "lq_padding", "window_min", "window_max")


def read_config(
    state_dict: Mapping, metadata: Mapping[str, str] | None = None, guesses: Mapping | None = None
) -> PiDConfig:
    """Read every size from tensor names (of NVIDIA's layout, bare or with a file's prefix) and shapes.

    What shapes cannot tell (RoPE reference, padding, family of a 16-channel latent, prediction, ...) follows the
    released network of that layout, unless `metadata["pid_config"]` (JSON, field names of PiDConfig or of
    NVIDIA's configuration) says otherwise. `guesses` are fields to fall back on where neither tells. Without any
    lq_proj tensor it is PixelDiT. Raises ValueError when a tensor is missing or has a shape that no PiD network
    has, or when the metadata contradicts the shapes.
    """
    sizes = dict(guesses or {}) | _sizes_from_shapes(_Shapes(strip_prefix(state_dict)))
    entries = _read_metadata(metadata)
    _check_against_shapes(entries, sizes)
    if not sizes["latent_channels"]:
        return PiDConfig(**(sizes | entries))
    injection_points = math.ceil(sizes["patch_depth"] / sizes["lq_interval"])
    sizes |= entries | _latent_packing(entries, sizes)
    result = PiDConfig(**(_family_sizes(sizes["latent_channels"], entries.get("family")) | sizes))
    if result.lq_outputs != injection_points:
        raise ValueError(
            f"the metadata entry pid_config says lq_interval = {result.lq_interval}, which gives "
            f"{result.lq_outputs} injection points; the tensors hold {injection_points}"
        )
    return result


def _check_against_shapes(entries: Mapping, sizes: Mapping) -> None:
    for name in sorted(_SHAPE_FIELDS & entries.keys()):
        if entries[name] != sizes[name]:
            raise ValueError(
                f"the metadata entry pid_config says {name} = {printable(entries[name])}, the tensors say {sizes[name]}"
            )
    if not sizes["latent_channels"] and entries.get("latent_channels", 0):
        raise ValueError(
            f"the metadata entry pid_config says latent_channels = {entries['latent_channels']}, but there is no "
            "tensor of a latent branch (lq_proj)"
        )


def _latent_packing(entries: Mapping, sizes: Mapping) -> dict:
    """latent_channels and latent_unpack, either of which the metadata may leave out."""
    inputs = sizes["latent_channels"] // sizes["latent_unpack"] ** 2
    channels, unpack = (entries.get(name, sizes[name]) for name in ("latent_channels", "latent_unpack"))
    if "latent_unpack" in entries and "latent_channels" not in entries:
        channels = inputs * unpack**2
    elif "latent_channels" in entries and "latent_unpack" not in entries:
        unpack = math.isqrt(max(channels // inputs, 1))
    if unpack < 1 or channels != inputs * unpack**2:
        raise ValueError(
            f"the metadata entry pid_config gives {channels} latent channels, un-packed {unpack} x {unpack}; "
            f"the tensors take {inputs} after un-packing"
        )
    return {"latent_channels": channels, "latent_unpack": unpack}


def strip_prefix(state_dict: Mapping) -> dict:
    """A copy without the prefix that most names share; other names stay as they are, for the loader to report.

    Raises ValueError when a tensor is there twice, with and without the prefix.
    """
    counts = {p: sum(k.startswith(p) for k in state_dict) for p in PREFIXES}
    prefix = max(counts, key=counts.__getitem__)
    if 2 * counts[prefix] <= len(state_dict):
        return dict(state_dict)
    bare = {k.removeprefix(prefix): v for k, v in state_dict.items()}
    if len(bare) < len(state_dict):
        twice = next(k for k in bare if k in state_dict and prefix + k in state_dict)
        raise ValueError(f"it holds the tensor {twice} twice, with and without the prefix {prefix}")
    return bare


def _family_sizes(channels: int, family: str | None) -> dict:
    """What the latent family decides; every row with the same channels has the same scales."""
    rows = families_with(channels)
    if family is not None:
        row = get_family(family)
        if row not in rows:
            raise ValueError(
                f"the metadata entry pid_config says family {family} ({row.channels} channels), the network takes "
                f"latents of {channels}"
            )
        rows = [row]
    if not rows:
        return {}
    sizes = {"latent_down": rows[0].down, "sr_scale": rows[0].sr_scale}
    return sizes | {"family": rows[0].name} if len(rows) == 1 else sizes


class _Shapes:
    """The shapes of a state dict's tensors. Each look-up raises ValueError for what no PiD network has."""

    def __init__(self, state_dict: Mapping):
        self._state_dict = state_dict
        self.names = state_dict.keys()

    def of(self, name: str, rank: int = 2) -> tuple[int, ...]:
        if name not in self.names:
            raise ValueError(f"the checkpoint has no tensor {name}: not a PiD network")
        shape = tuple(self._state_dict[name].shape)
        if len(shape) != rank or 0 in shape:
            raise ValueError(f"the tensor {name} has shape {list(shape)}, {rank} sizes above 0 are needed")
        return shape

    def heads(self, width: int, norm: str) -> int:
        (head_dim,) = self.of(norm, 1)
        if width % head_dim:
            raise ValueError(f"the tensor {norm} has shape [{head_dim}], which does not divide the width {width}")
        return width // head_dim

    def count(self, prefix: str, start: int = 0) -> int:
        """How many numbers, from start on, follow the prefix in tensor names."""
        numbers = {k[len(prefix) :].split(".")[0] for k in self.names if k.startswith(prefix)}
        return len([n for n in numbers if n.isdecimal() and len(n) < 9 and int(n) >= start])

    def has_any(self, prefix: str) -> bool:
        return any(k.startswith(prefix) for k in self.names)


def _sizes_from_shapes(shapes: _Shapes) -> dict:
    sizes = _patch_sizes(shapes) | _pixel_sizes(shapes) | _caption_sizes(shapes)
    if shapes.has_any("lq_proj."):
        return sizes | _latent_branch_sizes(shapes, sizes["patch_depth"])
    lq_fields = ("lq_width", "lq_res_blocks", "gate", "pit_injection")
    return sizes | {name: getattr(PiDConfig, name) for name in lq_fields} | {"latent_channels": 0}


def _patch_sizes(shapes: _Shapes) -> dict:
    hidden, patch_inputs = shapes.of("s_embedder.proj.weight")
    in_channels = shapes.of("pixel_embedder.proj.weight")[1]
    return {
        "in_channels": in_channels,
        "patch_size": math.isqrt(patch_inputs // in_channels),
        "hidden_size": hidden,
        "num_heads": shapes.heads(hidden, "patch_blocks.0.attn.q_norm_x.weight"),
        "patch_depth": shapes.count("patch_blocks."),
        "mlp_size": shapes.of("patch_blocks.0.mlp_x.w1.weight")[0],
        "time_features": shapes.of("t_embedder.mlp.0.weight")[1],
    }


def _pixel_sizes(shapes: _Shapes) -> dict:
    width = shapes.of("pixel_blocks.0.compress_to_attn.weight")[0]
    return {
        "pixel_hidden_size": shapes.of("pixel_embedder.proj.weight")[0],
        "pixel_attn_size": width,
        "pixel_num_heads": shapes.heads(width, "pixel_blocks.0.attn.q_norm.weight"),
        "pixel_depth": shapes.count("pixel_blocks."),
        "pixel_mlp_size": shapes.of("pixel_blocks.0.mlp.fc1.weight")[0],
    }


def _caption_sizes(shapes: _Shapes) -> dict:
    return {
        "caption_width": shapes.of("y_embedder.proj.weight")[1],
        "caption_length": shapes.of("y_pos_embedding", 3)[1],
    }


def _latent_branch_sizes(shapes: _Shapes, patch_depth: int) -> dict:
    lq_width, lq_in = shapes.of("lq_proj.latent_proj.0.weight", 4)[:2]
    shapes.of("lq_proj.output_heads.0.weight")
    pit_injection = "lq_proj.pit_head.weight" in shapes.names
    gate = "token" if shapes.of("lq_proj.gate_modules.0.content_proj.weight")[0] == 1 else "channel"
    version = "v1.5" if pit_injection and gate == "token" else "v1"
    sizes = {
        "lq_width": lq_width,
        # 0 and 2 are the entry convolutions, 1 is their activation
        "lq_res_blocks": shapes.count("lq_proj.latent_proj.", start=3),
        "lq_interval": math.ceil(patch_depth / shapes.count("lq_proj.output_heads.")),
        "gate": gate,
        "pit_injection": pit_injection,
        **{name: getattr(RELEASED[version], name) for name in _RELEASED_FIELDS},
        "latent_unpack": 1,
        "latent_channels": lq_in,
    }
    if version == "v1.5" and lq_in == 32:  # Flux.2's 128 packed channels, un-packed 2 x 2 by the network itself
        sizes |= {"latent_unpack": 2, "latent_channels": 128}
    return sizes


def _read_metadata(metadata: Mapping[str, str] | None) -> dict:
    text = (metadata or {}).get("pid_config")
    if text is None:
        return {}
    what = "the checkpoint's metadata entry pid_config"
    entries = read_object(text, what) if isinstance(text, str) else dict(text)
    if entries.get("rope_ref_w", entries.get("rope_ref_h")) != entries.get("rope_ref_h", entries.get("rope_ref_w")):
        raise ValueError("the metadata entry pid_config has different rope_ref_h and rope_ref_w: not supported")
    kinds = {f.name: type(f.default) for f in fields(PiDConfig)}
    result = {}
    for key, value in entries.items():
        if key in _IGNORED:
            continue
        name = _REFERENCE_NAMES.get(key, key)
        if name not in kinds:
            raise ValueError(f"the metadata entry pid_config has an unknown key {quoted(key)}")
        if name == "family" and value is None:
            continue
        result[name] = _field_value(key, name, value, kinds[name])
    return result


def _field_value(key: str, name: str, value, kind: type):
    needed = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a string")
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    takes: dict[type, type | tuple[type, ...]] = {float: (int, float), int: int, bool: bool}
    right = isinstance(value, takes.get(kind, str))
    if not right or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"the metadata entry pid_config has {printable(key)} = {quoted(value)}, {needed} is needed")
    if kind in (int, float) and 1e12 < abs(value) < math.inf:
        raise ValueError(f"the metadata entry pid_config has {key} = {quoted(value)}, which is no size")
    if name == "family":
        return get_family(value).name
    if name == "gate":
        value = _REFERENCE_GATES.get(value, value)
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(
            f"the metadata entry pid_config has {key} = {quoted(value)}; known: {', '.join(_CHOICES[name])}"
        )
    return kind(value)
