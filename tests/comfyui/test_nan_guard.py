"""In ComfyUI too a step that gives NaN is repeated in float32, whatever form the weights are in, and never saved."""

import importlib

import pytest
import torch

from pid_core.images.psnr import psnr
from support.inside import by_core, lq_of
from support.quantised import BIG, quantise, save_quantised
from support.tiny import SIZES, tiny_state_dict

BLOCKS = SIZES["patch_depth"] + SIZES["pixel_depth"]
FORMS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float8": torch.float8_e4m3fn}


@pytest.fixture
def no_manual_cast(comfyui, monkeypatch):
    """A device that computes in the weights' own dtype, as GPUs do."""
    monkeypatch.setattr(comfyui.management, "unet_manual_cast", lambda *a, **k: None)


def broken(*bad, always=False):
    """An attention override that gives NaN in the calls named, counted from 0."""
    calls = []

    def broken_attention(func, *args, **kwargs):
        out = func(*args, **kwargs)
        calls.append(1)
        return out * float("nan") if always or len(calls) - 1 in bad else out

    return broken_attention


def patched(patcher, override):
    clone = patcher.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = override
    return clone


@pytest.fixture
def float32_products(monkeypatch):
    """The dtypes of every matrix product inside in_float32, input and weight."""
    seen = []
    linear = torch.nn.functional.linear

    def spy(x, weight, bias=None):
        seen.append((x.dtype, weight.dtype))
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    return seen


@pytest.mark.parametrize("lowvram", [False, True])
@pytest.mark.parametrize("form", ["bfloat16", "float16"])
def test_a_step_with_nan_is_repeated_in_float32(comfyui, no_manual_cast, float32_products, form, lowvram):
    patcher, net = comfyui.load("flux", "v1.5", file_dtype=torch.bfloat16, dtype=FORMS[form])
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 2, 1), 0.2)
    model = patched(patcher, broken(BLOCKS))
    if lowvram:
        model.load(torch.device("cpu"), lowvram_model_memory=4096)
    before = [m.weight_function for m in model.model.modules() if hasattr(m, "weight_function")]
    float32_products.clear()
    out = comfyui.sample(model, *made)
    wide = [pair for pair in float32_products if pair == (torch.float32, torch.float32)]
    per_call = len(float32_products) // 5
    assert len(wide) > 0.9 * per_call and len(wide) < 3 * per_call  # one call of five; a few layers always are
    assert (out.clamp(-1, 1) - by_core(net, lq_of(made[0]), 0.2)).abs().mean() < 0.05
    network = model.model.diffusion_model
    assert network.repeated == [f"step 2 of 4, the network at noise level 0.866 in {form} with broken_attention"]
    assert network.compute_dtype == FORMS[form]
    after = [m.weight_function for m in model.model.modules() if hasattr(m, "weight_function")]
    assert [list(f) for f in after] == [list(f) for f in before]
    if lowvram:
        model.unpatch_model()


def test_every_step_repeated_is_the_float32_decode(comfyui, no_manual_cast):
    patcher, net = comfyui.load("flux", "v1", file_dtype=torch.bfloat16, dtype=torch.bfloat16)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 2, 1))
    out = comfyui.sample(patched(patcher, broken(always=True)), *made)
    assert len(patcher.model.diffusion_model.repeated) == 4
    # all but the projector's features is float32
    assert (out.clamp(-1, 1) - by_core(net, lq_of(made[0]))).abs().mean() < 0.01


def test_eight_bit_weights_are_widened(comfyui):
    patcher, _ = comfyui.load(dtype=torch.float8_e4m3fn)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    plain = comfyui.sample(patcher, *made)
    out = comfyui.sample(patched(patcher, broken(0)), *made)
    assert torch.allclose(out, plain, atol=1e-4)  # both compute in float32 on a CPU, from the same weights


def test_a_lora_stays_on_in_the_repetition(comfyui, no_manual_cast):
    patcher, _ = comfyui.load("flux", "v1.5", dtype=torch.bfloat16)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    lora = {
        "diffusion_model.patch_blocks.1.attn.proj_x.lora_A.weight": torch.randn(2, 32),
        "diffusion_model.patch_blocks.1.attn.proj_x.lora_B.weight": torch.randn(32, 2),
    }
    strong, _ = importlib.import_module("comfy.sd").load_lora_for_models(patcher, None, lora, 0.5, 0)
    strong.load(torch.device("cpu"), lowvram_model_memory=4096)  # applied as the weights are cast
    expected = comfyui.sample(strong, *made)
    out = comfyui.sample(patched(strong, broken(always=True)), *made)
    plain = comfyui.sample(patcher, *made)
    assert (out - expected).abs().mean() < 0.2 * (plain - expected).abs().mean()
    strong.unpatch_model()


def test_nan_in_float32_too_is_one_line(comfyui, no_manual_cast, monkeypatch):
    patcher, _ = comfyui.load(dtype=torch.bfloat16)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    guards = {c.__module__ for c in type(patcher.model.diffusion_model).__mro__ if c.__name__ == "Guarded"}
    assert len(guards) == 1 and guards != {"pid_core.model.guard"}  # the pack has a copy of its own
    monkeypatch.setattr(importlib.import_module(*guards), "sdpa", lambda q, k, v: q * float("nan"))
    with pytest.raises(ValueError) as caught:
        comfyui.sample(patched(patcher, broken(2 * BLOCKS)), *made)
    line = str(caught.value)
    assert "\n" not in line
    for words in ("step 3 of 4", "noise level 0.634", "bfloat16 with broken_attention", "again in float32"):
        assert words in line
    assert torch.isfinite(comfyui.sample(patcher, *made)).all()  # and nothing is left behind


def test_pid_decode_says_what_was_repeated(comfyui, no_manual_cast, monkeypatch):
    patcher, _ = comfyui.load(dtype=torch.bfloat16)
    shown = []
    decode = importlib.import_module(f"{comfyui.nodes.__name__}.decode")
    monkeypatch.setattr(decode, "show_on_node", lambda node, *lines: shown.append(lines))
    with torch.inference_mode():
        comfyui.nodes.PiDKitDecode.execute(
            model=patched(patcher, broken(3)),
            latent={"samples": torch.randn(1, 16, 1, 1)},
            degrade_sigma=0.0,
            steps=1,
            seed=0,
        )
    assert any("repeated in float32" in line and "step 1 of 1" in line for line in shown[-1])


def test_a_sampler_that_gives_nan_is_no_black_image(comfyui):
    vae = comfyui.nodes.PiDKitPixelVAE.execute().args[0]
    with pytest.raises(ValueError, match="NaN"):
        vae.decode(torch.full((1, 3, 8, 8), float("nan")))


@torch.inference_mode()  # as ComfyUI runs every node; quantised tensors mind
def test_quantised_weights_are_widened(comfyui):
    path = save_quantised(comfyui, quantise(comfyui, tiny_state_dict("flux", "v1.5", **BIG), "float8_e4m3fn"))
    patcher = comfyui.model.load_model(str(path))
    text, latent = torch.randn(1, 5, BIG["caption_width"]), torch.randn(1, 16, 1, 2)
    made = comfyui.conditioning(patcher, latent, positive=[[text, {}]])
    plain = comfyui.sample(patcher, *made, steps=1)
    out = comfyui.sample(patched(patcher, broken(0)), *made, steps=1)
    assert len(patcher.model.diffusion_model.repeated) == 1
    assert psnr(out.clamp(-1, 1), plain.clamp(-1, 1)) > 25  # the repetition has no activations of 8 bits
