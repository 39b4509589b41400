"""Whether context windows leave seams: windowed decodes of photos against the full frame's.

    python -m benchmarks.seams [--model FILE] [--size N] [--overlap N] [--limit N] [--out DIR]
    python -m benchmarks.seams --sweep [--model FILE] [--limit N]

Photos are made four times smaller and decoded again, once in one frame and once in windows, with the same noise. Prints
a Markdown table: PSNR between the two, and for every line at which a window begins or ends the mean absolute gradient
across it, divided by the full frame's at the same line (smallest and largest). With --out also two pictures per photo:
the windows over it, and the difference to the full frame, 16 times as strong.

With --sweep: the middle of photos, as it is and with noise, and a piece of it repeated all over a noisy frame, in
windows of several sizes that overlap by several shares. "drawn" is how often a pixel is drawn in the mean, which is
what overlap costs at a window's size. A border can also show as a ramp, which no gradient at one line tells: "step" is
by how much, in 1/255, the difference to the full frame changes at most from one patch to the next, averaged along a
window's length.

The bundled model's tokens do not look at each other, so borders cost it next to nothing. `--model
tests/assets/attentive.safetensors` is a network whose attention matters (benchmarks/attention.py says how much).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.attention import repeated, restored
from benchmarks.measures import psnr
from benchmarks.photos import load_photos
from benchmarks.restoration import centre_crop
from pid_core import NANO_PATH, PiDNetwork, decode, load_network
from pid_core.images.seams import borders_of
from pid_core.latents.rgb import to_image, to_rgb_latent
from pid_core.windows.plan import FUSE_METHODS, WindowPlan, plan_windows

STRONGER = 16
# Of the sweep: windows of at most so many pixels a side, that overlap by a share of it at least, on a square frame.
CUTS = [
    *((128, share, 384) for share in (0.0, 0.125, 0.25, 0.375)),
    *((size, 0.25, 384) for size in (64, 96, 192, 256)),
    # the same window at each overlap, on frames of three windows a side
    *((128, share, round(128 * (3 - 2 * share))) for share in (0.125, 0.25, 0.375)),
]
LARGEST = 384  # side of a frame


def border_ratios(windowed: Tensor, full: Tensor, plan: WindowPlan) -> Tensor:
    """For each border line, the mean absolute gradient across it in `windowed` relative to `full` [B, H, W, 3]."""
    rows, cols = borders_of(plan)

    def across(image: Tensor) -> Tensor:
        lines = [image[:, y] - image[:, y - 1] for y in rows] + [image[:, :, x] - image[:, :, x - 1] for x in cols]
        return torch.stack([line.abs().mean() for line in lines])

    return across(windowed) / across(full)


def largest_step(windowed: Tensor, full: Tensor, plan: WindowPlan, patch: int = 8) -> float:
    """By how much the difference of two pictures [1, H, W, 3] changes from a patch to the next at most, in 1/255.

    It is averaged over a row of windows or a column of them: what changes along all of a border is what is seen.
    """
    difference, (height, width) = 255 * (windowed - full)[0], plan.size
    lines = [difference[top : top + height].mean(0) for top in plan.tops if plan.cols > 1]
    lines += [difference[:, left : left + width].mean(1) for left in plan.lefts if plan.rows > 1]
    return max(float(line.unflatten(0, (-1, patch)).mean(1).diff(dim=0).abs().max()) for line in lines)


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


def sweep(net: PiDNetwork, photos: list[Tensor]) -> None:
    """Prints a table for each kind of picture: means, and the largest step of all."""
    for kind, change, sigma in (
        ("Photos", torch.clone, 0.0),
        ("Photos", torch.clone, 0.3),
        ("Repeated pieces", repeated, 0.3),
    ):
        print(f"\n{kind}, degrade_sigma {sigma:g}\n\n| frame | overlap at least | windows | drawn ", end="")
        print("| dB to the frame | dB to the original, less the frame's | border gradient | step | largest step |")
        print("|" + "---|" * 9)
        frames: dict[int, list[tuple[Tensor, Tensor]]] = {}  # by side: pictures, and what one frame makes of them
        for size, share, side in CUTS:
            plan = plan_windows(side, side, size, round(share * size), align=net.config.latent_cell)
            if side not in frames:
                pictures = [change(centre_crop(photo, side)) for photo in photos]
                frames[side] = [(picture, restored(net, picture, sigma)) for picture in pictures]
            values = np.array(
                [
                    _compare(restored(net, picture, sigma, windows=plan), frame, picture, plan)
                    for picture, frame in frames[side]
                ]
            )
            close, lost, ratio, step = values.mean(0)
            drawn = plan.count * plan.size[0] ** 2 / side**2
            print(
                f"| {side} | {plan.overlap} | {plan.rows} x {plan.cols} of {plan.size[0]} | {drawn:.2f} | {close:.1f} "
                f"| {lost:+.2f} | {ratio:.3f} | {step:.2f} | {values[:, -1].max():.2f} |",
                flush=True,
            )


def _compare(windowed: Tensor, frame: Tensor, picture: Tensor, plan: WindowPlan) -> tuple[float, ...]:
    lost = psnr(windowed, picture[None]) - psnr(frame, picture[None])
    pair = windowed.movedim(1, -1), frame.movedim(1, -1)
    return psnr(*pair), lost, float(border_ratios(*pair, plan).mean()), largest_step(*pair, plan)


def main() -> None:
    args = _arguments()
    net = load_network(args.model)
    if args.sweep:
        return sweep(net, [photo for _, photo in load_photos() if min(photo.shape[1:]) >= LARGEST][: args.limit])
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
    parser.add_argument("--sweep", action="store_true", help="many sizes and overlaps")
    parser.add_argument("--size", type=int, default=256, help="largest side of a window in pixels")
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--fuse", choices=FUSE_METHODS, default="pyramid")
    parser.add_argument("--limit", type=int, default=None, help="photos to use")
    parser.add_argument("--out", type=Path, default=None, help="folder for pictures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
