"""PiDNetwork: the pixel-DiT that turns a noisy image, a latent and a caption into a velocity.

`PiDNetwork.predict` is the whole network, plainly; `Driver` (driver.py) runs the same parts in less memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..progress import OnPart
from .attention import Attention, attend
from .blocks import PatchBlock, make_norm
from .config import PiDConfig
from .driver import Driver
from .guard import Guarded
from .inputs import Inputs, LatentInputs, make_inputs, patch_grid
from .lq import LQProjector, SigmaGate
from .modulation import Level
from .ops import pixel_embed, pixel_out, rms_norm
from .pixels import PixelBlock
from .positions import timestep_features
from .strips import project

Block = TypeVar("Block", bound=nn.Module)


class Projection(nn.Module):
    """A Linear named `proj`, with an RMSNorm behind it where the caption needs one."""

    def __init__(self, inputs: int, outputs: int, norm: bool = False, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.proj = operations.Linear(inputs, outputs, dtype=dtype, device=device)
        if norm:
            self.norm = make_norm(outputs, device=device, operations=operations)


class TimestepEmbedder(nn.Module):
    def __init__(self, features: int, width: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        factory_kwargs = {"dtype": dtype, "device": device}
        self.mlp = nn.Sequential(
            operations.Linear(features, width, **factory_kwargs),
            nn.SiLU(),
            operations.Linear(width, width, **factory_kwargs),
        )


class FinalLayer(nn.Module):
    def __init__(self, width: int, channels: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.norm = make_norm(width, device=device, operations=operations)
        self.linear = operations.Linear(width, channels, dtype=dtype, device=device)


class PiDNetwork(Guarded):
    """PiD's network, inference only (reference: `PidNet`); without its latent branch it is PixelDiT.

    `operations` supplies Linear, Conv2d, GroupNorm and RMSNorm; `attention(q, k, v)` works on [B, heads, L, head_dim]
    (None: `attend`). `compute_dtype` is what matrix products run in; residual streams stay float32. `driver` is how
    calls outside autograd run: that changes memory and speed, not the result.
    `family` and `default_caption` [1, T, caption_width] describe the loaded checkpoint where it tells them.
    A call that gives NaN can be repeated in float32 (guard.py).
    """

    def __init__(
        self,
        config: PiDConfig,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        operations=nn,
        attention: Attention | None = None,
    ):
        super().__init__()
        self.config = config
        self.attention = attend if attention is None else attention
        self.compute_dtype = dtype or torch.get_default_dtype()
        self.family: str | None = config.family
        self.default_caption: Tensor | None = None
        self.driver = Driver()
        factory_kwargs = {"dtype": dtype, "device": device, "operations": operations}
        # of a few small layers whose rounding the whole image would show
        exact = factory_kwargs | {"dtype": torch.float32}
        width = config.hidden_size
        self.pixel_embedder = Projection(config.in_channels, config.pixel_hidden_size, **exact)
        self.s_embedder = Projection(config.in_channels * config.patch_size**2, width, **factory_kwargs)
        self.t_embedder = TimestepEmbedder(config.time_features, width, **exact)
        self.y_embedder = Projection(config.caption_width, width, norm=True, **factory_kwargs)
        self.y_pos_embedding = nn.Parameter(torch.empty(1, config.caption_length, width, dtype=dtype, device=device))
        self.patch_blocks = _module_list(PatchBlock(config, **factory_kwargs) for _ in range(config.patch_depth))
        self.pixel_blocks = _module_list(PixelBlock(config, **factory_kwargs) for _ in range(config.pixel_depth))
        self.final_layer = FinalLayer(config.pixel_hidden_size, config.in_channels, **exact)
        if config.has_latent:
            self.lq_proj = LQProjector(config, **factory_kwargs)
        if config.pit_injection:
            self.pit_lq_gate = SigmaGate(width, width if config.gate == "channel" else 1, **factory_kwargs)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        caption: Tensor,
        *,
        lq_features: Tensor | None = None,
        degrade_sigma: Tensor | None = None,
        on_part: OnPart | None = None,
        level: Level | None = None,
    ) -> Tensor:
        """Predict the velocity (or x0, see `config.prediction`) [B, 3, H, W], float32.

        x: noisy image [B, 3, H, W], H and W multiples of the patch size. timestep: [B], 1000 * t with t in [0, 1].
        caption: [B, T, caption_width]; tokens past `caption_length` are dropped. lq_features: what `encode_lq` gave for
        the latent. degrade_sigma: [B], the latent's noise level in [0, 1], or [B, L], that of each patch.
        A network without a latent branch (`config.has_latent`) takes neither features nor degrade_sigma.
        on_part: called after every block and chunk with the fraction of this call's work that is behind it, 1 at the
        end. What it raises ends the call. Autograd and a compiled graph do not call it.
        level: the timestep once more, from `Modulations.at`, where all images are at the same one: what other calls of
        the run have worked out for it is used. Autograd and a compiled graph do not ask.
        Raises ValueError when a shape does not fit.
        """
        inputs = make_inputs(self, x, timestep, caption, lq_features, degrade_sigma)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.predict(inputs)
        return self.driver.run(self, inputs, on_part, level)

    def predict(self, inputs: Inputs) -> Tensor:
        """The forward pass (reference: `PidNet.forward`), plainly: the velocity, or x0, [B, 3, H, W] float32."""
        te = self.embed_time(inputs.timestep)
        c = F.silu(te).to(self.compute_dtype)
        s = self.embed_patches(inputs.x)  # the residual stream of the patches, [B, L, D]
        y = self.embed_caption(inputs.caption)
        for i, block in enumerate(self.patch_blocks):
            if inputs.lq and self.injects(i):
                s = self.inject(i, s, *inputs.lq)
            modulation, last = block.modulation(c), i + 1 == len(self.patch_blocks)
            s, y = block(s, y, modulation, inputs.patch_rope, inputs.text_rope, inputs.attention, not last)
        s = self.condition_pixels(s, te, inputs.lq)
        u = self.embed_pixels(inputs.x, inputs.positions)  # the residual stream of the pixels, [B, L, N, P]
        for pixel_block in self.pixel_blocks:
            u = pixel_block(u, s, inputs.pixel_rope, inputs.attention)
        return self.to_image(self.finish_pixels(u), inputs.x)

    def embed_time(self, timestep: Tensor) -> Tensor:
        """[B] -> [B, 1, D] float32."""
        return self.t_embedder.mlp(timestep_features(timestep, self.config.time_features))[:, None]

    def embed_caption(self, caption: Tensor) -> Tensor:
        """[B, T, caption_width] -> [B, T, D] float32."""
        y = rms_norm(self.y_embedder.norm, self.y_embedder.proj(caption.to(self.compute_dtype)))
        return y + self.y_pos_embedding[:, : caption.shape[1]].to(y)

    def embed_patches(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, L, D] float32."""
        patches = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=self.config.patch_size, q=self.config.patch_size)
        return self.s_embedder.proj(patches.to(self.compute_dtype)).float()

    def injects(self, depth: int) -> bool:
        """Whether a latent's features go into the patch stream before the block at this depth."""
        return depth % self.config.lq_interval == 0

    def inject(self, depth: int, s: Tensor, lq_features: Tensor, sigma: Tensor) -> Tensor:
        """The latent's features through this depth's gate into s [B, L, D] float32; see `LatentInputs` for the rest."""
        point = depth // self.config.lq_interval
        return self.lq_proj.gate_modules[point](s, self.lq_proj.output_heads[point](lq_features), sigma)

    def condition_pixels(self, s: Tensor, te: Tensor, lq: LatentInputs | None) -> Tensor:
        """What the pixel blocks are modulated by, [B, L, D] in the compute dtype."""
        if lq and self.config.pit_injection:
            return self.pit_lq_gate.condition(s, te, self.lq_proj.pit_head(lq.features), lq.sigma)
        return F.silu(te + s).to(self.compute_dtype)

    def embed_pixels(self, x: Tensor, positions: tuple[Tensor, Tensor], span: slice | None = None) -> Tensor:
        """[B, 3, H, W] -> [B, L, N, P] float32; span: of these patches only."""
        patch = self.config.patch_size
        span = span or slice(0, x.shape[-2] * x.shape[-1] // patch**2)
        return pixel_embed(x.float(), self.pixel_embedder.proj, *positions, patch, span)

    def finish_pixels(self, u: Tensor) -> Tensor:
        """[B, L, N, P] -> [B, L, N, 3]."""
        return pixel_out(u, self.final_layer.norm, self.final_layer.linear)

    def to_image(self, pixels: Tensor, like: Tensor) -> Tensor:
        """[B, L, N, 3] -> [B, 3, H, W], as large as `like`."""
        rows, patch = like.shape[-2] // self.config.patch_size, self.config.patch_size
        return rearrange(pixels, "b (h w) (p q) c -> b c (h p) (w q)", h=rows, p=patch, q=patch)

    def encode_lq(self, lq_latent: Tensor, height: int, width: int, on_part: OnPart | None = None) -> Tensor:
        """Run the LQ projector's trunk once for an image of height x width pixels: [B, L, lq_width].

        lq_latent: normalised latent [B, C, h, w]. The result depends on nothing but the latent, so one serves every
        step and every sigma. on_part: as in `forward`. Raises ValueError when the latent's rank or channels do not fit.
        """
        config = self.config
        if not config.has_latent:
            raise ValueError("this checkpoint is PixelDiT: it draws from text alone and takes no latent")
        if lq_latent.ndim != 4 or lq_latent.shape[1] != config.latent_channels:
            raise ValueError(
                f"this checkpoint needs lq_latent [B, {config.latent_channels}, h, w], got {list(lq_latent.shape)}"
            )
        lq_latent, grid = lq_latent.to(self.compute_dtype), patch_grid(config, height, width)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.lq_proj(lq_latent, *grid)
        return project(self.lq_proj, lq_latent, *grid, on_part)


def _module_list(blocks: Iterable[Block]) -> Sequence[Block]:
    """nn.ModuleList, which does not tell its type checkers what it holds."""
    return cast("Sequence[Block]", nn.ModuleList(blocks))
