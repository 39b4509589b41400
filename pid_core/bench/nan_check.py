"""Whether any network call of the bench gave NaN or infinite values."""

from __future__ import annotations

import torch

from ..sampling.decode import decode
from .rows import FAILED, MEASURED, Row
from .subject import Inputs, Subject, whole_cells

KEY, TITLE = "nan", "NaN"


def check_nan(subject: Subject, side: int, steps: int) -> Row:
    """A decode of a latent that is all of one value, and at the strongest degrade_sigma, and what went before it."""
    side = whole_cells(side, subject.config)
    inputs = Inputs.draw(subject, side, side)
    for latent, sigma in ((torch.zeros_like(inputs.latent), 0.0), (4 * inputs.latent, 0.8)):
        image = decode(subject.net, latent, inputs.caption, sigma, steps=steps, seed=1)
        subject.decoded(subject.net)
        if not bool(torch.isfinite(image).all()):
            return Row(KEY, TITLE, "a decode gave NaN or infinite values", FAILED, values={"finite": False})
    often = f"{subject.repeated} calls gave NaN in {subject.dtype} and were repeated in float32"
    text = f"none in {subject.decodes} decodes" if not subject.repeated else often
    values = {"decodes": subject.decodes, "repeated_calls": subject.repeated, "finite": True}
    return Row(KEY, TITLE, text, MEASURED, values)
