"""The first noise is drawn once for the images that have it in common, and stays what ComfyUI draws."""

import gc
import sys
import weakref

import pytest
import torch

LATENT = torch.randn(3, 16, 1, 2, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def drawn(comfyui, monkeypatch):
    """The shapes of all noise that ComfyUI was asked for."""
    module, shapes = comfyui.sample_module, []
    plain = module.prepare_noise

    def prepare_noise(latent, *args, **kwargs):
        shapes.append(tuple(latent.shape))
        return plain(latent, *args, **kwargs)

    monkeypatch.setattr(module, "prepare_noise", prepare_noise)
    return shapes


def decode(comfyui, patcher, latent=LATENT, **inputs):
    return comfyui.decode(patcher, latent, **{"steps": 2} | inputs)


def test_images_of_one_seed_draw_it_once(comfyui, drawn):
    patcher, _ = comfyui.load()
    first = decode(comfyui, patcher, sigma_list=[0.0, 0.1, 0.2])
    again = decode(comfyui, patcher, LATENT[:1], degrade_sigma=0.1)
    assert drawn == [(1, 3, 32, 64)]
    fresh, _ = comfyui.load()
    assert torch.equal(decode(comfyui, fresh, LATENT[:1], degrade_sigma=0.1), again)
    assert torch.equal(decode(comfyui, fresh, LATENT[2:], degrade_sigma=0.2), first[2:])


@pytest.mark.parametrize("change", [{"seed": 8}, {"latent": LATENT.mT}, {"latent": LATENT[:2]}])
def test_another_seed_or_canvas_draws_again(comfyui, drawn, change):
    patcher, _ = comfyui.load()
    decode(comfyui, patcher)
    assert torch.equal(decode(comfyui, patcher, **change), decode(comfyui, comfyui.load()[0], **change))
    assert len(drawn) == 3


def test_a_batch_drawn_one_by_one_draws_it_once(comfyui, drawn, monkeypatch):
    module = sys.modules[comfyui.nodes.PiDKitDecode.__module__]
    plain = module.sample

    def sample(model, made, *args, **kwargs):
        if made.canvas["samples"].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(model, made, *args, **kwargs)

    whole = decode(comfyui, comfyui.load()[0])
    drawn.clear()
    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(comfyui.module("nodes.comfy.noise"), "LARGEST_KEPT", 0)
    torch.testing.assert_close(decode(comfyui, comfyui.load()[0]), whole, rtol=0, atol=1e-4)
    assert drawn == [(3, 3, 32, 64)]


def test_noise_goes_with_its_model_and_large_noise_at_once(comfyui, monkeypatch):
    noise = comfyui.module("nodes.comfy.noise")
    patcher, _ = comfyui.load()
    kept = weakref.ref(noise.first_noise(patcher, (1, 3, 8, 8), 1))
    assert kept() is not None
    del patcher
    gc.collect()
    assert kept() is None
    monkeypatch.setattr(noise, "LARGEST_KEPT", 100)
    patcher, _ = comfyui.load()
    kept = weakref.ref(noise.first_noise(patcher, (1, 3, 8, 8), 1))
    gc.collect()
    assert kept() is None
