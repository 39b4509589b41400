"""Whether context windows leave seams: windowed decodes of photos against the full frame's.

    python -m benchmarks.seams [--model FILE] [--size N] [--overlap N] [--limit N] [--out DIR]

Photos are made four times smaller and decoded again, once in one frame and once in windows, with the same noise. Prints
a Markdown table: PSNR between the two, and for every line at which a window begins or ends the mean absolute gradient
across it, divided by the full frame's at the same line (smallest and largest). With --out also two pictures per photo:
the windows over it, and the difference to the full frame, 16 times as strong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.measures import psnr
from benchmarks.photos import load_photos
from pid_core import NANO_PATH, PiDNetwork, decode, load_network
from pid_core.latents.rgb import to_image, to_rgb_latent
from pid_core.windows.plan import FUSE_METHODS, WindowPlan, plan_windows

STRONGER = 16


def borders(plan: WindowPlan) -> tuple[list[int], list[int]]:
    """Rows and columns at which some window begins or ends inside the canvas."""
    height, width = plan.size
    rows = {y for top in plan.tops for y in (top, top + height)} - {0, plan.height}
    cols = {x for left in plan.lefts for x in (left, left + width)} - {0, plan.width}
    return sorted(rows), sorted(cols)


def border_ratios(windowed: Tensor, full: Tensor, plan: WindowPlan) -> Tensor:
    """For each border line, the mean absolute gradient across it in `windowed` relative to `full` [B, H, W, 3]."""
    rows, cols = borders(plan)

    def across(image: Tensor) -> Tensor:
        lines = [image[:, y] - image[:, y - 1] for y in rows] + [image[:, :, x] - image[:, :, x - 1] for x in cols]
        return torch.stack([line.abs().mean() for line in lines])

    return across(windowed) / across(full)


def decode_both(
    net: PiDNetwork, small: Tensor, plan: WindowPlan, fuse: str = "pyramid", steps: int = 4
) -> tuple[Tensor, Tensor]:
    """(windowed, full) [B, H, W, 3] in [0, 1] of a small picture [B, h, w, 3], on the same noise."""
    latent = to_rgb_latent(small)
    full = to_image(decode(net, latent, steps=steps))
    return to_image(decode(net, latent, steps=steps, windows=plan, fuse=fuse)), full


def quarter(photo: Tensor) -> Tensor:
    """[3, H, W] -> [1, H/4, W/4, 3], bicubic with antialiasing."""
    return F.interpolate(photo[None], scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1).movedim(1, -1)


def draw_windows(image: Tensor, plan: WindowPlan) -> Image.Image:
    """The picture with every window's outline, and the middle window in full light."""
    pixels = (image[0] * 255).round().byte().numpy()
    picture = Image.fromarray(pixels)
    shown = plan.windows[plan.count // 2]
    box = (shown.left, shown.top, shown.right, shown.bottom)
    dark = Image.eval(picture, lambda value: value * 5 // 8)
    dark.paste(picture.crop(box), box[:2])
    pen = ImageDraw.Draw(dark)
    for window in plan.windows:
        pen.rectangle((window.left, window.top, window.right - 1, window.bottom - 1), outline=(255, 255, 255))
    pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=(255, 200, 0), width=3)
    return dark


def draw_difference(windowed: Tensor, full: Tensor) -> Image.Image:
    """Grey where both agree; the difference, `STRONGER` times as strong."""
    values = (0.5 + STRONGER * (windowed - full)[0]).clamp(0, 1)
    return Image.fromarray((values * 255).round().byte().numpy())


def main() -> None:
    args = _arguments()
    net = load_network(args.model)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    print(f"windows of at most {args.size} px, overlap {args.overlap} px, {args.fuse}\n")
    print("| photo | canvas | windows | PSNR to the full frame, dB | border gradient, smallest | largest |")
    print("| --- | --- | --- | --- | --- | --- |")
    worst = []
    for name, photo in load_photos()[: args.limit]:
        small = quarter(photo)
        height, width = (4 * side for side in small.shape[1:3])
        plan = plan_windows(height, width, args.size, args.overlap, align=net.config.latent_cell)
        windowed, full = decode_both(net, small, plan, args.fuse)
        ratios = border_ratios(windowed, full, plan)
        worst.append((psnr(windowed, full), float(ratios.min()), float(ratios.max())))
        print(f"| {name} | {width} x {height} | {plan.count} | " + " | ".join(f"{v:.3f}" for v in worst[-1]) + " |")
        if args.out:
            draw_windows(windowed, plan).save(args.out / f"{name}_windows.png")
            draw_difference(windowed, full).save(args.out / f"{name}_difference.png")
    values = np.array(worst)
    print(f"\nworst: {values[:, 0].min():.1f} dB, borders {values[:, 1].min():.3f} to {values[:, 2].max():.3f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO_PATH)
    parser.add_argument("--size", type=int, default=256, help="largest side of a window in pixels")
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--fuse", choices=FUSE_METHODS, default="pyramid")
    parser.add_argument("--limit", type=int, default=None, help="photos to use")
    parser.add_argument("--out", type=Path, default=None, help="folder for pictures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
