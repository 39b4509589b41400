"""PiDNetwork: the pixel-DiT that turns a noisy image, a latent and a caption into a velocity."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..progress import OnPart
from .attention import Attention, attend, sdpa
from .blocks import PatchBlock, make_norm
from .chunks import chunk_bytes, map_tokens, token_spans
from .compiled import Compiled
from .config import PiDConfig
from .cost import patch_share
from .fused import kind_of
from .guard import widened_layers
from .lq import LQProjector, SigmaGate
from .modulation import Level, Lines
from .ops import pixel_embed, pixel_out, rms_norm
from .pixels import Kept, PixelBlock, pixel_chunks, pixel_kind, refine_pixels, what_is_kept
from .positions import Rotation, image_rope, sine_cosine, text_rope, timestep_features


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
        kind = {"dtype": dtype, "device": device}
        self.mlp = nn.Sequential(
            operations.Linear(features, width, **kind), nn.SiLU(), operations.Linear(width, width, **kind)
        )


class FinalLayer(nn.Module):
    def __init__(self, width: int, channels: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.norm = make_norm(width, device=device, operations=operations)
        self.linear = operations.Linear(width, channels, dtype=dtype, device=device)


class Tables(NamedTuple):
    """What depends on sizes only: RoPE of the patches, the caption and the pixel blocks, and the pixels' positions."""

    patch: Rotation
    text: Rotation | None
    pixel: Rotation
    positions: tuple[Tensor, Tensor]


class PiDNetwork(nn.Module):
    """PiD's network, inference only (reference: `PidNet`); without its latent branch it is PixelDiT.

    `operations` supplies Linear, Conv2d, GroupNorm and RMSNorm; `attention(q, k, v)` works on [B, heads, L, head_dim]
    (None: `attend`). `compute_dtype` is what matrix products run in; residual streams stay float32. `chunk_bytes`
    bounds the widest layers' values and `pixel_chunks` is how many chunks the pixel path has at least (None: by
    device), `kept` what is kept between them (None: what `KEPT_BYTES` allows); they change memory and speed, not the
    result.
    `family` and `default_caption` [1, T, caption_width] describe the loaded checkpoint where it tells them.
    `repeated` lists the calls of the last run that had to be repeated in float32 (guard.py). `compiled` is how calls
    are compiled (None: not at all).
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
        self.attention = attention or attend
        self.compute_dtype = dtype or torch.get_default_dtype()
        self.chunk_bytes: int | None = None
        self.pixel_chunks: int | None = None
        self.kept: Kept | None = None
        self.family: str | None = config.family
        self.default_caption: Tensor | None = None
        self.repeated: list[str] = []
        self.compiled: Compiled | None = None
        kind = {"dtype": dtype, "device": device, "operations": operations}
        exact = kind | {"dtype": torch.float32}  # a few small layers whose rounding the whole image would show
        width = config.hidden_size
        self.pixel_embedder = Projection(config.in_channels, config.pixel_hidden_size, **exact)
        self.s_embedder = Projection(config.in_channels * config.patch_size**2, width, **kind)
        self.t_embedder = TimestepEmbedder(config.time_features, width, **exact)
        self.y_embedder = Projection(config.caption_width, width, norm=True, **kind)
        self.y_pos_embedding = nn.Parameter(torch.empty(1, config.caption_length, width, dtype=dtype, device=device))
        self.patch_blocks = nn.ModuleList(PatchBlock(config, **kind) for _ in range(config.patch_depth))
        self.pixel_blocks = nn.ModuleList(PixelBlock(config, **kind) for _ in range(config.pixel_depth))
        self.final_layer = FinalLayer(config.pixel_hidden_size, config.in_channels, **exact)
        if config.has_latent:
            self.lq_proj = LQProjector(config, **kind)
        if config.pit_injection:
            self.pit_lq_gate = SigmaGate(width, width if config.gate == "channel" else 1, **kind)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        caption: Tensor,
        *,
        lq_latent: Tensor | None = None,
        degrade_sigma: Tensor | None = None,
        lq_features: Tensor | None = None,
        attention: Attention | None = None,
        on_part: OnPart | None = None,
        level: Level | None = None,
    ) -> Tensor:
        """Predict the velocity (or x0, see `config.prediction`) [B, 3, H, W], float32.

        x: noisy image [B, 3, H, W], H and W multiples of the patch size. timestep: [B], 1000 * t with t in [0, 1].
        caption: [B, T, caption_width]; tokens past `caption_length` are dropped. degrade_sigma: [B], the latent's
        noise level in [0, 1]. lq_latent: normalised latent [B, C, h, w]; or lq_features, what `encode_lq` gave for it.
        A network without a latent branch (`config.has_latent`) takes neither latent nor degrade_sigma.
        on_part: called after every block and chunk with the fraction of this call's work that is behind it, 1 at the
        end. What it raises ends the call. A compiled graph does not call it.
        level: the timestep once more, from `Modulations.at`, where all images are at the same one: what other calls of
        the run have worked out for it is used. A compiled graph does not ask.
        Raises ValueError when a shape does not fit.
        """
        config = self.config
        attention = self.attention if attention is None else attention
        rows, cols = self._check(x, timestep, caption, degrade_sigma)
        lq_features = self._check_lq(x, lq_latent, lq_features)
        sigma = None
        if config.has_latent:
            lq_features = lq_features.to(self.compute_dtype)
            sigma = degrade_sigma.to(x.device, torch.float32).view(-1, 1, 1)
        caption = caption[:, : config.caption_length]
        given = x, timestep, caption, lq_features, sigma, attention, self._tables(x, rows, cols, caption.shape[1])
        if torch.compiler.is_compiling() or self.compiled is None:
            return self._velocity(*given, on_part, level)
        return self.compiled.run(self._velocity, *given, on_part=on_part, level=level)

    def _velocity(
        self,
        x: Tensor,
        timestep: Tensor,
        caption: Tensor,
        lq_features: Tensor | None,
        sigma: Tensor | None,
        attention: Attention,
        tables: Tables,
        on_part: OnPart | None = None,
        level: Level | None = None,
    ) -> Tensor:
        """`forward` of inputs that were checked. None of them is changed."""
        config, dtype = self.config, self.compute_dtype
        rows, cols = (side // config.patch_size for side in x.shape[-2:])
        spans = self._spans(x, rows * cols, 3 * config.mlp_size)
        # asked in this order, or a compiled graph would be guarded on who listens
        listened = not torch.compiler.is_compiling() and on_part is not None
        share = patch_share(config, *x.shape[-2:], caption.shape[1], x.device.type) if listened else 0

        te = self._embed_time(timestep)
        modulation = self._modulations(te, timestep, level)
        y = self._embed_caption(caption)
        patches = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=config.patch_size, q=config.patch_size)
        s = self.s_embedder.proj(patches.to(dtype)).float()  # the residual stream, [B, L, D]
        del patches
        for i, block in enumerate(self.patch_blocks):
            if config.has_latent and i % config.lq_interval == 0:
                inject = partial(self._inject, i // config.lq_interval, sigma=sigma)
                s = map_tokens(inject, spans, s, lq_features, reuse=True)
            with_y = i + 1 < config.patch_depth
            s, y = self._block(block, s, y, modulation(i), tables.patch, tables.text, attention, spans, with_y)
            if listened:
                on_part(share * (i + 1) / config.patch_depth)
        more = (lq_features,) if config.pit_injection else ()
        s = map_tokens(partial(self._condition, te=te, sigma=sigma), spans, s, *more)
        rest = (lambda done: on_part(share + (1 - share) * done)) if listened else None
        return self._decode_pixels(x, s, rows, cols, attention, tables, rest)

    def _embed_time(self, timestep: Tensor) -> Tensor:
        """[B] -> [B, 1, D] float32."""
        return self.t_embedder.mlp(timestep_features(timestep, self.config.time_features))[:, None]

    def _modulations(self, te: Tensor, timestep: Tensor, level: Level | None) -> Callable[[int], Lines]:
        """What gives each patch block's modulation."""
        dtype = self.compute_dtype
        # asked in this order, or a compiled graph would be guarded on the level
        if torch.compiler.is_compiling() or level is None:
            c = F.silu(te).to(dtype)
            return lambda depth: self.patch_blocks[depth].modulation(c)

        @functools.cache
        def condition(value: float) -> Tensor:
            # also at the call's own level: what a caller takes for it may be another, and others take what is kept
            return F.silu(self._embed_time(torch.full_like(timestep, value))).to(dtype)

        place = len(te), dtype, te.device
        return lambda depth: level.run.lines(depth, self.patch_blocks[depth], level.timestep, place, condition)

    def encode_lq(self, lq_latent: Tensor, height: int, width: int, on_part: OnPart | None = None) -> Tensor:
        """Run the LQ projector's trunk once for an image of height x width pixels.

        The result [B, tokens, lq_width] depends on nothing but the latent, so one serves every step and every sigma.
        on_part: as in `forward`. Raises ValueError when the latent's rank or channels do not fit.
        """
        config = self.config
        if not config.has_latent:
            raise ValueError("this checkpoint is PixelDiT: it draws from text alone and takes no latent")
        if lq_latent.ndim != 4 or lq_latent.shape[1] != config.latent_channels:
            raise ValueError(
                f"this checkpoint needs lq_latent [B, {config.latent_channels}, h, w], got {list(lq_latent.shape)}"
            )
        rows, cols = self._grid(height, width)
        return self.lq_proj(lq_latent.to(self.compute_dtype), rows, cols, on_part)

    def numerics(self) -> str:
        """What the network computes in, for messages: "bfloat16 with attend"."""
        return f"{str(self.compute_dtype).removeprefix('torch.')} with {self._attention_name()}"

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """While this lasts the network computes in float32 with PyTorch's attention; its weights keep their dtype."""
        kept = self.compute_dtype, self.attention
        self.compute_dtype, self.attention = torch.float32, sdpa
        try:
            # a graph for it would take minutes, and it is for a call or two
            with self._widened(), nullcontext() if self.compiled is None else self.compiled.off():
                yield
        finally:
            self.compute_dtype, self.attention = kept

    def _widened(self) -> AbstractContextManager:
        return widened_layers(self)

    def _attention_name(self) -> str:
        return getattr(self.attention, "__name__", type(self.attention).__name__)

    def _inject(self, point: int, s: Tensor, lq_features: Tensor, sigma: Tensor) -> Tensor:
        features = self.lq_proj.output_heads[point](lq_features)
        return self.lq_proj.gate_modules[point](s, features, sigma)

    def _condition(self, s: Tensor, lq_features: Tensor | None = None, *, te: Tensor, sigma: Tensor | None) -> Tensor:
        """What the pixel blocks are modulated by, in the compute dtype."""
        if self.config.pit_injection:
            return self.pit_lq_gate.condition(s, te, self.lq_proj.pit_head(lq_features), sigma)
        return F.silu(te + s).to(self.compute_dtype)

    def _embed_caption(self, caption: Tensor) -> Tensor:
        y = rms_norm(self.y_embedder.norm, self.y_embedder.proj(caption.to(self.compute_dtype)))
        return y + self.y_pos_embedding[:, : caption.shape[1]].to(y)

    def _tables(self, x: Tensor, rows: int, cols: int, text: int) -> Tables:
        config, device = self.config, x.device
        return Tables(
            self._image_rope(rows, cols, config.head_dim, device),
            text_rope(text, config.head_dim, theta=config.text_rope_theta, device=device) if config.text_rope else None,
            self._image_rope(rows, cols, config.pixel_head_dim, device),
            self._pixel_positions(*x.shape[-2:], device),
        )

    def _pixel_positions(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        half = self.config.pixel_hidden_size // 2
        return sine_cosine(0, height, half, device=device), sine_cosine(0, width, half, device=device)

    def _block(self, block: Callable, *given):
        """A block's call."""
        if torch.compiler.is_compiling() or self.compiled is None:
            return block(*given)
        return self.compiled.block(block, *given)

    def _decode_pixels(
        self,
        x: Tensor,
        s: Tensor,
        rows: int,
        cols: int,
        attention: Attention,
        tables: Tables,
        on_part: OnPart | None,
    ) -> Tensor:
        config, x = self.config, x.float()
        kind = pixel_kind(config, kind_of(x.device))
        parts = self.pixel_chunks or pixel_chunks(kind)
        out = refine_pixels(
            self.pixel_blocks,
            s,
            lambda span: pixel_embed(x, self.pixel_embedder.proj, *tables.positions, config.patch_size, span),
            lambda u: pixel_out(u, self.final_layer.norm, self.final_layer.linear),
            tables.pixel,
            attention,
            self._spans(x, rows * cols, 6 * config.patch_size**2 * config.pixel_hidden_size, parts, kind),
            self.kept or what_is_kept(config, x.shape[0] * rows * cols, self.compute_dtype.itemsize, kind),
            on_part,
            self._block,
        )
        patch = config.patch_size
        return rearrange(out, "b (h w) (p q) c -> b c (h p) (w q)", h=rows, w=cols, p=patch, q=patch)

    def _spans(self, x: Tensor, tokens: int, width: int, parts: int = 1, kind: str | None = None) -> list[slice]:
        # autograd keeps every chunk anyway, and a compiled graph would spell each out
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or (self.compiled and self.compiled.active):
            return [slice(0, tokens)]
        return token_spans(tokens, x.shape[0], width, self.chunk_bytes or chunk_bytes(kind or kind_of(x.device)), parts)

    def _image_rope(self, rows: int, cols: int, head_dim: int, device: torch.device):
        config = self.config
        return image_rope(rows, cols, head_dim, reference=config.rope_grid, theta=config.rope_theta, device=device)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        patch = self.config.patch_size
        if height % patch or width % patch or not height or not width:
            raise ValueError(f"the image is {width} x {height}; both sides must be multiples of {patch} pixels")
        return height // patch, width // patch

    def _check_lq(self, x: Tensor, lq_latent: Tensor | None, lq_features: Tensor | None) -> Tensor | None:
        if not self.config.has_latent and lq_latent is None and lq_features is None:
            return None
        if lq_features is None:
            if lq_latent is None:
                raise ValueError("PiD needs the latent: give lq_latent, or lq_features made by encode_lq")
            lq_features = self.encode_lq(lq_latent, *x.shape[-2:])
        rows, cols = self._grid(*x.shape[-2:])
        if lq_features.shape[:2] != (x.shape[0], rows * cols):
            raise ValueError(
                f"lq_features are for {lq_features.shape[0]} images of {lq_features.shape[1]} tokens, "
                f"x has {x.shape[0]} of {rows * cols}"
            )
        return lq_features

    def _check(self, x: Tensor, timestep: Tensor, caption: Tensor, sigma: Tensor | None) -> tuple[int, int]:
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            raise ValueError(f"x must be [B, {config.in_channels}, H, W], got {list(x.shape)}")
        if caption.ndim != 3 or caption.shape[-1] != config.caption_width or not caption.shape[1]:
            raise ValueError(
                f"this checkpoint needs captions [B, tokens, {config.caption_width}], got {list(caption.shape)}: "
                "encode the text with PiD Caption and Load CLIP (type pixeldit, for NVIDIA's files with Gemma-2-2b)"
            )
        counts = {"timestep": timestep.numel(), "caption": caption.shape[0]}
        if config.has_latent:
            if sigma is None:
                raise ValueError("PiD needs degrade_sigma, the latent's noise level: 0 for a clean one")
            counts["degrade_sigma"] = sigma.numel()
        for name, count in counts.items():
            if count != x.shape[0]:
                raise ValueError(f"{name} is for {count} images, x holds {x.shape[0]}")
        return self._grid(*x.shape[-2:])
