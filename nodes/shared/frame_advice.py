"""A line for a graph that will draw a large picture in one frame, where windows would cost a fraction."""

from __future__ import annotations

from dataclasses import replace

from ...pid_core.model.cost import forward_flops
from ...pid_core.windows.plan import OVERLAP, NoPlanError, plan_flops
from ..comfy.pid_models import config_of
from ..comfy.status import gigabytes
from ..comfy.window_memory import memory_of

WINDOW_NODES = ("PiDKitContextWindow", "ContextWindowsManual")
WORTH = 1.5  # how many times as much work one frame must be for the line


def frame_advice(hidden, model, images: int, height: int, width: int) -> tuple[str, ...]:
    """What one frame of height x width pixels takes and how to need less, where no node of the graph makes windows."""
    if model is None or not (hidden and hidden.dynprompt) or "context_handler" in model.model_options:
        return ()
    config, graph = config_of(model.model), hidden.dynprompt
    if any(graph.get_node(name)["class_type"] in WINDOW_NODES for name in graph.all_node_ids()):
        return ()
    height, width = (-(-side // config.latent_cell) * config.latent_cell for side in (height, width))
    if max(height, width) <= config.window_max:
        return ()
    memory = memory_of(model, config, images)
    try:
        plan = replace(memory, budget=float("inf")).plan(height, width, OVERLAP)
    except NoPlanError:
        return ()
    frame, windows = forward_flops(config, height, width), plan_flops(plan, config)
    if frame < WORTH * windows:
        return ()
    takes = gigabytes(memory.needed(images, height, width, None))
    return (
        f"in one frame this is {frame / windows:.2g} times the work of windows, and takes {takes}: put Context Window "
        "(PiD) between the model and the sampler",
    )
