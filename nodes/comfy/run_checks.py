"""What would spoil a run and is only known when it begins: conditionings that leave a step without any, or cut it."""

from __future__ import annotations

from comfy.context_windows import IndexListContextHandler
from comfy.patcher_extension import WrappersMP
from torch import Tensor

WINDOWS = "pidkit_windows"  # the wrapper of Context Window (PiD)
GREY = (
    "the picture would turn grey: PiD needs its text and latent at every step; take ConditioningSetTimestepRange off, "
    "or set its range to 0 to 1 and every strength above 0"
)


def checked_run(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """Wrapper around a whole sampling run of a model that is not ours."""
    check_run(executor.class_obj, sigmas)
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def check_run(guider, sigmas: Tensor) -> None:
    """Raise ValueError in one line. guider: ComfyUI's, with the conditionings of this run."""
    handler = guider.model_options.get("context_handler")
    replaced = WINDOWS in guider.model_patcher.wrappers.get(WrappersMP.PREPARE_SAMPLING, {})  # said when it loads
    if isinstance(handler, IndexListContextHandler) and getattr(handler, "causal_window_fix", False) and not replaced:
        raise ValueError(
            "ComfyUI's context windows add a row or column to every window, which PiD cannot take: switch "
            "causal_window_fix off there, or use Context Window (PiD) in its place"
        )
    for conds in guider.conds.values():
        if any(cond.get("area") is not None for cond in conds or ()):
            raise ValueError(
                "a conditioning has an area (Conditioning (Set Area)), and PiD draws a latent as a whole: take it off, "
                "or use PiD Regional Caption with Context Window (PiD)"
            )
    sampling = guider.model_patcher.get_model_object("model_sampling")
    levels = sigmas[:-1].cpu().tolist()
    for number, level in enumerate(levels, start=1):
        if not any(_acts(cond, level, sampling) for cond in guider.conds.get("positive") or ()):
            raise ValueError(f"at step {number} of {len(levels)} no positive conditioning acts, and {GREY}")


def _acts(cond: dict, level: float, sampling) -> bool:
    if cond.get("strength", 1.0) == 0:
        return False
    start, end = cond.get("start_percent"), cond.get("end_percent")
    begins = start is None or level <= float(sampling.percent_to_sigma(start))
    return begins and (end is None or level >= float(sampling.percent_to_sigma(end)))
