"""Start values for the bundled network: the best linear upscaler, written into its weights.

A network this small spends most of an hour to find plain interpolation from random weights. So the linear map from a
latent cell's 3 x 3 neighbourhood to the cell's 8 x 8 pixels is fitted to the training pictures by least squares; the
latent branch and the pixel blocks start as exactly that map. All weights are trained from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pid_core.model.network import PiDNetwork
from pid_core.model.positions import timestep_features
from pid_core.sampling.schedule import DISTILLED_SIGMAS

# Features by the noise they are for: (degrade_sigma they are fitted at, sigma at which their gate is half shut, count).
# Each group adds what the noisier ones leave out, so the sum is right at 0 and falls back with sigma.
GROUPS = ((0.75, 1.0, 16), (0.45, 0.6, 24), (0.2, 0.32, 24), (0.0, 0.1, 64))
NEAR = 64  # linear features after the first convolution
ALPHA = 40.0  # how fast gates shut with sigma
# Size of a colour of 1, and of the constant beside it, in the pixel stream; the positions there, of size 1, vanish.
COLOUR, LEVEL = 512.0, 10240.0
LATE = 16  # features of the pixel blocks' conditioning that only the last two steps have
OPEN = (-5.0, -5.0, 2.0, 2.0)  # what time puts on them, by step
SHARPEN = 0.8  # strength of the unsharp mask that they start with
GRAIN = (0.0, 0.0, 0.005, 0.01)  # share of the noisy image that each of the four steps leaves in the picture, at first
NOISE = 8.0  # size of the noisy image in the pixel stream


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
def start_trunk(net: PiDNetwork, pictures: Tensor, latents: Tensor) -> Tensor:
    """Write the best linear upscalers for several sigmas into the trunk and the gate before the pixel blocks.

    Takes pictures [B, 3, H, W] and their clean latents [B, C, h, w]; gives the readout [3 * patch**2, lq_width] from
    gated features to a patch's pixels. The trunk's two entry convolutions see 5 x 5 cells.
    """
    patch = net.config.patch_size
    targets = rearrange(pictures, "b c (h p) (w q) -> b (c p q) h w", p=patch, q=patch)
    noisy = {s: (1 - s) * latents + s * torch.randn_like(latents) for s, _, _ in GROUPS}
    near = torch.cat([fit(noisy[0.0], targets, 40)[0], fit(noisy[0.45], targets, NEAR - 40)[0]])
    features = {s: F.conv2d(latent, near, padding=1) for s, latent in noisy.items()}
    wide, readout, bias = [], [], []
    for sigma, shut, count in GROUPS:
        known = sum(
            F.conv2d(F.conv2d(features[sigma], w, padding=1), r[..., None, None])
            for w, r in zip(wide, readout, strict=True)
        )
        inner, outer = fit(features[sigma], targets - known, count)
        wide.append(inner)
        readout.append(outer)
        bias.append(torch.full((count,), ALPHA * shut))
    first, second, *blocks = (m for m in net.lq_proj.latent_proj if not isinstance(m, nn.SiLU))
    first.weight.copy_(torch.cat([near, -near]))  # silu(x) - silu(-x) = x carries signs through the activation
    first.bias.zero_()
    both = torch.cat(wide)
    second.weight.copy_(torch.cat([both, -both], dim=1))
    second.bias.zero_()
    for block in blocks:
        nn.init.zeros_(block.block[5].weight)
        nn.init.zeros_(block.block[5].bias)
    nn.init.eye_(net.lq_proj.pit_head.weight)
    nn.init.zeros_(net.lq_proj.pit_head.bias)
    for gate in (*net.lq_proj.gate_modules, net.pit_lq_gate):
        nn.init.zeros_(gate.content_proj.weight)
        gate.content_proj.bias.copy_(torch.linspace(2, ALPHA, len(gate.content_proj.bias)))
        nn.init.constant_(gate.log_alpha, math.log(ALPHA))
    net.pit_lq_gate.content_proj.bias.copy_(torch.cat(bias))
    return torch.cat(readout, dim=1)


@torch.no_grad()
def start_pixels(net: PiDNetwork, readout: Tensor) -> Tensor:
    """Let the pixel blocks draw what `readout` [3 * patch**2, lq_width] makes of the features, sharper in the end.

    Returns the features that only the last two steps have, for `strengthen`.

    `net` needs two or more pixel blocks, a pixel width of 8 or more, the injection before the pixel blocks, x0 output.
    """
    _quiet_patch_stream(net)
    for block in net.pixel_blocks[:-1]:
        _modulation(block, net.config.pixel_hidden_size)
        nn.init.zeros_(block.mlp.fc2.weight)
        nn.init.zeros_(block.mlp.fc2.bias)
    _steady_pixels(net)
    steps, late = _show_time(net, readout)
    _sharpen_late(net, readout, steps, late)
    _write_colours(net, readout)
    _open_grain(net, steps)
    return late


@torch.no_grad()
def strengthen(net: PiDNetwork, late: Tensor, factor: float) -> None:
    """Multiply the detail that the last two steps add to what squared error asks for."""
    head = net.lq_proj.output_heads[-1]
    head.weight[late] *= factor
    head.bias[late] *= factor


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
    net.pixel_embedder.proj.weight[4:7] = NOISE * torch.eye(3)


def _show_time(net: PiDNetwork, readout: Tensor) -> tuple[Tensor, Tensor]:
    """Make room in the pixel blocks' conditioning for what depends on time: the features that `readout` uses least.

    Time drawn into all features at random would draw a pattern over the picture; too faint, and four steps look like
    one. Returns which features: [4] of which each is 1 in one of the student's steps and 0 in the others, and [LATE]
    that are open to the patch stream in the last two steps only (silu's two sides).
    """
    steps, late = readout.square().sum(dim=0).argsort()[: 4 + LATE].split((4, LATE))
    readout[:, steps], readout[:, late] = 0, 0
    for parameter in (net.lq_proj.pit_head.weight, net.lq_proj.pit_head.bias):
        parameter[steps], parameter[late] = 0, 0
    times = torch.tensor([1.0, *DISTILLED_SIGMAS[:4]])
    first, activation, second = net.t_embedder.mlp
    features = activation(first(timestep_features(1000 * times, net.config.time_features)))
    target = torch.eye(4)[[0, 0, 1, 2, 3]]  # 1.0 is the first step of a decode in one
    each, opening = (
        torch.linalg.lstsq(features, w).solution.mT for w in (target, target @ torch.tensor(OPEN)[:, None])
    )
    second.weight[steps] = 1.278 * each  # silu(1.278) is 1
    second.weight[late] = opening
    return steps, late


def _sharpen_late(net: PiDNetwork, readout: Tensor, steps: Tensor, late: Tensor) -> None:
    """The last two steps start with more fine detail than squared error asks for: an unsharp mask within the patch.

    The patch stream brings it, through the last injection, in the features that are shut before.
    """
    head, gate = net.lq_proj.output_heads[-1], net.lq_proj.gate_modules[-1]
    used = readout * torch.sigmoid(net.pit_lq_gate.content_proj.bias)  # by a clean latent
    patches = rearrange(used, "(c p q) d -> d c p q", c=3, p=net.config.patch_size)
    blurred = F.avg_pool2d(F.pad(patches, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    detail = rearrange(patches - blurred, "d c p q -> (c p q) d")
    outer, size, inner = torch.linalg.svd(detail, full_matrices=False)
    outer, inner = outer[:, :LATE] * size[:LATE], inner[:LATE]
    head.weight[late] = 0.5 * inner @ net.lq_proj.pit_head.weight
    head.bias[late] = 0.5 * inner @ net.lq_proj.pit_head.bias
    gate.content_proj.bias[late] = 2.0
    readout[:, late] = 2 * SHARPEN * outer
    readout[:, steps] = -readout[:, late].sum(dim=1, keepdim=True) * F.silu(torch.tensor(OPEN))


def _open_grain(net: PiDNetwork, steps: Tensor) -> None:
    """Let the noisy image through the last pixel block as grain, by step.

    Training then says where there is texture to draw. From none at all it does not find the way.
    """
    linear, width = net.pixel_blocks[-1].adaLN_modulation[0], net.config.pixel_hidden_size
    linear.weight.view(-1, 6, width, linear.weight.shape[1])[:, 4, 4:7, steps] = torch.tensor(GRAIN)


def _modulation(block: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """Views of weight [pixels, 6, width, D] and bias [pixels, 6, width], made zero but for the gates' bias."""
    linear = block.adaLN_modulation[0]
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    weight, bias = linear.weight.view(-1, 6, width, linear.weight.shape[1]), linear.bias.view(-1, 6, width)
    bias[:, 2], bias[:, 5] = 0.05, 1.0  # gates
    return weight, bias


def _carry_through_mlp(block: nn.Module, pairs: Sequence[tuple[int, int]], factor: float) -> None:
    """The MLP adds factor * x[i] to its output j for each pair (i, j); gelu(x) - gelu(-x) = x carries signs."""
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    nn.init.zeros_(fc2.weight)
    nn.init.zeros_(fc2.bias)
    for k, (i, j) in enumerate(pairs):
        for row, sign in ((2 * k, 1), (2 * k + 1, -1)):
            fc1.weight[row], fc1.bias[row] = 0, 0
            fc1.weight[row, i] = sign
            fc2.weight[j, row] = sign * factor


def _steady_pixels(net: PiDNetwork) -> None:
    """The last pixel block's shift is the picture; its MLP scales it up, beside a constant that steadies RMSNorm.

    Its scale is what grain the noisy image leaves in the picture.
    """
    block, width = net.pixel_blocks[-1], net.config.pixel_hidden_size
    _, bias = _modulation(block, width)
    bias[:, 4] = -1.0  # scale: the stream itself does not enter
    _carry_through_mlp(block, [(0, 0), (1, 1), (2, 2), (4, 0), (5, 1), (6, 2)], COLOUR)
    block.mlp.fc2.bias[3] = LEVEL
    nn.init.zeros_(net.final_layer.linear.bias)
    nn.init.zeros_(net.final_layer.linear.weight)
    steady = LEVEL / math.sqrt(width)
    net.final_layer.linear.weight[:3, :3] = torch.eye(3) * steady / COLOUR


def _write_colours(net: PiDNetwork, colours: Tensor) -> None:
    """Set the linear map from gated trunk features to pixels: colours [3 * patch**2, lq_width]."""
    linear, width = net.pixel_blocks[-1].adaLN_modulation[0], net.config.pixel_hidden_size
    weight = linear.weight.view(-1, 6, width, linear.weight.shape[1])
    weight[:, 3, :3] = rearrange(colours, "(c n) d -> n c d", c=3)
