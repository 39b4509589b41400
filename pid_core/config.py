"""PiDConfig: every size of the network in one place, read from a checkpoint's tensor names and shapes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from .latents import families_with, get_family

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
    *(
        "repa_encoder_index",
        "lq_inject_mode",
        "lq_in_channels",
        "lq_aux_rgb_head",
        "zero_init_lq",
        "rope_ref_w",
    ),
    *("num_text_blocks", "default_caption"),
}
_CHOICES = {
    "rope_mode": ("ntk_aware", "original"),
    "lq_padding": ("zeros", "replicate"),
    "gate": ("channel", "token"),
    "prediction": ("velocity", "x0"),
}


@dataclass(frozen=True)
class PiDConfig:
    """Sizes of one PiD network; the defaults are the released v1 network for 16-channel latents.

    Lengths are in pixels of the output unless named otherwise. `gate` is "channel" (v1: one value per token and
    channel) or "token" (v1.5: one per token). `prediction` is what the network's output means: "velocity" or "x0".
    """

    in_channels: int = 3
    patch_size: int = 16
    hidden_size: int = 1536
    num_heads: int = 24
    patch_depth: int = 14
    mlp_size: int = 4096
    time_features: int = 256
    pixel_hidden_size: int = 16
    pixel_attn_size: int = 1152
    pixel_num_heads: int = 16
    pixel_depth: int = 2
    pixel_mlp_size: int = 64
    caption_width: int = 2304
    caption_length: int = 300
    text_rope: bool = True
    text_rope_theta: float = 1e4
    rope_mode: str = "ntk_aware"
    rope_reference: int = 1024
    rope_theta: float = 1e4
    latent_channels: int = 16
    latent_down: int = 8
    latent_unpack: int = 1
    sr_scale: int = 4
    lq_width: int = 512
    lq_res_blocks: int = 4
    lq_interval: int = 2
    lq_padding: str = "zeros"
    gate: str = "channel"
    pit_injection: bool = False
    prediction: str = "velocity"
    family: str | None = None

    def __post_init__(self) -> None:
        if self.latent_cell // self.latent_unpack < self.patch_size:
            raise ValueError(
                f"a latent cell covers {self.latent_cell // self.latent_unpack} output pixels, less than a patch of "
                f"{self.patch_size}: no released PiD is built so, and this pack cannot run it"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def pixel_head_dim(self) -> int:
        return self.pixel_attn_size // self.pixel_num_heads

    @property
    def lq_in_channels(self) -> int:
        """Channels of the latent after un-packing, the projector's input."""
        return self.latent_channels // self.latent_unpack**2

    @property
    def lq_outputs(self) -> int:
        """Number of injection points before patch blocks: blocks 0, interval, 2 * interval, ..."""
        return math.ceil(self.patch_depth / self.lq_interval)

    @property
    def latent_cell(self) -> int:
        """Output pixels that one latent cell covers on each side."""
        return self.latent_down * self.sr_scale

    @property
    def align(self) -> int:
        """Every side of the output must be a multiple of this."""
        return self.patch_size

    @property
    def rope_grid(self) -> float | None:
        """Grid side at which RoPE's theta is unscaled, in patches; None when theta is fixed."""
        return self.rope_reference / self.patch_size if self.rope_mode == "ntk_aware" else None

    @property
    def version(self) -> str:
        return "v1.5" if self.pit_injection and self.gate == "token" else "v1"

    def output_size(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """(height, width) in pixels of the image that a latent of this many cells decodes to."""
        return latent_height * self.latent_cell, latent_width * self.latent_cell

    @classmethod
    def from_state_dict(cls, state_dict: Mapping, metadata: Mapping[str, str] | None = None) -> PiDConfig:
        """Read every size from bare tensor names and shapes (of NVIDIA's layout).

        What shapes cannot tell (RoPE reference, padding, family of a 16-channel latent, prediction, ...) follows the
        released network of that layout, unless `metadata["pid_config"]` (JSON, field names of this class or of
        NVIDIA's configuration) says otherwise. Raises ValueError when a tensor is missing or the metadata
        contradicts the shapes.
        """
        config = cls(**_sizes_from_shapes(state_dict))
        told = _read_metadata(metadata)
        for name in _SHAPE_FIELDS & told.keys():
            if told[name] != getattr(config, name):
                raise ValueError(
                    f"the metadata entry pid_config says {name} = {told[name]}, the tensors say {getattr(config, name)}"
                )
        if "latent_unpack" in told:
            told.setdefault("latent_channels", config.lq_in_channels * told["latent_unpack"] ** 2)
        elif "latent_channels" in told:
            told["latent_unpack"] = math.isqrt(max(told["latent_channels"] // config.lq_in_channels, 1))
        result = replace(config, **told)
        if result.lq_in_channels != config.lq_in_channels:
            raise ValueError(
                f"the metadata entry pid_config gives {result.lq_in_channels} latent channels after un-packing, "
                f"the tensors take {config.lq_in_channels}"
            )
        return result


# Fields that the shapes decide for good; metadata may repeat but not change them.
_SHAPE_FIELDS = {
    *("in_channels", "patch_size", "hidden_size", "num_heads", "patch_depth", "mlp_size", "time_features"),
    *("pixel_hidden_size", "pixel_attn_size", "pixel_num_heads", "pixel_depth", "pixel_mlp_size"),
    *("caption_width", "caption_length", "lq_width", "lq_res_blocks", "gate", "pit_injection"),
}


def _sizes_from_shapes(state_dict: Mapping) -> dict:
    def shape(name: str) -> tuple[int, ...]:
        if name not in state_dict:
            raise ValueError(f"the checkpoint has no tensor {name}: not a PiD network")
        return tuple(state_dict[name].shape)

    def count(prefix: str, start: int = 0) -> int:
        numbers = {int(k[len(prefix) :].split(".")[0]) for k in state_dict if k.startswith(prefix)}
        return len([n for n in numbers if n >= start])

    hidden, patch_inputs = shape("s_embedder.proj.weight")
    pixel_hidden, in_channels = shape("pixel_embedder.proj.weight")
    pixel_attn = shape("pixel_blocks.0.compress_to_attn.weight")[0]
    lq_width, lq_in = shape("lq_proj.latent_proj.0.weight")[:2]
    patch_depth, heads = count("patch_blocks."), count("lq_proj.output_heads.")
    pit = "lq_proj.pit_head.weight" in state_dict
    gate = "token" if shape("lq_proj.gate_modules.0.content_proj.weight")[0] == 1 else "channel"
    v15 = pit and gate == "token"
    sizes = {
        "in_channels": in_channels,
        "patch_size": math.isqrt(patch_inputs // in_channels),
        "hidden_size": hidden,
        "num_heads": hidden // shape("patch_blocks.0.attn.q_norm_x.weight")[0],
        "patch_depth": patch_depth,
        "mlp_size": shape("patch_blocks.0.mlp_x.w1.weight")[0],
        "time_features": shape("t_embedder.mlp.0.weight")[1],
        "pixel_hidden_size": pixel_hidden,
        "pixel_attn_size": pixel_attn,
        "pixel_num_heads": pixel_attn // shape("pixel_blocks.0.attn.q_norm.weight")[0],
        "pixel_depth": count("pixel_blocks."),
        "pixel_mlp_size": shape("pixel_blocks.0.mlp.fc1.weight")[0],
        "caption_width": shape("y_embedder.proj.weight")[1],
        "caption_length": shape("y_pos_embedding")[1],
        "lq_width": lq_width,
        # 0 and 2 are the entry convolutions, 1 is their activation
        "lq_res_blocks": count("lq_proj.latent_proj.", start=3),
        "lq_interval": math.ceil(patch_depth / heads),
        "gate": gate,
        "pit_injection": pit,
        "rope_reference": 2048 if v15 else 1024,
        "lq_padding": "replicate" if v15 else "zeros",
        "latent_unpack": 1,
        "latent_channels": lq_in,
    }
    if v15 and lq_in == 32:  # Flux.2's 128 packed channels, un-packed 2 x 2 by the network itself
        sizes |= {"latent_unpack": 2, "latent_channels": 128}
    rows = families_with(sizes["latent_channels"])
    if rows:
        sizes |= {"latent_down": rows[0].down, "sr_scale": rows[0].sr_scale}
    if len(rows) == 1:
        sizes["family"] = rows[0].name
    return sizes


def _read_metadata(metadata: Mapping[str, str] | None) -> dict:
    text = (metadata or {}).get("pid_config")
    if text is None:
        return {}
    try:
        entries = json.loads(text) if isinstance(text, str) else dict(text)
        if not isinstance(entries, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        raise ValueError(f"the checkpoint's metadata entry pid_config cannot be read: {error}") from None
    kinds = {f.name: type(f.default) for f in fields(PiDConfig)}
    told = {}
    for key, value in entries.items():
        if key in _IGNORED:
            continue
        name = _REFERENCE_NAMES.get(key, key)
        if name not in kinds:
            raise ValueError(f"the metadata entry pid_config has an unknown key {key!r}")
        if name == "gate":
            value = _REFERENCE_GATES.get(value, value)
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"the metadata entry pid_config has {key} = {value!r}; known: {', '.join(_CHOICES[name])}")
        if name == "family":
            value = value and get_family(value).name
        elif kinds[name] in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"the metadata entry pid_config has {key} = {value!r}, a number is needed")
        told[name] = kinds[name](value) if kinds[name] in (int, float, bool) else value
    return told
