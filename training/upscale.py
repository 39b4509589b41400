"""First stage: the plain upscaler.

    python -m training.make_pool pool/part0.npy --count 240
    python -m training.upscale --pool pool --state upscaler.pt --minutes 120

--minutes counts CPU time, so that a busy machine does not change the result. The state is written every few minutes
and when the run is told to end (SIGTERM), and taken up again when the file is there. The last --final minutes bring the
rate to zero and count squared error; before, absolute error counts and the rate is steady, so a run may be made longer
as long as they have not begun. The dB printed are over bicubic, on the benchmark's photos for choices.
"""

from __future__ import annotations

import argparse
import copy
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measures import psnr
from benchmarks.photos import load_photos
from benchmarks.restoration import centre_crop, eight_bits, enlarge, shrink
from training.crops import Crops
from training.losses import absolute, decibels, unkept
from training.muon import MuonAndAdamW
from training.upscaler import BLOCKS, Upscaler

SIDE = 128  # of a crop
EMA = 0.997
RATE = 1e-3  # AdamW's
KEPT = 0.1  # weight of the small picture's error


class Run:
    def __init__(self, options: argparse.Namespace):
        torch.manual_seed(options.seed)
        self.options, self.rng = options, np.random.default_rng(options.seed)
        self.crops = Crops(options.pool, self.rng)
        self.net = Upscaler(blocks=options.blocks).to(options.device)
        self.seconds, self.iteration, self.stopped = 0.0, 0, False
        self.ema = copy.deepcopy(self.net)
        self.optimiser = self.new_optimiser()
        if options.state.exists():
            self.load()
        else:
            self.start()

    def new_optimiser(self) -> MuonAndAdamW:
        return MuonAndAdamW(self.net.named_parameters(), muon=self.options.rate, adamw=RATE)

    def start(self) -> None:
        pictures, small, sigma = map(torch.cat, zip(*(self.crops.batch(8, SIDE) for _ in range(32)), strict=True))
        self.net.cpu().start_linear(pictures[sigma == 0], small[sigma == 0])
        self.net.to(self.options.device)
        self.ema.load_state_dict(self.net.state_dict())

    def load(self) -> None:
        """Take up a saved run; blocks that it lacks start as doing nothing."""
        state = torch.load(self.options.state, weights_only=False, map_location="cpu")
        grown = len(state["net"]) < len(self.net.state_dict())
        self.net.load_state_dict(state["net"], strict=not grown)
        self.ema.load_state_dict({**self.net.state_dict(), **state["ema"]})
        self.seconds, self.iteration = state["seconds"], state["iteration"]
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        if not grown:
            self.optimiser.load_state_dict(state["optimiser"])

    def save(self) -> None:
        state = {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "seconds": self.seconds,
            "iteration": self.iteration,
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
        }
        unfinished = self.options.state.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, self.options.state)

    def train(self) -> None:
        options, shown, saved, started, since = self.options, self.seconds, self.seconds, time.time(), self.iteration
        total, final = 60 * options.minutes, 60 * options.final
        errors = []
        print(f"{sum(p.numel() for p in self.net.parameters()):,} parameters", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))
        while self.seconds < total and not self.stopped:
            begun = time.process_time()
            x, small, sigma = (part.to(options.device) for part in self.crops.batch(options.batch, SIDE))
            left = min(1.0, (total - self.seconds) / max(final, 1e-9))
            features, clean = self.net.features(small), sigma == 0
            out = self.net.read(features, sigma)
            loss = (decibels(out, x) / 2 if left < 1 else absolute(out, x)) + KEPT * unkept(out, x)
            self.optimiser.step(loss, left * min(1, (self.iteration - since + 1) / 60))
            self.iteration += 1
            with torch.no_grad():
                kept = min(EMA, self.iteration / (self.iteration + 20))
                for mine, theirs in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                    mine.lerp_(theirs, 1 - kept)
                bicubic = F.interpolate(small[clean], scale_factor=4, mode="bicubic")
                pair = [(y - x[clean]).square().mean((1, 2, 3)).add(1e-6).log10() for y in (out[clean], bicubic)]
                errors += (10 * (pair[1] - pair[0])).tolist()
            self.seconds += time.process_time() - begun
            if self.seconds - shown > options.show:
                print(
                    f"{self.seconds:6.0f} cpu s  {time.time() - started:6.0f} s  {self.iteration:5d}  rate {left:.2f}  "
                    f"crops {np.mean(errors):.2f}  {judge(self.ema)}",
                    flush=True,
                )
                shown, errors = self.seconds, []
            if self.seconds - saved > 120:
                saved = self.seconds
                self.save()
        self.save()
        print(f"end {judge(self.ema)}", flush=True)


_SEEN: list[tuple[Tensor, Tensor, Tensor]] = []


@torch.no_grad()
def judge(net: Upscaler, side: int = 256) -> str:
    """Mean and worst dB over bicubic on the photos for choices, and the mean for noise of sigma 0.4."""
    if not _SEEN:
        generator = torch.Generator().manual_seed(1)
        for _, photo in load_photos():
            x = centre_crop(photo, side)[None]
            small = 2 * eight_bits(shrink(x)) - 1
            _SEEN.append((x, small, 0.6 * small + 0.4 * torch.randn(small.shape, generator=generator)))
    gains, noisy, device = [], [], net.noisy.weight.device
    for x, small, worse in _SEEN:
        outs = [
            net(s.to(device), torch.tensor([sigma], device=device)).add(1).div(2).clamp(0, 1).cpu()
            for s, sigma in ((small, 0.0), (worse, 0.4))
        ]
        gains.append(psnr(outs[0], x) - psnr(enlarge((small + 1) / 2), x))
        noisy.append(psnr(outs[1], x))
    return f"photos {np.mean(gains):+.3f} (worst {min(gains):+.2f}), sigma 0.4 {np.mean(noisy):.2f} dB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with part*.npy from training.make_pool")
    parser.add_argument("--state", type=Path, required=True, help="file that the run is kept in")
    parser.add_argument("--minutes", type=float, default=120, help="CPU minutes in all")
    parser.add_argument("--final", type=float, default=30, help="of these, with a falling rate")
    parser.add_argument("--rate", type=float, default=4e-3, help="of Muon")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="more than the state has: they start as nothing")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--show", type=float, default=90, help="CPU seconds between lines")
    parser.add_argument("--device", default="cpu", help="crops are made on the CPU in any case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    Run(options).train()


if __name__ == "__main__":
    main()
