"""The finished picture around what is drawn: at every step the image outside a mask is held to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..latents.mirror import extend
from ..model.network import PiDNetwork
from ..windows.plan import Window

Predict = Callable[..., Tensor]  # `predict_x0`, or `predict_x0_by_windows` with its run


class Surroundings:
    """What `decode` holds the image to wherever `inside` is False.

    picture [B, 3, H, W] in [-1, 1], the finished one; inside [B or 1, 1, H, W], bool; noise [B, 3, H, W], what the
    picture is mixed with at every noise level. All on the network's device. The network sees the picture, noised as
    far as the part that is drawn, and its x0 becomes the picture there, so that lines meet. Sources: Lugmayr et al.,
    "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022, equation 8; Avrahami et al., "Blended
    Diffusion for Text-driven Editing of Natural Images", 2022, algorithm 2. One noise at all levels, as ComfyUI's
    samplers have it.
    """

    def __init__(self, picture: Tensor, inside: Tensor, noise: Tensor):
        self.picture, self.inside, self.noise = picture, inside, noise
        self._marked = inside.flatten(0, 1).any(dim=0).cpu()  # asked window by window: not to wait for a GPU

    def around(self, predict: Predict, rows: int, cols: int) -> Predict:
        """`predict` for canvases of rows x cols pixels, which may go on beyond the picture, mirrored as `extend` does.

        With x0 outside the mask replaced, as with x before.
        """
        picture, inside, noise = (extend(canvas, rows, cols) for canvas in (self.picture, self.inside, self.noise))

        def held(net: PiDNetwork, x: Tensor, t: Tensor, *args, **options) -> Tensor:
            x = torch.where(inside, x, (1 - t) * picture + t * noise)
            return torch.where(inside, predict(net, x, t, *args, **options), picture)

        return held

    def begin(self, t: Tensor) -> Tensor:
        """x at the first noise level t: the picture everywhere, noised."""
        return (1 - t) * self.picture + t * self.noise

    def touches(self, window: Window) -> bool:
        """Whether anything is to be drawn in a window; one without need not run."""
        return bool(self._marked[window.slices()].any())
