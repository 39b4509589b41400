"""Any PiD checkpoint to one safetensors file whose metadata says what shapes cannot tell, in 8 bits where asked."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from ..latents.families import families_with
from ..model.config import PiDConfig
from .packing import PACKED, pack
from .packing_rule import packed_layers
from .quantised import formats_of
from .reading import CAPTION_KEY, CONFIG_KEY, Checkpoint, read_checkpoint

_GENERIC_STEM = "model_ema_bf16"  # NVIDIA's files all have this name, in folders that tell them apart


def convert(
    source: Path,
    target: Path | None = None,
    *,
    family: str | None = None,
    schedule: str | None = None,
    to: str | None = None,
) -> tuple[Path, PiDConfig]:
    """Write a checkpoint as safetensors, its configuration and caption in it; returns where, and the configuration.

    target: None puts it beside the source. family, schedule: where the file cannot tell. The tensors keep their values
    and dtypes; training-only ones are left out. to: "fp8", "int8" or "mxfp8" packs the large layers' weights into
    ComfyUI's format of that name (`packing_rule` says which). Raises ValueError or OSError in one line, and then leaves
    no file.
    """
    if to not in (None, *PACKED):
        raise ValueError(f"weights can be packed as {', '.join(PACKED)}, not as {to}")
    target = target or default_target(source, to)
    if target.exists():
        raise FileExistsError(f"{target} exists already: move it away, or name another with -o")
    checkpoint = read_checkpoint(source, family=family, schedule=schedule)
    _check_convertible(source, checkpoint)
    tensors = dict(checkpoint.state_dict)
    if to is not None:
        for layer in packed_layers(checkpoint.config, to):
            tensors |= {f"{layer}.{leaf}": tensor for leaf, tensor in pack(to, tensors[f"{layer}.weight"]).items()}
    # ComfyUI's own loader knows PixelDiT by this prefix, and PiD without any
    prefix = "core." if not checkpoint.config.has_latent and checkpoint.config.rope_mode == "original" else ""
    tensors = {f"{prefix}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    if checkpoint.default_caption is not None:
        tensors[CAPTION_KEY] = checkpoint.default_caption[0].contiguous()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # of any new file; safetensors would let nobody else read it
        save_file(tensors, part, _metadata(checkpoint.config))
        part.chmod(mode)
        part.replace(target)
    except SafetensorError as error:
        raise OSError(f"{target} could not be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return target, checkpoint.config


def default_target(source: Path, to: str | None = None) -> Path:
    """Beside the source, as .safetensors; a file of NVIDIA's generic name takes its folder's."""
    stem = source.absolute().parent.name if source.stem == _GENERIC_STEM else source.stem
    return source.with_name(f"{stem}{'' if to is None else f'_{to}'}.safetensors")


def _check_convertible(source: Path, checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    if checkpoint.quantised:
        raise ValueError(
            f"{source.name}: its weights are quantised ({', '.join(formats_of(checkpoint.quantised))}): ComfyUI "
            "runs it as it is; convert the bf16 file instead"
        )
    rows = families_with(config.latent_channels)
    if config.family is None and len(rows) > 1:
        raise ValueError(
            f"{source.name}: latents of {config.latent_channels} channels can be of "
            f"{', '.join(row.name for row in rows)}, and neither the file nor its name tells: add --family"
        )


def _metadata(config: PiDConfig) -> dict[str, str]:
    """pid_config is what the loader reads; the rest is for people and other tools."""
    facts = {"version": config.version, "schedule": config.schedule}
    if config.has_latent:
        facts |= {"family": config.family or "", "sr_scale": str(config.sr_scale)}
    return {CONFIG_KEY: json.dumps(asdict(config)), **facts, "format": "pt"}
