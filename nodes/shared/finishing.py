"""What comes after a decode, so that it never costs the decode: with less memory, or left out with a line."""

from __future__ import annotations

from functools import partial

import comfy.model_management
from torch import Tensor

from ...pid_core.images.colour import hold_colour_
from ...pid_core.images.framing import Framing, finish_image
from ...pid_core.latents.rgb import to_image
from ...pid_core.windows.run import is_out_of_memory
from .jobs import row_of
from .spare import with_less


def image_of(pixels: Tensor) -> Tensor:
    """`to_image` by the card, which is faster; by the CPU where there is no room."""
    device = comfy.model_management.get_torch_device()
    return with_less("turning pixels into an image", lambda: to_image(pixels, device), lambda: to_image(pixels.cpu()))


def hold_if_possible(pixels: Tensor, reference: Tensor, hold: str, fidelity: float) -> list[str]:
    """`hold_colour_` in place, image by image; lines about images that keep their own colours for want of memory."""
    left_out = []
    for i in range(pixels.shape[0]):
        one, target = pixels[i : i + 1], row_of(reference, i)

        def in_main_memory(one=one, target=target) -> Tensor:
            return one.copy_(hold_colour_(one.cpu(), target.cpu(), hold, fidelity))

        try:
            with_less("holding colours", partial(hold_colour_, one, target, hold, fidelity), in_main_memory)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            left_out.append(i + 1)
    if not left_out:
        return []
    return ["no memory was left for colour_hold and fidelity: the picture is as the model drew it"]


def finish_if_possible(image: Tensor, framing: Framing, source: Tensor) -> tuple[Tensor, list[str]]:
    """`finish_image`; the image as it is, and a line, where there is no memory for it."""
    try:
        return with_less(
            "finishing the picture",
            lambda: finish_image(image, framing, source),
            lambda: finish_image(image.cpu(), framing, source.cpu()),
        ), []
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return image, ["no memory was left to finish the picture: it still has its padding, or lacks what was cropped"]
