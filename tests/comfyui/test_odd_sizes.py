"""A picture of any size comes out exactly four times as large, by every way pixels leave; nothing is cut in silence."""

import importlib

import numpy as np
import pytest
import torch

from pid_core import load_network
from pid_core.latents.rgb import to_rgb_latent
from support import inside
from support.graphs import decode_graph, link, saved_pixels
from support.inside import SEED
from support.tiny import save_tiny

SIZES = [(53, 37), (1, 1), (1, 2), (3, 301), (64, 33)]  # height, width


def picture(height, width, images=1):
    return torch.rand(images, height, width, 3, generator=torch.Generator().manual_seed(height))


def rgb_latent(comfyui, image, odd_size="pad"):
    return comfyui.nodes.PiDKitRGBLatent.execute(image, odd_size).args[0]


def by_core(net, image, steps=2):
    """[B, H, W, 3] as the plain decode without ComfyUI draws it."""
    size = tuple(4 * side for side in image.shape[1:3])
    pixels = inside.by_core(net, to_rgb_latent(image), steps=steps, size=size)
    return (pixels.movedim(1, -1) + 1) / 2


@pytest.mark.parametrize("size", SIZES)
def test_pid_decode(comfyui, size):
    patcher, net = comfyui.load("rgb")
    image = picture(*size)
    out = comfyui.decode(patcher, steps=2, latent=rgb_latent(comfyui, image))
    assert out.shape == (1, 4 * size[0], 4 * size[1], 3)
    assert torch.allclose(out, by_core(net, image), atol=1e-4)


def test_the_demo_graph_of_single_nodes(comfy):
    """LoadImage, PiD RGB Latent, PiD Latent Conditioning, KSampler, VAE Decode with Pixel-Space VAE."""
    path = comfy.models / "diffusion_models" / "odd.safetensors"
    save_tiny(path, "rgb", caption=3)
    photo = np.random.default_rng(0).integers(0, 256, (53, 37, 3), dtype=np.uint8)
    graph = decode_graph(path.name, "unused", sampler={"seed": SEED, "steps": 2})
    graph["load"] = {"class_type": "LoadImage", "inputs": {"image": comfy.upload(photo)}}
    graph["latent"] = {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("load"), "odd_size": "pad"}}
    done = comfy.queue(graph)
    (out,) = comfy.images(done, "png")
    assert out.shape == (212, 148, 3)
    expected = by_core(load_network(path), torch.from_numpy(photo)[None] / 255)
    assert torch.allclose((saved_pixels(comfy, done).clamp(-1, 1).movedim(1, -1) + 1) / 2, expected, atol=1e-4)


def test_guidance_and_windows(comfyui):
    patcher, _ = comfyui.load("rgb", changes={"window_min": 32, "window_max": 64})
    image = picture(53, 37)
    latent = rgb_latent(comfyui, image)
    made = comfyui.nodes.PiDKitConditioning.execute(latent, "auto", 0.0, "add", 0, model=patcher).args
    plain, guided = (comfyui.sample(patcher, *made, steps=1, cfg=cfg) for cfg in (1.0, 2.0))
    assert plain.shape == guided.shape == (1, 3, 212, 148)
    model = comfyui.nodes.PiDKitContextWindow.execute(patcher, "manual", 64, 32, "pyramid").args[0]
    windows = comfyui.sample(model, *made, steps=1)
    assert windows.shape == (1, 3, 212, 148)
    assert comfyui.decode(patcher, steps=2, latent=latent, window_mode="auto").shape == (1, 212, 148, 3)
    # a window that holds the whole canvas changes no bit
    whole = comfyui.nodes.PiDKitContextWindow.execute(patcher, "manual", 256, 32, "pyramid").args[0]
    assert torch.equal(comfyui.sample(whole, *made, steps=1), plain)


def test_a_batch_with_a_sigma_for_each_and_colours_held(comfyui):
    patcher, _ = comfyui.load("rgb")
    image = picture(21, 17, images=2)
    latent = rgb_latent(comfyui, image)
    options = {"colour_hold": "low_frequencies", "fidelity": 0.5}
    out = comfyui.decode(patcher, steps=2, latent=latent, sigma_list=[0.0, 0.4], **options)
    assert out.shape == (2, 84, 68, 3)
    alone = comfyui.decode(patcher, steps=2, latent=rgb_latent(comfyui, image[1:]), degrade_sigma=0.4, **options)
    assert torch.allclose(out[1:], alone, atol=1e-4)


def test_the_sweep(comfyui):
    patcher, _ = comfyui.load("rgb")
    latent = rgb_latent(comfyui, picture(21, 17, images=2))
    with torch.inference_mode():
        done = comfyui.nodes.PiDKitSigmaSweep.execute([patcher], [latent], [2], ["0, 0.5"], ["0"], [1])
    assert done.args[0].shape == (2, 84, 68, 3)


def test_images_taken_out_of_the_batch_keep_their_size(comfyui):
    patcher, _ = comfyui.load("rgb")
    latent = rgb_latent(comfyui, picture(21, 17, images=3))
    one = latent | {"samples": latent["samples"][1:2].repeat(2, 1, 1, 1)}  # as core's latent nodes do
    assert comfyui.decode(patcher, steps=2, latent=one).shape == (2, 84, 68, 3)


def test_a_changed_latent_keeps_its_padding_and_says_so(comfyui, caplog):
    """Flipped, the padding would be at the other side, and cutting it off would cut the picture."""
    patcher, _ = comfyui.load("rgb")
    latent = rgb_latent(comfyui, picture(21, 17))
    flipped = latent | {"samples": latent["samples"].flip(-1)}
    caplog.set_level("WARNING")
    assert comfyui.decode(patcher, steps=2, latent=flipped).shape == (1, 88, 72, 3)
    assert "the row or column added there to make the sides even stays" in caplog.text


def test_a_saved_latent_keeps_the_size(comfyui, tmp_path):
    files = importlib.import_module("pid_core.latents.files")
    size = importlib.import_module(f"{comfyui.pack}.nodes.comfy.picture_size")
    latent = rgb_latent(comfyui, picture(21, 17))
    known, _ = size.picture_size(latent)
    path = tmp_path / "odd.latent"
    path.write_bytes(files.latent_bytes(files.SavedLatent(latent["samples"], "rgb", 0.0, known[:2])))
    saved = files.read_latent(path)
    patcher, _ = comfyui.load("rgb")
    assert comfyui.decode(patcher, steps=2, latent=size.with_size(saved.samples, *saved.size)).shape == (1, 84, 68, 3)


def test_a_canvas_that_is_nobodys_is_still_refused(comfyui):
    """Only the size of the picture may be smaller than the latent; a size typed by hand would cut the picture."""
    patcher, _ = comfyui.load("rgb")
    positive, negative, _ = comfyui.conditioning(patcher, to_rgb_latent(picture(22, 18)))
    with pytest.raises(ValueError, match="the canvas is 68 x 84 pixels, but the latent decodes to 72 x 88"):
        comfyui.sample(patcher, positive, negative, {"samples": torch.zeros(1, 3, 84, 68)}, steps=1)


def test_cropping_is_shown(comfyui, monkeypatch):
    node, said = comfyui.nodes.PiDKitRGBLatent, []
    monkeypatch.setattr(
        importlib.import_module(node.__module__), "show_on_node", lambda cls, *lines: said.append(lines[0])
    )
    for odd_size in ("pad", "crop"):
        rgb_latent(comfyui, picture(21, 17), odd_size)
    assert said == ["17 x 21 pixels", "17 x 21 cropped to 16 x 20 pixels"]


def test_the_size_shown_is_that_of_the_picture(comfyui, monkeypatch):
    patcher, _ = comfyui.load("rgb", changes={"window_min": 32, "window_max": 64})
    said = []
    decode = importlib.import_module(comfyui.nodes.PiDKitDecode.__module__)
    monkeypatch.setattr(decode, "show_on_node", lambda cls, *lines: said.append(lines[0]))
    latent = rgb_latent(comfyui, picture(53, 37))
    for mode in ("auto", "off"):
        comfyui.decode(patcher, steps=2, latent=latent, window_mode=mode)
    assert said[0] == "rgb latent, 148 x 212 pixels"
    assert said[1].startswith("148 x 212 in ") and said[3].startswith("148 x 212 in one frame")
