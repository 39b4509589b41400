"""decode: the distilled student's sampling loop, from latent to image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import BrokenCaptionError, NonFiniteError
from ..latents.checks import check_latent
from ..latents.mirror import extend
from ..latents.noise import Sigma, sigma_per_image
from ..model.chunks import by_rows
from ..model.config import PiDConfig
from ..model.cost import forward_flops, trunk_work
from ..model.devices import to_device, usual_dtype_bytes
from ..model.guard import PROJECTOR, checked_together, finite_or_repeat
from ..model.lq import sigma_of_patches
from ..model.modulation import Modulations
from ..model.network import PiDNetwork
from ..progress import OnPart, when_done
from ..windows.memory import Canvases, MemoryModel, Overhead
from ..windows.plan import SMALLEST, WindowPlan, plan_flops
from ..windows.run import WindowRun
from .hold import Hold
from .noises import noise_source
from .predict import predict_x0, predict_x0_by_windows
from .start import check_start, sigmas_from, start_canvas
from .surroundings import Surroundings

# What `decode` holds: noise, image, prediction and fused prediction; the first noise is drawn behind the projector.
CANVASES = Canvases(in_call=4, between=4)
Callback = Callable[[int, int, Tensor], None]  # steps done, steps in all, x0 [B, 3, H, W] so far


@torch.no_grad()
def decode(
    net: PiDNetwork,
    lq_latent: Tensor,
    caption: Tensor | None = None,
    degrade_sigma: Sigma = 0.0,
    *,
    steps: int | None = None,
    start: Tensor | None = None,
    start_at: int = 1,
    seed: int = 0,
    noise: Tensor | None = None,
    step_noise: Sequence[Tensor] | None = None,
    size: tuple[int, int] | None = None,
    callback: Callback | None = None,
    windows: WindowPlan | None = None,
    fuse: str = "pyramid",
    window_batch: int = 1,
    hold: Hold | None = None,
    surroundings: Surroundings | None = None,
    on_part: OnPart | None = None,
) -> Tensor:
    """Decode a normalised latent [B, C, h, w] to an image [B, 3, H, W] in [-1, 1], float32.

    caption: [B or 1, T, caption_width]; None takes the one stored in the checkpoint. degrade_sigma: the latent's noise
    level, 0 to 1: one number, one per image, or a map [1 or B, 1, h, w], a value for every cell of the latent; one that
    steps leaves a seam, one that changes over four cells or more leaves none. steps: 1 to 4; None: as many as the
    checkpoint is best at (`PiDConfig.steps`). noise [B, 3, H, W] and step_noise (one tensor per re-noising, one fewer
    than the steps that run) replace the draws of the generator seeded with `seed`, which come in this order and stay
    what they are where others are replaced.
    start [B or 1, 3, h, w] in [-1, 1], with start_at 2 to steps: a picture to begin from in place of pure noise, at the
    noise level t of that step, as (1 - t) * start + t * noise. Then steps - start_at + 1 steps run, each one network
    call. Another size is resized. `noise`, or the first draw of `seed`, is what the picture is mixed with, whatever the
    level, as ComfyUI's samplers do it: begin from an earlier result with another seed than made it.
    hold: what every step's x0 is held to before the run goes on; with windows the fused x0. surroundings: a finished
    picture around a part that is drawn; see `touch_up`.
    size: (H, W); by default the latent's size times the checkpoint's scale, and less than a latent cell off it. Where
    it is no multiple of `config.align` the network sees the image go on, mirrored, up to the next one.
    callback(step, steps, x0) is called after every step. on_part is called, often, with the fraction of all the
    network's work that is behind it, by the cost model.
    windows: a plan from `plan_windows` or `choose_plan` for this size, rounded up like that, to decode in parts that
    need less memory; the noise is one field over the canvas and every step fuses the windows' x0 (`fuse_profiles`).
    window_batch: windows per network call. A plan of one window changes nothing. Out of memory halves the batch, then
    takes a smaller plan, with a warning each time.
    Source: the reference's student sampler ("sde" re-noising, x0 in float64, only the result clamped).
    Raises ValueError in one line for any input that does not fit, and NonFiniteError, a ValueError too, where a step
    gives NaN or infinite values and its repetition in float32 does so again; `net.repeated` lists repeated calls.
    """
    config = net.config
    check_student(config)
    net.repeated.clear()
    device = net.runs_on
    lq_latent = to_device(check_latent(lq_latent, config.latent_channels), device)
    batch = lq_latent.shape[0]
    sigma = sigma_per_image(degrade_sigma, batch, device, lq_latent.shape[-2:])
    caption = _caption_for(net, caption, batch, device)
    height, width = _output_size(net, lq_latent, size)
    rows, cols = (-(-side // config.align) * config.align for side in (height, width))  # of pixels
    steps = config.steps if steps is None else steps
    shape = (batch, config.in_channels, height, width)
    sigmas = sigmas_from(start_at, steps)  # where the loop runs: read from a GPU each would be waited for
    check_start(shape, start, start_at)
    if hold is not None:
        hold.check(shape)
    steps = len(sigmas) - 1
    draw = noise_source(shape, steps, seed, noise, step_noise, device)

    if sigma.ndim == 4:
        sigma = sigma_of_patches(sigma, rows // config.patch_size, cols // config.patch_size)

    work = _Work(config, (rows, cols), windows, steps, on_part)
    predict = predict_x0
    if windows is not None:
        _check_plan(windows, rows, cols, config.align)
        least = config.window_min // SMALLEST
        wanted = None if surroundings is None else surroundings.touches
        run = WindowRun(
            windows, fuse=fuse, window_batch=window_batch, on_windows=work.at_window, least=least, wanted=wanted
        )
        predict = partial(predict_x0_by_windows, run=run)
    if surroundings is not None:
        predict = surroundings.around(predict, rows, cols)

    lq_features = finite_or_repeat(
        net, lambda: net.encode_lq(lq_latent, rows, cols, work.in_trunk), lambda: PROJECTOR, latent=lq_latent
    )
    x = next(draw)
    if start is not None:
        x = by_rows(partial(_renoised, sigmas[0]), start_canvas(start, shape, device), x)
    modulations = Modulations((1000 * sigmas[:-1]).tolist())
    with net.driver.caching(None if windows is None else windows.pixel_cache):
        for step, (t, t_next) in enumerate(pairwise(sigmas), start=1):
            try:
                work.step = step
                in_call = None if on_part is None else when_done(work.in_call, device)
                canvas = extend(x, rows, cols)
                x0 = checked_together(
                    partial(predict, net, canvas, t, caption, lq_features, sigma, in_call, modulations)
                )
                del canvas
                x0 = x0[..., :height, :width]
            except NonFiniteError as error:
                raise error.within(f"step {step} of {steps}") from None
            if hold is not None:
                x0 = hold.apply_(x0, t_next)
            if callback is not None:
                callback(step, steps, x0)
            x = by_rows(partial(_renoised, t_next), x0, next(draw)) if step < steps else x0
    return x.clamp(-1, 1)


def decode_memory(
    config: PiDConfig, height: int, width: int, device: torch.device, *, budget: float, dtype_bytes: int | None = None
) -> MemoryModel:
    """Of a decode of one image of height x width pixels with so many bytes free, see `MemoryModel`."""
    size = dtype_bytes or usual_dtype_bytes(device)
    overhead = Overhead.of(config, 1, height, width, size, CANVASES)
    return MemoryModel(config, device, budget=budget, dtype_bytes=size, overhead=overhead)


class _Work:
    """Tells a listener how far a decode is. `step` is the present one, from 1."""

    def __init__(
        self,
        config: PiDConfig,
        size: tuple[int, int],
        plan: WindowPlan | None,
        steps: int,
        on_part: OnPart | None,
    ):
        self.step = 1
        self._tell = on_part or (lambda fraction: None)
        self._trunk = trunk_work(config, *size)
        self._per_step = forward_flops(config, *size) if plan is None else plan_flops(plan, config)
        self._total = self._trunk + steps * self._per_step
        self._in_parts = plan is not None and plan.count > 1
        self._most = 0.0

    def in_trunk(self, fraction: float) -> None:
        self._at(fraction * self._trunk)

    def in_call(self, fraction: float) -> None:
        if not self._in_parts:
            self._at(self._trunk + (self.step - 1 + fraction) * self._per_step)

    def at_window(self, done: int, count: int) -> None:
        self._at(self._trunk + (self.step - 1 + done / count) * self._per_step)

    def _at(self, done: float) -> None:
        self._most = max(self._most, done / self._total)  # smaller windows, where memory was short, begin anew
        self._tell(self._most)


def _renoised(t: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    return (1 - t) * x0 + t * noise


def check_student(config: PiDConfig) -> None:
    """Raise ValueError in one line for a network that `decode` is not for."""
    if not config.has_latent:
        raise ValueError(
            "this checkpoint is PixelDiT: it draws from text alone and decodes no latent; run it in ComfyUI"
        )
    if config.schedule != "distilled":
        raise ValueError(
            "this checkpoint is undistilled: it needs about 25 steps with guidance, not the student's 4; run it in "
            'ComfyUI, or load it with schedule "distilled" if that is wrong'
        )


def _caption_for(net: PiDNetwork, caption: Tensor | None, batch: int, device: torch.device) -> Tensor:
    if caption is None:
        caption = net.default_caption
        if caption is None:
            raise ValueError(
                "this checkpoint stores no caption of its own: give one (encoded text, [B, tokens, width])"
            )
    if caption.ndim != 3 or caption.shape[0] not in (1, batch):
        raise ValueError(
            f"the caption has shape {list(caption.shape)}; [1 or {batch}, tokens, {net.config.caption_width}] is needed"
        )
    if not bool(torch.isfinite(caption).all()):
        raise BrokenCaptionError(int((~torch.isfinite(caption)).sum()))
    return to_device(caption, device).expand(batch, -1, -1)


def _output_size(net: PiDNetwork, lq_latent: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
    config = net.config
    natural = config.output_size(*lq_latent.shape[-2:])
    if size is None:
        size = natural
    elif not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        raise ValueError(f"size must be (height, width) in whole pixels, got {size}")
    height, width = size
    if height <= 0 or width <= 0:
        raise ValueError(f"size {width} x {height} does not fit: both sides must be positive")
    if max(abs(height - natural[0]), abs(width - natural[1])) >= config.latent_cell:
        raise ValueError(
            f"size {width} x {height} does not fit the latent, which decodes to {natural[1]} x {natural[0]} "
            f"({config.latent_cell} pixels per latent cell)"
        )
    return height, width


def _check_plan(plan: WindowPlan, height: int, width: int, align: int) -> None:
    if (plan.height, plan.width) != (height, width):
        raise ValueError(
            f"the windows are planned for {plan.width} x {plan.height} pixels, this image is {width} x {height}"
        )
    if plan.align % align:
        raise ValueError(f"the windows' edges are multiples of {plan.align} pixels, multiples of {align} are needed")
