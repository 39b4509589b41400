"""What packing a checkpoint's weights into 8 bits costs: error per layer, and of the decode against the file's weights.

Each figure stands twice: with the weights rounded alone, as where a card unpacks them, and with the layers' inputs
rounded too, as where it multiplies in 8 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images.files import FORMATS, read_picture
from ..latents.families import get_family
from ..latents.files import read_latent
from ..latents.rgb import to_rgb_latent
from ..model.config import PiDConfig
from ..model.network import PiDNetwork
from ..printable import printable
from ..sampling.decode import decode
from .packing import PACKED, pack, rounded_input, unpack
from .packing_rule import linear_layers, packed_layers, why_kept
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
    kept: dict[str, str]  # kind of layer -> why
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
        for why in dict.fromkeys(self.kept.values()):
            kinds = ", ".join(kind for kind, reason in self.kept.items() if reason == why)
            lines.append(f"kept: {kinds} ({why})")
        for row in self.decodes:
            lines.append(
                f"decode of {row.latent}, {row.width} x {row.height} pixels, {STEPS} steps: PSNR {row.weights:.1f} dB "
                f"against the file's own weights, {row.in_8_bits:.1f} dB with products in 8 bits"
            )
        return lines + self.notes


def measure(
    source: Path,
    to: str,
    *,
    family: str | None = None,
    schedule: str | None = None,
    given: Mapping[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
) -> Report:
    """Pack a checkpoint's weights and measure what that does; nothing is written.

    given: more latents to decode, by name, from `read_given`; the middle of each is. The network runs in float32.
    Raises what `load_network` raises.
    """
    net = load_network(source, family=family, schedule=schedule, device=device)
    config, notes = net.config, []
    decodable = config.has_latent and config.schedule == "distilled"
    parameters = sum(parameter.numel() for parameter in net.parameters())
    side = SMALL_SIDE if parameters <= SMALL else SIDE
    latents = {}
    if decodable:
        latents = {"a synthetic latent": synthetic_latent(config, side)}
        latents |= {name: _middle(latent, config, side) for name, latent in (given or {}).items()}
    else:
        notes.append("no decode was measured: the checkpoint is not one of the 4-step decoders")
    if net.default_caption is None:
        notes.append("the file holds no caption: a random one was used")
    names, inputs = packed_layers(config, to), {}
    layers = {name: net.get_submodule(name) for name in names}
    with _seen_by(layers, inputs):
        plain = [_decoded(net, latent) for latent in latents.values()]
    errors = []
    for name, layer in layers.items():
        rounded = unpack(to, pack(to, layer.weight))
        given = inputs.get(name)
        if given is None:
            given = torch.randn(ROWS, layer.in_features, generator=torch.Generator().manual_seed(0)).to(rounded.device)
        errors.append(_layer_error(to, name, layer.weight, rounded, given))
        layer.weight = nn.Parameter(rounded, requires_grad=False)
    weights = [_decoded(net, latent) for latent in latents.values()]
    with _inputs_rounded(to, layers.values()):
        in_8_bits = [_decoded(net, latent) for latent in latents.values()]
    kept = {_kind(name): why for name in linear_layers(config) if (why := _why(name, to, names)) is not None}
    return Report(
        to,
        parameters,
        errors,
        kept,
        [
            DecodeError(name, *image.shape[-2:], psnr(a, image), psnr(b, image))
            for name, image, a, b in zip(latents, plain, weights, in_8_bits, strict=True)
        ],
        notes,
        sum(layer.weight.numel() for layer in layers.values()),
    )


def psnr(image: Tensor, reference: Tensor) -> float:
    """dB, of images with values from -1 to 1; infinite where they are equal."""
    square = float((image - reference).double().square().mean())
    return math.inf if square == 0 else 10 * math.log10(4 / square)


def synthetic_latent(config: PiDConfig, side: int) -> Tensor:
    """A smooth field with some noise on it, of variance 1, that decodes to side x side pixels."""
    cells, generator = side // config.latent_cell, torch.Generator().manual_seed(0)
    coarse = torch.randn(1, config.latent_channels, max(2, cells // 4), max(2, cells // 4), generator=generator)
    smooth = F.interpolate(coarse, size=(cells, cells), mode="bicubic", align_corners=False)
    latent = smooth + 0.3 * torch.randn(smooth.shape, generator=generator)
    return latent / latent.std()


def read_given(path: Path, config: PiDConfig) -> Tensor:
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


def _decoded(net: PiDNetwork, latent: Tensor) -> Tensor:
    caption = net.default_caption
    if caption is None:
        shape = 1, net.config.caption_length, net.config.caption_width
        caption = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return decode(net, latent, caption, steps=STEPS)


@contextmanager
def _seen_by(layers: Mapping[str, nn.Module], inputs: dict[str, Tensor]) -> Iterator[None]:
    """Collects some rows of what the layers are given; the last call's stay."""

    def collect(name: str):
        def hook(_, given: tuple[Tensor]) -> None:
            rows = given[0].detach().flatten(0, -2)
            inputs[name] = rows[:: -(-len(rows) // ROWS)].float().clone()

        return hook

    with _hooked(layer.register_forward_pre_hook(collect(name)) for name, layer in layers.items()):
        yield


@contextmanager
def _inputs_rounded(to: str, layers: Sequence[nn.Module]) -> Iterator[None]:
    def hook(_, given: tuple[Tensor]) -> tuple[Tensor]:
        return (rounded_input(to, given[0]),)

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


def _why(name: str, to: str, packed: Sequence[str]) -> str | None:
    if name in packed:
        return None
    return why_kept(name) or f"its sides are no multiples of {' and '.join(map(str, PACKED[to].multiples))}"
