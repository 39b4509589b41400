"""The patch blocks: joint attention over caption and patches. And what they share with the pixel blocks.

Matrix products run in the dtype of the modulation; both streams are float32 (see `ops`).
Shapes: B batch, L image tokens, T caption tokens, D hidden size.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .attention import Attention
from .config import PiDConfig
from .ops import (
    Joint,
    Modulation,
    NoJoint,
    gate_add,
    gate_add_norm_modulate,
    norm_modulate,
    outputs,
    silu_mul,
    split_modulation,
)
from .positions import Rotation


def make_norm(width: int, *, device=None, operations=nn) -> nn.RMSNorm:
    """RMSNorm whose weight stays float32 in every dtype of the network, as in the reference."""
    return operations.RMSNorm(width, eps=1e-6, dtype=torch.float32, device=device)


class SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        factory_kwargs = {"bias": False, "dtype": dtype, "device": device}
        self.w1 = operations.Linear(width, inner, **factory_kwargs)
        self.w3 = operations.Linear(width, inner, **factory_kwargs)
        self.w2 = operations.Linear(inner, width, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(silu_mul(self.w1(x), self.w3(x)))


class JointAttention(nn.Module):
    """Weights of full attention over [caption, image], with weights of their own for each stream: y and x."""

    def __init__(self, width: int, num_heads: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.num_heads = num_heads
        factory_kwargs = {"dtype": dtype, "device": device}
        head_dim = width // num_heads
        self.qkv_x = operations.Linear(width, 3 * width, bias=False, **factory_kwargs)
        self.qkv_y = operations.Linear(width, 3 * width, bias=False, **factory_kwargs)
        norm = partial(make_norm, head_dim, device=device, operations=operations)
        self.q_norm_x, self.k_norm_x, self.q_norm_y, self.k_norm_y = norm(), norm(), norm(), norm()
        self.proj_x = operations.Linear(width, width, **factory_kwargs)
        self.proj_y = operations.Linear(width, width, **factory_kwargs)


class PatchBlock(nn.Module):
    """One joint transformer block. The caption stream is left alone after the last block that needs it."""

    def __init__(self, config: PiDConfig, *, dtype=None, device=None, operations=nn):
        super().__init__()
        factory_kwargs = {"dtype": dtype, "device": device}
        width = config.hidden_size
        self._joint = Joint if config.attends else NoJoint
        norm = partial(make_norm, width, device=device, operations=operations)
        self.norm_x1, self.norm_y1, self.norm_x2, self.norm_y2 = norm(), norm(), norm(), norm()
        self.attn = JointAttention(width, config.num_heads, operations=operations, **factory_kwargs)
        self.mlp_x = SwiGLU(width, config.mlp_size, operations=operations, **factory_kwargs)
        self.mlp_y = SwiGLU(width, config.mlp_size, operations=operations, **factory_kwargs)
        self.adaLN_modulation_img = nn.Sequential(operations.Linear(width, 6 * width, **factory_kwargs))
        self.adaLN_modulation_txt = nn.Sequential(operations.Linear(width, 6 * width, **factory_kwargs))

    def modulation(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Of the image's and of the caption's stream, each [B, 1, 6 * D]; c [B, 1, D], all in the compute dtype."""
        return self.adaLN_modulation_img(c), self.adaLN_modulation_txt(c)

    def modulations(self, cs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """`modulation` of each c, with the weights fetched once."""
        image, text = (outputs(part[0], cs) for part in (self.adaLN_modulation_img, self.adaLN_modulation_txt))
        return list(zip(image, text, strict=True))

    def forward(
        self,
        s: Tensor,
        y: Tensor,
        modulation: tuple[Tensor, Tensor],
        rope_x: Rotation,
        rope_y: Rotation | None,
        attention: Attention,
        with_y: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """s [B, L, D] and y [B, T, D] float32 -> s and y. modulation: see there."""
        attn_x, mlp_x = split_modulation(modulation[0])  # each [B, 1, D]
        attn_y, mlp_y = split_modulation(modulation[1])
        attn, text, dtype = self.attn, y.shape[1], modulation[0].dtype
        joint = self.joint(modulation[0], text + s.shape[1])
        joint.put(0, partial(self.caption_qkv, y, attn_y, dtype), attn.q_norm_y, attn.k_norm_y, rope_y)
        joint.put(text, partial(self.image_qkv, s, attn_x, dtype), attn.q_norm_x, attn.k_norm_x, rope_x)
        out = joint.attend(attention, first=0 if with_y else text)  # [B, T + L, heads, d]; the last block's without T
        s = self.end_image(s, out[:, -s.shape[1] :], attn_x, mlp_x)
        if with_y:
            y = self.end_caption(y, out[:, :text], attn_y, mlp_y)
        return s, y

    def joint(self, like: Tensor, tokens: int) -> Joint:
        """An empty q, k and v of the attention."""
        return self._joint(like, self.attn.num_heads, tokens, self.attn.qkv_x.in_features // self.attn.num_heads)

    def image_qkv(self, s: Tensor, line: Modulation, dtype: torch.dtype) -> Tensor:
        """Of image tokens s [B, L, D] float32, [B, L, 3 * D] in dtype; line: the attention line's, [B, 1, D] each."""
        return self.attn.qkv_x(norm_modulate(s, self.norm_x1, line, dtype))

    def caption_qkv(self, y: Tensor, line: Modulation, dtype: torch.dtype) -> Tensor:
        """`image_qkv` of the caption's tokens y [B, T, D]."""
        return self.attn.qkv_y(norm_modulate(y, self.norm_y1, line, dtype))

    def end_image(self, s: Tensor, attended: Tensor, attn: Modulation, mlp: Modulation) -> Tensor:
        """From the attention's result [B, L, heads, D / heads] on: both residual lines."""
        s, x = gate_add_norm_modulate(s, attn.gate, self.attn.proj_x(attended.flatten(2)), self.norm_x2, mlp)
        return gate_add(s, mlp.gate, self.mlp_x(x))

    def end_caption(self, y: Tensor, attended: Tensor, attn: Modulation, mlp: Modulation) -> Tensor:
        """`end_image` of the caption's tokens."""
        y, x = gate_add_norm_modulate(y, attn.gate, self.attn.proj_y(attended.flatten(2)), self.norm_y2, mlp)
        return gate_add(y, mlp.gate, self.mlp_y(x))
