"""What one network call moves and launches on an NVIDIA card, counted on fake tensors: no card is needed.

    python -m benchmarks.gpu_bytes --side 2048
    python -m benchmarks.gpu_bytes --side 2048 --comfyui --operations

Every call that would launch a kernel is seen by a dispatch mode, which adds up what it reads and writes. A tensor
counts once per call, its broadcast dimensions once; caches count for nothing, which is pessimistic for small tensors.
Attention is one kernel that reads q, k, v and writes its result. A norm or a product of a tensor that is not in one
piece copies it first. `peak` is the most memory alive at once of what the call made. With --comfyui core's network
(attention and RoPE as ComfyUI runs them) stands beside ours.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pid_core import PiDConfig, PiDNetwork
from pid_core.model import fused, positions
from pid_core.model.modulation import Modulations

from .synthetic import full_size_config

# Bytes, product FLOP and attention FLOP a second. H100: measured (RESULTS.md); the others: data sheets' float32
# accumulation and bandwidth, times 0.93 and 0.9, attention times 0.88.
RATES = {
    "H100": (3.0e12, 684e12, 425e12),
    "RTX 4090": (0.92e12, 154e12, 145e12),
    "RTX 3090": (0.85e12, 66e12, 62e12),
    "RTX 4060": (0.245e12, 28e12, 26.5e12),
}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
T = 866.0  # the timestep of a call
NO_KERNEL = (
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "detach",
    "device",
    "scalar_tensor",
)
NEEDS_ONE_PIECE = ("_fused_rms_norm", "native_group_norm", "native_layer_norm")


@dataclass
class Launched:
    """What launched under one name."""

    kernels: int = 0
    bytes: int = 0
    flop: int = 0


@dataclass
class Counted:
    """All of a call. operations: by name."""

    operations: dict[str, Launched] = field(default_factory=dict)
    peak: int = 0

    def add(self, name: str, moved: int, flop: int = 0, kernels: int = 1) -> None:
        found = self.operations.setdefault(name, Launched())
        found.kernels, found.bytes, found.flop = found.kernels + kernels, found.bytes + moved, found.flop + flop

    @property
    def kernels(self) -> int:
        return sum(found.kernels for found in self.operations.values())

    @property
    def bytes(self) -> int:
        return sum(found.bytes for found in self.operations.values())

    def milliseconds(self, card: str) -> float:
        """Modelled: every operation takes the longer of its bytes' and its FLOP's time."""
        bandwidth, products, attention = RATES[card]
        return 1e3 * sum(
            max(found.bytes / bandwidth, found.flop / (attention if name == "attention" else products))
            for name, found in self.operations.items()
        )


class Counting(TorchDispatchMode):
    """Counts what is called inside; tensors `outside` are no part of the peak."""

    def __init__(self, outside: list[Tensor]):
        super().__init__()
        self.counted = Counted()
        self._now, self._sizes = 0, {t.untyped_storage()._cdata: 0 for t in outside}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        self._alive(outputs)
        name = func._schema.name.split("::")[1]
        if name not in NO_KERNEL and not _is_view(func, inputs, outputs) and _on_card(inputs + outputs):
            self._count(func, name, inputs, outputs, args)
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Stands for an attention kernel: laid out as they lay their result out."""
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        flop = 4 * q.numel() * k.shape[2]
        self.counted.add("attention", sum(map(_bytes, (q, k, v, out))), flop)
        return out

    def _count(self, func, name: str, inputs: list[Tensor], outputs: list[Tensor], args: tuple) -> None:
        writes = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
        changed = [a for a, write in zip(args, writes, strict=False) if write and isinstance(a, Tensor)]
        moved = sum(map(_bytes, inputs)) + sum(map(_bytes, changed or outputs))
        if name == "copy_":
            moved = _bytes(args[0]) + _bytes(args[1])
        kernels, flop = 1, 0
        pieces = [t for t in inputs if name in NEEDS_ONE_PIECE and not t.is_contiguous()]
        if name in PRODUCTS:
            a, b = inputs[-2:]
            flop = 2 * a.numel() * b.shape[-1]
            pieces = [t for t in (a, b) if t.numel() > 1 and 1 not in t.stride()[-2:]]
        elif name == "convolution":
            flop = 2 * outputs[0].numel() * args[1][0].numel()
        elif name == "native_group_norm":
            kernels, moved = 3, moved + _bytes(inputs[0])
        for piece in pieces:
            self.counted.add("copy into one piece", 2 * _bytes(piece))
        self.counted.add(name, moved, flop, kernels)

    def _alive(self, tensors: list[Tensor]) -> None:
        for storage in (t.untyped_storage() for t in tensors if t.device.type != "cpu"):
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                self.counted.peak = max(self.counted.peak, self._now)
                weakref.finalize(storage, self._freed, storage._cdata)

    def _freed(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _bytes(tensor: Tensor) -> int:
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else min(size, 1)
    return count * tensor.element_size()


def _on_card(tensors: list[Tensor]) -> bool:
    return any(t.device.type != "cpu" for t in tensors)


def _is_view(func, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    known = {t.untyped_storage()._cdata for t in inputs}
    return not func._schema.is_mutable and all(t.untyped_storage()._cdata in known for t in outputs) and bool(outputs)


@contextmanager
def _fake() -> Iterator[None]:
    """Tensors are made without values; the position tables that were are forgotten afterwards."""
    try:
        with FakeTensorMode():
            yield
    finally:
        for table in (positions.image_rope, positions.text_rope, positions.sine_cosine):
            table.cache_clear()


class Inputs:
    """Of one image; made inside `_fake`."""

    def __init__(self, config: PiDConfig, height: int, width: int, dtype: torch.dtype):
        cell, tokens = config.latent_cell, height * width // config.patch_size**2

        def new(*shape: int, **options) -> Tensor:
            return torch.empty(1, *shape, device="cuda", **options)

        self.x, self.latent = new(3, height, width), new(config.latent_channels, height // cell, width // cell)
        self.caption = new(config.caption_length, config.caption_width)
        self.features = new(tokens, config.lq_width, dtype=dtype)
        self.t, self.sigma = new(), new()

    @property
    def all(self) -> list[Tensor]:
        return list(vars(self).values())


@torch.no_grad()
def count_ours(
    config: PiDConfig,
    height: int,
    width: int,
    *,
    kernels: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    known: bool = False,
) -> Counted:
    """One call of our network on one image, with the LQ features given. kernels: with the fused ones, or plain.

    known: a later call of a run, whose first one worked out the modulations of its noise level too.
    """
    with _fake(), fused.kernels(kernels):
        net = PiDNetwork(config, device="cuda", dtype=dtype).eval()
        inputs, level = Inputs(config, height, width, dtype), Modulations([T]).at(T)

        def run(attention) -> None:
            net.attention = attention
            options = {"lq_features": inputs.features, "degrade_sigma": inputs.sigma, "level": level if known else None}
            net(inputs.x, inputs.t, inputs.caption, **options)

        run(lambda q, k, v: torch.empty_like(q))  # makes the position tables, which stay
        counting = Counting([*net.parameters(), *inputs.all])
        with counting:
            run(counting.attend)
    return counting.counted


@torch.no_grad()
def count_core(config: PiDConfig, height: int, width: int, dtype: torch.dtype = torch.bfloat16) -> Counted:
    """One call of ComfyUI core's network, which runs its LQ projector in each."""
    from .compare_core import Core, in_core_layout

    core = Core("cpu")
    state = in_core_layout(PiDNetwork(config, device="meta", dtype=dtype).state_dict(), config)
    with _fake():
        net = core.network({n: torch.empty(v.shape, dtype=dtype, device="cuda") for n, v in state.items()}, dtype)
        inputs = Inputs(config, height, width, dtype)
        x, caption = inputs.x.to(dtype), inputs.caption.to(dtype)
        counting = Counting([*net.parameters(), *inputs.all, x, caption])

        def attention(q, k, v, heads, skip_output_reshape=False, **_):
            out = counting.attend(q, k, v)
            return out if skip_output_reshape else out.transpose(1, 2).flatten(2)

        core.use(attention)
        with counting, _float64_on_cards():
            net(x, inputs.t, context=caption, lq_latent=inputs.latent, degrade_sigma=inputs.sigma)
    return counting.counted


@contextmanager
def _float64_on_cards() -> Iterator[None]:
    """Core asks its device whether it has float64; here that is no card."""
    import comfy.model_management as management

    before, management.supports_fp64 = management.supports_fp64, lambda device=None: True
    try:
        yield
    finally:
        management.supports_fp64 = before


def describe(name: str, counted: Counted) -> str:
    modelled = ", ".join(f"{card} {counted.milliseconds(card):.0f}" for card in RATES)
    return (
        f"{name}: {counted.bytes / 1e9:.1f} GB moved, {counted.kernels} kernels, peak {counted.peak / 1e9:.2f} GB; "
        f"modelled ms: {modelled}"
    )


def operations(counted: Counted) -> str:
    most = Counter({name: found.bytes for name, found in counted.operations.items()}).most_common(20)
    return "\n".join(
        f"  {name}: {counted.operations[name].kernels} kernels, {size / 1e9:.2f} GB" for name, size in most
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_bytes", description=__doc__.splitlines()[0])
    parser.add_argument("--version", choices=("v1", "v1.5"), default="v1.5")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--comfyui", action="store_true", help="core's network too")
    parser.add_argument("--operations", action="store_true", help="each operation's share")
    args = parser.parse_args(argv)
    config, size = full_size_config(args.version), (args.side, args.side)
    found = {"ours": count_ours(config, *size), "ours, a later step": count_ours(config, *size, known=True)}
    found |= {"ours, without the kernels": count_ours(config, *size, kernels=False)}
    if args.comfyui:
        found["core"] = count_core(config, *size)
    for name, counted in found.items():
        print(describe(f"{args.version}, {args.side} x {args.side}, {name}", counted))
        if args.operations:
            print(operations(counted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
