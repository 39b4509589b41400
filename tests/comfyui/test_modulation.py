"""The patch blocks' modulations in ComfyUI: their matrices are brought to the device once per run, same pixels."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from pid_core.checkpoints.convert import convert
from support.tiny import save_tiny

ADALN = ("adaLN_modulation_img.0", "adaLN_modulation_txt.0")
NAME = "diffusion_model.patch_blocks.1.adaLN_modulation_img.0.weight"


@pytest.fixture
def brought(monkeypatch):
    """brought(patcher): how often ComfyUI was asked for each modulation's weight since then."""
    import comfy.ops

    counts, names = Counter(), {}
    ask = comfy.ops.cast_bias_weight

    def counting(layer, *args, **kwargs):
        if layer in names:
            counts[names[layer]] += 1
        return ask(layer, *args, **kwargs)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", counting)

    def watch(patcher) -> Counter:
        modules = patcher.model.diffusion_model.named_modules()
        names.update({module: name for name, module in modules if name.endswith(ADALN)})
        counts.clear()
        return counts

    return watch


def inputs(comfyui, patcher):
    text = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(2))
    latent = torch.randn(1, 16, 1, 2, generator=torch.Generator().manual_seed(3))
    return comfyui.conditioning(patcher, latent, 0.1, positive=[[text, {}]])


def without(comfyui, monkeypatch, run):
    with monkeypatch.context() as patch:
        patch.setattr(comfyui.model.PiDKitModel, "_level", lambda *_: None)
        return run()


@pytest.mark.parametrize("file_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_pixels_are_the_same_to_the_bit(comfyui, monkeypatch, version, file_dtype):
    patcher, _ = comfyui.load("flux", version, file_dtype=file_dtype)
    made = inputs(comfyui, patcher)
    out = comfyui.sample(patcher, *made)
    assert torch.equal(out, without(comfyui, monkeypatch, lambda: comfyui.sample(patcher, *made)))


def test_the_matrices_are_brought_once_per_run(comfyui, brought):
    # weights of another dtype than they are used in, which ComfyUI brings for every call of a layer
    patcher, _ = comfyui.load(file_dtype=torch.bfloat16, dtype=torch.float32)
    for name, module in patcher.model.diffusion_model.named_modules():
        if name.endswith(ADALN):
            module.comfy_cast_weights = True
    made = inputs(comfyui, patcher)
    counts = brought(patcher)
    comfyui.sample(patcher, *made)
    assert len(counts) == 8 and set(counts.values()) == {1}
    comfyui.sample(patcher, *made)
    assert set(counts.values()) == {2}  # what the weights are is known for one run only


@torch.inference_mode()
def test_of_a_converted_file_too(comfyui, brought, monkeypatch):
    """Its layers are ComfyUI's for mixed precision; the modulations among them are plain."""
    source, target = (comfyui.folder / f"mixed_{name}.safetensors" for name in ("plain", "fp8"))
    save_tiny(source, "flux", "v1.5", caption=3, hidden_size=64, mlp_size=96)
    convert(source, target, to="fp8")
    patcher = comfyui.model.load_model(str(target))
    latent = torch.randn(1, 16, 1, 2, generator=torch.Generator().manual_seed(3))
    made, counts = comfyui.conditioning(patcher, latent, 0.1), brought(patcher)
    out = comfyui.sample(patcher, *made)
    assert len(counts) == 8 and set(counts.values()) == {1}
    assert torch.equal(out, without(comfyui, monkeypatch, lambda: comfyui.sample(patcher, *made)))


def test_a_lora_on_a_modulation_acts(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    made = inputs(comfyui, patcher)
    plain = comfyui.sample(patcher, *made)
    changed = patcher.clone()
    width = patcher.model.diffusion_model.config.hidden_size
    assert changed.add_patches({NAME: (torch.randn(6 * width, width),)}, 0.5) == [NAME]
    out = comfyui.sample(changed, *made)
    assert (out - plain).abs().max() > 1e-3
    assert torch.equal(out, without(comfyui, monkeypatch, lambda: comfyui.sample(changed, *made)))
    assert torch.equal(comfyui.sample(patcher, *made), plain)  # and is gone again


def test_another_schedule_has_its_own(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    made = inputs(comfyui, patcher)
    with patcher.model.as_one_run():  # several runs as one, as the tuner has them
        four, two = (comfyui.sample(patcher, *made, steps=steps) for steps in (4, 2))
    assert not torch.equal(four, two)
    assert torch.equal(two, without(comfyui, monkeypatch, lambda: comfyui.sample(patcher, *made, steps=2)))
    assert torch.equal(four, without(comfyui, monkeypatch, lambda: comfyui.sample(patcher, *made, steps=4)))


def test_a_sampler_that_calls_between_the_steps(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    made = inputs(comfyui, patcher)

    def run():
        return comfyui.sample(patcher, *made, sampler="dpm_2")

    assert torch.equal(run(), without(comfyui, monkeypatch, run))


def test_a_hook_that_changes_a_modulation_within_a_run(comfyui, monkeypatch):
    import comfy.hooks as hooks

    patcher, _ = comfyui.load()
    width = patcher.model.diffusion_model.config.hidden_size
    positive, negative, canvas = inputs(comfyui, patcher)
    plain = comfyui.sample(patcher, positive, negative, canvas)
    hook = hooks.WeightHook(strength_model=1.0)
    hook.weights, hook.need_weight_init = {NAME: ("diff", (torch.randn(6 * width, width),))}, False
    group, keyframes = hooks.HookGroup(), hooks.HookKeyframeGroup()
    group.add(hook)
    for strength, start in ((1.0, 0.0), (0.0, 0.5)):
        keyframes.add(hooks.HookKeyframe(strength=strength, start_percent=start))
    group.set_keyframes_on_hooks(keyframes)
    positive = [[text, {**options, "hooks": group}] for text, options in positive]

    def run():
        return comfyui.sample(patcher, positive, negative, canvas)

    out = run()
    assert (out - plain).abs().max() > 1e-3
    assert torch.equal(out, without(comfyui, monkeypatch, run))
