"""Train the bundled checkpoint, pid_nano: a small PiD that upscales RGB images four times.

    python -m training.make_pool pool/part0.npy --count 3000
    python -m training.trunk --pool pool --out trunk.pt --minutes 25
    python -m training.train --pool pool --trunk trunk.pt --out pid_core/assets/pid_nano.safetensors --minutes 25

Pictures are scenes made by code (training/scenes.py). The small picture is their bicubic, antialiased quarter; its
latent is pixel_unshuffle(2x - 1, 2), to which noise of a random degrade_sigma is added as NVIDIA's training does.
The latent branch comes trained from the first stage (training/trunk.py), which starts as the best linear upscaler;
the pixel blocks start by drawing what it says. Each step's x_t is made from the network's own earlier steps, as in
use. A loss asks the last two for the picture's local gradient energy, so that four steps come out sharper than one;
photos hold more of it than these scenes, so what the last two add is made stronger in the saved file (--late).
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
from safetensors.torch import save_file
from torch import Tensor, nn

from pid_core.checkpoints.reading import config_tensor
from pid_core.model.config import PiDConfig
from pid_core.model.network import PiDNetwork
from pid_core.model.positions import sine_cosine
from pid_core.sampling.schedule import DISTILLED_SIGMAS
from training.linear_start import start_pixels, strengthen
from training.optimisers import MuonAndAdamW

NANO = PiDConfig(
    patch_size=8,
    hidden_size=128,
    num_heads=4,
    patch_depth=2,
    mlp_size=256,
    pixel_hidden_size=8,
    pixel_attn_size=64,
    pixel_num_heads=2,
    pixel_depth=2,
    pixel_mlp_size=32,
    caption_width=32,
    caption_length=4,
    rope_reference=256,
    latent_channels=12,
    latent_down=2,
    lq_width=128,
    lq_res_blocks=5,
    lq_interval=1,
    pit_injection=True,
    prediction="x0",
    steps=1,  # its four lay a screen over textures
    family="rgb",
    invents=False,
    window_min=128,
    window_max=512,
)
SHAPES = (
    (12, 128, 128),
    (12, 128, 128),
    (12, 128, 128),
    (6, 128, 256),
    (3, 256, 256),
)  # batch, height, width
LONGEST_SIDE = 16384  # pixel positions are drawn from here, so that large images are no news to the network


class TrainedNetwork(PiDNetwork):
    """The network with a learnable caption and pixel positions that start anywhere."""

    def __init__(self, config: PiDConfig):
        super().__init__(config)
        self.default_caption = nn.Parameter(torch.randn(1, config.caption_length, config.caption_width))
        self.register_buffer("positions", sine_cosine(0, LONGEST_SIDE, config.pixel_hidden_size // 2), persistent=False)
        self.register_buffer("origin", torch.zeros(2, dtype=torch.long), persistent=False)

    def _pixel_positions(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        rows = self.origin[0] + torch.arange(height, device=device)
        columns = self.origin[1] + torch.arange(width, device=device)
        return self.positions[rows], self.positions[columns]

    def forward(self, x: Tensor, t: Tensor, lq_features: Tensor, sigma: Tensor) -> Tensor:
        caption = self.default_caption.expand(x.shape[0], -1, -1)
        return super().forward(x, 1000 * t, caption, lq_features=lq_features, degrade_sigma=sigma)


class Pool:
    """Random crops of the scene pool: pictures [B, 3, H, W] in [-1, 1] and their quarter-size latents."""

    def __init__(self, folder: Path, seed: int):
        self.parts = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("part*.npy"))]
        self.rng = np.random.default_rng(seed)

    def picture(self, height: int, width: int) -> Tensor:
        rng = self.rng
        if rng.random() < 0.04:
            return self.plain(height, width)
        part = self.parts[rng.integers(len(self.parts))]
        grow = 1.5 if rng.random() < 0.3 and max(height, width) * 1.5 <= part.shape[1] else 1.0
        h, w = int(height * grow), int(width * grow)
        top, left = rng.integers(part.shape[1] - h + 1), rng.integers(part.shape[2] - w + 1)
        crop = part[rng.integers(len(part)), top : top + h, left : left + w]
        image = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 127.5 - 1
        if grow > 1:
            image = F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0].clamp(-1, 1)
        image = image[torch.from_numpy(rng.permutation(3))]
        flips = [d for d in (1, 2) if rng.random() < 0.5]
        if height == width and rng.random() < 0.5:
            image = image.transpose(1, 2)
        return image.flip(flips)

    def plain(self, height: int, width: int) -> Tensor:
        """A flat colour or a gentle ramp: the network must not draw texture where there is none."""
        colour, slope = (torch.from_numpy(self.rng.uniform(-1, 1, (3, 1, 1))).float() for _ in range(2))
        ramp = torch.linspace(-0.5, 0.5, width).expand(height, width) * float(self.rng.random() < 0.5)
        return (colour + slope * ramp).clamp(-1, 1)

    def batch(self, size: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        x = torch.stack([self.picture(height, width) for _ in range(size)])
        small = F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True).clamp(-1, 1)
        if self.rng.random() < 0.5:
            small = (small * 127.5).round() / 127.5
        return x, F.pixel_unshuffle(small, 2)


def degrade_some(latent: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Add flow noise of sigma ~ U[0, 0.8] to a share of the batch; the rest stays clean with sigma 0."""
    sigma = torch.rand(len(latent)) * 0.8 * (torch.rand(len(latent)) < share)
    s = sigma.view(-1, 1, 1, 1)
    return (1 - s) * latent + s * torch.randn_like(latent), sigma


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.diff(dim=-1), x.diff(dim=-2)


def fidelity_loss(out: Tensor, x: Tensor, patch: int) -> Tensor:
    """Squared distance of pixels and of gradients; those across patch borders count four times, against a visible grid.

    Squared, because the absolute distance asks for the median, which for a gradient of unknown sign is none at all.
    """
    loss = (out - x).square().mean()
    for dim in (-1, -2):
        error = (out - x).diff(dim=dim).square()
        border = error.transpose(dim, -1)[..., patch - 1 :: patch]
        loss = loss + 0.25 * error.mean() + 0.75 / patch * border.mean()
    return loss


def energy_loss(out: Tensor, x: Tensor, window: int = 16) -> Tensor:
    """Distance between local mean gradient magnitudes, at full and at half size.

    It asks for the picture's sharpness and texture wherever the detail lies exactly, and for none in flat parts.
    """
    loss = out.new_zeros(())
    for scale in (1, 2):
        pair = (F.avg_pool2d(image, scale) for image in (out, x))
        for a, b in zip(*(gradients(image) for image in pair), strict=True):
            size = window // scale
            loss = loss + (F.avg_pool2d(a.abs() - b.abs(), size, size // 2)).abs().mean() / scale
    return loss


def grid_loss(out: Tensor, x: Tensor, patch: int) -> Tensor:
    """By how much gradients across patch borders exceed those inside, beyond what the picture itself has."""
    loss = out.new_zeros(())
    for dim in (-1, -2):
        energies = []
        for image in (out, x):
            step = image.diff(dim=dim).abs().mean(dim=1).transpose(dim, -1).flatten(1, -2).mean(dim=1)  # per line
            border = step[:, patch - 1 :: patch].mean(dim=1)
            energies.append((border, step.mean(dim=1) + 1e-4))
        (a, b), (c, d) = energies
        loss = loss + F.relu(a - b * c / d).mean()
    return loss


def draw_step(rng: np.random.Generator) -> tuple[int, float]:
    """(student step 0..3, time): only the student's own times, and the one-step decode's 1.0.

    Other times would teach nothing: the time features turn so fast that each is a new world to the network.
    """
    step = int(rng.choice(4, p=(0.3, 0.1, 0.2, 0.4)))
    return step, 1.0 if step == 0 and rng.random() < 0.4 else DISTILLED_SIGMAS[step]


@torch.no_grad()
def rollout(net, features: Tensor, sigma: Tensor, times: list[float], shape: torch.Size) -> Tensor:
    """The network's own x0 after student steps at `times`: what x_t is made of in use.

    Made of the true picture it would show the later steps real detail, and they would learn to copy it.
    """
    x0 = torch.zeros(shape)
    for i, t in enumerate(times):
        noise = torch.randn(shape)
        x_t = (1 - t) * x0 + t * noise if i else noise  # the first noise is not scaled, as in the reference
        x0 = net(x_t, torch.full((shape[0],), t), features, sigma)
    return x0


def start_from_trunk(net: TrainedNetwork, trained: dict[str, Tensor]) -> Tensor:
    """Take over what the first stage learnt (training/trunk.py): trunk, last gate and readout.

    Returns the features that only the last two steps have.
    """
    names = {"trunk.": "lq_proj.", "gate.": "pit_lq_gate."}
    own = net.state_dict()
    for old, new in names.items():
        own.update({new + k.removeprefix(old): v for k, v in trained.items() if k.startswith(old)})
    net.load_state_dict(own)
    return start_pixels(net, trained["readout.weight"])


def save_checkpoint(net: TrainedNetwork, path: Path) -> None:
    state = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in net.state_dict().items()}
    state["default_caption"] = state["default_caption"][0]
    state["pid_config"] = config_tensor(net.config)  # for tools that keep tensors only
    metadata = {"pid_config": json.dumps(asdict(net.config)), "licence": "Apache-2.0", "title": "pid_nano"}
    save_file(state, path, metadata=metadata)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    pool, rng = Pool(args.pool, args.seed), np.random.default_rng(args.seed)
    net = TrainedNetwork(NANO)
    late = start_from_trunk(net, torch.load(args.trunk, weights_only=True))
    net.compute_dtype = torch.bfloat16
    net.lq_proj.latent_proj.requires_grad_(False)  # has learnt all it can in the first stage
    learnt = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    # What a patch learns from far patches differs from window to window, and shows as seams.
    between = [p for name, p in learnt if name.startswith("patch_blocks") and ".attn.proj_x." in name]
    optimiser = MuonAndAdamW(learnt, muon=args.lr, adamw=0.5 * args.lr, gates=2 * args.lr)
    spent, iteration = 0.0, 0
    if args.resume:
        state = torch.load(args.resume, weights_only=True)
        net.load_state_dict(state["net"])
        spent, iteration = state["spent"] * (not args.restart_clock), state["iteration"]
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters", flush=True)
    run = torch.compile(net, dynamic=False) if args.compile else net
    trunk = torch.compile(net.lq_proj, dynamic=False) if args.compile else net.lq_proj
    start, shown, saved, sums = time.monotonic() - spent, 0.0, 0.0, {}
    while (progress := (time.monotonic() - start) / max(60 * args.minutes, 1e-9)) < 1:
        pace = min(1, (iteration + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        x, latent = pool.batch(*SHAPES[rng.integers(len(SHAPES))])
        latent, sigma = degrade_some(latent, args.noised)
        net.origin.copy_(torch.randint(0, LONGEST_SIDE - 256, (2,)))
        step, t = draw_step(rng)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                features = trunk(latent.bfloat16(), x.shape[2] // 8, x.shape[3] // 8)
            known = x
            if step > 0:
                times = DISTILLED_SIGMAS[:step] if rng.random() < 0.4 else DISTILLED_SIGMAS[:1]
                known = rollout(run, features, sigma, list(times), x.shape)
            x_t = (1 - t) * known + t * torch.randn_like(x)
            out = run(x_t, torch.full((len(x),), t), features, sigma)
        patch = net.config.patch_size
        if step > 1:
            loss = (out - x).square().mean() + args.sharpness * energy_loss(out, x)
        else:
            loss = fidelity_loss(out, x, patch)
        loss = loss + 0.2 * grid_loss(out, x, patch)
        optimiser.step(loss, pace)
        with torch.no_grad():
            for p in between:
                p.zero_()
        iteration += 1
        if bool((sigma == 0).any()):
            with torch.no_grad():
                plain = F.interpolate(F.pixel_shuffle(latent, 2), scale_factor=4, mode="bicubic")
                errors = [float((y - x)[sigma == 0].square().mean()) for y in (out, plain)]
            sums.setdefault(step, []).append(errors)
        elapsed = time.monotonic() - start
        if elapsed - shown > 30:
            gains = {k: round(-10 * math.log10(np.divide(*np.mean(v, axis=0))), 2) for k, v in sorted(sums.items())}
            print(
                f"{elapsed / 60:6.1f} min  {iteration:6d}  pace {pace:.2f}  dB over bicubic by step {gains}", flush=True
            )
            shown, sums = elapsed, {}
        if elapsed - saved > 180:
            saved = elapsed
            save_state(net, late, args, elapsed, iteration)
    save_state(net, late, args, time.monotonic() - start, iteration)


def save_state(net, late: Tensor, args: argparse.Namespace, spent: float, iteration: int) -> None:
    torch.save({"net": net.state_dict(), "spent": spent, "iteration": iteration}, args.out.with_suffix(".state.pt"))
    stronger = copy.deepcopy(net)
    strengthen(stronger, late, args.late)
    save_checkpoint(stronger, args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with part*.npy from training.make_pool")
    parser.add_argument("--trunk", type=Path, required=True, help="what training.trunk wrote")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--minutes", type=float, default=25, help="length of the run; the learning rate follows it")
    parser.add_argument("--lr", type=float, default=1e-3, help="of Muon; AdamW follows")
    parser.add_argument("--sharpness", type=float, default=0.3, help="weight of the gradient-energy loss")
    parser.add_argument("--late", type=float, default=1.6, help="factor on the detail that the last two steps add")
    parser.add_argument("--noised", type=float, default=0.35, help="share of latents that get noise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="a .state.pt file of an earlier run")
    parser.add_argument("--restart-clock", action="store_true", help="with --resume: a full run on top of it")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
