"""The encoders themselves, by transformers, which ComfyUI brings: built from what is known of them, with no network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import said_of
from ..printable import printable
from .arithmetic import Statistics, encoder_input, latent_of
from .facts import EPS, PATCH, RAEFacts
from .files import EncoderFile, Shapes, examine_encoder, plain_name, read_encoder, read_statistics, statistics_beside

AT_ONCE = 8  # pictures that an encoder is shown together
_NORM = ("layernorm", "post_layernorm")  # the last LayerNorm, as either calls it


class RAEEncoder(nn.Module):
    """Pictures [B, H, W, 3] in [0, 1] -> latents [B, C, h, w] of the family, float32. tower: a class of transformers'.

    The statistics go with the weights from device to device.
    """

    mean: Tensor | None
    var: Tensor | None

    def __init__(self, tower: nn.Module, facts: RAEFacts, statistics: Statistics | None = None):
        super().__init__()
        self.tower, self.facts = tower, facts
        mean, var = statistics if statistics is not None else (None, None)
        self.register_buffer("mean", mean)
        self.register_buffer("var", var)

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in."""
        return next(self.tower.parameters()).dtype

    def forward(self, image: Tensor) -> Tensor:
        """The picture is squeezed where it is, and encoded where the weights are; the latent stays there.

        Raises ValueError in one line for what is no picture, and where NaN comes out.
        """
        statistics = None if self.mean is None or self.var is None else Statistics(self.mean, self.var)
        weight = next(self.tower.parameters())
        tokens = self.tower(encoder_input(image, self.facts).to(weight)).last_hidden_state
        latent = latent_of(tokens, self.facts, statistics)
        if not bool(torch.isfinite(latent).all()):
            raise ValueError(f"the {self.facts.family} encoder gave NaN or infinite values for this picture")
        return latent


def load_encoder(
    path: str | Path, statistics: str | Path | None = None, *, family: str | None = None, dtype=torch.float32
) -> RAEEncoder:
    """On the CPU, from a file or folder. statistics: dinov2's file; None is the one beside the encoder.

    Raises FileNotFoundError, and ValueError in one line, for files that are not what they should be.
    """
    file = examine_encoder(path, family)
    norms = find_statistics(file, path, statistics)
    return RAEEncoder(_tower(file, dtype), file.facts, norms)


def find_statistics(file: EncoderFile, path: str | Path, statistics: str | Path | None) -> Statistics | None:
    """What the family is normalised by; None where nothing is needed. Raises as `load_encoder`."""
    if not file.facts.normed:
        return None
    found = statistics if statistics is not None else statistics_beside(path)
    if found is None:
        raise FileNotFoundError(
            f"{file.name} makes {file.facts.family} latents, which are normalised by statistics: there is no "
            "rae_dinov2_stat.pt beside it"
        )
    return read_statistics(found, file.facts)


def _tower(file: EncoderFile, dtype: torch.dtype) -> nn.Module:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"the encoders of RAE need the Python package transformers ({printable(error, 120)}): pip install "
            "transformers"
        ) from None
    make = _dinov2 if file.facts.family == "dinov2" else _siglip
    try:
        with torch.device("meta"):
            model = make(transformers, file.shapes, file.facts)
            inner = getattr(model, "vision_model", model)  # older versions of transformers have one around it
            setattr(inner, next(name for name in _NORM if hasattr(inner, name)), nn.Identity())
        _fill(model, _with_own_places(read_encoder(file), file.facts), dtype)
    except (KeyError, IndexError) as error:
        raise ValueError(f"{file.name} lacks {printable(error, 120)}, so it is damaged or another file") from None
    except ValueError as error:
        raise said_of(file.name, error) from None
    return model.eval().requires_grad_(False)


def _dinov2(transformers: Any, shapes: Shapes, facts: RAEFacts) -> nn.Module:
    width = facts.row.channels
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=width,
        num_hidden_layers=_layers(shapes, "encoder.layer."),
        num_attention_heads=width // facts.head,
        mlp_ratio=shapes["encoder.layer.0.mlp.fc1.weight"][0] // width,
        hidden_act="gelu",
        layer_norm_eps=EPS,
        image_size=facts.pixels,
        patch_size=PATCH,
        num_register_tokens=facts.special - 1,
    )
    return transformers.Dinov2WithRegistersModel(config)


def _siglip(transformers: Any, shapes: Shapes, facts: RAEFacts) -> nn.Module:
    width = facts.row.channels
    config = transformers.SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=shapes["encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=_layers(shapes, "encoder.layers."),
        num_attention_heads=width // facts.head,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=EPS,
        image_size=facts.pixels,
        patch_size=PATCH,
        vision_use_head=False,
    )
    return transformers.SiglipVisionModel(config)


def _with_own_places(weights: dict[str, Tensor], facts: RAEFacts) -> dict[str, Tensor]:
    """DINOv2's position embeddings, of 518 pixels, resized to what it is shown: as its class does for every picture.

    Here they are resized once, in float32 on the CPU: other devices have no such filter.
    """
    places = weights.get(facts.positions)
    if facts.family != "dinov2" or places is None:
        return weights
    side = math.isqrt(facts.places - 1)
    patches = rearrange(places[:, 1:].float(), "1 (h w) c -> 1 c h w", h=side)
    resized = F.interpolate(patches, size=(facts.cells, facts.cells), mode="bicubic", antialias=True)
    own = torch.cat([places[:, :1].float(), rearrange(resized, "1 c h w -> 1 (h w) c")], dim=1)
    return weights | {facts.positions: own}


def _layers(shapes: Shapes, start: str) -> int:
    """How many there are, counted by their own numbers; the text tower's lie elsewhere."""
    return 1 + max(int(name.removeprefix(start).split(".")[0]) for name in shapes if name.startswith(start))


def _fill(model: nn.Module, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Give a model on the meta device weights of its own, no longer the file's.

    Raises ValueError where one is missing or of another shape.
    """
    state = {}
    for name, empty in model.state_dict().items():
        value = weights.get(plain_name(name))
        if value is None:
            raise ValueError(f"it lacks {plain_name(name)}, so it is damaged or another file")
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"its {plain_name(name)} is of {kind}: use the encoder in bfloat16 or float32")
        if value.shape != empty.shape:
            raise ValueError(f"its {plain_name(name)} is {list(value.shape)}, {list(empty.shape)} is needed")
        state[name] = value.to(dtype, copy=True)
    model.load_state_dict(state, assign=True)
    for module in model.modules():  # no file holds it, and on the meta device it has no values
        places = getattr(module, "position_ids", None)
        if isinstance(places, Tensor) and places.is_meta:
            module.register_buffer("position_ids", torch.arange(places.shape[-1]).expand(1, -1), persistent=False)


def encode(encoder: RAEEncoder, image: Tensor) -> Tensor:
    """Latents [B, C, h, w] of pictures [B, H, W, 3 or 4] in [0, 1], float32 on the CPU, a few at once."""
    with torch.inference_mode():
        latents = [encoder(part).cpu() for part in image.split(AT_ONCE)]
    return torch.cat(latents).clone()
