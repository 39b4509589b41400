"""Compiled networks in ComfyUI: the loader's choice, what the node says while a graph is made, and who compiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS

from ...pid_core.model.compiled import HOW, Compiled
from . import progress
from .network import compiled_of

OFF = "off"
COMPILING = "compiling, which the first run of a size waits for"
PARTLY_LOADED = "not compiled in this run: the model's weights do not all fit the device's memory"


def compile_input() -> io.Combo.Input:
    return io.Combo.Input(
        "compile",
        options=[OFF, *HOW],
        default=OFF,
        optional=True,
        advanced=True,
        tooltip="torch.compile: can make steps faster, for a longer first run. The first run of every size of picture "
        "or window, and of every length of text, compiles first. blocks: each kind of block once, the shorter wait. "
        "whole: all of the network, which may wait many times as long. Windows run one at a time, and the weights must "
        "fit the memory. Needs a C++ compiler, on a GPU Triton. Leave it off for single pictures.",
    )


def compile_network(patcher: ModelPatcher, how: str) -> None:
    """Set a model from `load_model` to be compiled. Raises ValueError in one line where that cannot be."""
    compiled = Compiled(how)
    compiled.while_compiling = lambda: progress.waiting(COMPILING)
    patcher.model.diffusion_model.driver.compiled = compiled


def is_compiled(patcher: ModelPatcher) -> bool:
    """Whether the network runs compiled: by the loader's choice, or because a node compiles it (TorchCompileModel)."""
    ours = compiled_of(patcher.get_model_object("diffusion_model"))
    return (ours is not None and ours.why_not is None) or is_compiled_by_others(patcher)


def is_compiled_by_others(patcher: ModelPatcher) -> bool:
    """Whether a node compiles the network: then our kernels are not in the graph."""
    net = patcher.get_model_object("diffusion_model")
    # what torch.compile makes of a module has the module itself under this name
    return TORCH_COMPILE_KWARGS in patcher.model_options or hasattr(net, "_orig_mod")


@contextmanager
def around_call(base: BaseModel) -> Iterator[None]:
    """A call of the network: not compiled where its weights come and go; the node says so, and what failed."""
    compiled = base.diffusion_model.driver.compiled
    if compiled is None:
        yield
        return
    with compiled.off() if base.model_lowvram else nullcontext():
        yield
    if base.model_lowvram:
        progress.note(PARTLY_LOADED)
    elif compiled.why_not is not None:
        progress.note(f"not compiled: {compiled.why_not}")
