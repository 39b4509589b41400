"""How many whole float32 canvases ComfyUI's sampling holds on the device: counted by tests/comfyui/test_canvases.py."""

from __future__ import annotations

from ...pid_core.windows.memory import Canvases
from .student import StudentSampler

STUDENT = 1  # its x
# Of KSampler's samplers: x, the first noise, and two of earlier predictions and noises.
OTHERS = 4


def canvases(sampler, predictions: int, windowed: bool) -> Canvases:
    """predictions: one, or two with guidance. windowed: by our context windows."""
    own = STUDENT if isinstance(sampler, StudentSampler) else OTHERS
    # ComfyUI holds sum, weights, counts and input of each prediction: of the frame, or of the window at work, which is
    # cut out of one canvas and put together on another
    each = 4 * predictions
    between = own + 2 * predictions
    if windowed:
        return Canvases(own + predictions, 1 + each, own, between)
    return Canvases(own + each, 0, own + each, between)
