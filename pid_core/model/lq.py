"""LQ conditioning: the latent's projector and the sigma-aware gates that inject its features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..progress import OnPart
from .chunks import token_spans
from .config import PiDConfig
from .ops import GroupScale, condition_gate, group_norm_silu, is_as_built, token_gate

# A larger canvas goes through the trunk in strips of rows, each of at most so many bytes of float32 values.
STRIP_BYTES = 96 << 20


def strips(rows: int, cols: int, width: int, batch: int) -> list[slice]:
    """The rows of a patch grid in strips; width: channels."""
    return token_spans(rows, batch, cols * width, STRIP_BYTES)


def with_halo(rows: slice, halo: int, count: int) -> tuple[slice, slice]:
    """The rows with `halo` more on either side, as far as there are any of `count`; and where the rows are in that."""
    start, stop = max(rows.start - halo, 0), min(rows.stop + halo, count)
    return slice(start, stop), slice(rows.start - start, rows.stop - start)


class ResBlock(nn.Module):
    """Pre-activation residual block; its norms and its sum are float32, its convolutions run in their own dtype."""

    def __init__(self, channels: int, padding: str, *, dtype=None, device=None, operations=nn):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        conv = {"kernel_size": 3, "padding": 1, "padding_mode": padding, **kind}
        norm = {"num_groups": 4, "num_channels": channels, "dtype": torch.float32, "device": device}
        self.block = nn.Sequential(
            operations.GroupNorm(**norm),
            nn.SiLU(),
            operations.Conv2d(channels, channels, **conv),
            operations.GroupNorm(**norm),
            nn.SiLU(),
            operations.Conv2d(channels, channels, **conv),
        )

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        norm1, _, conv1, norm2, _, conv2 = self.block
        h = conv1(group_norm_silu(x, norm1, dtype))
        return x + conv2(group_norm_silu(h, norm2, dtype))

    def in_strips(self, x: Tensor, dtype: torch.dtype, spans: list[slice]) -> None:
        """`forward` on x itself, with what a convolution and a norm need beside it for one strip of rows at a time."""
        norm1, _, conv1, norm2, _, conv2 = self.block
        h = torch.empty_like(x, dtype=dtype)
        for source, norm, conv in ((x, norm1, conv1), (h, norm2, conv2)):
            scale = GroupScale(norm, source, spans)
            for rows in spans:
                outer, inner = with_halo(rows, 1, x.shape[2])
                part = conv(scale.silu(source[:, :, outer], dtype))[:, :, inner]
                if source is x:
                    h[:, :, rows] = part
                else:
                    x[:, :, rows] += part
                del part  # or it would be there beside the next


class SigmaGate(nn.Module):
    """s + sigmoid(Linear([s ; features]) - exp(log_alpha) * sigma) * features: a noisier latent counts for less."""

    def __init__(self, width: int, rows: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.content_proj = operations.Linear(2 * width, rows, dtype=dtype, device=device)
        self.log_alpha = nn.Parameter(torch.empty((), dtype=torch.float32, device=device))

    def forward(self, s: Tensor, features: Tensor, sigma: Tensor) -> Tensor:
        """s [B, L, D] and sigma [B, 1, 1] float32, features [B, L, D] in the compute dtype -> [B, L, D] float32."""
        return token_gate(s, features, self.content_proj, self._offset(sigma))

    def condition(self, s: Tensor, te: Tensor, features: Tensor, sigma: Tensor) -> Tensor:
        """The gate of silu(te + s), in the compute dtype; te [B, 1, D] float32."""
        return condition_gate(s, te, features, self.content_proj, self._offset(sigma))

    def _offset(self, sigma: Tensor) -> Tensor:
        return self.log_alpha.to(sigma).exp() * sigma


class LQProjector(nn.Module):
    """Latent -> trunk features on the patch grid -> one feature map per injection point."""

    def __init__(self, config: PiDConfig, *, dtype=None, device=None, operations=nn):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        width, hidden = config.lq_width, config.hidden_size
        conv = {"kernel_size": 3, "padding": 1, "padding_mode": config.lq_padding, **kind}
        blocks = [
            ResBlock(width, config.lq_padding, operations=operations, **kind) for _ in range(config.lq_res_blocks)
        ]
        self.width, self.unpack = width, config.latent_unpack
        self.ratio = config.latent_cell // config.latent_unpack / config.patch_size
        self.latent_proj = nn.Sequential(
            operations.Conv2d(config.lq_in_channels, width, **conv),
            nn.SiLU(),
            operations.Conv2d(width, width, **conv),
            *blocks,
        )
        self.output_heads = nn.ModuleList(operations.Linear(width, hidden, **kind) for _ in range(config.lq_outputs))
        rows = hidden if config.gate == "channel" else 1
        self.gate_modules = nn.ModuleList(
            SigmaGate(hidden, rows, operations=operations, **kind) for _ in range(config.lq_outputs)
        )
        if config.pit_injection:
            self.pit_head = operations.Linear(width, hidden, **kind)

    def forward(self, lq_latent: Tensor, rows: int, cols: int, on_part: OnPart | None = None) -> Tensor:
        """Normalised latent [B, C, h, w] -> trunk features [B, rows * cols, width] on the patch grid, row-major.

        The latent's dtype is the dtype the convolutions run in, and that of the result.
        """
        dtype = lq_latent.dtype
        if self.unpack > 1:
            lq_latent = F.pixel_shuffle(lq_latent, self.unpack)
        blocks = self.latent_proj[3:]
        latent = self._align(lq_latent, rows, cols)
        spans = self._strips(latent)
        x = self._enter(latent, spans)
        listened = not torch.compiler.is_compiling() and on_part is not None
        for done, block in enumerate(blocks, start=1):
            if len(spans) > 1:
                block.in_strips(x, dtype, spans)
            else:
                x = block(x, dtype)
            if listened:
                on_part(done / len(blocks))
        if len(spans) == 1:
            # contiguous: every step and window reads it again, in chunks
            return rearrange(x.to(dtype), "b c h w -> b (h w) c").contiguous()
        out = x.new_empty(x.shape[0], rows * cols, x.shape[1], dtype=dtype)
        for span in spans:
            out[:, span.start * cols : span.stop * cols] = rearrange(x[:, :, span], "b c h w -> b (h w) c")
        return out

    def _enter(self, latent: Tensor, spans: list[slice]) -> Tensor:
        """Through the first two convolutions: [B, width, rows, cols] float32."""
        entry = self.latent_proj[:3]
        if len(spans) == 1:
            return entry(latent).float()
        batch, _, rows, cols = latent.shape
        x = latent.new_empty(batch, self.width, rows, cols, dtype=torch.float32)
        for span in spans:
            outer, inner = with_halo(span, 2, rows)
            x[:, :, span] = entry(latent[:, :, outer])[:, :, inner]
        return x

    def _strips(self, latent: Tensor) -> list[slice]:
        batch, _, rows, cols = latent.shape
        # autograd keeps every strip anyway, a compiled graph would spell each out, a changed norm sees all of its input
        norms = [layer for layer in self.latent_proj.modules() if isinstance(layer, nn.GroupNorm)]
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not is_as_built(*norms):
            return [slice(0, rows)]
        return strips(rows, cols, self.width, batch)

    def _align(self, latent: Tensor, rows: int, cols: int) -> Tensor:
        if tuple(latent.shape[-2:]) == (rows, cols):
            return latent
        mode = "nearest" if self.ratio > 1 else "bilinear"
        return F.interpolate(latent, size=(rows, cols), mode=mode)
