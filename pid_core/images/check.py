"""What became of a picture: all figures about it beside its source, and a map of what was changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from torch import Tensor

from ..latents.reference import crop_as_encoded, resize
from .agreement import Agreement, agreement_of, reduced_pair
from .seams import Seams, measure_seams
from .sharpness import edge_steepness
from .speckles import Speckles, find_speckles
from .structure import CHANGED, structure_change

MEGA = 1e6


@dataclass(frozen=True)
class Check:
    """Figures about one picture beside its source.

    close: what is left after the reduction. sharpness: how many times as steep edges are as the enlarged source's, NaN
    where there are none. speckles: how many, per megapixel. explained: bright single pixels per megapixel that the
    source shows too. changed: share of the picture whose structure is another. place: row and column, in pixels of the
    result, where it is most so; None where it is nowhere. seams: of the borders that were given, if any.
    """

    close: Agreement
    sharpness: float
    speckles: float
    explained: float
    changed: float
    place: tuple[int, int] | None
    seams: Seams | None = None

    def describe(self) -> list[str]:
        """Lines for people; places as x, y."""
        lines = [self.close.describe()]
        if not math.isnan(self.sharpness):
            lines.append(f"edges {self.sharpness:.2f} times as steep as in the source, enlarged")
        explained = f"; {self.explained:.1f} more bright pixels, which the source has too" if self.explained else ""
        lines.append(f"{self.speckles:.1f} speckles per megapixel{explained}")
        if self.seams is not None:
            lines.append(self.seams.describe())
        if self.place is None:
            return [*lines, "structure changed nowhere"]
        row, col = self.place
        return [*lines, f"structure changed on {100 * self.changed:.2g} % of the picture, most at {col}, {row}"]

    def figures(self) -> dict[str, float | list[int] | None]:
        """Names and numbers for other programs, as JSON takes them: None for what there is not."""
        flat: dict[str, float | list[int] | None] = {
            **asdict(self.close),
            "sharpness": self.sharpness,
            "speckles_per_megapixel": self.speckles,
            "explained_per_megapixel": self.explained,
            "changed": self.changed,
            "changed_most_at": None if self.place is None else [self.place[1], self.place[0]],
            "seam_ratio": None if self.seams is None else self.seams.ratio,
            "seam_step": None if self.seams is None else self.seams.step,
        }
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in flat.items()}


class Checked(NamedTuple):
    """What `check_picture` found: the figures, `structure_change`'s map [h, w], and where the speckles are."""

    check: Check
    changed: Tensor
    speckles: Speckles


def check_picture(
    result: Tensor, source: Tensor, borders: tuple[Sequence[int], Sequence[int]] | None = None
) -> Checked:
    """All about a picture [H, W, 3] beside its source [h, w, 3], both in [0, 1], of about the same shape.

    borders: rows and columns of the result where windows begin or end. A source larger than the result is reduced.
    """
    changed = structure_change(*(image.mean(0) for image in reduced_pair(result, source)))
    grey, reference = (image[..., :3].float().mean(-1).cpu() for image in (result, source))
    reference = crop_as_encoded(reference, *grey.shape)
    if reference.numel() > grey.numel():
        reference = resize(reference, grey.shape)
    speckles = find_speckles(grey, reference)
    share = float((changed > CHANGED).float().mean())
    check = Check(
        agreement_of(result, source),
        edge_steepness(grey, reference),
        speckles.number * MEGA / grey.numel(),
        speckles.explained * MEGA / grey.numel(),
        share,
        _place(changed, grey.shape) if share else None,
        None if borders is None else measure_seams(grey, reference, *borders),
    )
    return Checked(check, changed, speckles)


def _place(changed: Tensor, size: Sequence[int]) -> tuple[int, int]:
    row, col = divmod(int(changed.argmax()), changed.shape[1])
    return int((row + 0.5) * size[0] / changed.shape[0]), int((col + 0.5) * size[1] / changed.shape[1])
