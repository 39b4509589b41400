"""What the network predicts at a noise level, as the clean image: for one frame, or window by window."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.chunks import by_rows
from ..model.devices import widest_float
from ..model.guard import finite_or_repeat
from ..model.modulation import Modulations
from ..model.network import PiDNetwork
from ..progress import OnPart
from ..windows.plan import Window
from ..windows.run import WindowRun, crop, crop_features, crop_sigma


def predict_x0(
    net: PiDNetwork,
    x: Tensor,
    t: Tensor,
    caption: Tensor,
    lq_features: Tensor,
    degrade_sigma: Tensor,
    on_part: OnPart | None = None,
    modulations: Modulations | None = None,
) -> Tensor:
    """One network call, as the clean image: x [B, 3, H, W] at time t (scalar) -> x0 [B, 3, H, W] float32.

    on_part: told the fraction of the call that is done. modulations: the run's. A call that gives NaN or infinite
    values is repeated in float32; see guard.py for what is raised.
    """
    value = float(1000 * t)
    options = {"on_part": on_part, "level": None if modulations is None else modulations.at(value)}
    timestep = torch.full((x.shape[0],), value, device=x.device)
    out = finite_or_repeat(
        net,
        lambda: net(x, timestep, caption, lq_features=lq_features, degrade_sigma=degrade_sigma, **options),
        lambda: f"the network at noise level {value / 1000:g}",
        image=x,
        caption=caption,
    )
    return out if net.config.prediction == "x0" else x0_from_velocity(x, t, out)


def predict_x0_by_windows(
    net: PiDNetwork,
    x: Tensor,
    t: Tensor,
    caption: Tensor,
    lq_features: Tensor,
    degrade_sigma: Tensor,
    on_part: OnPart | None = None,
    modulations: Modulations | None = None,
    *,
    run: WindowRun,
) -> Tensor:
    """`predict_x0` for a canvas cut into windows, with the same arguments.

    lq_features are those of the whole canvas; every window takes its slice, so it knows what lies beyond its border.
    """

    def predict(windows: list[Window]) -> tuple[Tensor]:
        features = crop_features(lq_features, windows, x.shape[-2:], net.config.patch_size)
        text = caption.repeat(len(windows), 1, 1)
        sigma = crop_sigma(degrade_sigma, windows, x.shape[-2:], net.config.patch_size)
        return (predict_x0(net, crop(x, windows), t, text, features, sigma, on_part, modulations),)

    return run.step(predict)[0]


def x0_from_velocity(x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
    """The clean image that a velocity points to, x0 = x - t * velocity, float32.

    x and velocity [B, 3, H, W]; t, the noise level in [0, 1], is one number or [B, 1, 1, 1].
    Source: the reference's student sampler, which works this out in float64. On a device without it float32 serves,
    within 2e-7 * (|x| + 2 * |t * velocity|) of that.
    """
    wide = widest_float(x.device)
    t = t.to(wide)
    return by_rows(lambda image, v: image.to(wide) - t * v.to(wide), x, velocity)
