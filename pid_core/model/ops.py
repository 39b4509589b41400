"""The network's elementwise work, one named operation each: a plain definition, and a fused kernel where one runs.

Precision (reference: bfloat16 autocast over float32 parameters): norms, RoPE, gates and both residual streams are
float32, matrix products run in the compute dtype. Streams that are changed may be changed in place outside autograd,
so use what an operation returns. `fused.py` says where the kernels of `kernels.py` run.
Shapes: B batch, L tokens, D width, N pixels per token, P pixel width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention
from .fused import GROUP_PART, fit_registers, runs_kernels
from .positions import Rotation, patch_positions, rotate

if TYPE_CHECKING:
    from .pixels import PixelMLP

kernels = torch.ops.pidkit
Weights = tuple[Tensor, Tensor | None]


class Modulation(NamedTuple):
    """shift, scale and gate of one residual line; broadcast over the stream they modulate."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def split_modulation(values: Tensor) -> tuple[Modulation, Modulation]:
    """[..., 6 * width] -> the attention line's and the MLP line's modulation, float32."""
    parts = values.float().chunk(6, dim=-1)
    return Modulation(*parts[:3]), Modulation(*parts[3:])


# How a host lends the weights of its layers, by their class, where it keeps them in a way of its own.
LENDERS: dict[type, Callable[[nn.Module, torch.device, torch.dtype], Weights]] = {}


def weights(layer: nn.Linear | nn.RMSNorm | nn.GroupNorm, device: torch.device, dtype: torch.dtype) -> Weights:
    """A layer's weight and bias for work that does not call it."""
    for kind, lend in LENDERS.items():
        if isinstance(layer, kind):
            return lend(layer, device, dtype)
    bias = getattr(layer, "bias", None)
    return layer.weight.to(device, dtype), bias if bias is None else bias.to(device, dtype)


@functools.singledispatch
def outputs(layer: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """What a layer gives for each of several inputs, to the bit.

    A host that brings weights to the device for every call registers how to bring them once, by the layer's class.
    """
    return [layer(x) for x in inputs]


def _by_kernel(x: Tensor, *layers: nn.Module) -> bool:
    return runs_kernels(x) and is_as_built(*layers)


def is_as_built(*layers: nn.Module) -> bool:
    """Whether these layers need not be called: not where somebody changed how one of them is."""
    return not any("forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def _norm_weight(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    return weights(norm, x.device, torch.float32)[0]


def rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """Normalise with float32 statistics and a float32 result."""
    return norm(x.float())


def norm_modulate(stream: Tensor, norm: nn.RMSNorm, line: Modulation, dtype: torch.dtype) -> Tensor:
    """stream [B, L, D] -> shift + norm(stream) * (1 + scale), in dtype."""
    if _by_kernel(stream, norm):
        return kernels.norm_modulate(stream, _norm_weight(norm, stream), line.shift, line.scale, dtype)
    return _modulate(rms_norm(norm, stream), line.shift, line.scale, dtype)


def gate_add(stream: Tensor, gate: Tensor, x: Tensor) -> Tensor:
    """The end of a residual line: stream [B, L, D] float32 + gate * x."""
    if runs_kernels(stream):
        kernels.gate_add(stream, gate, x)
        return stream
    return _add(stream, gate, x)


def gate_add_norm_modulate(
    stream: Tensor, gate: Tensor, x: Tensor, norm: nn.RMSNorm, line: Modulation
) -> tuple[Tensor, Tensor]:
    """`gate_add`, and the begin of the next line, in x's dtype: (stream, its modulated norm)."""
    if _by_kernel(stream, norm):
        weight = _norm_weight(norm, stream)
        return stream, kernels.gate_add_norm_modulate(stream, gate, x, weight, line.shift, line.scale)
    stream = _add(stream, gate, x)
    return stream, _modulate(rms_norm(norm, stream), line.shift, line.scale, x.dtype)


def silu_mul(a: Tensor, b: Tensor) -> Tensor:
    """silu(a) * b."""
    return kernels.silu_mul(a, b) if runs_kernels(a) else F.silu(a) * b


class Joint:
    """q, k and v of all tokens of an attention, each [B, heads, L, head_dim], filled stretch by stretch."""

    def __init__(self, like: Tensor, heads: int, tokens: int, head_dim: int):
        """like: a tensor [B, ...] whose dtype and device the three take."""
        batch = like.shape[0]
        if like.device.type == "cpu":  # the products of one head want it in one piece
            self.all = [like.new_empty(batch, heads, tokens, head_dim) for _ in range(3)]
        else:  # as the projection gives it and the next one wants it
            self.all = [like.new_empty(batch, tokens, heads, head_dim).transpose(1, 2) for _ in range(3)]

    def put(
        self, start: int, make: Callable[[], Tensor], q_norm: nn.RMSNorm, k_norm: nn.RMSNorm, rope: Rotation | None
    ) -> None:
        """Put in the tokens from `start` on: make() gives qkv [B, l, 3 * heads * head_dim].

        q and k are normalised and turned.
        """
        qkv = make()
        q, k, v = (part[:, :, start : start + qkv.shape[1]] for part in self.all)
        if _by_kernel(qkv, q_norm, k_norm):
            cos, sin = rope or (None, None)
            kernels.place_heads(qkv, _norm_weight(q_norm, qkv), _norm_weight(k_norm, qkv), cos, sin, q, k, v)
            return
        parts = qkv.unflatten(-1, (3, q.shape[1], -1)).unbind(2)  # [B, l, heads, head_dim]
        for place, part, norm in ((q, parts[0], q_norm), (k, parts[1], k_norm)):  # PyTorch 2.5 compiles no uneven zip
            part = rms_norm(norm, part)
            place.copy_((part if rope is None else rotate(part, rope)).transpose(1, 2))
        v.copy_(parts[2].transpose(1, 2))

    def attend(self, attention: Attention, first: int = 0) -> Tensor:
        """The attention's result for the tokens from `first` on, [B, L, heads, head_dim]. Uses q, k and v up."""
        q, k, v = self.all
        self.all = []
        return attention(q[:, :, first:], k, v).transpose(1, 2)


class NoJoint(Joint):
    """Of tokens that do not look at each other: nothing is made, and the attention's result is zeros."""

    def __init__(self, like: Tensor, heads: int, tokens: int, head_dim: int):
        self._result = like.new_zeros(1).expand(like.shape[0], tokens, heads, head_dim)

    def put(
        self, start: int, make: Callable[[], Tensor], q_norm: nn.RMSNorm, k_norm: nn.RMSNorm, rope: Rotation | None
    ) -> None:
        """Leaves qkv unmade."""

    def attend(self, attention: Attention, first: int = 0) -> Tensor:
        """Zeros for the tokens from `first` on, [B, L, heads, head_dim]."""
        return self._result[:, first:]


def token_gate(stream: Tensor, features: Tensor, proj: nn.Linear, offset: Tensor) -> Tensor:
    """stream [B, L, D] float32 + sigmoid(proj([stream ; features]) - offset) * features.

    features [B, L, D] in the compute dtype, offset [B, L or 1, 1] float32; proj gives one value per token, or D.
    """
    if proj.out_features == 1 and _by_kernel(stream, proj):
        kernels.token_gate(stream, features, *weights(proj, features.device, features.dtype), offset)
        return stream
    logits = proj(torch.cat([stream.to(features.dtype), features], dim=-1)).float()
    return torch.addcmul(stream, torch.sigmoid(logits - offset), features.float())


def condition_gate(stream: Tensor, te: Tensor, features: Tensor, proj: nn.Linear, offset: Tensor) -> Tensor:
    """`token_gate` of silu(te + stream), in the compute dtype; te [B, 1, D] float32. stream itself stays as it is."""
    if proj.out_features == 1 and _by_kernel(stream, proj):
        return kernels.condition_gate(stream, te, features, *weights(proj, features.device, features.dtype), offset)
    return token_gate(F.silu(te + stream), features, proj, offset).to(features.dtype)


def pixel_embed(x: Tensor, proj: nn.Linear, down: Tensor, across: Tensor, patch: int, tokens: slice) -> Tensor:
    """The pixel stream [B, l, N, P] float32 of some tokens of the image x [B, C, H, W] float32.

    down [H, P / 2] and across [W, P / 2]: `sine_cosine` of the rows and columns.
    """
    if fit_registers(proj.out_features) and _by_kernel(x, proj):
        layer = weights(proj, x.device, torch.float32)
        return kernels.pixel_embed(x, *layer, down, across, patch, tokens.start, tokens.stop)
    cols = x.shape[-1] // patch
    first, last = tokens.start // cols, -(-tokens.stop // cols)
    rows = x[:, :, first * patch : last * patch]
    pixels = rearrange(rows, "b c (h p) (w q) -> b (h w) (p q) c", p=patch, q=patch)
    pixels = pixels[:, tokens.start - first * cols : tokens.stop - first * cols]
    return proj(pixels) + patch_positions(down, across, patch, tokens)


def pixel_begin(u: Tensor, norm: nn.RMSNorm, modulation: Tensor) -> Tensor:
    """u [B, L, N, P] float32 -> [B, L, N * P] in modulation's dtype, each pixel normalised and modulated by its own.

    modulation [B, L, N * 6 * P]: shift, scale, gate of attention, then of the MLP, pixel by pixel.
    """
    if fit_registers(u.shape[-1]) and _by_kernel(u, norm):
        return kernels.pixel_begin(u, _norm_weight(norm, u), modulation)
    shift, scale = _lines(u, modulation)[:2]
    return _modulate(rms_norm(norm, u), shift.float(), scale.float(), modulation.dtype).flatten(-2)


def pixel_end(u: Tensor, attended: Tensor, modulation: Tensor, norm: nn.RMSNorm, mlp: PixelMLP) -> Tensor:
    """A pixel block behind its attention: u + gate * attended, then its MLP's line. u [B, L, N, P] float32.

    attended [B, L, N * P]; modulation as `cached_modulation` gave it, or as in `pixel_begin`; mlp has layers fc1, fc2.
    """
    dtype = modulation.dtype
    if _ends_by_kernel(u, norm, mlp):
        first, second = (weights(layer, u.device, dtype) for layer in (mlp.fc1, mlp.fc2))
        kernels.pixel_end(u, attended, modulation, _norm_weight(norm, u), *first, *second)
        return u
    gate, shift, scale, last_gate = _lines(u, modulation)[-4:]
    u = _add(u, gate.float(), attended.view(u.shape))
    return _add(u, last_gate.float(), mlp(_modulate(rms_norm(norm, u), shift.float(), scale.float(), dtype)))


def cached_modulation(u: Tensor, modulation: Tensor, norm: nn.RMSNorm, mlp: PixelMLP) -> Tensor:
    """What `pixel_end` needs of a modulation: its last four lines, [B, L, N * 4 * P].

    A kernel and a compiled graph read them where they are.
    """
    if torch.compiler.is_compiling() or _ends_by_kernel(u, norm, mlp):
        return modulation
    return modulation.unflatten(-1, (u.shape[-2], 6, -1))[..., 2:, :].flatten(-3)


def pixel_out(u: Tensor, norm: nn.RMSNorm, linear: nn.Linear) -> Tensor:
    """The pixel stream's end, [B, L, N, C] float32."""
    if fit_registers(u.shape[-1]) and _by_kernel(u, norm, linear):
        return kernels.pixel_out(u, _norm_weight(norm, u), *weights(linear, u.device, torch.float32))
    return linear(rms_norm(norm, u))


def group_norm_silu(x: Tensor, norm: nn.GroupNorm, dtype: torch.dtype) -> Tensor:
    """silu(norm(x)) with float32 statistics, in dtype; x [B, C, H, W]."""
    if not _by_kernel(x, norm):
        return F.silu(norm(x.float())).to(dtype)
    x = x.contiguous()
    # PyTorch measures each group in one block of threads: with four groups most of a card stands idle
    means, squares = kernels.group_moments(x, norm.num_groups)
    counts = torch.full_like(means[0, 0], GROUP_PART)
    counts[-1] = x[0].numel() // norm.num_groups - GROUP_PART * (len(counts) - 1)
    return kernels.scale_silu(x, *_group_scale(norm, means, squares, counts), dtype)


class GroupScale:
    """`group_norm_silu` of an x [B, C, H, W] that is looked at in strips of rows."""

    def __init__(self, norm: nn.GroupNorm, x: Tensor, spans: list[slice]):
        self._norm = norm
        found = [torch.var_mean(x[:, :, rows].float().unflatten(1, (norm.num_groups, -1)), (2, 3, 4)) for rows in spans]
        variances, means = (torch.stack(values, -1) for values in zip(*found, strict=True))
        sizes = [x[0, :, rows].numel() // norm.num_groups for rows in spans]
        counts = torch.stack([torch.full_like(means[0, 0, 0], size) for size in sizes])
        self.scale, self.shift = _group_scale(norm, means, variances * (counts - 1), counts)

    def silu(self, part: Tensor, dtype: torch.dtype) -> Tensor:
        """silu of the norm, in dtype; part [B, C, h, W]: some of its rows."""
        if _by_kernel(part, self._norm):
            return kernels.scale_silu(part.contiguous(), self.scale, self.shift, dtype)
        scale, shift = (values[..., None, None] for values in (self.scale, self.shift))
        return F.silu(torch.addcmul(shift, part.float(), scale), inplace=True).to(dtype)


def _group_scale(norm: nn.GroupNorm, means: Tensor, squares: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """What a norm multiplies by and adds, [B, C] float32.

    means [B, groups, parts] of the parts a group was looked at in, squares of the distances from them added up,
    counts [parts] of values.
    """
    size = counts.sum()
    mean = (means * counts).sum(-1, keepdim=True) / size
    variance = (squares + counts * (means - mean).square()).sum(-1, keepdim=True) / size
    weight, bias = weights(norm, means.device, torch.float32)
    scale = (variance + norm.eps).rsqrt() * weight.view(norm.num_groups, -1)
    shift = (0 if bias is None else bias.view(norm.num_groups, -1)) - mean * scale
    return scale.flatten(1), shift.flatten(1)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale).to(dtype)


def _add(stream: Tensor, gate: Tensor, x: Tensor) -> Tensor:
    return torch.addcmul(stream, gate, x.float())


def _ends_by_kernel(u: Tensor, norm: nn.RMSNorm, mlp: PixelMLP) -> bool:
    return fit_registers(u.shape[-1], mlp.fc1.out_features) and _by_kernel(u, norm, mlp, mlp.fc1, mlp.fc2)


def _lines(u: Tensor, modulation: Tensor) -> tuple[Tensor, ...]:
    return modulation.unflatten(-1, (u.shape[-2], -1, u.shape[-1])).unbind(-2)
