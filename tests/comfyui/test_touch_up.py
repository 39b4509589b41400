"""PiD Touch Up: what ComfyUI's own inpainting draws, on the part alone; variations to choose from."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from pid_core import touch_up
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_image, to_pixels
from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise
from pid_core.windows.part import part_around
from support.graphs import decode_graph, link, put_latent
from support.inside import SEED
from support.tiny import put_tiny

SIDES = {"window_min": 64, "window_max": 160}  # pixels, so that a part of a small picture is a part
LATENT = torch.randn(1, 12, 32, 40, generator=torch.Generator().manual_seed(1))
HEIGHT, WIDTH = 256, 320
PICTURE = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def loaded(comfyui):
    return comfyui.load("rgb", changes=SIDES)


@pytest.fixture
def touch(comfyui, loaded, monkeypatch):
    """touch(mask, ...): image and mask that the node gives. `.shown`: its lines; `.ui`: what its view gets."""
    node = comfyui.nodes.PiDKitTouchUp
    shown = []
    monkeypatch.setattr(sys.modules[node.__module__], "show_on_node", lambda _, *lines: shown.append(lines))

    def run(mask, **inputs):
        given = {"image": PICTURE, "model": loaded[0], "latent": {"samples": LATENT}, "seed": SEED}
        with torch.inference_mode():
            out = node.execute(**given | {"mask": mask, "degrade_sigma": 0.0, "steps": 2} | inputs)
        run.ui = out.ui
        return out.args

    run.shown = shown
    return run


@pytest.fixture
def calls(loaded, monkeypatch):
    """Sizes of the images of all network calls."""
    net, sizes = loaded[0].model.diffusion_model, []
    forward = net._forward
    monkeypatch.setattr(net, "_forward", lambda x, *a, **k: sizes.append(tuple(x.shape)) or forward(x, *a, **k))
    return sizes


def spot(top, left, side=12, count=1, height=HEIGHT, width=WIDTH):
    mask = torch.zeros(count, height, width)
    mask[:, top : top + side, left : left + side] = 1
    return mask


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_it_draws_what_the_core_draws_and_nothing_outside(touch, loaded, calls, sigma):
    mask = spot(100, 200)
    image, soft = touch(mask, degrade_sigma=sigma, feather=8)
    assert torch.equal(image[soft == 0], PICTURE[soft == 0]) and (image != PICTURE)[mask > 0].float().mean() > 0.9
    part = part_around(mask[None] > 0, loaded[1].config, 8)
    assert calls == 2 * [(1, 3, part.height, part.width)] and part.height < HEIGHT
    lq, shape = prepare_lq(LATENT, "rgb", sigma, seed=SEED), (1, 3, HEIGHT, WIDTH)
    noise = {"noise": comfy_noise(shape, SEED), "step_noise": comfy_step_noise(shape, SEED, 1)}
    options = {"feather": 8, "steps": 2, **noise}
    out = touch_up(loaded[1], to_pixels(PICTURE), lq.latent, mask[None], None, sigma, **options)
    assert torch.allclose(image, to_image(out), atol=2e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_it_is_set_latent_noise_mask_and_ksampler(comfy, steps):
    """Where the part is the whole picture, to the bit that a PNG holds."""
    model = put_tiny(comfy, "touch_flux", "flux").name
    latent = put_latent(comfy, "touch", torch.randn(1, 16, 3, 4, generator=torch.Generator().manual_seed(1)))
    picture = np.random.default_rng(1).integers(0, 256, (96, 128, 4), dtype=np.uint8)
    picture[..., 3] = 255
    picture[30:60, 40:90, 3] = 0  # as the mask editor writes it
    name = comfy.upload(picture, "touch_up.png")
    native = decode_graph(model, latent, sampler={"steps": steps, "latent_image": link("masked")})
    native["photo"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    native["encoded"] = {"class_type": "VAEEncode", "inputs": {"pixels": link("photo"), "vae": link("vae")}}
    masked = {"samples": link("encoded"), "mask": link("photo", 1)}
    native["masked"] = {"class_type": "SetLatentNoiseMask", "inputs": masked}
    ours = {key: native[key] for key in ("model", "latent", "photo")}
    inputs = {"image": link("photo"), "mask": link("photo", 1), "model": link("model"), "latent": link("latent")}
    inputs |= {"degrade_sigma": 0.0, "steps": steps, "seed": 5, "variations": 1, "keep": 1, "feather": 0}
    ours["touch"] = {"class_type": "PiDKitTouchUp", "inputs": inputs}
    ours["png"] = {"class_type": "SaveImage", "inputs": {"images": link("touch"), "filename_prefix": "touch"}}
    theirs, got = (comfy.images(comfy.queue(graph), "png")[0] for graph in (native, ours))
    assert np.array_equal(theirs, got)
    changed = (got != picture[..., :3]).any(axis=-1)
    assert changed[30:60, 40:90].mean() > 0.9 and not changed[:30].any() and not changed[:, 90:].any()


def test_variations_have_the_next_seeds_and_keep_draws_nothing(touch, calls):
    mask = spot(20, 20)
    first, _ = touch(mask, variations=3)
    assert len(calls) == 3 * 2 and len(touch.ui["pidkit_tiles"]) == 3
    assert [tile["seed"] for tile in touch.ui["pidkit_tiles"]] == [str(SEED + i) for i in range(3)]
    third, _ = touch(mask, variations=3, keep=3)
    assert len(calls) == 3 * 2 and touch.shown[-1][-1] == "0 decoded, 3 kept from before"
    assert touch.ui["pidkit_keep"] == [3] and not torch.equal(first, third)
    alone, _ = touch(mask, seed=SEED + 2)
    assert torch.equal(alone, third) and len(calls) == 3 * 2
    # the seeds go on from the first behind the last
    touch(mask, variations=3, seed=2**64 - 1)
    assert [tile["seed"] for tile in touch.ui["pidkit_tiles"]] == [str(2**64 - 1), "0", "1"]


def test_an_empty_mask_leaves_the_picture(touch, calls):
    image, soft = touch(torch.zeros(1, 64, 64))
    assert torch.equal(image, PICTURE) and not calls and soft.shape == (1, HEIGHT, WIDTH) and not soft.any()
    assert touch.shown[-1] == (
        "the mask is empty: nothing to do, the picture is unchanged",
        f"the mask is 64 x 64, the picture {WIDTH} x {HEIGHT}: stretched to fit",
    )


@pytest.mark.parametrize("masked", [0, 1])
def test_a_picture_of_a_batch_whose_own_mask_is_empty_stays(touch, masked):
    masks = torch.zeros(2, HEIGHT, WIDTH)
    masks[masked] = spot(100, 200)[0]
    pictures = {"image": PICTURE.repeat(2, 1, 1, 1), "latent": {"samples": LATENT.repeat(2, 1, 1, 1)}}
    image, _ = touch(masks, **pictures)
    assert torch.equal(image[1 - masked], PICTURE[0])
    assert torch.equal(image[masked], touch(spot(100, 200))[0][0])


def test_a_model_that_is_held_to_a_whole_picture_is_refused(comfyui, loaded, touch):
    """The part, here as square as the picture, would be held to all of it."""
    square = {"image": PICTURE[:, :, :HEIGHT], "latent": {"samples": LATENT[..., :32]}}
    held = comfyui.nodes.PiDKitHold.execute(loaded[0], PICTURE[:, ::4, :HEIGHT:4], 1.0).args[0]
    with pytest.raises(ValueError, match="connect the model from before PiD Hold"):
        touch(spot(100, 100, width=HEIGHT), model=held, **square)


def test_a_regional_caption_keeps_its_place_in_the_picture(comfyui, loaded, touch):
    """Its rectangle is of the whole picture, not of the part."""
    text, mask = torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(5)), spot(200, 260)
    nodes = comfyui.nodes

    def drawn(x, y):
        regions = nodes.PiDKitRegionalCaption.execute([[text, {}]], x, y, 160, 160).args[0]
        windows = {"size": 160, "overlap": 32, "fuse": "pyramid", "regions": regions}
        return touch(mask, model=nodes.PiDKitContextWindow.execute(loaded[0], "manual", **windows).args[0])[0]

    assert torch.equal(drawn(160, 96), touch(mask, positive=[[text, {}]])[0])
    assert torch.equal(drawn(0, 0), touch(mask)[0])


def test_the_mask_of_a_text_keeps_its_place_in_the_picture(touch):
    """Conditioning (Set Mask), left and right half: the part lies in the right one."""
    left, right = (torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(i)) for i in (5, 6))
    halves = torch.zeros(2, 1, HEIGHT // 4, WIDTH // 4)
    halves[0, :, :, : WIDTH // 8] = halves[1, :, :, WIDTH // 8 :] = 1
    two = [[text, {"mask": half, "mask_strength": 1.0}] for text, half in zip((left, right), halves, strict=True)]
    mask = spot(200, 260)
    assert torch.allclose(touch(mask, positive=two)[0], touch(mask, positive=[[right, {}]])[0], atol=1e-4)


def test_a_mask_of_another_size_or_count_is_fitted_and_said(touch):
    small = spot(16, 16, 8, 3, HEIGHT // 4, WIDTH // 4)
    image, soft = touch(
        small, feather=0, image=PICTURE.repeat(2, 1, 1, 1), latent={"samples": LATENT.repeat(2, 1, 1, 1)}
    )
    assert soft.shape == (2, HEIGHT, WIDTH) and soft[:, 64:96, 64:96].mean() > 0.9
    assert torch.equal(image[0], image[1]) and torch.equal(image[:, :48], PICTURE[:, :48].repeat(2, 1, 1, 1))
    assert f"the mask is {WIDTH // 4} x {HEIGHT // 4}, the picture {WIDTH} x {HEIGHT}: scaled" in touch.shown[-1]
    assert "mask holds 3 masks for 2 pictures: taken in turn" in touch.shown[-1]


def test_every_picture_is_drawn_as_it_is_alone(touch):
    mask, pictures, latents = spot(100, 100), torch.cat([PICTURE, 1 - PICTURE]), torch.cat([LATENT, -LATENT])
    sigmas = [0.1, 0.6]
    both, _ = touch(mask, image=pictures, latent={"samples": latents}, sigma_list=sigmas)
    for i, sigma in enumerate(sigmas):
        one = {"image": pictures[i : i + 1], "latent": {"samples": latents[i : i + 1]}}
        assert torch.equal(both[i : i + 1], touch(mask, degrade_sigma=sigma, **one)[0])


def test_a_sigma_map_of_one_value_is_that_value(comfyui, touch):
    mask = spot(60, 200)
    sigma_map = comfyui.nodes.PiDKitSigmaMap.execute(torch.ones(1, 8, 8), 0.3, 0, 0.0).args[0]
    assert torch.equal(touch(mask, sigma_list=sigma_map)[0], touch(mask, degrade_sigma=0.3)[0])


def test_only_windows_that_touch_the_mask_run(touch, calls):
    image, soft = touch(spot(0, 0) + spot(HEIGHT - 12, WIDTH - 12), feather=0, steps=1)
    part = HEIGHT * WIDTH
    worked = sum(images * height * width for images, _, height, width in calls)
    assert worked < 0.8 * part
    assert torch.equal(image[soft == 0], PICTURE[soft == 0]) and (image != PICTURE)[soft > 0].float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"image": PICTURE[:, :200]},
            "image is 320 x 200, but its latent decodes to 320 x 256: give the picture as PiD",
        ),
        ({"image": PICTURE.repeat(2, 1, 1, 1)}, "image holds 2 pictures, latent 1"),
        ({"keep": 3, "variations": 2}, "keep is 3, variations is 2: choose one of them, or draw more"),
        ({"mask": torch.full((1, 8, 8), torch.nan)}, "mask holds NaN"),
        ({"mask": torch.zeros(1, 1, 8, 8)}, "mask must have shape [B, H, W]"),
        ({"sigma_list": [0.1, 0.2]}, "2 values"),
        ({"text": "a face"}, "text is set, but clip is not connected"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(touch, changes, line):
    with pytest.raises(ValueError) as error:
        touch(**{"mask": spot(10, 10)} | changes)
    assert line in str(error.value) and "\n" not in str(error.value)
