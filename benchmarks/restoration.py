"""How well a checkpoint of the `rgb` family restores photos that were made four times smaller.

    python -m benchmarks.restoration --model pid_core/assets/pid_nano.safetensors [--limit N] [--out DIR]

Prints a Markdown table and the bar to pass. With --out also PNG strips: small, bicubic, 1 step, 4 steps
and original. The photos are never used in training (see photos.py).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.photos import load_photos
from pid_core import decode, degrade, load_network

SCALE = 4
NOISE = 0.4


@dataclass
class Row:
    """One photo's figures: PSNR in dB over RGB, `sharp` as the mean gradient relative to the original's."""

    psnr_4: float
    psnr_1: float
    psnr_bicubic: float
    sharp_4: float
    sharp_1: float
    sharp_bicubic: float
    grid_4: float
    grid_1: float
    grid_original: float
    noise_gain: float = float("nan")


HEADINGS = (
    "PSNR 4 steps",
    "PSNR 1 step",
    "PSNR bicubic",
    "gradient 4",
    "gradient 1",
    "gradient bicubic",
    "grid 4",
    "grid 1",
    "grid original",
    "noise gain, dB",
)


def psnr(image: Tensor, original: Tensor) -> float:
    """Peak signal to noise ratio in dB of two images in [0, 1]."""
    return float(-10 * torch.log10((image - original).square().mean()))


def mean_gradient(image: Tensor) -> float:
    """Mean |dx| plus mean |dy| of an image in [0, 1], any shape [..., H, W]."""
    return float(image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean())


def patch_grid(image: Tensor, patch: int) -> float:
    """Mean gradient across patch borders over the mean gradient inside patches: 1 where no grid shows."""
    across, inside = 0.0, 0.0
    for dim in (-1, -2):
        step = image.diff(dim=dim).abs()
        border = torch.arange(1, image.shape[dim]) % patch == 0
        across += float(step.index_select(dim, border.nonzero()[:, 0]).mean())
        inside += float(step.index_select(dim, (~border).nonzero()[:, 0]).mean())
    return across / inside


def to_latent(small: Tensor) -> Tensor:
    """Image [B, 3, h, w] in [0, 1] -> `rgb` latent [B, 12, h/2, w/2]."""
    return F.pixel_unshuffle(2 * small - 1, 2)


def shrink(image: Tensor) -> Tensor:
    """Four times smaller, bicubic with antialiasing, [B, 3, H, W] in [0, 1]."""
    return F.interpolate(image, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)


def enlarge(small: Tensor) -> Tensor:
    """Four times larger, bicubic, [B, 3, h, w] in [0, 1]."""
    return F.interpolate(small, scale_factor=SCALE, mode="bicubic").clamp(0, 1)


def restore(net, latent: Tensor, steps: int, sigma: float = 0.0) -> Tensor:
    """Decode with seed 0 to [B, 3, H, W] in [0, 1]."""
    return decode(net, latent, degrade_sigma=sigma, steps=steps, seed=0).add(1).div(2).float().cpu()


def centre_crop(photo: Tensor, most: int) -> Tensor:
    """The middle of [3, H, W], at most `most` pixels a side."""
    height, width = (min(side, most) for side in photo.shape[1:])
    top, left = (photo.shape[1] - height) // 2, (photo.shape[2] - width) // 2
    return photo[:, top : top + height, left : left + width]


def measure(net, original: Tensor, noised: bool) -> tuple[Row, list[Tensor]]:
    """A photo's row, and the pictures for the strip: small (nearest), bicubic, 1 step, 4 steps, original."""
    small = shrink(original)
    latent = to_latent(small)
    plain, one, four = enlarge(small), restore(net, latent, 1), restore(net, latent, 4)
    patch, reference = net.config.patch_size, mean_gradient(original)
    row = Row(
        psnr(four, original),
        psnr(one, original),
        psnr(plain, original),
        mean_gradient(four) / reference,
        mean_gradient(one) / reference,
        mean_gradient(plain) / reference,
        patch_grid(four, patch),
        patch_grid(one, patch),
        patch_grid(original, patch),
    )
    if noised:
        noisy = degrade(latent, NOISE, net.family or "rgb", seed=1)
        right, wrong = (psnr(restore(net, noisy, 4, sigma), original) for sigma in (NOISE, 0.0))
        row.noise_gain = right - wrong
    return row, [F.interpolate(small, scale_factor=SCALE), plain, one, four, original]


def flat_deviation(net, steps: int, side: int = 256) -> tuple[float, float]:
    """Worst standard deviation from a flat grey and from a smooth gradient, in steps of 1/255."""
    ramp = torch.linspace(0.2, 0.8, side // SCALE).expand(1, 3, side // SCALE, -1)
    smooth = 0.5 * ramp + 0.5 * ramp.mT * torch.tensor([1.0, 0.9, 0.7]).view(1, 3, 1, 1)
    flats = [torch.full_like(ramp, level) for level in (0.2, 0.5, 0.8)]
    deviations = [(restore(net, to_latent(x), steps) - enlarge(x)).std() * 255 for x in (*flats, smooth)]
    return float(max(deviations[:-1])), float(deviations[-1])


def mean_row(rows: list[Row]) -> Row:
    return Row(*(float(np.nanmean([getattr(row, f.name) for row in rows])) for f in fields(Row)))


def table(names: list[str], rows: list[Row]) -> str:
    """Markdown, one line per photo and the mean."""
    lines = ["| photo | " + " | ".join(HEADINGS) + " |", "|---" * (len(HEADINGS) + 1) + "|"]
    for name, row in zip([*names, "**mean**"], [*rows, mean_row(rows)], strict=True):
        cells = (f"{getattr(row, f.name):.2f}" for f in fields(Row))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(rows: list[Row]) -> str:
    """The bar, line by line, against the mean over the photos."""
    mean = mean_row(rows)
    gain_4, gain_1, sharp = mean.psnr_4 - mean.psnr_bicubic, mean.psnr_1 - mean.psnr_bicubic, mean.sharp_4
    checks = [
        (f"4 steps {gain_4:+.2f} dB over bicubic (at least 0; aim 0.3)", gain_4 >= 0),
        (f"4 steps at {sharp:.2f} of the original's gradient (0.8 to 1.1)", 0.8 <= sharp <= 1.1),
        (f"1 step {gain_1:+.2f} dB over bicubic (at least 0.5)", gain_1 >= 0.5),
        (f"patch grid {mean.grid_4:.2f} with 4 steps (at most 1.3)", mean.grid_4 <= 1.3),
    ]
    if not np.isnan(mean.noise_gain):
        gain = mean.noise_gain
        checks.append((f"latent noise {NOISE}: the right sigma gains {gain:.2f} dB (at least 3)", gain >= 3))
    return "\n".join(f"- {'pass' if good else 'FAIL'}: {line}" for line, good in checks)


def save_strip(path: Path, pictures: list[Tensor]) -> None:
    """Pictures [1, 3, H, W] in [0, 1] side by side in one PNG."""
    strip = torch.cat(pictures, -1)[0].permute(1, 2, 0).clamp(0, 1)
    Image.fromarray((strip * 255).round().byte().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Restoration benchmark on photos.")
    parser.add_argument("--model", type=Path, default=Path("pid_core/assets/pid_nano.safetensors"))
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--crop", type=int, default=512, help="largest side decoded, in output pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-noise", action="store_true", help="leave out the noised latents")
    parser.add_argument("--out", type=Path, help="folder for PNG strips")
    options = parser.parse_args()
    net = load_network(options.model, device=options.device)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    names, rows = [], []
    for name, photo in load_photos()[: options.limit]:
        row, pictures = measure(net, centre_crop(photo, options.crop)[None], not options.no_noise)
        names.append(name)
        rows.append(row)
        if options.out:
            save_strip(options.out / f"{name}.png", pictures)
    print(table(names, rows), end="\n\n")
    for steps in (4, 1):
        grey, gradient = flat_deviation(net, steps)
        print(f"Deviation in flat regions, {steps} step(s): grey {grey:.2f}/255, gradient {gradient:.2f}/255")
    print("\n" + verdict(rows))


if __name__ == "__main__":
    main()
