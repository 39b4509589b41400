"""What the file's header says, beside the networks that were released."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from ..checkpoints.reading import Checkpoint, outline_checkpoint
from ..hub.catalogue import known_file
from ..model.config import RELEASED, PiDConfig
from .rows import Row, Value

KEY, TITLE = "header", "header"
# What the latent family decides, what the file says of itself, and what is no size.
_OF_THE_FAMILY = ("latent_channels", "latent_down", "latent_unpack", "sr_scale", "family", "schedule", "steps")


def look_at_header(path: Path) -> Row:
    """Every tensor is there with a shape that fits, or this raises; sizes are set beside the released network's."""
    checkpoint = outline_checkpoint(path)
    row = describe_config(checkpoint.config)
    parameters, dtypes = _count(checkpoint)
    size, file = Path(path).stat().st_size, known_file(str(Path(*Path(path).absolute().parts[-2:])))
    text = f"{len(checkpoint.state_dict)} tensors, {parameters / 1e6:,.1f} million parameters, {dtypes}; {row.text}"
    wanted = None if file is None else file.size
    if wanted is not None:
        same = size == wanted
        text += f"; {size:,} bytes, " + ("as released" if same else f"RELEASED WITH {wanted:,}")
    values: dict[str, Value] = {
        "tensors": len(checkpoint.state_dict),
        "parameters": parameters,
        "dtypes": dtypes,
        "bytes": size,
    }
    return Row(KEY, TITLE, text, values={**row.values, **values, "bytes_released": wanted})


def describe_config(config: PiDConfig) -> Row:
    """A network's sizes beside those of the released network of its version."""
    what = f"{config.version}, {config.family or 'family not told'}, {config.schedule}"
    released = RELEASED.get(config.version)
    values: dict[str, Value] = {"version": config.version, "family": config.family, "schedule": config.schedule}
    if released is None or config.family == "rgb":
        whose = "PixelDiT's" if released is None else "a small model of this pack's own"
        return Row(KEY, TITLE, f"{what}; sizes are {whose}", values=values | {"as_released": None})
    other = [
        f"{one.name} {getattr(config, one.name)} ({getattr(released, one.name)})"
        for one in fields(PiDConfig)
        if one.name not in _OF_THE_FAMILY and getattr(config, one.name) != getattr(released, one.name)
    ]
    if not other:
        text = f"{what}; all sizes are those of the released {config.version}"
    else:
        shown = ", ".join(other[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
        text = f"{what}; not the released network: {shown}"
    return Row(KEY, TITLE, text, values=values | {"as_released": not other, "other_sizes": len(other)})


def _count(checkpoint: Checkpoint) -> tuple[int, str]:
    tensors = checkpoint.state_dict.values()
    names = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    return sum(tensor.numel() for tensor in tensors), " and ".join(sorted(names))
