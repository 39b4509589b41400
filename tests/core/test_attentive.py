"""Windows on a network whose attention spans them, as NVIDIA's does and the bundled model's does not."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.attention import ATTENTIVE_PATH, attention, near, nothing, restored
from benchmarks.measures import psnr
from benchmarks.seams import border_ratios, largest_step
from pid_core import PiDNetwork, decode, load_network
from pid_core.latents.rgb import to_image
from pid_core.model.config import RELEASED
from pid_core.windows.plan import OVERLAP, choose_plan, plan_windows
from training.muon import MuonAndAdamW

ROOT = Path(__file__).parents[2]
SIDE = (224, 320)
WINDOW = 128  # side of a window where they overlap by a quarter of it


@pytest.fixture(scope="module")
def net():
    return load_network(ATTENTIVE_PATH)


def photo(name, size=SIDE):
    """[3, H, W] in [0, 1]; no photo was seen in training."""
    with Image.open(Path(__file__).parent / f"photos/{name}.png") as file:
        pixels = torch.from_numpy(np.array(file)).movedim(-1, 0).float() / 255
    return F.interpolate(pixels[None], size=size, mode="bicubic")[0].clamp(0, 1)


def in_windows(net, picture, overlap):
    """The picture in windows, in one frame, and the plan."""
    plan = plan_windows(*SIDE, WINDOW, overlap, align=net.config.latent_cell)
    return *(to_image(2 * restored(net, picture, 0.0, windows=windows) - 1) for windows in (plan, None)), plan


@pytest.fixture(scope="module")
def coffee(net):
    """By overlap. Of the three photos it suffers most from borders: red below, pale above."""
    return {share: in_windows(net, photo("coffee"), int(share * WINDOW)) for share in (0, 0.125, 0.25, 0.375)}


def test_the_picture_needs_attention_and_needs_it_far_away(net):
    columns, lost = 24, []
    for name in ("astronaut", "chelsea", "coffee"):
        picture = photo(name, (144, 8 * columns))
        whole = psnr(restored(net, picture, 0.0), picture[None])
        lost.append([])
        for way in (nothing, partial(near, 24, net.config.patch_size, columns)):
            with attention(net, way):
                lost[-1].append(whole - psnr(restored(net, picture, 0.0), picture[None]))
    without, near_only = zip(*lost, strict=True)
    assert min(without) >= 0.3  # 3.9 or more
    assert sum(near_only) / 3 >= 0.3  # 0.7


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_windows_that_overlap_by_a_quarter_are_close_to_the_full_frame(net, coffee, name):
    windowed, full, plan = coffee[0.25] if name == "coffee" else in_windows(net, photo(name), WINDOW // 4)
    assert plan.count == 6 and plan.size == (WINDOW, WINDOW)
    assert psnr(windowed, full) >= (36 if name == "coffee" else 40)
    assert largest_step(windowed, full, plan) <= 4.5
    assert 0.95 <= border_ratios(windowed, full, plan).mean() <= 1.06


def test_the_measure_sees_windows_that_do_not_overlap(coffee):
    assert largest_step(*coffee[0]) >= 9
    assert psnr(*coffee[0][:2]) < 35


def test_neither_less_nor_more_overlap_is_better_than_a_quarter(coffee):
    """More of it, where windows may be no larger, makes them smaller, and a smaller window knows less."""
    step = {share: largest_step(*found) for share, found in coffee.items()}
    close = {share: psnr(*found[:2]) for share, found in coffee.items()}
    assert close[0] < close[0.125] < close[0.25] > close[0.375]
    assert step[0] > 2 * step[0.25] and min(step.values()) >= 0.9 * step[0.25]


@pytest.mark.parametrize("version", RELEASED)
def test_the_default_overlap_is_about_that_share_of_a_released_network_s_windows(version):
    config = RELEASED[version]
    plan = choose_plan(4096, 4096, config, memory_budget=math.inf, overlap=OVERLAP, device="cuda")
    assert plan.count > 1 and 0.2 <= plan.overlap / max(plan.size) <= 0.35


def test_the_network_is_no_part_of_the_archive():
    """comfy-cli packs what git tracks less what this file names."""
    left_out = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    assert f"/{ATTENTIVE_PATH.relative_to(ROOT).parts[0]}/" in left_out
    assert ATTENTIVE_PATH.stat().st_size < 1.5e6


def test_training_starts_as_an_upscaler(net):
    pytest.importorskip("scipy")  # of the textures that its pictures are made of
    from training.attentive import ATTENTIVE, start

    torch.manual_seed(0)
    coarse = torch.rand(12, 3, 16, 16) * 2 - 1
    pictures = F.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(-1, 1)
    small = F.interpolate(pictures, scale_factor=0.25, mode="bicubic", antialias=True)
    fresh = PiDNetwork(ATTENTIVE)
    start(fresh, pictures, F.pixel_unshuffle(small, 2))
    fresh.default_caption = torch.zeros(1, 1, ATTENTIVE.caption_width)
    out = decode(fresh, F.pixel_unshuffle(small[:4], 2), steps=1)
    assert psnr(out, pictures[:4]) > psnr(F.interpolate(small[:4], scale_factor=4, mode="nearest"), pictures[:4])
    assert net.config == ATTENTIVE


def test_the_optimiser_takes_matrices_and_leaves_what_had_no_part_in_the_loss():
    torch.manual_seed(0)
    used, unused = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    named = [*used.named_parameters("used"), *unused.named_parameters("unused")]
    before = used.weight.clone(), unused.weight.clone()
    optimiser = MuonAndAdamW(named, muon=0.1, adamw=0.0, takes=lambda name, p: p.ndim == 2)
    optimiser.step(used(torch.randn(16, 8)).square().mean(), pace=1.0)
    step = torch.linalg.svdvals((used.weight - before[0]).detach())
    assert torch.equal(unused.weight, before[1])
    assert step.median() > 0.05 and step.max() < 0.13  # about orthogonal, of size 0.1
