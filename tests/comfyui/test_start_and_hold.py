"""Beginning from a picture and holding to one: PiD Decode, ComfyUI's own samplers and pid_core draw the same."""

import sys

import pytest
import torch

from pid_core import Hold
from pid_core.latents.reference import resize
from pid_core.latents.rgb import to_image, to_pixels
from support.inside import SEED, by_core

SIZE = (64, 32)


def picture(seed=3, images=1, size=SIZE):
    """Smooth, so that nothing of it passes for noise."""
    coarse = torch.rand(images, 3, 4, 2, generator=torch.Generator().manual_seed(seed))
    whole = torch.stack([torch.stack([resize(channel, size) for channel in one]) for one in coarse])
    return whole.clamp(0, 1).movedim(1, -1)


def latent_of(images=1):
    return torch.randn((images, 16, 2, 1), generator=torch.Generator().manual_seed(images))


def custom(comfyui, model, latent, sigmas, start=None):
    """SamplerCustom with lcm and cfg 1: [B, 3, H, W]."""
    positive, negative, canvas = comfyui.conditioning(model, latent)
    pixels = canvas["samples"] if start is None else start
    noise = comfyui.sample_module.prepare_noise(pixels, SEED)
    sampler = comfyui.samplers.sampler_object("lcm")
    with torch.inference_mode():
        return comfyui.sample_module.sample_custom(
            model, noise, 1.0, sampler, sigmas, positive, negative, pixels, disable_pbar=True, seed=SEED
        )


@pytest.mark.parametrize(("steps", "start_at"), [(4, 2), (4, 4), (3, 2), (2, 2)])
def test_decode_begins_as_custom_samplers_do(comfyui, steps, start_at):
    patcher, net = comfyui.load()
    latent, start = latent_of(2), picture(images=2)
    (sigmas,) = comfyui.nodes.PiDKitSigmas.execute(steps, patcher, start_at).args
    (vae,) = comfyui.nodes.PiDKitPixelVAE.execute().args
    assert len(sigmas) == steps - start_at + 2
    ours = comfyui.decode(patcher, latent, steps=steps, start_at=start_at, start_image=start)
    assert torch.equal(ours, to_image(custom(comfyui, patcher, latent, sigmas, vae.encode(start))))
    lq = comfyui.conditioning(patcher, latent)[0][0][1]["lq_latent"]
    core = by_core(net, lq, steps=steps, start=to_pixels(start), start_at=start_at)
    assert torch.allclose(ours, to_image(core), atol=2e-5)
    assert not torch.allclose(ours, comfyui.decode(patcher, latent, steps=steps), atol=0.01)


def test_decode_holds_as_ksampler_does_behind_pid_hold(comfyui):
    patcher, net = comfyui.load()
    latent, reference = latent_of(2), picture(images=2, size=(16, 8))
    (model,) = comfyui.nodes.PiDKitHold.execute(patcher, reference, 0.7).args
    positive, negative, canvas = comfyui.conditioning(patcher, latent)
    by_ksampler = to_image(comfyui.sample(model, positive, negative, canvas))
    ours = comfyui.decode(patcher, latent, hold=0.7, reference=reference)
    core = by_core(net, positive[0][1]["lq_latent"], hold=Hold(to_pixels(reference), 0.7))
    assert torch.equal(ours, by_ksampler)
    assert torch.allclose(ours, to_image(core), atol=2e-5)
    assert not torch.allclose(ours, comfyui.decode(patcher, latent), atol=0.01)
    with_guidance = to_image(comfyui.sample(model, positive, negative, canvas, cfg=2.0))  # the other way through
    assert torch.allclose(with_guidance, ours, atol=0.01)


def test_the_cores_own_model_and_windows_are_held(comfyui, core_pid):
    patcher, reference = core_pid(), picture(size=(16, 8))
    positive, negative, canvas = comfyui.conditioning(comfyui.load()[0], latent_of())
    options = comfyui.module("nodes.comfy.window_handler")
    windowed, _ = options.add_windows(patcher, options.WindowSettings(32, 0, auto=False), (), None)
    (model,) = comfyui.nodes.PiDKitHold.execute(windowed, reference, 1.0).args
    plain, held = (comfyui.sample(one, positive, negative, canvas) for one in (windowed, model))
    small = to_pixels(reference)
    lacks = [(torch.stack([resize(c, (16, 8)) for c in x[0]]) - small).abs().mean() for x in (plain, held)]
    assert lacks[1] < lacks[0] / 8


def test_windows_of_decode_are_held_together(comfyui):
    """What is held is the whole picture, put together from its windows."""
    patcher, _ = comfyui.load()
    latent, reference = latent_of(), picture(size=(16, 8))
    handlers = comfyui.module("nodes.comfy.window_handler")
    windowed, _ = handlers.add_windows(patcher, handlers.WindowSettings(32, 0, auto=False), (), None)
    (model,) = comfyui.nodes.PiDKitHold.execute(windowed, reference, 0.7).args
    by_ksampler = to_image(comfyui.sample(model, *comfyui.conditioning(patcher, latent)))
    windows = {"window_mode": "manual", "window_size": 32, "window_overlap": 0}
    ours = comfyui.decode(patcher, latent, hold=0.7, reference=reference, **windows)
    assert torch.equal(ours, by_ksampler)
    assert not torch.equal(ours, comfyui.decode(patcher, latent, hold=0.7, reference=reference))


def test_each_image_has_its_own_pictures(comfyui):
    """Drawn one by one, with a sigma each, and all at once."""
    patcher, _ = comfyui.load()
    latent, start, reference = latent_of(2), picture(images=2), picture(5, images=2, size=(16, 8))
    options = {"start_at": 3, "hold": 0.5, "start_image": start, "reference": reference}
    images = comfyui.decode(patcher, latent, sigma_list=[0.0, 0.4], **options)
    for i, sigma in enumerate((0.0, 0.4)):
        one = slice(i, i + 1)
        mine = options | {"start_image": start[one], "reference": reference[one]}
        alone = comfyui.decode(patcher, latent[one], degrade_sigma=sigma, **mine)
        assert torch.equal(images[one], alone)


def test_what_changes_the_picture_is_drawn_again(comfyui):
    patcher, _ = comfyui.load()
    latent, options = latent_of(), {"sigma_list": [0.2], "reference": picture(size=(16, 8))}
    settings = [{}, {"hold": 0.5}, {"hold": 1.0}, {"start_at": 2}, {"start_at": 3}, {"start_at": 2, "steps": 3}]
    settings.append({"start_at": 2, "start_image": picture(8)})
    images = [comfyui.decode(patcher, latent, **options | changes) for changes in settings]
    for i, one in enumerate(images):
        assert not any(torch.equal(one, other) for other in images[:i])


def test_without_a_start_image_it_is_the_reference_or_the_latents_picture(comfyui):
    patcher, _ = comfyui.load()
    picked = comfyui.decode(patcher, latent_of(), start_at=3, reference=picture(size=(16, 8)))
    given = comfyui.decode(patcher, latent_of(), start_at=3, start_image=picture(size=(16, 8)))
    assert torch.equal(picked, given)
    patcher, _ = comfyui.load("rgb")
    source = picture(size=(16, 8))
    (latent,) = comfyui.nodes.PiDKitRGBLatent.execute(source, "pad").args
    taken = comfyui.decode(patcher, latent, start_at=3, hold=0.5)
    assert torch.equal(taken, comfyui.decode(patcher, latent, start_at=3, hold=0.5, start_image=source))


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_finished_result_to_begin_from_is_put_back_where_it_was_decoded(comfyui, fit):
    """With framing the result has lost its border, or got one; beside the canvas it would lie shifted."""
    patcher, _ = comfyui.load("rgb")
    settings = {"target": "factor", "family": "rgb", "fit": fit, "factor": 4.0}
    prepared, framing, _ = comfyui.nodes.PiDKitPrepareImage.execute(image=picture(size=(41, 63)), **settings).args
    (latent,) = comfyui.nodes.PiDKitRGBLatent.execute(prepared, "pad").args
    height, width = (4 * side for side in prepared.shape[1:3])
    canvas = picture(4, size=(height, width))
    finished = comfyui.nodes.PiDKitFinishImage.execute(canvas, framing).args[0]
    options = {"start_at": 4, "framing": framing}
    ours = comfyui.decode(patcher, latent, start_image=finished, **options)
    expected = comfyui.decode(patcher, latent, start_image=canvas, **options)
    inner = slice(8, -8)  # the border is mirrored
    assert (ours - expected)[:, inner, inner].abs().mean() < 1e-3


def test_another_nodes_wrapper_changes_no_bit(comfyui):
    """Then ComfyUI's lcm runs, not our sampler."""
    from comfy.patcher_extension import WrappersMP

    patcher, _ = comfyui.load()
    options = {"start_at": 2, "start_image": picture(), "hold": 0.5, "reference": picture(size=(16, 8))}
    ours = comfyui.decode(patcher, latent_of(), **options)
    wrapped = patcher.clone()
    wrapped.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another", lambda run, *args, **kwargs: run(*args, **kwargs))
    assert torch.equal(comfyui.decode(wrapped, latent_of(), **options), ours)


def test_what_other_functions_hold_is_not_written_to(comfyui):
    """Another node's function may hand on the conditioned prediction itself, which others read later."""
    patch = comfyui.module("nodes.comfy.holding").HoldPatch(Hold(to_pixels(picture(size=(16, 8)))))
    x0, options = torch.zeros(1, 3, *SIZE), {"transformer_options": {"sample_sigmas": torch.tensor([0.8, 0.3, 0.0])}}
    own = {"denoised": x0, "sigma": torch.tensor([0.8]), "model_options": options}
    held = patch(own | {"cond_denoised": x0})
    assert not x0.any() and held.any()
    assert patch(own) is x0 and torch.equal(x0, held)


def test_a_noisy_reference_is_told_on_the_node(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    shown = []
    for node in (comfyui.nodes.PiDKitDecode, comfyui.nodes.PiDKitHold):
        monkeypatch.setattr(sys.modules[node.__module__], "show_on_node", lambda _, *lines: shown.append(lines))
    noisy = (picture() + 0.1 * torch.randn(1, *SIZE, 3)).clamp(0, 1)
    comfyui.nodes.PiDKitHold.execute(patcher, noisy, 1.0)
    assert "the reference is noisy itself" in shown[0][0]
    comfyui.nodes.PiDKitHold.execute(patcher, picture(), 1.0)
    assert shown[1] == ()
    comfyui.decode(patcher, latent_of(), start_image=picture(), hold=0.5, reference=noisy)
    assert {"start_image is not used: start_at is 1, which begins with noise", shown[0][0]} <= set(shown[2])
    comfyui.decode(patcher, latent_of(), start_image=picture(), start_at=3)
    assert "begins at step 3 of 4, from a picture" in shown[4]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"start_at": 2}, "start_at is 2, and there is no picture to start from: connect one to start_image"),
        ({"hold": 0.5}, "colour_hold, fidelity and hold need a reference: connect VAE Decode"),
        ({"start_at": 3, "steps": 2, "start_image": picture()}, "start_at is 3, but there are 2 steps: choose 1 to 2"),
        ({"start_at": 2, "steps": 1, "start_image": picture()}, "one step has no later level"),
        ({"start_at": 2, "start_image": picture(size=(32, 32))}, "picture to start from is 32 x 32, the image 32 x 64"),
        ({"hold": 0.5, "reference": picture(size=(32, 32))}, "the reference is 32 x 32, the image 32 x 64"),
        ({"hold": 1.5, "reference": picture()}, "hold"),
        ({"start_at": 2, "start_image": picture(images=3)}, "holds 3 images, there are 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(comfyui, inputs, message):
    patcher, _ = comfyui.load()
    with pytest.raises(ValueError, match=message) as error:
        comfyui.decode(patcher, latent_of(), **inputs)
    assert "\n" not in str(error.value)


def test_pid_hold_says_what_does_not_fit_when_the_run_begins(comfyui):
    patcher, _ = comfyui.load()
    (model,) = comfyui.nodes.PiDKitHold.execute(patcher, picture(size=(32, 32)), 1.0).args
    with pytest.raises(ValueError, match="the reference is 32 x 32, the image 32 x 64: their shapes differ"):
        comfyui.sample(model, *comfyui.conditioning(patcher, latent_of()))
    with pytest.raises(ValueError, match="start_at is 5, but there are 4 steps: choose 1 to 4"):
        comfyui.nodes.PiDKitSigmas.execute(4, None, 5)
