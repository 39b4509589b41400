"""How many whole float32 canvases ComfyUI's sampling holds on the device: counted by tests/comfyui/test_canvases.py."""

from __future__ import annotations

from ...pid_core.windows.memory import Canvases
from .student import StudentSampler

STUDENT = 1  # its x
# Of KSampler's samplers: x, the first noise, and two of earlier predictions and noises.
OTHERS = 4


def canvases(sampler, predictions: int, windowed: bool) -> Canvases:
    """predictions: one, or two with guidance. windowed: by our context windows."""
    in_sampler = STUDENT if isinstance(sampler, StudentSampler) else OTHERS
    # ComfyUI holds sum, weights, counts and input of each prediction: of the frame, or of the window at work, which is
    # cut out of one canvas and put together on another
    in_calls = 4 * predictions
    between = in_sampler + 2 * predictions
    if windowed:
        return Canvases(in_sampler + predictions, 1 + in_calls, in_sampler, between)
    return Canvases(in_sampler + in_calls, 0, in_sampler + in_calls, between)
