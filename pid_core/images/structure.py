"""Where a picture's structure is another than its source's, and not merely finer.

Both are compared at the source's own size or below, where added detail is gone: by the directions and strengths of
their slopes, which a cast or another contrast does not turn. It is the structure term of SSIM (Z. Wang et al., Image
Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 13, 2004), of slopes instead of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..latents.reference import resize
from .blur import gaussian
from .slopes import slopes

SCALES = (1.5, 3.0)  # deviation in pixels of the Gaussian that each comparison is made after
REACH = 1.5  # of what is compared together, in deviations
FAINT = 0.004  # slope, of a range of 1 per pixel, below which there is no structure
NOISE = 10.0  # what of the usual squared difference counts as noise
MOST_NOISE = 0.02  # slope; more than that all over is no noise
CHANGED = 0.35  # from which a place counts as changed; honest results and added grain stay below 0.25
HEAT = (1.0, 0.2, 0.0)  # what was changed is drawn in


def structure_change(reduced: Tensor, source: Tensor) -> Tensor:
    """How much structure was changed at each pixel: [h, w], from 0 (kept, or refined) to 1 (none of it is left).

    reduced: the result at the source's size; both [h, w], grey in [0, 1].
    """
    changed = torch.zeros_like(source, dtype=torch.float32)
    for scale in SCALES:
        ours, theirs = (slopes(gaussian(image.float(), scale)) for image in (reduced, source))
        # Noise that only one of them has differs everywhere; structure that was changed, at some places.
        usual = float((ours - theirs).square().sum(0).median())
        floor = max(FAINT**2, min(NOISE * usual, MOST_NOISE**2))
        both, own, other = (
            gaussian(product.sum(0), REACH * scale) for product in (ours * theirs, ours * ours, theirs * theirs)
        )
        alike = (both + floor) / ((own + floor) * (other + floor)).sqrt()
        changed = torch.maximum(changed, (1 - alike).clamp(0, 1))
    return changed


def heat_picture(result: Tensor, changed: Tensor) -> Tensor:
    """A picture [H, W, 3] in faint grey, and in red where its structure was changed [h, w]: [H, W, 3] in [0, 1]."""
    heat = resize(changed.to(result.device), result.shape[:2]).clamp(0, 1)[..., None]
    heat = ((heat - CHANGED / 2) / (1.5 * CHANGED)).clamp(0, 0.9)
    grey = 0.6 * result[..., :3].float().mean(-1, keepdim=True).clamp(0, 1) + 0.1
    return grey.lerp(torch.tensor(HEAT).to(grey.device), heat)
