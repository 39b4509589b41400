"""Where the borders of context windows lie in a finished picture."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...pid_core.images.seams import borders_of
from ...pid_core.windows.plan import WindowPlan
from ..comfy.window_handler import WindowHandler, WindowSettings, add_windows
from .inputs import Framed


class Borders(NamedTuple):
    """Rows and columns in pixels, None where nothing is known of windows; and lines for the node."""

    lines: tuple[list[int], list[int]] | None = None
    notes: tuple[str, ...] = ()


def window_borders(model, image: Tensor, framing: Framed | None) -> Borders:
    """Of the windows that a PiD model has, or that PiD Decode with window_mode auto puts on it, in images [B, H, W, C].

    framing: how the images were finished after the decode.
    """
    if model is None:
        return Borders()
    handler = model.model_options.get("context_handler")
    if handler is None:
        model, handler = add_windows(model, WindowSettings(), (), None)
    if not isinstance(handler, WindowHandler):
        return Borders(None, ("the windows on the model are not ours: their borders are not known",))
    height, width = image.shape[1:3]
    top = left = 0
    if framing is not None:
        (height, width), scale = framing.framing.decoded, framing.framing.scale
        top, left = (n * scale for n in framing.framing.offset)
    plan = _plan_of(handler, model, image.shape[0], height, width)
    if plan.count == 1:
        return Borders(None, ("one window: no borders",))
    rows, cols = borders_of(plan)
    return Borders(
        ([row + top for row in rows], [col + left for col in cols]),
        (f"{plan.count} windows of {plan.size[1]} x {plan.size[0]}",),
    )


def _plan_of(handler: WindowHandler, model, images: int, height: int, width: int) -> WindowPlan:
    cell = handler.config.latent_cell
    height, width = (-(-side // cell) * cell for side in (height, width))
    ran = handler.status.plan if handler.status else None
    if ran is not None and (ran.height, ran.width) == (height, width):
        return ran
    return handler.plan(handler.memory(model, images), height, width)
