"""The engines of the command `batch`, as its options ask for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ..batch.comfy import ComfyEngine, read_workflow
from ..batch.jobs import Options
from ..batch.local import LocalEngine
from ..batch.ray_engine import Cluster, RayEngine, import_ray
from ..batch.worker import OpenBridge
from ..machine.encoders import check_text_encoder
from ..model.devices import choose_device
from ..printable import printable
from ..upscale.bridge import Bridge, no_bridge
from ..upscale.upscaler import Upscaler
from .bridges import BridgeFiles, bridge_for, check_bridge_arguments


def engine_of(
    args: argparse.Namespace, options: Options, open_bridge: OpenBridge
) -> Callable[..., LocalEngine | RayEngine | ComfyEngine]:
    """What makes the engine of a report and a listener."""
    how = {"attempts": args.attempts, "most_failed": args.max_failed}
    if args.engine == "comfyui":
        return partial(ComfyEngine, options, args.server, read_workflow(args.workflow), **how)
    if args.engine == "ray":
        cluster = Cluster(args.ray_address)
        crew = cluster.crew(args.workers, args.threads)
        return partial(RayEngine, options, cluster, crew, open_bridge=open_bridge, **how)
    devices = _devices(args)
    threads = args.threads or max(1, torch.get_num_threads() // len(devices))
    return partial(LocalEngine, options, devices, open_bridge=open_bridge, threads=threads, **how)


def fitted(args: argparse.Namespace, options: Options) -> Options:
    """The options with 2K for a size, where none is named and the checkpoint draws one square only."""
    if args.engine == "comfyui" or args.target is not None or args.factor is not None:
        return options
    outline = Upscaler.outline(args.model, torch.device("cpu"), family=args.family)
    return replace(options, size="2K") if outline.family.square else options


def encoding_device() -> str:
    """Where texts are encoded, ahead of the pictures."""
    return str(choose_device())


def _devices(args: argparse.Namespace) -> list[str]:
    if args.gpus is None:
        device = choose_device()
        return [str(device)] * (max(1, args.workers or 1) if device.type == "cpu" else 1)
    count = torch.cuda.device_count()
    try:
        numbers = list(range(count)) if args.gpus == "all" else [int(part) for part in args.gpus.split(",")]
    except ValueError:
        raise ValueError(f"--gpus is {printable(args.gpus)}; all, or numbers such as 0,1 are needed") from None
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong or not numbers:
        raise ValueError(f"there is no GPU {wrong[0] if wrong else 'here'}: PyTorch sees {count}")
    return [f"cuda:{number}" for number in numbers]


def bridge_of(args: argparse.Namespace) -> OpenBridge:
    """What opens the bridge in a worker. Raises ValueError in one line for files that do not fit the checkpoint."""
    check_bridge_arguments(args)
    if args.engine == "ray":
        import_ray()
    if args.engine == "comfyui" or (args.vae is None and args.clip is None):
        return no_bridge
    outline = Upscaler.outline(args.model, torch.device("cpu"), family=args.family)
    if args.clip is not None:
        check_text_encoder(args.clip, outline.net.config.caption_width)
    files = bridge_for(args, outline)
    return no_bridge if files is None else partial(_open, files)


def _open(files: BridgeFiles, device: str) -> Bridge:
    return files.open(torch.device(device))
