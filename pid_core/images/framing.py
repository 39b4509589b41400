"""Fit a picture to a checkpoint: the size to encode it at, and the way back from what PiD decodes.

Four sizes: the source is the picture as given; the output is the whole of it as asked for, to the pixel; the content is
the whole of it at the size the VAE reads, `scale` times smaller than the output; the canvas is what is encoded, the
content padded or cropped to whole latent cells, or to the one square that a family's encoder takes. PiD decodes the
canvas `scale` times as large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TooSmallError, WrongSizeError
from ..latents.families import LatentFamily, get_family
from ..latents.mirror import mirrored
from ..latents.rgb import to_image, to_pixels

TARGETS = {"2K": 2048, "4K": 4096}  # side of a square of the output's area
FITS = ("pad", "crop")
MAX_SIDE = 16384  # of the output


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    def times(self, factor: int) -> Size:
        """Both sides `factor` times as long."""
        return Size(self.height * factor, self.width * factor)

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True)
class Framing:
    """Where a picture lies on the canvas that is encoded; sizes in pixels, `scale` from canvas to decoded image.

    square: whether the family takes no other canvas.
    """

    source: Size
    output: Size
    canvas: Size
    scale: int
    square: bool = False

    @property
    def content(self) -> Size:
        """Pixels the whole picture takes where it is encoded; it may end within the last row and column."""
        return Size(*(math.ceil(side / self.scale) for side in self.output))

    @property
    def decoded(self) -> Size:
        """What PiD makes of the canvas."""
        return self.canvas.times(self.scale)

    @property
    def offset(self) -> tuple[int, int]:
        """Top and left of the canvas on the content: negative where it is padded, positive where it is cropped."""
        content, canvas = self.content, self.canvas
        return (content.height - canvas.height) // 2, (content.width - canvas.width) // 2

    @property
    def padded(self) -> bool:
        """Whether all of the content is on the canvas; else it was cropped."""
        return self.canvas.height >= self.content.height and self.canvas.width >= self.content.width

    def describe(self) -> str:
        """One line for people; sizes as width x height."""
        steps = [f"{self.source} picture" + (f" ({_aspect(self.source)})" if self.square else "")]
        if self.content != self.source:
            steps.append(f"resized to {self.content}")
        if self.canvas != self.content:
            shape = "a square of " if self.square else ""
            steps.append(f"{'padded' if self.padded else 'cropped'} to {shape}{self.canvas}")
        steps.append(f"PiD makes it {self.decoded}")
        if self.output != self.decoded:
            steps.append(f"finished: {self.output}")
        return ", ".join(steps)


def plan_framing(
    height: int, width: int, family: str, *, target: str = "2K", factor: float = 4.0, fit: str = "pad"
) -> Framing:
    """Sizes for a picture of height x width pixels, its aspect kept to half a pixel of the output.

    family: decides the multiple both sides of the canvas must be of (what one latent cell covers) and the scale.
    target: "2K" or "4K", an output with the area of 2048 x 2048 or 4096 x 4096, as the checkpoints were trained, less
    where a long picture would be longer than MAX_SIDE; or "factor", an output of round(side * factor) on each side.
    fit: "pad" the content to the multiple, or "crop" it. Of a family with one square, 2K brings the picture's longer
    side into it ("pad") or its shorter one ("crop"). Raises ValueError in one line.
    """
    row = get_family(family)
    if height < 1 or width < 1:
        raise ValueError(f"the picture is empty: {width} x {height}")
    if fit not in FITS:
        raise ValueError(f"fit is {fit!r}; choose one of {', '.join(FITS)}")
    source = Size(height, width)
    enlarge = _enlargement(source, row, target, factor, fit)
    output = Size(*(max(1, round(side * enlarge)) for side in source))
    if row.square:
        _check_square(output, source, row, fit)
        return Framing(source, output, Size(row.square, row.square), row.sr_scale, square=True)
    whole_cells = math.ceil if fit == "pad" else math.floor
    canvas = Size(*(whole_cells(side / (row.down * row.sr_scale)) * row.down for side in output))
    framing = Framing(source, output, canvas, row.sr_scale)
    if min(canvas) == 0:
        raise TooSmallError(
            f"{source} becomes {framing.content}, and {family} needs at least {row.down} pixels a side", source
        )
    if max(framing.decoded) > MAX_SIDE:
        raise ValueError(
            f"{source} would become {framing.decoded}; at most {MAX_SIDE} pixels a side are possible: choose a "
            "smaller target or factor"
        )
    return framing


def _enlargement(source: Size, row: LatentFamily, target: str, factor: float, fit: str) -> float:
    """From source to output."""
    if target == "factor":
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"factor must be above 0, got {factor}")
        return factor
    if target not in TARGETS:
        raise ValueError(f"target is {target!r}; choose one of {', '.join([*TARGETS, 'factor'])}")
    side = TARGETS[target]
    if not row.square:
        return min(side / math.sqrt(source.height * source.width), MAX_SIDE / max(source))
    whole = row.square * row.sr_scale
    if side > whole:
        raise ValueError(f"{row.name} draws {Size(whole, whole)} pixels and no more: choose target 2K")
    return side / (max(source) if fit == "pad" else min(source))


def _check_square(output: Size, source: Size, row: LatentFamily, fit: str) -> None:
    """Raise ValueError where the square holds less than what is to be drawn of it, or more than what there is."""
    whole = row.square * row.sr_scale
    draws = f"{source} would become {output}, and {row.name} draws {Size(whole, whole)} pixels"
    if fit == "pad" and max(output) > whole:
        raise ValueError(f"{draws} and no more: choose target 2K, or a factor up to {_down(whole / max(source)):g}")
    if fit == "crop" and min(output) < whole:
        raise ValueError(f"{draws} and no less: choose target 2K or fit pad")
    if max(output) > MAX_SIDE:
        raise ValueError(f"{source} would become {output}; at most {MAX_SIDE} pixels a side are possible: set fit pad")


def _down(factor: float) -> float:
    """To three digits, and never up."""
    return math.floor(factor * 1000) / 1000


def _aspect(size: Size) -> str:
    longer, shorter = max(size), min(size)
    ratio = f"{longer / shorter:.3g}"
    return f"{ratio} : 1" if size.width >= size.height else f"1 : {ratio}"


def prepare_image(image: Tensor, framing: Framing) -> Tensor:
    """The canvas of a picture: [B, H, W, 3 or 4] in [0, 1] of the source's size -> [B, h, w, 3].

    Resized bicubic, averaged where it gets smaller (as the networks were trained on); padding mirrors the picture.
    """
    content = _content(to_pixels(image), framing)
    rows, cols = (
        mirrored(start, size, whole, image.device)
        for start, size, whole in zip(framing.offset, framing.canvas, framing.content, strict=True)
    )
    return to_image(content[:, :, rows][..., cols])


def unfinish_image(image: Tensor, framing: Framing) -> Tensor:
    """What `finish_image` gave, [B, H, W, C], as large as PiD decodes the canvas again; an image of another size as is.

    Padding mirrors the image; what lies beyond a cropped canvas is cut off.
    """
    if tuple(image.shape[1:3]) != framing.output:
        return image
    rows, cols = (
        mirrored(start * framing.scale, size, whole, image.device)
        for start, size, whole in zip(framing.offset, framing.decoded, framing.output, strict=True)
    )
    return image[:, rows][:, :, cols]


def finish_image(decoded: Tensor, framing: Framing, source: Tensor) -> Tensor:
    """Undo the canvas: what PiD decoded, [B, H, W, 3] in [0, 1], to the whole picture at the same scale.

    Padding is cut off. What was cropped comes from `source` [B or 1, h, w, 3 or 4], plainly enlarged; so does its
    transparency, as a fourth channel. Raises ValueError when the image is not what PiD makes of this canvas.
    """
    check_decoded(decoded.shape[:3], framing, source)
    top, left = (n * framing.scale for n in framing.offset)
    height, width = framing.output
    if framing.padded:
        whole = decoded[:, -top : height - top, -left : width - left].contiguous()
    else:
        whole = _enlarged(source[..., :3], framing.output)
        whole = whole.expand(decoded.shape[0], -1, -1, -1).to(decoded, copy=True)
        whole[:, top : top + decoded.shape[1], left : left + decoded.shape[2]] = decoded
    if not _has_alpha(source):
        return whole
    alpha = _enlarged(source[..., 3:], framing.output).to(whole)
    return torch.cat([whole, alpha.expand(whole.shape[0], -1, -1, -1)], -1)


def check_decoded(shape: Sequence[int], framing: Framing, source: Tensor) -> None:
    """Raise ValueError in one line if `finish_image` would on images of this shape, [B, H, W]."""
    images, *size = shape
    if tuple(size) != framing.decoded:
        raise WrongSizeError(
            f"the image is {Size(*size)}, but the picture that was prepared decodes to {framing.decoded}",
            size,
            framing.decoded,
        )
    if (_has_alpha(source) or not framing.padded) and source.shape[0] not in (1, images):
        raise ValueError(f"{images} images were decoded from {source.shape[0]} pictures: as many are needed")


def _has_alpha(image: Tensor) -> bool:
    return image.shape[-1] == 4


def _enlarged(image: Tensor, size: Size) -> Tensor:
    """[B, h, w, C] in [0, 1] at another size, bicubic, not out of range."""
    return _resize(image.movedim(-1, 1).float(), size).clamp(0, 1).movedim(1, -1)


def _resize(pixels: Tensor, size: Size) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True)


def _content(pixels: Tensor, framing: Framing) -> Tensor:
    """The whole picture [B, C, h, w] where it is encoded. What is beyond its end in the last pixels is mirrored."""
    size = framing.content
    if framing.output == size.times(framing.scale):
        return _resize(pixels, size)
    factors = [out / framing.scale / side for out, side in zip(framing.output, framing.source, strict=True)]
    rows, cols = (
        # one pixel of the content, and what the bicubic filter reads around it
        mirrored(0, side + math.ceil(3 / factor + 3), side, pixels.device)
        for side, factor in zip(framing.source, factors, strict=True)
    )
    longer = pixels[:, :, rows][..., cols]
    return F.interpolate(longer, scale_factor=factors, mode="bicubic", antialias=True)[..., : size.height, : size.width]
