"""Whether windows show in a picture of the user's."""

from __future__ import annotations

import torch
from torch import Tensor

from ..images.files import Picture
from ..images.framing import prepare_image
from ..images.seams import borders_of, measure_seams
from ..latents.rgb import to_image
from ..sampling.decode import decode
from ..upscale.upscaler import Upscaler
from ..windows.plan import WindowPlan, plan_windows
from .rows import SKIPPED, Row
from .subject import Subject

KEY, TITLE = "seams", "seams"
SHARE, OVERLAP = 0.6, 0.25  # of a side that a window takes, and of a window that overlaps with the next


def why_not(subject: Subject) -> str | None:
    """What is missing for a picture; None where it can be drawn."""
    if subject.net.family is None:
        return "the file does not tell whose latents it takes: say which with --family"
    if subject.net.family != "rgb" and subject.bridge is None:
        family = subject.net.family
        return f"a picture needs the VAE of {family} and a text: the command takes --vae, and --clip or --caption"
    if subject.caption is None and subject.net.default_caption is None:
        return "a picture needs a text, which may be empty: the command takes --clip or --caption"
    return None


def measure_borders(subject: Subject, picture: Picture, side: int, steps: int, *, frame_too: bool) -> Row:
    """The middle of a picture [H, W, 3], enlarged four times to `side` pixels at most, in four windows.

    frame_too: and in one frame, looked at in the same places.
    """
    why = why_not(subject)
    if why is not None:
        return Row(KEY, TITLE, why, SKIPPED)
    upscaler = Upscaler(subject.net, subject.bridge, name=subject.name, device=subject.device)
    image = _middle(picture.image, side // 4)
    framing = upscaler.frame(image.shape[0], image.shape[1], "factor", 4.0)
    prepared = upscaler.prepare_picture(Picture(image), framing)
    if subject.bridge is not None:
        subject.bridge.free()
    source = prepare_image(image[None], framing)[0].mean(-1)
    plan = _four_windows(*prepared.size, upscaler.net.config.latent_cell)
    rows, cols = borders_of(plan)

    def grey(windows: WindowPlan | None) -> Tensor:
        pixels = decode(
            subject.net, prepared.lq.latent, subject.caption, size=prepared.size, steps=steps, windows=windows
        )
        subject.decoded(subject.net)
        return to_image(pixels)[0].mean(-1).cpu()

    with torch.no_grad():
        found = measure_seams(grey(plan), source, rows, cols)
        alone = measure_seams(grey(None), source, rows, cols) if frame_too else None
    height, width = prepared.size
    text = f"{width} x {height} in {plan.count} windows of {plan.size[1]} x {plan.size[0]}: {found.describe()}"
    if alone is not None:
        text += f"; in one frame {alone.ratio:.2f} and {alone.step:.1f}/255 in the same places"
    if max(plan.size) < subject.config.window_min:
        text += f"; windows smaller than the {subject.config.window_min} it was trained on"
    values = {
        "height": height,
        "width": width,
        "windows": plan.count,
        "window_height": plan.size[0],
        "window_width": plan.size[1],
        "ratio": found.ratio,
        "step_255": found.step,
        "frame_ratio": None if alone is None else alone.ratio,
        "frame_step_255": None if alone is None else alone.step,
    }
    return Row(KEY, TITLE, text, values=values)


def _four_windows(height: int, width: int, cell: int) -> WindowPlan:
    sides = tuple(max(round(SHARE * side / cell), 1) * cell for side in (height, width))
    overlap = round(OVERLAP * min(sides) / cell) * cell
    return plan_windows(height, width, (sides[0], sides[1]), min(overlap, min(sides) - cell), align=cell)


def _middle(image: Tensor, side: int) -> Tensor:
    """[H, W, 3], at most `side` pixels high and wide."""
    height, width = image.shape[:2]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return image[top : top + side, left : left + side].contiguous()
