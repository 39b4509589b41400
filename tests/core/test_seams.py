"""The bundled model leaves no seams between context windows, and the check could see them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.seams import border_ratios, decode_both, psnr
from pid_core import NANO_PATH, distilled_sigmas, load_network
from pid_core.images.seams import borders_of
from pid_core.latents.rgb import to_image, to_rgb_latent
from pid_core.sampling.predict import predict_x0
from pid_core.windows.plan import plan_windows
from pid_core.windows.run import WindowRun, crop

PHOTOS = Path(__file__).parent / "photos"
SIDE = (288, 384)
PLAN = plan_windows(*SIDE, 192, 48, align=8)  # six windows that overlap by a quarter
BARE = plan_windows(*SIDE, 192, 0, align=8)


@pytest.fixture(scope="module")
def net():
    return load_network(NANO_PATH)


@pytest.fixture(scope="module")
def chelsea(net):
    """The photo, its picture in windows, its picture in one frame."""
    return photo("chelsea"), *decode_both(net, photo("chelsea"), PLAN)


def photo(name):
    """[1, 72, 96, 3] in [0, 1]."""
    with Image.open(PHOTOS / f"{name}.png") as file:
        return torch.from_numpy(np.array(file)).float()[None] / 255


@torch.no_grad()
def windows_alone(net, small, plan, fuse):
    """Windows whose latents are cut before the LQ trunk, so that none knows what lies beyond its border."""
    latent, run, sigmas = to_rgb_latent(small), WindowRun(plan, fuse=fuse), distilled_sigmas()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, *SIDE, generator=generator)
    for t, t_next in pairwise(sigmas):

        def predict(windows, x=x, t=t):
            parts = crop(x, windows)
            features = net.encode_lq(crop(latent, windows, 8), *parts.shape[-2:])
            return (predict_x0(net, parts, t, net.default_caption, features, torch.zeros(1)),)

        x0 = run.step(predict)[0]
        x = (1 - t_next) * x0 + t_next * torch.randn(x.shape, generator=generator) if t_next else x0
    return to_image(x)


def passes(windowed, full, plan):
    ratios = border_ratios(windowed, full, plan)
    return ratios.min() >= 0.95 and ratios.max() <= 1.05 and psnr(windowed, full) >= 38


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_borders_are_those_of_the_full_frame(net, chelsea, name):
    assert PLAN.count == 6 and len(borders_of(PLAN)[0]) == 2 and len(borders_of(PLAN)[1]) == 4
    windowed, full = chelsea[1:] if name == "chelsea" else decode_both(net, photo(name), PLAN)
    ratios = border_ratios(windowed, full, PLAN)
    assert ratios.min() >= 0.95 and ratios.max() <= 1.05
    assert psnr(windowed, full) >= 38


def test_the_check_sees_seams(net, chelsea):
    """Flat weights, no overlap and no shared trunk: every border shows, and more than twice as strong."""
    small, _, full = chelsea
    alone = windows_alone(net, small, BARE, "flat")
    assert not passes(alone, full, BARE)
    assert border_ratios(alone, full, BARE).min() > 1.4


@pytest.mark.parametrize("level", [0.2, 0.8])
def test_flat_grey_stays_flat(net, level):
    plan = plan_windows(160, 160, 96, 24, align=8)
    windowed, _ = decode_both(net, torch.full((1, 40, 40, 3), level), plan)
    assert (windowed - windowed.mean()).abs().mean() < 2 / 255
    rows, cols = borders_of(plan)
    across = [windowed[:, y] - windowed[:, y - 1] for y in rows]
    across += [windowed[:, :, x] - windowed[:, :, x - 1] for x in cols]
    assert max(line.abs().mean() for line in across) < 2 / 255
