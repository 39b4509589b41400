"""The models PiD nodes take: ours, and ComfyUI's own PiD; what both say of themselves, in one form."""

from __future__ import annotations

from dataclasses import replace

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io

from ...pid_core import PiDConfig
from ...pid_core.model.config import RELEASED
from .comfy_internals import core_pid_is_v15, core_pid_sizes, is_core_pid
from .model import PiDKitModel
from .run_checks import checked_run

CHECKS = "pidkit_checks"


def steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=0,
        min=0,
        max=4,
        tooltip="How many steps, 1 to 4. 0: as many as the checkpoint is best at, which the node shows. Fewer are "
        "faster and smoother.",
    )


def steps_for(model, steps: int) -> int:
    """The number of steps that a distilled MODEL runs: `steps`, or what it is best at where that is 0."""
    return steps or config_of(model.model).steps


def describe_steps(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}"


def with_checks(model: ModelPatcher) -> ModelPatcher:
    """A PiD model whose runs are checked: itself where it is ours, which does it anyway, else a clone."""
    if isinstance(model.model, PiDKitModel):
        return model
    model = model.clone()
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, CHECKS)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, CHECKS, checked_run)
    return model


def config_of(base: BaseModel) -> PiDConfig:
    """The network's sizes, from a PiDKitModel or ComfyUI's own PiD. Raises ValueError in one line for other models."""
    if isinstance(base, PiDKitModel):
        return base.config
    net = getattr(base, "diffusion_model", None)
    if net is None or not is_core_pid(net):
        raise ValueError(f"the model is {type(base).__name__}, not a PiD decoder: load one with PiD Loader")
    return replace(RELEASED["v1.5" if core_pid_is_v15(net) else "v1"], **core_pid_sizes(net))
