"""What the pack reads of ComfyUI's private parts is there in the ComfyUI at hand, and its loss is one line."""

from types import SimpleNamespace

import pytest
import torch

from pid_core.checkpoints.convert import convert
from support.sizes import PACKABLE_SIDES
from support.tiny import save_tiny
from support.tiny_gemma import save_encoder


@pytest.fixture
def internals(comfyui):
    return comfyui.module("nodes.comfy.comfy_internals")


@pytest.mark.parametrize(("family", "version"), [("flux", "v1"), ("flux2", "v1.5")])  # the second un-packs its latent
def test_the_sizes_of_comfyuis_own_network_are_those_of_its_file(comfyui, core_pid, internals, family, version):
    net = core_pid(family, version).model.diffusion_model
    config = comfyui.load(family, version)[0].model.config
    sizes = internals.core_pid_sizes(net)
    assert internals.is_core_pid(net) and internals.core_pid_is_v15(net) == (version == "v1.5")
    assert sizes == {field: getattr(config, field) for field in sizes}


def test_a_size_that_has_another_name_is_one_line(internals, core_pid, monkeypatch):
    monkeypatch.setitem(internals.PID_SIZES, "mlp_size", "patch_blocks.0.mlp_z.w1.out_features")
    with pytest.raises(ValueError) as caught:
        internals.core_pid_sizes(core_pid("flux", "v1").model.diffusion_model)
    line = str(caught.value)
    assert "has no patch_blocks.0.mlp_z.w1.out_features" in line and "update ComfyUI-PiDKit" in line
    assert "\n" not in line


def test_a_layer_of_another_shape_is_one_line(comfyui, internals, monkeypatch):
    monkeypatch.setattr(internals.comfy.ops, "mixed_precision_ops", lambda *_: SimpleNamespace(Linear=torch.nn.Linear))
    with pytest.raises(ValueError, match="the layer for quantised weights of ComfyUI .* has no _orig_shape"):
        internals.quantised_linear((8, 8))


def test_quantised_layers_are_known(comfyui, internals):
    plain = save_tiny(comfyui.folder / "inner.safetensors", "flux", "v1.5", dtype=torch.bfloat16, **PACKABLE_SIDES)
    path, _ = convert(plain, comfyui.folder / "inner_fp8.safetensors", to="fp8")
    base = comfyui.model.load_model(str(path)).model
    layers = dict(base.diffusion_model.named_modules())
    packed = [name for name, layer in layers.items() if internals.runs_quantised(layer)]
    assert packed and any(internals.is_quantised(layers[name]) for name in packed)
    operations = internals.comfy.ops
    assert internals.takes_quantised(operations.mixed_precision_ops({}, torch.float32))
    assert not internals.takes_quantised(operations.manual_cast)
    assert internals.can_run_quantised() and not internals.is_plain_linear(layers[packed[0]])


def test_plain_layers_are_known(comfyui, internals):
    net = comfyui.load(disable_dynamic=True)[0].model.diffusion_model
    layer = net.patch_blocks[0].mlp_x.w1
    assert internals.is_plain_linear(layer) and layer in list(internals.layers_that_cast(net))
    assert internals.dtype_as_built(layer, "weight") == torch.float32
    assert layer.weight_comfy_model_dtype == torch.float32


def test_the_text_encoder_s_tokenizer_and_patches(comfyui, internals, tmp_path):
    clip = comfyui.load_clip(save_encoder(tmp_path / "gemma.safetensors"))
    name, tokenizer = internals.caption_tokenizer(clip)
    assert name in clip.tokenizer.clip_name and tokenizer.encode("a", add_bos=True, add_eos=False)
    assert not internals.is_patched(clip)
    stopped = clip.clone()
    stopped.clip_layer(-2)
    assert internals.is_patched(stopped)
    with pytest.raises(ValueError, match="the text encoder of ComfyUI .* has no tokenizer.clip"):
        internals.caption_tokenizer(SimpleNamespace())
