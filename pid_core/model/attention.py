"""Softmax attention: by PyTorch, by matrix products on a CPU, or by the faster of NVIDIA's kernels."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..log import log

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [B, heads, L, head_dim] -> shape of q

SCORE_BYTES = 4 << 20  # what the scores of one chunk of queries may take: they should stay in the CPU's cache


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain softmax attention, scale 1 / sqrt(head_dim), no mask. q may be shorter than k and v."""
    if torch.is_grad_enabled():
        return sdpa(q, k, v)
    # a graph would hold the choice as it is made while it is compiled, on tensors without values
    return torch.ops.pidkit.attend(q, k, v) if torch.compiler.is_compiling() else _attend(q, k, v)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and _products_beat_sdpa():
        return attend_by_products(q, k, v)
    if q.is_cuda and torch.version.cuda and q.dtype != torch.float32:
        return fastest_sdpa(q, k, v)
    return sdpa(q, k, v)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by PyTorch's own function, whatever the device."""
    return F.scaled_dot_product_attention(q, k, v)


def _in_graph(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` in the one layout that a graph was told of: [B, L, heads, head_dim]."""
    return _attend(q, k, v).transpose(1, 2).contiguous().transpose(1, 2)


_library = torch.library.Library("pidkit", "FRAGMENT")
if not hasattr(torch.ops.pidkit, "attend"):  # another copy of this package may have done it
    _library.define("attend(Tensor q, Tensor k, Tensor v) -> Tensor")
    _library.impl("attend", _in_graph, "CompositeExplicitAutograd")
    torch.library.register_fake(
        "pidkit::attend",
        lambda q, k, v: q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2),
        lib=_library,
    )


CANDIDATES = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)
SAME = 0.02  # how far two kernels' results may be apart, of the largest value: bfloat16 keeps three digits
_chosen: dict[tuple, SDPBackend | None] = {}
# Which kernels are allowed is a setting of the whole process, and ComfyUI runs several cards in threads.
_one_at_a_time = threading.RLock()


def fastest_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`sdpa` by the one of NVIDIA's kernels that is faster here: both are timed on the first call of each kind.

    A kind is the card, the dtype, the head dim and the power of two that the keys' number lies under. Which is faster
    differs: on one card cuDNN's, on another FlashAttention's.
    """
    kind = q.device.index, q.dtype, q.shape[-1], k.shape[2].bit_length()
    if kind not in _chosen:
        try:
            _chosen[kind] = _choose(q, k, v)
        except torch.OutOfMemoryError:  # two results do not fit: another call may have room to try
            return sdpa(q, k, v)
        if _chosen[kind] is not None:
            log.info("%s", chosen_kernels()[-1])
    chosen = _chosen[kind]
    if chosen is not None:
        try:
            return _sdpa_by(chosen, q, k, v)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # it takes not every size of its kind
            _chosen[kind] = None
    return sdpa(q, k, v)


def chosen_kernels() -> list[str]:
    """What `fastest_sdpa` has chosen so far, a line each."""
    return [
        f"attention of up to {2**bits} tokens, head dim {head_dim}, runs in {backend.name.lower()}"
        for (_, _, head_dim, bits), backend in _chosen.items()
        if backend is not None
    ]


def _sdpa_by(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with _one_at_a_time, sdpa_kernel(backend):
        return sdpa(q, k, v)


def _choose(q: Tensor, k: Tensor, v: Tensor) -> SDPBackend | None:
    times: dict[SDPBackend, float] = {}
    first = None
    for backend in CANDIDATES:
        try:
            out = _sdpa_by(backend, q, k, v)
            first = out if first is None else first
            if out is not first and not out.sub_(first).abs_().max() <= SAME * first.abs().max():  # NaN is not the same
                continue
            del out
            times[backend] = _milliseconds(backend, q, k, v)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # this card, dtype or size is not for it
            continue
    return min(times, key=times.__getitem__) if times else None


def _milliseconds(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, repeats: int = 2) -> float:
    with torch.cuda.device(q.device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            _sdpa_by(backend, q, k, v)
        end.record()
        end.synchronize()
    return begin.elapsed_time(end) / repeats


def attend_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as matrix product, softmax, matrix product, for a chunk of one head's queries at a time.

    The scores are rounded to q's dtype, as ComfyUI's own attention on a CPU does. The result is laid out as
    [B, L, heads, head_dim], what the output projection wants.
    """
    batch, heads, queries, head_dim = q.shape
    out = q.new_empty(batch, queries, heads, head_dim).transpose(1, 2)
    rows = max(64, SCORE_BYTES // (k.shape[2] * q.element_size()))
    scores = q.new_empty(min(rows, queries), k.shape[2])
    for b, h, start in itertools.product(range(batch), range(heads), range(0, queries, rows)):
        part = q[b, h, start : start + rows]
        s = scores[: len(part)]
        torch.addmm(s, part, k[b, h].T, beta=0, alpha=head_dim**-0.5, out=s)
        torch.softmax(s, -1, out=s)
        torch.mm(s, v[b, h], out=out[b, h, start : start + rows])
    return out


@functools.cache
def _products_beat_sdpa() -> bool:
    """PyTorch's CPU kernel runs bfloat16 attention no faster than float32, unless there are AMX tiles."""
    cpu = torch.cpu
    has = [getattr(cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return has == [True, False]
