"""Writes docs/before_after.jpg, a photo restored by pid_nano beside its original, and docs/windows.jpg.

No chroma subsampling: in pictures this small it would be seen.
"""

from __future__ import annotations

import sys

import torch
from PIL import Image

from comfy_env import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks.restoration import restore, to_latent
from benchmarks.seams import draw_windows
from beside_original import as_tensor, draw, small_one
from pid_core import NANO_PATH, PiDNetwork, load_network
from pid_core.windows.plan import plan_windows

DOCS = ROOT / "docs"
PHOTO = ROOT / "example_workflows" / "pidkit_photo.png"
WINDOW, OVERLAP = 256, 64


def before_after(net: PiDNetwork) -> Image.Image:
    steps = net.config.steps
    return draw(restore(net, to_latent(small_one()), steps), steps)


def windows(net: PiDNetwork) -> Image.Image:
    with Image.open(PHOTO) as file:
        latent = to_latent(as_tensor(file))
    height, width = (net.config.latent_cell * side for side in latent.shape[-2:])
    plan = plan_windows(height, width, WINDOW, OVERLAP, align=net.config.latent_cell)
    return draw_windows(restore(net, latent, net.config.steps, windows=plan).movedim(1, -1), plan)


@torch.no_grad()
def main() -> None:
    net = load_network(NANO_PATH)
    for name, draw_it in (("before_after", before_after), ("windows", windows)):
        draw_it(net).save(DOCS / f"{name}.jpg", quality=92, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
