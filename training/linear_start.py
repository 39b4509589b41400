"""Start values for the bundled network: the best linear upscaler, written into its weights.

A network this small spends most of an hour to find plain interpolation from random weights. So the linear map from a
latent cell's 3 x 3 neighbourhood to the cell's 8 x 8 pixels is fitted to the training pictures by least squares; the
latent branch and the pixel blocks start as exactly that map. All weights are trained from there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pid_core.network import PiDNetwork

NEAR, WIDE = 64, 80  # linear features after the first and the second convolution; other channels are free to learn
COLOUR, LEVEL = 8.0, 160.0  # size of a colour of 1, and of the constant beside it, in the pixel stream
OPEN = 4.0  # logit of a gate at degrade_sigma 0


def fit(features: Tensor, targets: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Least squares of rank `rank` from the 3 x 3 neighbourhoods of features [B, C, h, w] to targets [B, K, h, w].

    Returns (inner [rank, C, 3, 3], outer [K, rank]): a convolution whose outputs have unit deviation, and what turns
    them into the targets.
    """
    x = rearrange(F.unfold(features, 3, padding=1), "b k l -> (b l) k").double()
    y = rearrange(targets, "b k h w -> (b h w) k").double()
    ridge = 1e-5 * x.square().mean() * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    whole = torch.linalg.solve(x.mT @ x + ridge, x.mT @ y).mT  # [K, C * 9]
    predicted = x @ whole.mT
    _, vectors = torch.linalg.eigh(predicted.mT @ predicted)
    outer = vectors[:, -rank:]
    size = (predicted @ outer).std(dim=0)
    inner = (outer.mT @ whole) / size[:, None]
    return inner.float().unflatten(1, (-1, 3, 3)), (outer * size).float()


@torch.no_grad()
def start_as_upscaler(net: PiDNetwork, pictures: Tensor, latents: Tensor) -> None:
    """Fit the map from latents [B, C, h, w] to pictures [B, 3, H, W] and write it into `net`.

    `net` needs two or more pixel blocks, a pixel width of 8 or more, the injection before the pixel blocks, x0 output.
    """
    patch = net.config.patch_size
    targets = rearrange(pictures, "b c (h p) (w q) -> b (c p q) h w", p=patch, q=patch)
    near, _ = fit(latents, targets, NEAR)
    wide, colours = fit(F.conv2d(latents, near, padding=1), targets, WIDE)
    _carry_through_trunk(net, near, wide)
    _quiet_patch_stream(net)
    _cancel_positions(net.pixel_blocks[0], net.config.pixel_hidden_size)
    _steady_pixels(net)
    _write_colours(net, colours * (1 + math.exp(-OPEN)))


def _carry_through_trunk(net: PiDNetwork, near: Tensor, wide: Tensor) -> None:
    """The two entry convolutions are the fitted ones; silu(x) - silu(-x) = x carries signs through the activation."""
    first, second, *blocks = (m for m in net.lq_proj.latent_proj if not isinstance(m, nn.SiLU))
    first.weight[: 2 * NEAR] = torch.cat([near, -near])
    first.bias[: 2 * NEAR] = 0
    second.weight[:WIDE] = 0
    second.bias[:WIDE] = 0
    second.weight[:WIDE, : 2 * NEAR] = torch.cat([wide, -wide], dim=1)
    for block in blocks:
        nn.init.zeros_(block.block[5].weight)
        nn.init.zeros_(block.block[5].bias)
    nn.init.eye_(net.lq_proj.pit_head.weight)
    nn.init.zeros_(net.lq_proj.pit_head.bias)
    for gate in (*net.lq_proj.gate_modules, net.pit_lq_gate):
        nn.init.zeros_(gate.content_proj.weight)
        nn.init.constant_(gate.content_proj.bias, OPEN)
        nn.init.constant_(gate.log_alpha, math.log(5))


def _quiet_patch_stream(net: PiDNetwork) -> None:
    """The patch stream joins the latent's features; it must start small beside them."""
    nn.init.normal_(net.y_pos_embedding, std=0.02)
    for linear in (net.s_embedder.proj, net.t_embedder.mlp[2], *net.lq_proj.output_heads):
        linear.weight *= 0.05
        nn.init.zeros_(linear.bias)
    for block in net.patch_blocks:
        for modulation in (block.adaLN_modulation_img[0], block.adaLN_modulation_txt[0]):
            nn.init.normal_(modulation.weight, std=0.02)
            nn.init.zeros_(modulation.bias)
            modulation.bias.unflatten(0, (6, -1))[[2, 5]] = 0.02  # gates
    nn.init.zeros_(net.pixel_embedder.proj.weight)
    nn.init.zeros_(net.pixel_embedder.proj.bias)
    nn.init.normal_(net.pixel_embedder.proj.weight[4:], std=0.2)


def _modulation(block: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """Views of weight [pixels, 6, width, D] and bias [pixels, 6, width], made zero but for the gates' bias."""
    linear = block.adaLN_modulation[0]
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    weight, bias = linear.weight.view(-1, 6, width, linear.weight.shape[1]), linear.bias.view(-1, 6, width)
    bias[:, 2], bias[:, 5] = 0.05, 1.0  # gates
    return weight, bias


def _carry_through_mlp(block: nn.Module, dims: int, factor: float) -> None:
    """The MLP gives factor * x in its first dims; gelu(x) - gelu(-x) = x carries signs."""
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    nn.init.zeros_(fc2.weight)
    nn.init.zeros_(fc2.bias)
    for k in range(dims):
        for row, sign in ((2 * k, 1), (2 * k + 1, -1)):
            fc1.weight[row], fc1.bias[row] = 0, 0
            fc1.weight[row, k] = sign
            fc2.weight[k, row] = sign * factor


def _cancel_positions(block: nn.Module, width: int) -> None:
    """Take the positions out of the three dims that will hold the colours; RMSNorm made them sqrt(2) larger."""
    _modulation(block, width)
    _carry_through_mlp(block, 3, -math.sqrt(0.5))


def _steady_pixels(net: PiDNetwork) -> None:
    """The last pixel block's shift is the picture; its MLP scales it up, beside a constant that steadies RMSNorm."""
    block, width = net.pixel_blocks[-1], net.config.pixel_hidden_size
    _, bias = _modulation(block, width)
    bias[:, 4] = -1.0  # scale: the stream itself does not enter
    _carry_through_mlp(block, 3, COLOUR)
    block.mlp.fc2.bias[3] = LEVEL
    nn.init.zeros_(net.final_layer.linear.bias)
    nn.init.zeros_(net.final_layer.linear.weight)
    steady = LEVEL / math.sqrt(width)
    net.final_layer.linear.weight[:3, :3] = torch.eye(3) * steady / COLOUR


def _write_colours(net: PiDNetwork, colours: Tensor) -> None:
    """Set the linear map from gated trunk features to pixels: colours [3 * patch**2, WIDE]."""
    linear, width = net.pixel_blocks[-1].adaLN_modulation[0], net.config.pixel_hidden_size
    weight = linear.weight.view(-1, 6, width, linear.weight.shape[1])
    weight[:, 3, :3, :WIDE] = rearrange(colours, "(c n) d -> n c d", c=3)
