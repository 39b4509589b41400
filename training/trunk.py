"""First stage of training: the latent branch alone, as a plain upscaler, before it meets the noisy image.

    python -m training.trunk --pool pool --out trunk.pt --minutes 25

The trunk, the gate before the pixel blocks and a linear readout (which the pixel blocks take over exactly, see
linear_start.py) learn to upscale and to remove noise of a known degrade_sigma, at a third of a whole forward's cost.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.linear_start import start_trunk
from training.optimisers import MuonAndAdamW
from training.train import NANO, Pool, TrainedNetwork, degrade_some

SHAPES = ((12, 128, 128), (12, 128, 128), (3, 256, 256))  # batch, height, width


class Upscaler(nn.Module):
    """Latents [B, 12, h, w] and sigma [B] -> pictures [B, 3, 8h, 8w]."""

    def __init__(self, net: TrainedNetwork, readout: Tensor):
        super().__init__()
        self.trunk, self.gate = net.lq_proj, net.pit_lq_gate
        self.readout = nn.Linear(readout.shape[1], readout.shape[0], bias=False)
        self.readout.weight = nn.Parameter(readout)

    def forward(self, latent: Tensor, sigma: Tensor) -> Tensor:
        features = self.trunk.pit_head(self.trunk(latent, *latent.shape[-2:]))
        gated = self.gate(torch.zeros_like(features), features, sigma.view(-1, 1, 1))
        pixels = self.readout(gated.to(latent.dtype)).float()
        return F.pixel_shuffle(pixels.mT.unflatten(2, latent.shape[-2:]), 8)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    pool, rng = Pool(args.pool, args.seed), np.random.default_rng(args.seed)
    net = TrainedNetwork(NANO)
    first = (torch.cat(part) for part in zip(*(pool.batch(16, 128, 128) for _ in range(30)), strict=True))
    model = Upscaler(net, start_trunk(net, *first))
    if args.resume:
        model.load_state_dict(torch.load(args.resume, weights_only=True))
    learnt = [(n, p) for n, p in model.named_parameters() if not n.startswith(("trunk.output_heads", "trunk.gate_"))]
    optimiser = MuonAndAdamW(learnt, muon=args.lr, adamw=0.1 * args.lr, gates=2 * args.lr)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995))
    run = torch.compile(model, dynamic=False)
    start, shown, iteration, sums = time.monotonic(), 0.0, 0, {}
    while (progress := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        pace = min(1, (iteration + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        x, latent = pool.batch(*SHAPES[rng.integers(len(SHAPES))])
        noisy, sigma = degrade_some(latent, args.noised)
        with torch.autocast("cpu", torch.bfloat16):
            out = run(noisy.bfloat16(), sigma)
        error = out - x
        optimiser.step(error.square().mean() if args.squared else error.abs().mean(), pace)
        ema.update_parameters(model)
        iteration += 1
        with torch.no_grad():
            plain = F.interpolate(F.pixel_shuffle(latent, 2), scale_factor=4, mode="bicubic")
            for part, mask in (("clean", sigma == 0), ("noised", sigma > 0)):
                if bool(mask.any()):
                    errors = [float((y - x)[mask].square().mean()) for y in (out, plain)]
                    sums.setdefault(part, []).append(errors)
        elapsed = time.monotonic() - start
        if elapsed - shown > 60:
            gains = {k: round(-10 * math.log10(np.divide(*np.mean(v, axis=0))), 3) for k, v in sums.items()}
            print(f"{elapsed / 60:6.1f} min  {iteration:6d}  pace {pace:.2f}  dB over bicubic {gains}", flush=True)
            shown, sums = elapsed, {}
            torch.save(ema.module.state_dict(), args.out)
    torch.save(ema.module.state_dict(), args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with part*.npy from training.make_pool")
    parser.add_argument("--out", type=Path, required=True, help="file to write, for training.train --trunk")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--lr", type=float, default=2e-3, help="of Muon; AdamW follows")
    parser.add_argument("--noised", type=float, default=0.5, help="share of latents that get noise")
    parser.add_argument("--squared", action="store_true", help="squared error, for the last run: PSNR counts it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="a file this script wrote")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
