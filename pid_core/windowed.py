"""Predict a whole canvas window by window: each an image of its own to the network, fused on x0."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .network import PiDNetwork
from .schedule import x0_from_velocity
from .windows import Window, WindowPlan, fuse_weights

OnWindows = Callable[[int, int], None]  # windows done, windows in all


def predict_x0(
    net: PiDNetwork, x: Tensor, t: Tensor, caption: Tensor, lq_features: Tensor, degrade_sigma: Tensor
) -> Tensor:
    """One network call, as the clean image: x [B, 3, H, W] at time t (scalar) -> x0 [B, 3, H, W] float32."""
    timestep = (1000 * t).expand(x.shape[0])
    out = net(x, timestep, caption, lq_features=lq_features, degrade_sigma=degrade_sigma)
    return out if net.config.prediction == "x0" else x0_from_velocity(x, t, out)


def predict_x0_by_windows(
    net: PiDNetwork,
    x: Tensor,
    t: Tensor,
    caption: Tensor,
    lq_features: Tensor,
    degrade_sigma: Tensor,
    plan: WindowPlan,
    *,
    fuse: str = "pyramid",
    window_batch: int = 1,
    on_windows: OnWindows | None = None,
) -> Tensor:
    """`predict_x0` for a canvas cut by `plan`, with the same arguments.

    lq_features are those of the whole canvas; every window takes its slice, so it knows what lies beyond its border.
    window_batch windows run at once; when memory runs out that is halved, with a warning, down to one.
    A plan of one window is `predict_x0` itself.
    """
    if plan.count == 1:
        return predict_x0(net, x, t, caption, lq_features, degrade_sigma)
    fused = torch.zeros_like(x, dtype=torch.float32)
    done = 0
    while done < plan.count:
        indices = range(done, min(done + window_batch, plan.count))
        windows = [plan.windows[i] for i in indices]
        repeat = len(windows)
        try:
            parts = predict_x0(
                net,
                torch.cat([crop(x, w) for w in windows]),
                t,
                caption.repeat(repeat, 1, 1),
                torch.cat([crop_features(lq_features, w, plan, net.config.patch_size) for w in windows]),
                degrade_sigma.repeat(repeat),
            )
        except torch.OutOfMemoryError:
            if window_batch == 1:
                raise
            window_batch = max(1, repeat // 2)
            warnings.warn(f"out of memory: {window_batch} window(s) at a time from here on", stacklevel=2)
            continue
        weights = fuse_weights(plan, fuse, indices, device=x.device)
        for window, weight, part in zip(windows, weights, parts.chunk(repeat), strict=True):
            crop(fused, window).addcmul_(part, weight)
        done += repeat
        if on_windows is not None:
            on_windows(done, plan.count)
    return fused


def crop(image: Tensor, window: Window) -> Tensor:
    """A view of [..., H, W] at the window."""
    rows, cols = window.slices()
    return image[..., rows, cols]


def crop_features(lq_features: Tensor, window: Window, plan: WindowPlan, patch_size: int) -> Tensor:
    """The window's part of trunk features [B, tokens, C] of the whole canvas -> [B, window tokens, C]."""
    rows, cols = window.slices(patch_size)
    grid = lq_features.unflatten(1, (plan.height // patch_size, plan.width // patch_size))
    return grid[:, rows, cols].flatten(1, 2)
