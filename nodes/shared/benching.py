"""The bench of the core on a model that ComfyUI has loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch

from ...pid_bridges.core_network import CoreCall, calls_of
from ...pid_core.bench.header import describe_config
from ...pid_core.bench.machine import describe_machine
from ...pid_core.bench.measure import seconds_of
from ...pid_core.bench.private import Scrub, public_name
from ...pid_core.bench.report import Report
from ...pid_core.bench.rows import Row
from ...pid_core.bench.run import Settings, bench
from ...pid_core.bench.subject import Subject
from ...pid_core.images.files import Picture
from ...pid_core.log import log
from ...pid_core.sampling.decode import decode_memory
from ..comfy.compiled import around_call
from ..comfy.model import PiDKitModel
from ..comfy.network import weights_changed

ROOM = 2048  # side of a canvas that other models make room for, in one frame


def check_own(model) -> None:
    """Raises ValueError for a model that is not from PiD Loader."""
    if not isinstance(model.model, PiDKitModel):
        raise ValueError("model is no PiD of this pack: connect PiD Loader, or nothing for the bundled model")
    if not model.model.config.has_latent:
        raise ValueError("model is PixelDiT, which decodes no latent: connect a PiD checkpoint")


def bench_in_comfyui(model, sizes: Sequence[int] | None, picture: Picture, say: Callable[[str], None]) -> Report:
    """The quick bench. ComfyUI loads the model first, and moves others where there is too little room.

    say: is told in a line what is measured. A user who cancels ends it between two parts.
    """
    base: PiDKitModel = model.model
    config, device = base.config, model.load_device
    memory = decode_memory(config, ROOM, ROOM, device, budget=math.inf)
    needed = memory.needed(1, ROOM, ROOM, None)
    taken = seconds_of(lambda: comfy.model_management.load_models_gpu([model], memory_required=needed), device)
    base.diffusion_model.compute_dtype = base.get_dtype_inference()
    path = Path(base.file.path) if base.file is not None else None
    name = "a small model of this pack's own" if path is None and config.family == "rgb" else "another file"
    name = name if path is None else public_name(path, config)
    dtype = str(base.diffusion_model.compute_dtype).removeprefix("torch.")
    report = Report(describe_machine(device), {"name": f"{name}, in ComfyUI", "dtype": dtype, "quick": True})
    report.rows.append(describe_config(config))
    report.rows.append(Row("load", "load", f"{taken:.2g} s for ComfyUI to load it", values={"load_s": taken}))
    bar = comfy.utils.ProgressBar(1)

    def tell(line: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not line.startswith(" "):
            say(line)
        log.info("bench: %s", line.strip())

    with _running(base, device) as net:
        subject = Subject(net, device, name, caption=base.default_caption)
        settings = Settings(True, sizes, lambda net: _core_of(net, device), picture=picture)
        bench(subject, settings, report, lambda: bar.update_absolute(len(report.rows), 8), Scrub([path]), tell)
    return report


@contextmanager
def _running(base: PiDKitModel, device: torch.device) -> Iterator:
    """The network, ready for calls beside ComfyUI's own sampling: it runs on the device, wherever its weights are."""
    net = base.diffusion_model
    weights_changed()
    net.run_device = device
    try:
        with around_call(base):
            yield net
    finally:
        net.run_device = None
        weights_changed()
        comfy.model_management.soft_empty_cache()


def _core_of(net, device: torch.device) -> Mapping[str, CoreCall]:
    if any(one.device.type != device.type for one in net.parameters()):
        raise ValueError("ComfyUI keeps some of the weights elsewhere: in a terminal the command bench compares them")
    return calls_of(net)
