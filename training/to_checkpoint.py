"""Last stage: write the upscaler, exactly, into a PiDNetwork's file.

    python -m training.to_checkpoint grained.pt pid_core/assets/pid_nano.safetensors

- The latent, un-packed, is the small picture, and a patch is what one small pixel becomes.
- GroupNorm would make a pixel depend on the whole picture. Two more channels in each of its groups, one a large
  constant and one that makes the group's sum constant, leave it nothing to do.
- Both readouts are features of the gate before the pixel blocks, which knows degrade_sigma; the patch stream is silent.
- The pixel block's MLP line adds what the gated features say to nothing: its scale takes the pixel stream out. So the
  picture comes out of a channel beside which another is so large that the last norm divides by a constant.
- Attention changes nothing, and the config says so.
- In the last of several steps the noisy image is x_t = (1 - t) x0 + t noise, and x0 is what the upscaler gives, to the
  bit. So (x_t - (1 - t) x0) / t is that step's noise. Its brightness, less its mean over each patch, times the level
  that the upscaler learnt is the grain.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pid_core.checkpoints.reading import config_tensor
from pid_core.model.config import PiDConfig
from pid_core.model.network import PiDNetwork
from pid_core.model.positions import timestep_features
from pid_core.sampling.schedule import DISTILLED_SIGMAS
from training.crops import SCALE
from training.upscaler import PIXELS, SHUT, STEEP, Upscaler, read_upscaler

GROUPS = 4  # of a residual block's norms
LARGE = 2048.0  # the constant channel; its share in a group's variance leaves the features' own unseen
# Features of the gate before the pixel blocks: two readouts, the level, the mean of x_t's brightness over the patch and
# its negative, and one that is 1 in the last of several steps and else 0.
LEVELS = 2 * PIXELS
MEANS = LEVELS + SCALE**2
LAST = MEANS + 2
FEATURES = 128  # a multiple of 16, so that it can be packed
# Sizes in the pixel stream: of the constant, and of a colour and of brightness of 1 beside it. Positions are of size 1.
LARGEST, COLOUR, BRIGHTNESS = 2.0**20, 2.0**12, 2.0**14
GREY = 1 / math.sqrt(3)  # of each colour in the brightness, so that noise in it has the deviation of noise
AMPLIFIED = 16.0  # the level, in the pixel block
GRAIN = 1.0  # times the learnt level; more is nearer to the photos' gradient, and lies like sand along edges


def config_for(net: Upscaler) -> PiDConfig:
    width = net.entry[0].out_channels
    return PiDConfig(
        patch_size=4,
        hidden_size=FEATURES,
        num_heads=1,
        patch_depth=1,
        mlp_size=4,
        time_features=16,
        pixel_hidden_size=8,
        pixel_attn_size=4,
        pixel_num_heads=1,
        pixel_depth=1,
        pixel_mlp_size=8,
        caption_width=4,
        caption_length=1,
        rope_reference=256,
        latent_channels=12,
        latent_down=2,
        latent_unpack=2,
        lq_width=width + 2 * GROUPS,
        lq_res_blocks=len(net.blocks),
        lq_interval=1,
        lq_padding="replicate",
        pit_injection=True,
        prediction="x0",
        steps=1,
        attends=False,
        family="rgb",
        invents=False,
        window_min=128,
        window_max=512,
    )


@torch.no_grad()
def write(net: Upscaler, grain: float = GRAIN) -> PiDNetwork:
    """A network that decodes in one step as `net` upscales, and draws in four grain of `grain` times its level."""
    out = PiDNetwork(config_for(net))
    for name, parameter in out.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    _write_trunk(out, net)
    _write_readouts(out, net, grain)
    _write_time(out)
    _write_pixels(out)
    return out.eval().requires_grad_(False)


class Channels:
    """Where the upscaler's channels are among the trunk's: in each group first its share, then constant and counter."""

    def __init__(self, width: int):
        size = width // GROUPS + 2
        groups = torch.arange(GROUPS * size).view(GROUPS, size)
        self.used, self.constant, self.counter = groups[:, :-2].flatten(), groups[:, -2], groups[:, -1]
        self.size = size

    def fill(self, target: nn.Conv2d, source: nn.Conv2d, inputs: Tensor, constant: float) -> None:
        """Write source's kernels; the counters take off what the rest of their group gives together."""
        target.weight[self.used[:, None], inputs] = source.weight
        target.bias[self.used] = source.bias
        target.bias[self.constant] = constant
        for group in range(GROUPS):
            mine = self.used.view(GROUPS, -1)[group]
            target.weight[self.counter[group]] = -target.weight[mine].sum(0)
            target.bias[self.counter[group]] = -target.bias[mine].sum()

    def still(self, norm: nn.GroupNorm) -> None:
        """Undo what the norm does to a group in which nothing but the constant counts."""
        norm.weight.fill_(LARGE * math.sqrt(self.size - 1) / self.size)
        norm.bias.fill_(LARGE / self.size)


def _write_trunk(out: PiDNetwork, net: Upscaler) -> None:
    width = net.entry[0].out_channels
    channels = Channels(width)
    used = channels.used
    first, _, second, *blocks = out.lq_proj.latent_proj
    first.weight[:width], first.bias[:width] = net.entry[0].weight, net.entry[0].bias
    channels.fill(second, net.entry[1], torch.arange(width), LARGE)
    for target, source in zip(blocks, net.blocks, strict=True):
        norm1, _, conv1, norm2, _, conv2 = target.block
        channels.still(norm1)
        channels.still(norm2)
        channels.fill(conv1, source.first, used, LARGE)
        channels.fill(conv2, source.second, used, 0.0)


def _write_readouts(out: PiDNetwork, net: Upscaler, grain: float) -> None:
    head, gate = out.lq_proj.pit_head, out.pit_lq_gate
    used = Channels(net.entry[0].out_channels).used
    for start, readout, factor in ((0, net.noisy, 1), (PIXELS, net.clean, 1), (LEVELS, net.level, grain)):
        rows = slice(start, start + len(readout.weight))
        head.weight[rows, used] = factor * readout.weight[:, :, 0, 0]
        head.bias[rows] = factor * readout.bias
    gate.log_alpha.fill_(math.log(STEEP))
    bias = gate.content_proj.bias
    bias[:PIXELS] = STEEP + 30  # open at every sigma
    bias[PIXELS:LEVELS] = STEEP * SHUT
    bias[LEVELS:MEANS] = -30.0  # shut but in the last step
    gate.content_proj.weight[LEVELS:MEANS, LAST] = 30 + STEEP * SHUT


def _write_time(out: PiDNetwork) -> None:
    """Let one feature tell the last of several steps."""
    first, activation, second = out.t_embedder.mlp
    generator = torch.Generator().manual_seed(0)
    first.weight.copy_(0.5 * torch.randn(first.weight.shape, generator=generator))
    first.bias.copy_(torch.randn(first.bias.shape, generator=generator))
    times = torch.tensor([1.0, *DISTILLED_SIGMAS[:4]])
    features = activation(first(timestep_features(1000 * times, out.config.time_features)))
    wanted = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.278])  # silu(1.278) is 1
    second.weight[LAST] = torch.linalg.lstsq(features, wanted[:, None]).solution[:, 0]


def _write_pixels(out: PiDNetwork) -> None:
    block, width, pixels = out.pixel_blocks[0], out.config.pixel_hidden_size, out.config.patch_size**2
    linear = block.adaLN_modulation[0]
    lines, constants = linear.weight.view(pixels, 6, width, -1), linear.bias.view(pixels, 6, width)
    constants[:, 4] = -1.0  # scale of the MLP's line: the pixel stream stays out of it
    constants[:, 5] = 1.0  # its gate
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    for colour in range(3):
        for pixel in range(pixels):
            for start in (0, PIXELS):
                lines[pixel, 3, colour, start + colour * pixels + pixel] = 1.0
        fc1.weight[2 * colour, colour], fc1.weight[2 * colour + 1, colour] = 1.0, -1.0
        fc2.weight[colour, 2 * colour], fc2.weight[colour, 2 * colour + 1] = COLOUR, -COLOUR  # gelu(x) - gelu(-x) = x
    out.pixel_embedder.proj.bias[3] = LARGEST
    out.final_layer.linear.weight[:, :3] = torch.eye(3) * LARGEST / math.sqrt(width) / COLOUR
    _write_grain(out, lines, DISTILLED_SIGMAS[3])


def _write_grain(out: PiDNetwork, lines: Tensor, t: float) -> None:
    """Channel 4 of the pixel stream becomes the last step's noise, and enters the MLP's line as strongly as the level.

    lines: the modulation's weight, [pixels, 6, width, FEATURES].
    """
    block, width, pixels = out.pixel_blocks[0], out.config.pixel_hidden_size, out.config.patch_size**2
    out.pixel_embedder.proj.weight[4] = BRIGHTNESS * GREY
    out.s_embedder.proj.weight[MEANS], out.s_embedder.proj.weight[MEANS + 1] = GREY / pixels, -GREY / pixels
    # The attention's line adds its gate times a constant: it takes off what of the brightness is no noise.
    block.expand_from_attn.bias.view(pixels, width)[:, 4] = BRIGHTNESS
    gate = lines[:, 2, 4]
    gate[:, MEANS], gate[:, MEANS + 1] = -1.0, 1.0  # silu(x) - silu(-x) = x
    for start in (0, PIXELS):
        for colour in range(3):
            gate[:, start + colour * pixels : start + (colour + 1) * pixels] = (
                -(1 - t) * GREY * (torch.eye(pixels) - 1 / pixels)
            )
    lines[:, 4, 4, LEVELS:MEANS] = AMPLIFIED * torch.eye(pixels)
    noise = t * BRIGHTNESS * math.sqrt(width) / LARGEST * AMPLIFIED  # what the MLP sees of a noise of 1, by the level
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    fc1.weight[6, 4], fc1.weight[7, 4] = 1.0, -1.0
    fc2.weight[:3, 6], fc2.weight[:3, 7] = COLOUR / noise, -COLOUR / noise


def save(net: PiDNetwork, path: Path) -> None:
    """In bfloat16, but for what the whole picture would show the rounding of."""
    exact = ("lq_proj.latent_proj.0.", "lq_proj.latent_proj.2.", "lq_proj.pit_head.", "adaLN_modulation", "t_embedder.")
    state = {}
    for name, tensor in net.state_dict().items():
        keep = any(part in name for part in exact) or ".block.0." in name or ".block.3." in name
        state[name] = tensor.to(torch.float32 if keep else torch.bfloat16).contiguous()
    state["default_caption"] = torch.zeros(1, net.config.caption_width, dtype=torch.bfloat16)
    state["pid_config"] = config_tensor(net.config)  # for tools that keep tensors only
    metadata = {"pid_config": json.dumps(asdict(net.config)), "licence": "Apache-2.0", "title": "pid_nano"}
    save_file(state, path, metadata=metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state", type=Path, help="what training.grain or training.upscale wrote")
    parser.add_argument("out", type=Path, help="safetensors file to write")
    parser.add_argument("--grain", type=float, default=GRAIN, help="of four steps, times the learnt level")
    options = parser.parse_args()
    save(write(read_upscaler(options.state), options.grain), options.out)


if __name__ == "__main__":
    main()
