"""Train the network that windows and seams are measured on: small, and its attention spans the picture.

    python -m training.attentive --out tests/assets/attentive.safetensors --minutes 15

For tests and benchmarks alone; it draws no good pictures. The bundled model attends to nothing, so windows cost it
nothing; NVIDIA's networks attend to the whole window. What makes this one look far (tests/assets/README.md says more):
pictures that repeat themselves, latents with noise of a known and of an unknown strength, and one unknown cast over
the whole picture. It has no residual blocks on the latent, whose norms would see the whole canvas without attention.
--minutes counts CPU time, so that a busy machine does not change the result.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor, nn

from pid_core.checkpoints.reading import config_tensor
from pid_core.model.config import PiDConfig
from pid_core.model.network import PiDNetwork
from pid_core.sampling.schedule import DISTILLED_SIGMAS
from training.muon import MuonAndAdamW
from training.scenes import Rng, font, ink, palette, pick, scene, wall_picture

ATTENTIVE = PiDConfig(
    patch_size=8,
    hidden_size=64,
    num_heads=4,
    patch_depth=3,
    mlp_size=128,
    time_features=32,
    pixel_hidden_size=8,
    pixel_attn_size=32,
    pixel_num_heads=2,
    pixel_depth=1,
    pixel_mlp_size=16,
    caption_width=4,
    caption_length=1,
    rope_reference=256,
    latent_channels=12,
    latent_down=2,
    lq_width=64,
    lq_res_blocks=0,
    lq_interval=2,
    lq_padding="replicate",
    gate="token",
    pit_injection=True,
    prediction="x0",
    family="rgb",
    invents=False,
    window_min=96,
    window_max=256,
)
SHAPES = ((8, 96, 96), (8, 128, 128), (5, 128, 192), (3, 192, 192), (2, 256, 256), (1, 384, 384))  # batch, H, W
SIDE = 384  # of a picture
TIMES = (1.0, *DISTILLED_SIGMAS[:4])
FEATURES = 48  # of the latent, that the best linear upscaler is held in
COLOUR, LEVEL = 64.0, 640.0  # size of a colour of 1 in the pixel stream, and of the constant that steadies its norm
CAST, GREYED = 0.1, 0.6  # deviation of a cast; share of its mean that a picture loses, so that a cast can be told
UNKNOWN = 0.15  # largest deviation of the noise that nobody tells of
EMA = 0.998


# --- Pictures ---


def picture(rng: Rng) -> np.ndarray:
    """One, float32 [SIDE, SIDE, 3] in [0, 1]; most repeat themselves."""
    kind = rng.choice(4, p=(0.35, 0.35, 0.15, 0.15))
    if kind == 0:
        drawn = scene(rng, SIDE)
    elif kind == 1:
        drawn = repeated(rng, scene(rng, SIDE))
    elif kind == 2:
        drawn = np.array(wall_picture(rng, palette(rng)).reduce(2))
    else:
        drawn = page(rng)
    return drawn.astype(np.float32) / 255


def repeated(rng: Rng, drawn: np.ndarray) -> np.ndarray:
    """A piece of a picture all over it, in rows that may be shifted as bricks are; at times half the picture stays."""
    height, width = (int(n) for n in np.exp(rng.uniform(np.log(16), np.log(96), 2)))
    top, left = (int(rng.integers(SIDE - n)) for n in (height, width))
    piece = drawn[top : top + height, left : left + width]
    shift = int(width * rng.choice((0, 0, 0.5, 0.3)))
    rows = [
        np.tile(piece, (1, -(-2 * SIDE // width), 1))[:, shift * k % width :][:, :SIDE]
        for k in range(SIDE // height + 1)
    ]
    out = np.concatenate(rows)[:SIDE]
    if rng.random() < 0.3:
        out[: SIDE // 2] = drawn[: SIDE // 2]
    return out


def page(rng: Rng) -> np.ndarray:
    """A page of few letters, in one size of one font."""
    colours = palette(rng)
    size = int(rng.integers(10, 40))
    out = Image.new("RGB", (SIDE, SIDE), ink(pick(rng, colours)))
    letters = rng.choice(list("abcdefghiklmnoprstuvwxyzABCDEFGHKLMNRSTZ0123456789    "), int(rng.integers(4, 14)))
    lines = ["".join(rng.choice(letters, 3 * SIDE // size)) for _ in range(SIDE // size)]
    ImageDraw.Draw(out).multiline_text((-size / 2, -size / 3), "\n".join(lines), ink(pick(rng, colours)), font(size))
    return np.array(out)


class Crops:
    """Random crops of `count` pictures that are drawn once."""

    def __init__(self, seed: int, count: int):
        self.rng = np.random.default_rng((seed, 1))
        drawn = (torch.from_numpy(picture(np.random.default_rng((seed, 2, i)))) for i in range(count))
        self.pictures = [2 * x.movedim(-1, 0) - 1 for x in drawn]
        self.means = [x.mean((1, 2), keepdim=True) for x in self.pictures]

    def crop(self, height: int, width: int) -> Tensor:
        rng, which = self.rng, self.rng.integers(len(self.pictures))
        top, left = (int(rng.integers(SIDE - n + 1)) for n in (height, width))
        x = self.pictures[which][:, top : top + height, left : left + width] - GREYED * self.means[which]
        x = x[torch.from_numpy(rng.permutation(3))].clamp(-1, 1)
        return x.flip([dim for dim in (1, 2) if rng.random() < 0.5])

    def batch(self, count: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [B, 3, H, W] in [-1, 1], latents [B, 12, H/8, W/8], degrade_sigma [B]."""
        x = torch.stack([self.crop(height, width) for _ in range(count)])
        small = F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True)
        return x, *self.worn(small)

    def worn(self, small: Tensor) -> tuple[Tensor, Tensor]:
        """Small pictures as latents, with a cast, with noise that nobody tells of, with that of a degrade_sigma."""
        has_cast, is_noisy, is_noised = torch.rand(3, len(small), 1, 1, 1) < 0.5
        small = small + has_cast * CAST * torch.randn(len(small), 3, 1, 1)
        small = small + is_noisy * UNKNOWN * torch.rand(len(small), 1, 1, 1) * torch.randn_like(small)
        sigma = is_noised * 0.8 * torch.rand(len(small), 1, 1, 1)
        return F.pixel_unshuffle((1 - sigma) * small + sigma * torch.randn_like(small), 2), sigma.flatten()


# --- Start ---


@torch.no_grad()
def start(net: PiDNetwork, pictures: Tensor, latents: Tensor) -> None:
    """Become the best linear upscaler that sees 3 x 3 cells; from random weights half the time would go by for that."""
    config = net.config
    seen = F.unfold(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3).mT.flatten(0, 1).double()
    wanted = F.pixel_unshuffle(pictures, config.patch_size).movedim(1, -1).flatten(0, -2).double()
    ridge = 1e-3 * len(seen) * seen.square().mean() * torch.eye(seen.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(seen.mT @ seen + ridge, seen.mT @ wanted).mT.float()  # [3 * 64, 12 * 9]
    outer, size, inner = torch.linalg.svd(weights, full_matrices=False)
    outer, size, inner = outer[:, :FEATURES], size[:FEATURES], inner[:FEATURES]
    scale = (seen.float() @ inner.mT).std(0)
    first, _, second = net.lq_proj.latent_proj
    channels = config.lq_in_channels
    nn.init.dirac_(first.weight[:channels])
    first.weight[channels : 2 * channels] = -first.weight[:channels]
    kernels = (inner / scale[:, None]).unflatten(1, (channels, 3, 3))
    second.weight[:FEATURES] = 0
    second.weight[:FEATURES, : 2 * channels] = torch.cat([kernels, -kernels], 1)  # silu(x) - silu(-x) = x
    for bias in (first.bias[: 2 * channels], second.bias[:FEATURES]):
        nn.init.zeros_(bias)
    nn.init.eye_(net.lq_proj.pit_head.weight)
    net.lq_proj.pit_head.weight[FEATURES:] = 0
    nn.init.zeros_(net.lq_proj.pit_head.bias)
    for gate in (*net.lq_proj.gate_modules, net.pit_lq_gate):
        nn.init.zeros_(gate.content_proj.weight)
        nn.init.constant_(gate.content_proj.bias, 4.0)
        nn.init.zeros_(gate.log_alpha)
    _start_stream(net)
    _start_pixels(net, outer * size * scale)


def _start_stream(net: PiDNetwork) -> None:
    """The patch stream joins the latent's features behind its blocks; it must start small beside them."""
    nn.init.normal_(net.y_pos_embedding, std=0.5)
    for linear in (net.s_embedder.proj, net.t_embedder.mlp[2], *net.lq_proj.output_heads):
        linear.weight *= 0.2
        nn.init.zeros_(linear.bias)
    for block in net.patch_blocks:
        for modulation in (block.adaLN_modulation_img[0], block.adaLN_modulation_txt[0]):
            nn.init.zeros_(modulation.bias)
            modulation.bias.unflatten(0, (6, -1))[[2, 5]] = 0.1  # gates


def _start_pixels(net: PiDNetwork, readout: Tensor) -> None:
    """The pixel block's shift is the picture; its MLP lays it, large, beside a constant that steadies the last norm."""
    (block,), width = net.pixel_blocks, net.config.pixel_hidden_size
    linear, fc1, fc2 = block.adaLN_modulation[0], block.mlp.fc1, block.mlp.fc2
    linear.weight *= 0.01
    nn.init.zeros_(linear.bias)
    lines = linear.bias.view(-1, 6, width)
    lines[:, 2], lines[:, 4], lines[:, 5] = 0.1, -1.0, 1.0  # attention's gate; the MLP's scale and gate
    linear.weight.view(-1, 6, width, linear.weight.shape[1])[:, 3, :3, :FEATURES] = rearrange(
        readout, "(c n) d -> n c d", c=3
    )
    nn.init.zeros_(fc2.weight)
    nn.init.zeros_(fc2.bias)
    for k in range(3):
        for row, sign in ((2 * k, 1), (2 * k + 1, -1)):  # gelu(x) - gelu(-x) = x
            fc1.weight[row], fc1.bias[row] = 0, 0
            fc1.weight[row, k], fc2.weight[k, row] = sign, sign * COLOUR
    fc2.bias[3] = LEVEL
    nn.init.zeros_(net.final_layer.linear.weight)
    nn.init.zeros_(net.final_layer.linear.bias)
    net.final_layer.linear.weight[:, :3] = LEVEL / math.sqrt(width) / COLOUR * torch.eye(3)


# --- Training ---


def predict(net: PiDNetwork, x_t: Tensor, t: Tensor, latent: Tensor, sigma: Tensor) -> Tensor:
    """The picture that the network sees in x_t [B, 3, H, W] at the times t [B]."""
    caption = torch.zeros(len(x_t), 1, net.config.caption_width)
    features = net.encode_lq(latent, *x_t.shape[-2:])
    return net(x_t, 1000 * t, caption, lq_features=features, degrade_sigma=sigma)


def noised(x: Tensor) -> tuple[Tensor, Tensor]:
    """x at some of the student's noise levels, and these: [B, 3, H, W] and [B]."""
    t = torch.tensor(TIMES)[torch.multinomial(torch.tensor([0.2, 0.3, 0.2, 0.15, 0.15]), len(x), replacement=True)]
    part = t.view(-1, 1, 1, 1)
    return (1 - part) * x + part * torch.randn_like(x), t


def decibels(out: Tensor, x: Tensor) -> Tensor:
    """Per picture, of the whole range."""
    return 10 * ((out - x).square().mean((1, 2, 3)) / 4 + 1e-5).log10()


def of_a_block(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and name.startswith(("patch_blocks", "lq_proj.output_heads"))


def train(options: argparse.Namespace) -> PiDNetwork:
    torch.manual_seed(options.seed)
    crops, rng = Crops(options.seed, options.pictures), np.random.default_rng((options.seed, 3))
    net = PiDNetwork(ATTENTIVE)
    x, latents, sigma = map(torch.cat, zip(*(crops.batch(8, 128, 128) for _ in range(24)), strict=True))
    start(net, x[sigma == 0], latents[sigma == 0])
    ema = copy.deepcopy(net)
    optimiser = MuonAndAdamW(net.named_parameters(), muon=options.rate, adamw=2e-3, takes=of_a_block)
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters", flush=True)
    begun, shown, iteration, seen = time.process_time(), 0.0, 0, []
    while (progress := (time.process_time() - begun) / (60 * options.minutes)) < 1:
        x, latent, sigma = crops.batch(*SHAPES[rng.integers(len(SHAPES))])
        x_t, t = noised(x)
        errors = decibels(predict(net, x_t, t, latent, sigma), x)
        iteration += 1
        pace = min(1, iteration / 50, 2 * (1 - progress))
        optimiser.step(errors.mean() / 10, pace)
        with torch.no_grad():
            kept = min(EMA, iteration / (iteration + 20))
            for mine, theirs in zip(ema.parameters(), net.parameters(), strict=True):
                mine.lerp_(theirs, 1 - kept)
            bicubic = F.interpolate(F.pixel_shuffle(latent, 2), scale_factor=4, mode="bicubic")
            seen += [(sum(line), *line) for line in zip(decibels(bicubic, x).tolist(), (-errors).tolist(), strict=True)]
        if progress - shown > 0.03:
            gain, _, quality = np.mean(seen, 0)
            print(f"{progress:.2f}  {iteration}  {quality:.2f} dB, {gain:.2f} over bicubic", flush=True)
            shown, seen = progress, []
            save(ema, options.out)
    return ema


def save(net: PiDNetwork, path: Path) -> None:
    state = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    state["default_caption"] = torch.zeros(1, net.config.caption_width, dtype=torch.half)
    state["pid_config"] = config_tensor(net.config)
    metadata = {"pid_config": json.dumps(asdict(net.config)), "licence": "Apache-2.0", "title": "attentive"}
    save_file(state, path, metadata=metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--minutes", type=float, default=15, help="of CPU time")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5e-3, help="of Muon")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    save(train(options), options.out)


if __name__ == "__main__":
    main()
