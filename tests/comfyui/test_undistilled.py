"""Undistilled checkpoints: the reference's times and solver, with guidance, through ComfyUI's own samplers."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise

import pytest
import torch

from pid_core.checkpoints.hints import AUX_HEAD
from pid_core.checkpoints.reading import config_tensor
from pid_core.sampling.comfy_noise import comfy_noise
from pid_core.sampling.schedule import flow_shift, undistilled_sigmas
from support.calls import velocity
from support.inside import SEED, lq_of
from support.tiny import save_tiny, tiny_config, tiny_state_dict

CFG, STEPS = 5.0, 5


@pytest.fixture
def teacher(comfyui):
    return comfyui.load("flux", "v1.5", schedule="undistilled")


def by_reference(net, lq, texts, sigma, noise, steps):
    """The reference's sampler, written out: DPM-Solver++ 2M on the data prediction, text guidance on the velocity."""
    height, width = noise.shape[-2:]
    shift = 6 * math.sqrt(math.sqrt(height * width) / 2048)
    even = [0.999 * (1 - i / steps) for i in range(steps + 1)]
    times = torch.tensor([shift * q / (1 + (shift - 1) * q) for q in even]).double().tolist()  # float32 values
    level = [math.log((1 - t) / t) if t else math.inf for t in times]
    x, old = noise.double(), None
    for i, (s, t) in enumerate(pairwise(times)):
        with torch.no_grad():
            positive, negative = (
                velocity(
                    net, x.float(), torch.full((x.shape[0],), 1000 * s), text.expand(x.shape[0], -1, -1),
                    lq, torch.full((x.shape[0],), sigma),
                ).double()
                for text in texts
            )  # fmt: skip
        x0 = x - s * (negative + CFG * (positive - negative))
        if t == 0:
            return x0.float()
        h, best = level[i + 1] - level[i], x0
        if old is not None:
            r = (level[i] - level[i - 1]) / h
            best = x0 + (x0 - old) / (2 * r)
        x = t / s * x - (1 - t) * math.expm1(-h) * best
        old = x0


def run(comfyui, patcher, made, sampler, sigmas=None):
    positive, negative, canvas = made
    pixels = canvas["samples"]
    if sigmas is None:
        sampling = patcher.get_model_object("model_sampling")
        sigmas = comfyui.samplers.calculate_sigmas(sampling, "simple", STEPS)
    noise = comfyui.sample_module.prepare_noise(pixels, SEED)
    with torch.inference_mode():
        return comfyui.sample_module.sample_custom(
            patcher, noise, CFG, sampler, sigmas, positive, negative, pixels, seed=SEED, disable_pbar=True
        )


def exact_sampler(comfyui):
    """ComfyUI's node SamplerDPMPP_2M_SDE with eta 0 is DPM-Solver++ 2M in the reference's own variable."""
    options = {"eta": 0.0, "s_noise": 0.0, "solver_type": "midpoint"}
    return comfyui.samplers.ksampler("dpmpp_2m_sde", options)


@pytest.mark.parametrize("cells", [(1, 1), (2, 3)])
def test_equals_the_references_sampler(comfyui, teacher, cells):
    patcher, net = teacher
    texts = [torch.randn(1, tokens, 24, generator=torch.Generator().manual_seed(tokens)) for tokens in (5, 9)]
    latent = torch.randn(1, 16, *cells, generator=torch.Generator().manual_seed(3))
    made = comfyui.conditioning(patcher, latent, 0.2, positive=[[texts[0], {}]], negative=[[texts[1], {}]])
    noise = comfy_noise(tuple(made[2]["samples"].shape), SEED)
    expected = by_reference(net, lq_of(made[0]), texts, 0.2, noise, STEPS)
    scale = expected.abs().mean()
    out = run(comfyui, patcher, made, exact_sampler(comfyui))
    assert (out - expected).abs().mean() < 5e-4 * scale
    # dpmpp_2m extrapolates in log sigma, the reference in log SNR: a few coarse steps of a rough network show it
    near = run(comfyui, patcher, made, comfyui.samplers.sampler_object("dpmpp_2m"))
    assert (near - expected).abs().mean() < 0.5 * scale


def test_sigmas_node_gives_the_same_run(comfyui, teacher):
    patcher, _ = teacher
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1, generator=torch.Generator().manual_seed(3)))
    sampler = comfyui.samplers.sampler_object("dpmpp_2m")
    (sigmas,) = comfyui.nodes.PiDKitSigmas.execute(STEPS, patcher).args
    assert torch.allclose(run(comfyui, patcher, made, sampler, sigmas), run(comfyui, patcher, made, sampler), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(2048, 2048), (4096, 4096), (1536, 2688), (64, 96)])
def test_simple_schedule_becomes_that_of_the_canvas(comfyui, teacher, height, width):
    sampling = teacher[0].get_model_object("model_sampling")
    simple = comfyui.samplers.calculate_sigmas(sampling, "simple", 25)
    expected = undistilled_sigmas(25, flow_shift("v1.5", height, width))
    assert torch.allclose(sampling.adapt(simple, height, width), expected, atol=2e-6)
    assert torch.equal(sampling.adapt(torch.tensor([1.0, 0.0]), height, width), torch.tensor([1.0, 0.0]))


def test_first_noise_is_unscaled_on_every_canvas(comfyui, teacher):
    sampling = teacher[0].get_model_object("model_sampling")
    for side in (32, 4096):
        noise = torch.randn(1, 3, side, 32, generator=torch.Generator().manual_seed(0))
        first = undistilled_sigmas(25, flow_shift("v1.5", side, 32))[:2]
        assert torch.equal(sampling.noise_scaling(first[0], noise, torch.zeros_like(noise)), noise)
        assert torch.allclose(sampling.noise_scaling(first[1], noise, torch.zeros_like(noise)), first[1] * noise)


def test_a_users_own_shift_is_left_alone(comfyui, teacher):
    patcher, _ = teacher
    made = comfyui.conditioning(patcher, torch.zeros(1, 16, 1, 1))
    shifted = importlib.import_module("comfy_extras.nodes_model_advanced").ModelSamplingSD3().patch(patcher, 3.0)[0]
    seen = []

    def sampler(model, x, sigmas, **_):
        seen.append(sigmas)
        return x

    run(comfyui, shifted, made, importlib.import_module("comfy.samplers").KSAMPLER(sampler))
    sampling = shifted.get_model_object("model_sampling")
    assert torch.equal(seen[0], comfyui.samplers.calculate_sigmas(sampling, "simple", STEPS))


def test_the_loader_tells_them_apart(comfyui):
    def schedule(name, choice=None, head=False, **options):
        path = save_tiny(comfyui.folder / f"{len(list(comfyui.folder.iterdir()))}{name}.safetensors", **options)
        if head:
            from safetensors.torch import load_file, save_file

            save_file(load_file(path) | {f"net.{AUX_HEAD}0.weight": torch.zeros(16)}, path)
        patcher = comfyui.model.load_model(str(path), schedule=choice)
        sampling = type(patcher.get_model_object("model_sampling")).__name__
        assert (
            sampling
            == {"distilled": "PiDSampling", "undistilled": "UndistilledSampling"}[patcher.model.config.schedule]
        )
        return patcher.model.config.schedule

    bare = {"version": "v1.5", "metadata": False}
    assert schedule("_flux_undistilled", **bare) == "undistilled"
    assert schedule("_flux_4step", **bare) == "distilled"
    assert schedule("_flux_undistilled", "distilled", **bare) == "distilled"
    assert schedule("_flux", "undistilled", **bare) == "undistilled"
    assert schedule("_flux", head=True, **bare) == "undistilled"
    assert schedule("_4step", version="v1.5", schedule="undistilled") == "undistilled"


def test_the_choice_is_saved_with_the_model(comfyui, teacher):
    model = teacher[0].model
    saved = model.state_dict_for_saving(model.diffusion_model.state_dict())
    stored = next(v for k, v in saved.items() if k.endswith("pid_config"))
    assert torch.equal(stored, config_tensor(tiny_config("flux", "v1.5", schedule="undistilled")))
    assert tiny_state_dict("flux", "v1.5").keys() == {
        k.replace("model.diffusion_model.", "net.") for k in saved if "pid_config" not in k and "caption" not in k
    }


def test_more_than_four_distilled_steps_are_refused(comfyui):
    with pytest.raises(ValueError, match="steps is 25"):
        comfyui.nodes.PiDKitSigmas.execute(25, comfyui.load()[0])


def test_pid_decode_says_what_to_use_instead(comfyui, teacher):
    with pytest.raises(ValueError, match="undistilled, and PiD Decode runs the distilled ones' 4 steps"):
        comfyui.nodes.PiDKitDecode.execute(teacher[0], {"samples": torch.zeros(1, 16, 1, 1)}, 0.0, 4, 0)
