"""Second stage: how much detail the upscaler leaves out, and where; four steps draw grain of that strength.

    python -m training.grain --pool pool --state upscaler.pt --out grained.pt

The rest of the upscaler stays as it is. The level is the deviation of what is missing all around; that one cannot
know where the missing detail lies is what grain, drawn from the steps' own noise, is honest about.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

from training.crops import Crops
from training.losses import misjudged, missing
from training.upscale import SIDE
from training.upscaler import Upscaler, read_upscaler


def learn(net: Upscaler, crops: Crops, minutes: float, rate: float = 3e-3) -> None:
    net.requires_grad_(False)
    net.level.requires_grad_(True)
    optimiser = torch.optim.AdamW(net.level.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    spent, losses = 0.0, []
    while spent < 60 * minutes:
        begun = time.process_time()
        x, small, sigma = crops.batch(12, SIDE)
        x, small, sigma = (part[sigma == 0] for part in (x, small, sigma))
        if len(x) == 0:
            continue
        with torch.no_grad():
            features = net.features(small)
            rest = missing(net.read(features, sigma), x)
        loss = misjudged(net.strength(features), rest)
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = rate * (0.01 + 0.5 * (1 + math.cos(math.pi * spent / (60 * minutes))))
        optimiser.step()
        losses.append(float(loss.detach()))
        spent += time.process_time() - begun
        if len(losses) % 20 == 0:
            print(f"{spent:4.0f} cpu s  {len(losses)}  {np.mean(losses[-20:]):.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with part*.npy from training.make_pool")
    parser.add_argument("--state", type=Path, required=True, help="what training.upscale wrote")
    parser.add_argument("--out", type=Path, required=True, help="file for the finished upscaler's weights")
    parser.add_argument("--minutes", type=float, default=0.6, help="of CPU time")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    net = read_upscaler(options.state)
    learn(net, Crops(options.pool, np.random.default_rng(options.seed)), options.minutes)
    torch.save({"ema": net.state_dict()}, options.out)


if __name__ == "__main__":
    main()
