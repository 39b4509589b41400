"""decode: what a user may give it, what comes out, and what is refused."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import decode, distilled_sigmas, load_network, plan_windows
from pid_core.latents.mirror import extend
from pid_core.model.pixel_cache import PIXEL_CACHES
from support.calls import velocity
from support.goldens import draw, spec, weights

NETS = ("flux_v1", "flux2_v1", "sdxl_v1", "flux_v1pt5", "flux2_v1pt5")


@pytest.fixture(scope="module")
def nets():
    # one of the cases keeps the head that only a teacher's file has
    return {name: load_network(weights(spec(name)), schedule="distilled") for name in NETS}


@pytest.fixture(scope="module")
def net(nets):
    return nets["flux_v1"]


def latent(batch=1, height=1, width=2, channels=16, seed=1):
    return draw(seed, [batch, channels, height, width])


def caption(batch=1, tokens=5):
    return draw(2, [batch, tokens, 24])


@pytest.mark.parametrize("name", NETS)
def test_size_and_range(nets, name):
    config = nets[name].config
    out = decode(nets[name], latent(channels=config.latent_channels), caption(), steps=1)
    cell = config.latent_cell
    assert out.shape == (1, 3, cell, 2 * cell) and out.dtype == torch.float32
    assert out.min() >= -1 and out.max() <= 1 and not out.requires_grad


def test_the_seed_decides_the_image(net):
    first, again, other = (decode(net, latent(), caption(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_by_default_as_many_steps_as_the_checkpoint_is_best_at(nets):
    net = copy.copy(nets["flux_v1"])
    assert torch.equal(decode(net, latent(), caption()), decode(net, latent(), caption(), steps=4))
    net.config = replace(net.config, steps=2)
    assert torch.equal(decode(net, latent(), caption()), decode(net, latent(), caption(), steps=2))


def test_the_global_generator_is_neither_read_nor_moved(net):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state, first = torch.get_rng_state(), decode(net, latent(), caption(), steps=2)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(decode(net, latent(), caption(), steps=2), first)


def test_draws_come_from_one_generator_in_order(net):
    generator = torch.Generator().manual_seed(11)
    noise, *step_noise = [torch.randn(1, 3, 32, 64, generator=generator) for _ in range(4)]
    expected = decode(net, latent(), caption(), seed=11)
    given_all = {"noise": noise, "step_noise": step_noise}
    assert torch.equal(decode(net, latent(), caption(), seed=99, **given_all), expected)
    # a given first noise takes the place of its draw: the later ones do not move up and repeat it
    assert torch.equal(decode(net, latent(), caption(), seed=11, noise=noise), expected)
    assert torch.equal(decode(net, latent(), caption(), seed=11, step_noise=step_noise), expected)
    assert torch.equal(decode(net, latent(), caption(), seed=11, step_noise=[None, step_noise[1], None]), expected)


def loop(net, z, text, sigma, sigmas, draws):
    """The sampler, written out once more."""
    x = draws[0]
    for i, (t, t_next) in enumerate(pairwise(sigmas)):
        v = velocity(net, x, torch.full((len(z),), 1000.0) * t, text, z, sigma)
        x0 = v if net.config.prediction == "x0" else (x.double() - t.double() * v.double()).float()
        x = x0 if t_next == 0 else (1 - t_next) * x0 + t_next * draws[i + 1]
    return x.clamp(-1, 1)


@pytest.mark.parametrize("prediction", ["velocity", "x0"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_every_step_count_and_prediction(prediction, steps):
    net = load_network(weights(spec("flux_v1")))
    net.config = replace(net.config, prediction=prediction)
    draws = [draw(20 + i, [1, 3, 32, 64]) for i in range(steps)]
    sigma = torch.tensor([0.3])
    with torch.no_grad():
        expected = loop(net, latent(), caption(), sigma, distilled_sigmas(steps), draws)
    out = decode(net, latent(), caption(), 0.3, steps=steps, noise=draws[0], step_noise=draws[1:])
    assert torch.allclose(out, expected, atol=1e-5)


def test_a_batch_equals_its_images_one_by_one(net):
    z, text, sigma = latent(3), caption(3), [0.0, 0.4, 1.0]
    noise, steps = draw(5, [3, 3, 32, 64]), [draw(6 + i, [3, 3, 32, 64]) for i in range(3)]
    together = decode(net, z, text, sigma, noise=noise, step_noise=steps)
    for i, s in enumerate(sigma):
        one = slice(i, i + 1)
        alone = decode(net, z[one], text[one], s, noise=noise[one], step_noise=[n[one] for n in steps])
        assert torch.allclose(together[one], alone, atol=1e-4)


def test_sigma_and_caption_for_all_or_one_per_image(net):
    z = latent(2)
    expected = decode(net, z, caption().expand(2, -1, -1), torch.tensor([0.3, 0.3]), steps=2)
    for sigma in (
        0.3,
        [0.3],
        [0.3, 0.3],
        torch.tensor(0.3),
        torch.tensor([0.3]),
        torch.tensor([0.3], dtype=torch.float64),
    ):
        assert torch.equal(decode(net, z, caption(), sigma, steps=2), expected)
    assert not torch.equal(decode(net, z, caption(), [0.3, 0.9], steps=2)[1], expected[1])


def test_callback_sees_every_step(net):
    seen = []
    out = decode(net, latent(), caption(), steps=3, callback=lambda *args: seen.append(args))
    assert [(step, steps) for step, steps, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(seen[-1][2].clamp(-1, 1), out)


def test_an_error_in_the_callback_stops_the_run(net):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(net, latent(), caption(), callback=stop)


def test_inputs_are_left_alone(net):
    inputs = [latent(), caption(), draw(5, [1, 3, 32, 64]), draw(6, [1, 3, 32, 64])]
    before = [t.clone() for t in inputs]
    decode(net, inputs[0], inputs[1], 0.2, steps=2, noise=inputs[2], step_noise=[inputs[3]])
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_inputs_of_other_dtypes(net, dtype):
    z, text = latent().to(dtype), caption().to(dtype)
    out = decode(net, z, text, steps=1)
    assert out.dtype == torch.float32
    assert torch.equal(out, decode(net, z.float(), text.float(), steps=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_other_dtypes(net, dtype):
    half = load_network(weights(spec("flux_v1")), dtype=dtype)
    out, exact = (decode(n, latent(), caption(), steps=2) for n in (half, net))
    assert out.dtype == torch.float32 and (out - exact).square().mean() < 1e-3


def test_a_video_latent_of_one_frame(net):
    assert torch.equal(decode(net, latent()[:, :, None], caption(), steps=1), decode(net, latent(), caption(), steps=1))


def test_a_slice_of_a_larger_tensor_as_latent(net):
    z = latent(height=4, width=6)[:, :, 1:3, ::2]
    assert torch.allclose(
        decode(net, z, caption(), steps=1), decode(net, z.contiguous(), caption(), steps=1), atol=1e-5
    )


def test_in_inference_mode_and_after_it(net):
    with torch.inference_mode():
        first = decode(net, latent(), caption(), steps=1)
    assert torch.equal(decode(net, latent(), caption(), steps=1), first)


def test_own_caption_of_a_checkpoint(net):
    text = caption(tokens=3)
    own = load_network({**weights(spec("flux_v1")), "default_caption": text[0].to(torch.bfloat16)})
    assert own.default_caption.shape == (1, 3, 24) and own.default_caption.dtype == torch.float32
    expected = decode(net, latent(2), text.to(torch.bfloat16), steps=1)
    assert torch.equal(decode(own, latent(2), steps=1), expected)
    assert torch.equal(decode(own, latent(2), caption(), steps=1), decode(net, latent(2), caption(), steps=1))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.floats(0, 1, width=32))
def test_any_latent_size_gives_a_finite_image(net, height, width, batch, sigma):
    out = decode(net, latent(batch, height, width), caption(), sigma, steps=1)
    assert out.shape == (batch, 3, 32 * height, 32 * width)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("size", [(16, 48), (48, 80), (32, 64), [48, 64]])
def test_another_size_less_than_a_cell_away(net, size):
    assert decode(net, latent(), caption(), steps=1, size=size).shape[2:] == tuple(size)


def test_a_size_that_ends_inside_a_patch_is_the_whole_patch_cut_off(net):
    """The network sees the noise go on as its mirror image; also in windows."""
    noise = torch.randn(1, 3, 44, 61, generator=torch.Generator().manual_seed(3))
    run = {"caption": caption(), "steps": 1}
    whole = decode(net, latent(1, 2, 2), noise=extend(noise, 48, 64), size=(48, 64), **run)
    out = decode(net, latent(1, 2, 2), noise=noise, size=(44, 61), **run)
    assert torch.equal(out, whole[..., :44, :61])
    plan = plan_windows(48, 64, 32, 16, align=16)
    windowed = decode(net, latent(1, 2, 2), noise=noise, size=(44, 61), windows=plan, **run)
    assert windowed.shape == out.shape and torch.isfinite(windowed).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lq_latent": latent(channels=4)}, "the latent has 4 channels, sdxl; this checkpoint takes 16"),
        ({"lq_latent": latent()[0]}, "must have shape [B, C, h, w], got [16, 1, 2]"),
        ({"lq_latent": torch.zeros(1, 16, 3, 1, 2)}, "a video of 3 frames"),
        ({"lq_latent": latent() * float("nan")}, "NaN or infinite"),
        ({"lq_latent": torch.zeros(0, 16, 1, 2)}, "empty"),
        ({"lq_latent": torch.zeros(1, 16, 0, 2)}, "empty"),
        ({"caption": None}, "stores no caption of its own"),
        ({"caption": caption()[0]}, "[1 or 1, tokens, 24] is needed"),
        ({"caption": caption(2)}, "the caption has shape [2, 5, 24]"),
        ({"caption": torch.zeros(1, 5, 2304)}, "captions [B, tokens, 24], got [1, 5, 2304]"),
        ({"caption": torch.zeros(1, 0, 24)}, "captions [B, tokens, 24], got [1, 0, 24]"),
        (
            {"caption": caption() * float("inf")},
            "the caption holds 120 NaN or infinite values: the text encoder failed",
        ),
        ({"degrade_sigma": -0.1}, "between 0 and 1"),
        ({"degrade_sigma": 1.5}, "between 0 and 1"),
        ({"degrade_sigma": float("nan")}, "between 0 and 1"),
        ({"degrade_sigma": [0.1, 0.2]}, "2 values for 1 images"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 5}, "steps is 5"),
        ({"noise": torch.zeros(1, 3, 32, 32)}, "noise has shape [1, 3, 32, 32], [1, 3, 32, 64] is needed"),
        ({"noise": torch.zeros(2, 3, 32, 64)}, "noise has shape [2, 3, 32, 64]"),
        ({"step_noise": []}, "step_noise holds 0 tensors, 4 steps need 3"),
        ({"step_noise": [torch.zeros(1, 3, 32, 64)] * 2}, "step_noise holds 2 tensors, 4 steps need 3"),
        ({"step_noise": [torch.zeros(1, 3, 32, 64), torch.zeros(1), None]}, "step_noise[1] has shape [1]"),
        ({"size": (0, 64)}, "64 x 0 does not fit: both sides must be positive"),
        ({"size": (0, 64)}, "does not fit"),
        ({"size": 64}, "size must be (height, width) in whole pixels, got 64"),
        ({"size": (32.0, 64.0)}, "in whole pixels"),
        ({"size": (32, 64, 3)}, "in whole pixels"),
        ({"size": (-32, 64)}, "does not fit"),
        ({"size": (64, 64)}, "64 x 64 does not fit the latent, which decodes to 64 x 32"),
        ({"size": (1024, 1024)}, "does not fit the latent"),
    ],
)
def test_bad_input_is_one_line(net, options, words):
    arguments = {"lq_latent": latent(), "caption": caption()} | options
    with pytest.raises(ValueError) as caught:
        decode(net, **arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(1, 3, 30, 64)}, "multiples of 16"),
        ({"x": torch.zeros(3, 32, 64)}, "x must be [B, 3, H, W]"),
        ({"timestep": torch.zeros(2)}, "timestep is for 2 images, x holds 1"),
        ({"degrade_sigma": torch.zeros(2)}, "degrade_sigma is for 2 images"),
        ({"lq_features": torch.zeros(2, 8, 16)}, "lq_features are for 2 images"),
        ({"lq_features": None}, "needs the latent"),
        ({"lq_features": torch.zeros(1, 7, 16)}, "7 tokens, x has 1 of 8"),
        ({"caption": caption(2)}, "caption is for 2 images"),
    ],
)
def test_bad_input_of_a_single_call_is_one_line(net, change, words):
    arguments = {
        "x": torch.zeros(1, 3, 32, 64),
        "timestep": torch.zeros(1),
        "caption": caption(),
        "lq_features": torch.zeros(1, 8, 16),
        "degrade_sigma": torch.zeros(1),
    } | change
    with pytest.raises(ValueError) as caught:
        net(**arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_plan_keeps_is_that_decodes_alone(net):
    plan = replace(plan_windows(64, 128, 64, 0, align=32), pixel_cache=PIXEL_CACHES[2])
    seen = []
    decode(
        net, latent(height=2, width=4), caption(), windows=plan, callback=lambda *_: seen.append(net.driver.pixel_cache)
    )
    assert seen[0] == PIXEL_CACHES[2] and net.driver.pixel_cache is None


@pytest.mark.parametrize("wrong", [latent(channels=4), torch.zeros(16, 2, 4)], ids=["channels", "rank"])
def test_a_latent_that_is_none_of_the_checkpoints_is_one_line(net, wrong):
    with pytest.raises(ValueError, match=r"needs lq_latent \[B, 16, h, w\], got \[[^\n]*\]$"):
        net.encode_lq(wrong, 32, 64)
