"""What packing a checkpoint's weights into 8 bits costs: error per layer, and of the decode against the file's weights.

Each figure stands twice: with the weights rounded alone, as where a card unpacks them, and with the layers' inputs
rounded too, as where it multiplies in 8 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images.files import FORMATS, read_picture
from ..images.psnr import psnr
from ..latents.families import get_family
from ..latents.files import read_latent
from ..latents.rgb import to_rgb_latent
from ..model.config import PiDConfig
from ..model.network import PiDNetwork
from ..printable import printable
from ..sampling.decode import decode
from .packing import PACKED, pack, rounded_input, unpack
from .packing_rule import linear_layers, packed_layers, why_not_packed
from .reading import load_network

STEPS = 4
SIDE, SMALL_SIDE = 256, 512  # pixels decoded: a CPU's minutes for a released network, and its seconds for a small one
SMALL = 50_000_000  # parameters
ROWS = 64  # of a layer's inputs that its error is measured on
WORST = 5


class LayerError(NamedTuple):
    """Relative rms: of the weights, and of the output (weights rounded; weights and inputs rounded)."""

    layer: str
    weights: float
    output: float
    in_8_bits: float


class DecodeError(NamedTuple):
    """PSNR in dB against the plain weights' picture (values from -1 to 1)."""

    latent: str
    height: int
    width: int
    weights: float
    in_8_bits: float


@dataclass
class Report:
    """What `convert --to` reports: errors per layer and of the decode, and how many weights were packed."""

    to: str
    parameters: int
    layers: list[LayerError]
    not_packed: dict[str, str]  # kind of layer -> why
    decodes: list[DecodeError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    packed: int = 0  # parameters

    def lines(self) -> list[str]:
        """The report as text, the worst layers first."""
        worst = sorted(self.layers, key=lambda row: -row.in_8_bits)[:WORST]
        kinds: dict[str, list[LayerError]] = {}
        for row in self.layers:
            kinds.setdefault(_kind(row.layer), []).append(row)
        means = [LayerError(f"{kind} ({len(rows)})", *_means(rows)) for kind, rows in kinds.items()]
        means.sort(key=lambda row: -row.in_8_bits)
        width = max(len(row.layer) for row in (*worst, *means)) + 2
        lines = [
            f"{self.to} ({PACKED[self.to].name}): {self.packed / 1e6:,.1f} of {self.parameters / 1e6:,.1f} million "
            "parameters in 8 bits",
            f"{'error, relative rms':{width}}{'weights':>9}{'output':>9}{'output, products in 8 bits':>28}",
            *(_line(row, width) for row in worst),
            "by kind of layer (how many)",
            *(_line(row, width) for row in means),
        ]
        for why in dict.fromkeys(self.not_packed.values()):
            names = ", ".join(kind for kind, reason in self.not_packed.items() if reason == why)
            lines.append(f"kept: {names} ({why})")
        for one in self.decodes:
            lines.append(
                f"decode of {one.latent}, {one.width} x {one.height} pixels, {STEPS} steps: PSNR {one.weights:.1f} dB "
                f"against the file's own weights, {one.in_8_bits:.1f} dB with products in 8 bits"
            )
        return lines + self.notes


def measure(
    source: Path,
    to: str,
    *,
    family: str | None = None,
    schedule: str | None = None,
    latents: Mapping[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
) -> Report:
    """Pack a checkpoint's weights and measure what that does; nothing is written.

    latents: more latents to decode, by name, from `read_as_latent`; the middle of each is. The network runs in float32.
    Raises what `load_network` raises.
    """
    net = load_network(source, family=family, schedule=schedule, device=device)
    samples = _samples(net, latents or {})
    names = packed_layers(net.config, to)
    packed = {name: layer for name, layer in net.named_modules() if name in names and isinstance(layer, nn.Linear)}
    layer_inputs: dict[str, Tensor] = {}
    with _collect_inputs(packed, layer_inputs):
        plain = _decode_all(net, samples)
    layers = [_round_weights(to, name, layer, layer_inputs.get(name)) for name, layer in packed.items()]
    weights = _decode_all(net, samples)
    with _inputs_rounded(to, packed.values()):
        in_8_bits = _decode_all(net, samples)
    return Report(
        to,
        parameters=_size(net),
        layers=layers,
        not_packed=_reasons(net.config, to, packed),
        decodes=[
            DecodeError(
                name, image.shape[-2], image.shape[-1], psnr(weights[name], image), psnr(in_8_bits[name], image)
            )
            for name, image in plain.items()
        ],
        notes=_notes(net),
        packed=sum(layer.weight.numel() for layer in packed.values()),
    )


def _size(net: PiDNetwork) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def _is_decodable(config: PiDConfig) -> bool:
    return config.has_latent and config.schedule == "distilled"


def _samples(net: PiDNetwork, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is decoded to measure with, by name."""
    if not _is_decodable(net.config):
        return {}
    side = SMALL_SIDE if _size(net) <= SMALL else SIDE
    middles = {name: _middle(latent, net.config, side) for name, latent in latents.items()}
    return {"a synthetic latent": synthetic_latent(net.config, side)} | middles


def _notes(net: PiDNetwork) -> list[str]:
    notes = []
    if not _is_decodable(net.config):
        notes.append("no decode was measured: the checkpoint is not one of the 4-step decoders")
    if net.default_caption is None:
        notes.append("the file holds no caption: a random one was used")
    return notes


def _round_weights(to: str, name: str, layer: nn.Linear, inputs: Tensor | None) -> LayerError:
    """Give a layer the weights that its packed ones stand for. inputs [rows, columns]: some of its own, or random."""
    exact, rounded = layer.weight, unpack(to, pack(to, layer.weight))
    if inputs is None:
        inputs = torch.randn(ROWS, layer.in_features, generator=torch.Generator().manual_seed(0)).to(rounded.device)
    layer.weight = nn.Parameter(rounded, requires_grad=False)
    return _layer_error(to, name, exact, rounded, inputs)


def synthetic_latent(config: PiDConfig, side: int) -> Tensor:
    """A smooth field with some noise on it, of variance 1, that decodes to side x side pixels."""
    cells, generator = side // config.latent_cell, torch.Generator().manual_seed(0)
    coarse = torch.randn(1, config.latent_channels, max(2, cells // 4), max(2, cells // 4), generator=generator)
    smooth = F.interpolate(coarse, size=(cells, cells), mode="bicubic", align_corners=False)
    latent = smooth + 0.3 * torch.randn(smooth.shape, generator=generator)
    return latent / latent.std()


def read_as_latent(path: Path, config: PiDConfig) -> Tensor:
    """A file as the checkpoint's normalised latent: of the rgb family a picture, else one that PiD Save Latent wrote.

    Raises ValueError or OSError in one line.
    """
    is_picture = path.suffix.lower() in FORMATS
    if config.family == "rgb":
        return to_rgb_latent(read_picture(path).image[None])
    if is_picture:
        raise ValueError(
            f"{printable(path.name)} is a picture, and this checkpoint decodes {config.family or 'VAE'} latents: give "
            "the picture's latent instead, a .latent file that was saved in ComfyUI"
        )
    saved = read_latent(path)
    family = saved.family or config.family
    if saved.samples.shape[1] != config.latent_channels or config.family not in (None, family):
        raise ValueError(
            f"{printable(path.name)} holds a latent of {family or 'an unknown family'} with {saved.samples.shape[1]} "
            f"channels, this checkpoint takes {config.family or 'latents'} with {config.latent_channels}"
        )
    samples = saved.samples if saved.samples.ndim == 4 else saved.samples.squeeze(2)
    return samples[:1] if family is None else get_family(family).normalise(samples[:1])


def _middle(latent: Tensor, config: PiDConfig, side: int) -> Tensor:
    """At most side x side pixels' worth of it."""
    most = side // config.latent_cell
    top, left = ((cells - min(cells, most)) // 2 for cells in latent.shape[-2:])
    return latent[..., top : top + most, left : left + most]


def _decode_all(net: PiDNetwork, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    caption = net.default_caption
    if caption is None:
        shape = 1, net.config.caption_length, net.config.caption_width
        caption = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return {name: decode(net, latent, caption, steps=STEPS) for name, latent in latents.items()}


@contextmanager
def _collect_inputs(layers: Mapping[str, nn.Module], inputs: dict[str, Tensor]) -> Iterator[None]:
    """Fills `inputs` with some rows of every layer's input; the last call's stay."""

    def collect(name: str):
        def hook(_, args: tuple[Tensor]) -> None:
            rows = args[0].detach().flatten(0, -2)
            inputs[name] = rows[:: -(-len(rows) // ROWS)].float().clone()

        return hook

    with _hooked(layer.register_forward_pre_hook(collect(name)) for name, layer in layers.items()):
        yield


@contextmanager
def _inputs_rounded(to: str, layers: Iterable[nn.Module]) -> Iterator[None]:
    def hook(_, args: tuple[Tensor]) -> tuple[Tensor]:
        return (rounded_input(to, args[0]),)

    with _hooked(layer.register_forward_pre_hook(hook) for layer in layers):
        yield


@contextmanager
def _hooked(handles) -> Iterator[None]:
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer_error(to: str, name: str, weight: Tensor, rounded: Tensor, x: Tensor) -> LayerError:
    exact = x @ weight.T
    return LayerError(
        name,
        _relative(rounded, weight),
        _relative(x @ rounded.T, exact),
        _relative(rounded_input(to, x) @ rounded.T, exact),
    )


def _relative(values: Tensor, exact: Tensor) -> float:
    return float((values - exact).norm() / exact.norm().clamp(min=1e-30))


def _kind(layer: str) -> str:
    return re.sub(r"\.\d+\b", ".*", layer)


def _means(rows: Sequence[LayerError]) -> tuple[float, ...]:
    return tuple(
        math.sqrt(sum(value**2 for value in column) / len(rows)) for column in list(zip(*rows, strict=True))[1:]
    )


def _line(row: LayerError, width: int) -> str:
    return f"{'  ' + row.layer:{width}}{row.weights:9.2%}{row.output:9.2%}{row.in_8_bits:28.2%}"


def _reasons(config: PiDConfig, to: str, packed: Collection[str]) -> dict[str, str]:
    """Why the other layers stay as they are, by kind of layer."""
    sides = f"its sides are no multiples of {' and '.join(map(str, PACKED[to].multiples))}"
    return {_kind(name): why_not_packed(name) or sides for name in linear_layers(config) if name not in packed}
