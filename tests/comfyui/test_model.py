"""PiDKitModel inside ComfyUI's own machinery, and our nodes with ComfyUI's own PiD."""

from __future__ import annotations

import importlib

import pytest
import torch

from pid_core import DISTILLED_SIGMAS, decode, distilled_sigmas
from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise
from support.calls import velocity
from support.inside import SEED, by_core, lq_of
from support.tiny import SIZES, save_tiny, tiny_state_dict


def test_simple_schedules_are_the_reference(comfyui):
    sampling = comfyui.load()[0].get_model_object("model_sampling")
    assert torch.equal(comfyui.samplers.calculate_sigmas(sampling, "simple", 4), torch.tensor(DISTILLED_SIGMAS))
    assert torch.equal(comfyui.samplers.calculate_sigmas(sampling, "simple", 2), distilled_sigmas(2))
    three = comfyui.samplers.calculate_sigmas(sampling, "simple", 3)
    assert torch.allclose(three, distilled_sigmas(3), rtol=1e-6, atol=0)


def test_every_scheduler_and_step_count_falls(comfyui):
    sampling = comfyui.load()[0].get_model_object("model_sampling")
    tidy = importlib.import_module("pid_core.sampling.sigma_table").tidy_sigmas
    for name in comfyui.samplers.SCHEDULER_NAMES:
        for steps in range(1, 51):
            sigmas = comfyui.samplers.calculate_sigmas(sampling, name, steps)
            if (name, steps) == ("kl_optimal", 1):  # ComfyUI divides 0 by 0 there, for every model
                sigmas = tidy(sigmas)
            assert torch.isfinite(sigmas).all() and sigmas[-1] == 0, (name, steps)
            assert (sigmas.diff() < 0).all(), (name, steps)


def test_first_noise_is_unscaled_only_on_an_empty_canvas(comfyui):
    sampling = comfyui.load()[0].get_model_object("model_sampling")
    noise = torch.randn(1, 3, 4, 4)
    zeros, image = torch.zeros_like(noise), torch.ones_like(noise)
    top = sampling.sigma_max
    assert torch.equal(sampling.noise_scaling(top, noise, zeros, True), noise)
    assert torch.allclose(sampling.noise_scaling(top, noise, image, True), 0.999 * noise + 0.001)
    assert torch.allclose(sampling.noise_scaling(torch.tensor(0.5), noise, image), 0.5 * noise + 0.5)
    assert torch.equal(sampling.inverse_noise_scaling(torch.tensor(0.0), image), image)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "res_multistep", "uni_pc", "dpmpp_3m_sde", "heun", "ddim"])
@pytest.mark.parametrize(("scheduler", "steps"), [("simple", 14), ("beta", 6), ("normal", 5)])
def test_other_samplers_stay_finite(comfyui, sampler, scheduler, steps):
    patcher, _ = comfyui.load()
    positive, negative, canvas = comfyui.conditioning(patcher, torch.zeros(1, 16, 1, 1))
    out = comfyui.sample(patcher, positive, negative, canvas, sampler=sampler, scheduler=scheduler, steps=steps)
    assert torch.isfinite(out).all()


def test_cfg_with_other_text_in_the_negative(comfyui):
    patcher, net = comfyui.load()
    latent = torch.randn(2, 16, 2, 1)
    texts = [torch.randn(1, tokens, 24) for tokens in (5, 9)]
    made = comfyui.conditioning(patcher, latent, 0.3, positive=[[texts[0], {}]], negative=[[texts[1], {}]])
    lq = lq_of(made[0])
    out = comfyui.sample(patcher, *made, cfg=2.5, steps=1)
    noise = comfy_noise((2, 3, 64, 32), SEED)

    def predicted(text):
        return velocity(net, noise, torch.full((2,), 1000.0), text.expand(2, -1, -1), lq, torch.full((2,), 0.3))

    with torch.no_grad():
        expected = noise - (predicted(texts[1]) + 2.5 * (predicted(texts[0]) - predicted(texts[1])))
    assert torch.allclose(out, expected, atol=1e-4)


def test_a_model_that_is_no_pid(comfyui):
    class OtherModel:
        model = torch.nn.Identity()
        model_options = {}
        clone = get_model_object = None

    with pytest.raises(ValueError, match="Identity, not a PiD decoder"):
        comfyui.conditioning(OtherModel(), torch.zeros(1, 16, 1, 1))


def test_projector_runs_once_per_image(comfyui, monkeypatch):
    patcher, net = comfyui.load()
    made = comfyui.conditioning(patcher, torch.randn(2, 16, 1, 2))
    network, calls = patcher.model.diffusion_model, []
    encode = type(network).encode_lq
    monkeypatch.setattr(type(network), "encode_lq", lambda self, *a: calls.append(1) or encode(self, *a))
    out = comfyui.sample(patcher, *made)
    assert len(calls) == 1
    assert torch.allclose(out.clamp(-1, 1), by_core(net, lq_of(made[0])), atol=2e-5)
    assert not patcher.model._trunk  # nothing stays behind
    other = comfyui.conditioning(patcher, torch.randn(2, 16, 1, 2))
    out = comfyui.sample(patcher, *other)
    assert len(calls) == 2
    assert torch.allclose(out.clamp(-1, 1), by_core(net, lq_of(other[0])), atol=2e-5)


def test_a_sigma_per_image(comfyui):
    patcher, net = comfyui.load()
    made = comfyui.conditioning(patcher, torch.randn(2, 16, 1, 1))
    made[0][0][1]["degrade_sigma"] = torch.tensor([0.0, 0.7])
    out = comfyui.sample(patcher, *made).clamp(-1, 1)
    assert torch.allclose(out, by_core(net, lq_of(made[0]), torch.tensor([0.0, 0.7])), atol=2e-5)


def test_a_text_of_the_wrong_width_gives_way_to_the_models_caption(comfyui):
    patcher, net = comfyui.load()
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1), positive=[[torch.randn(1, 7, 2304), {}]])
    out = comfyui.sample(patcher, *made).clamp(-1, 1)
    assert torch.allclose(out, by_core(net, lq_of(made[0])), atol=2e-5)


def test_untagged_negative_only_matters_with_cfg(comfyui):
    patcher, net = comfyui.load()
    positive, _, canvas = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    negative = [[torch.randn(1, 3, 24), {}]]
    out = comfyui.sample(patcher, positive, negative, canvas).clamp(-1, 1)
    assert torch.allclose(out, by_core(net, lq_of(positive)), atol=2e-5)
    with pytest.raises(ValueError, match="without a latent"):
        comfyui.sample(patcher, positive, negative, canvas, cfg=2.0)


def test_partly_loaded_model_gives_the_same(comfyui):
    patcher, _ = comfyui.load("flux", "v1.5")
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 2, 1))
    whole = comfyui.sample(patcher, *made)
    patcher.load(torch.device("cpu"), lowvram_model_memory=4096)
    assert patcher.model.model_lowvram
    assert torch.equal(comfyui.sample(patcher, *made), whole)
    patcher.unpatch_model()


def test_noise_levels_reach_the_network_in_float32(comfyui, monkeypatch):
    patcher, _ = comfyui.load(dtype=torch.bfloat16)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1), 0.37)
    seen = []
    network = type(patcher.model.diffusion_model)
    forward = network._forward

    def spy(self, x, timesteps, *args, degrade_sigma, **kwargs):
        seen.append((x.dtype, timesteps.dtype, float(timesteps[0]), float(degrade_sigma[0])))
        return forward(self, x, timesteps, *args, degrade_sigma=degrade_sigma, **kwargs)

    monkeypatch.setattr(network, "_forward", spy)
    comfyui.sample(patcher, *made)
    assert [entry[:2] for entry in seen] == [(torch.float32, torch.float32)] * 4
    assert [entry[2] for entry in seen] == pytest.approx([999, 866, 634, 342], abs=1e-3)
    assert {round(entry[3], 6) for entry in seen} == {0.37}


def test_weights_stay_where_they_are_mapped(comfyui):
    path = save_tiny(comfyui.folder / "mapped.safetensors", caption=3)
    checkpoint = comfyui.model.read_checkpoint(str(path))
    before = {k: v.data_ptr() for k, v in checkpoint.state_dict.items()}
    patcher = comfyui.model.wrap(checkpoint)
    after = patcher.model.diffusion_model.state_dict()
    assert {k: v.data_ptr() for k, v in after.items()} == before


def test_names_and_lora_keys_are_nvidias(comfyui):
    patcher, _ = comfyui.load("flux", "v1.5")
    names = {k.removeprefix("diffusion_model.") for k in patcher.model_state_dict() if k.startswith("diffusion_model.")}
    assert names == set(tiny_state_dict("flux", "v1.5", prefix=""))
    keys = importlib.import_module("comfy.lora").model_lora_keys_unet(patcher.model, {})
    assert keys["diffusion_model.patch_blocks.0.attn.qkv_x"] == "diffusion_model.patch_blocks.0.attn.qkv_x.weight"


def test_previews_show_the_pixels(comfyui):
    patcher, _ = comfyui.load()
    latent_preview = importlib.import_module("latent_preview")
    cli = importlib.import_module("comfy.cli_args")
    old, cli.args.preview_method = cli.args.preview_method, latent_preview.LatentPreviewMethod.Auto
    try:
        previewer = latent_preview.get_previewer(torch.device("cpu"), patcher.model.latent_format)
    finally:
        cli.args.preview_method = old
    image = previewer.decode_latent_to_preview(torch.full((1, 3, 8, 8), 1.0))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_interrupt_stops_the_run_and_leaves_nothing(comfyui):
    patcher, _ = comfyui.load()
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))

    def stop(step, *_):
        comfyui.management.interrupt_current_processing(True)

    with pytest.raises(comfyui.management.InterruptProcessingException):
        comfyui.sample(patcher, *made, callback=stop)
    comfyui.management.interrupt_current_processing(False)
    assert not patcher.model._trunk
    assert torch.isfinite(comfyui.sample(patcher, *made)).all()


def test_compiled_model_gives_the_same(comfyui):
    patcher, _ = comfyui.load("flux", "v1.5")
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 2, 1))
    whole = comfyui.sample(patcher, *made)
    compiled = patcher.clone()
    set_wrapper = importlib.import_module("comfy_api.torch_helpers").set_torch_compile_wrapper
    set_wrapper(model=compiled, backend="eager")
    assert torch.allclose(comfyui.sample(compiled, *made), whole, atol=1e-4)


def test_diffusion_model_wrappers_run(comfyui):
    patcher, _ = comfyui.load()
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    extension = importlib.import_module("comfy.patcher_extension")
    calls = []

    def wrapper(executor, *args, **kwargs):
        calls.append(1)
        return executor(*args, **kwargs)

    patched = patcher.clone()
    patched.add_wrapper_with_key(extension.WrappersMP.DIFFUSION_MODEL, "test", wrapper)
    comfyui.sample(patched, *made)
    assert len(calls) == 4


def test_attention_override_is_used(comfyui):
    patcher, _ = comfyui.load()
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    calls = []

    def override(func, *args, **kwargs):
        calls.append(1)
        return func(*args, **kwargs)

    patched = patcher.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    comfyui.sample(patched, *made, steps=1)
    assert len(calls) == SIZES["patch_depth"] + SIZES["pixel_depth"]


def test_cores_context_windows_cut_the_latent(comfyui):
    windows = importlib.import_module("comfy.context_windows")
    conds = importlib.import_module("comfy.conds")
    patcher, _ = comfyui.load()
    window = windows.IndexListContextWindow(list(range(32, 96)), dim=3, total_frames=128)
    latent = torch.randn(1, 16, 2, 4)
    cut = patcher.model.resize_cond_for_context_window(
        "lq_latent", conds.CONDRegular(latent), window, None, torch.device("cpu")
    )
    assert torch.equal(cut.cond, latent[..., 1:3])

    device, sigma_map = torch.device("cpu"), torch.rand(1, 1, 2, 4)
    cond = conds.CONDRegular(sigma_map)
    cut = patcher.model.resize_cond_for_context_window("degrade_sigma", cond, window, None, device)
    assert torch.equal(cut.cond, sigma_map[..., 1:3])
    number = conds.CONDRegular(torch.tensor([0.3]))
    assert patcher.model.resize_cond_for_context_window("degrade_sigma", number, window, None, device) is None


@pytest.mark.parametrize(("family", "version"), [("flux", "v1"), ("flux", "v1.5"), ("flux2", "v1.5"), ("sdxl", "v1")])
def test_our_conditioning_and_sigmas_with_cores_model(comfyui, core_pid, family, version):
    patcher = core_pid(family, version)
    _, net = comfyui.load(family, version)
    text = torch.randn(1, 12, 24)
    latent = torch.randn(1, net.config.latent_channels, 1, 2)
    latent_format = {"latent_format": family} if family == "flux" else {"latent_format": "auto"}
    positive, negative, canvas = comfyui.nodes.PiDKitConditioning.execute(
        latent={"samples": latent},
        degrade_sigma=0.2,
        latent_noise="add",
        noise_seed=1,
        positive=[[text, {}]],
        model=patcher,
        **latent_format,
    ).args
    sigmas = comfyui.nodes.PiDKitSigmas.execute(4).args[0]
    noise = comfyui.sample_module.prepare_noise(canvas["samples"], SEED)
    with torch.inference_mode():
        out = comfyui.sample_module.sample_custom(
            patcher,
            noise,
            1.0,
            comfyui.samplers.sampler_object("lcm"),
            sigmas,
            positive,
            negative,
            canvas["samples"],
            seed=SEED,
            disable_pbar=True,
        )
    # core scales the first noise by 0.999
    shape = tuple(noise.shape)
    expected = decode(
        net,
        lq_of(positive),
        text,
        0.2,
        noise=0.999 * comfy_noise(shape, SEED),
        step_noise=comfy_step_noise(shape, SEED, 3),
    )
    assert torch.allclose(out.clamp(-1, 1), expected, atol=2e-3)
