"""Checkpoint files: every accepted layout gives the same network; everything else is one readable line."""

import json
import os
import random
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pid_core import PiDConfig, PiDNetwork, decode, load_network, read_checkpoint
from pid_core.checkpoints.reading import config_tensor
from support.goldens import NAMES, draw, spec, weights
from support.layouts import split

PREFIXES = ["", "net.", "core.", "model.diffusion_model.", "diffusion_model."]
AUX = "lq_proj.lq_aux_rgb_head."


@pytest.fixture(scope="module")
def state():
    return weights(spec("flux_v1"))


@pytest.fixture(scope="module")
def expected(state):
    return image(load_network(state))


def image(net):
    channels = net.config.latent_channels
    return decode(net, draw(1, [1, channels, 1, 2]), draw(2, [1, 5, 24]), 0.2, steps=2)


def error(source, **options):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_network(source, **options)
    text = str(caught.value)
    assert "\n" not in text and "\x1b" not in text and len(text) < 700
    return text


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(state, expected, prefix):
    assert torch.equal(image(load_network({prefix + k: v for k, v in state.items()})), expected)


@pytest.mark.parametrize("file", ["a.safetensors", "a.SAFETENSORS", "a.sft", "a.pth", "a.pt", "a", "zip_less.pth"])
def test_files(state, expected, tmp_path, file):
    """Images may differ in their last bits: weights in a mapped file are aligned otherwise."""
    path, named = tmp_path / file, {f"net.{k}": v for k, v in state.items()}
    if "pt" in file:
        torch.save(named, path, _use_new_zipfile_serialization=file == "a.pth")
    else:
        save_file(named, path)
    for source in (path, str(path)):
        net = load_network(source)
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
        assert torch.allclose(image(net), expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_comfyuis_split_modulation_is_joined(name, prefix):
    state = weights(spec(name))
    halves = split(state)
    assert len(halves) == len(state) + 2 * spec(name)["config"]["pixel_depth"]
    joined = load_network({prefix + k: v for k, v in halves.items()}, schedule="distilled")
    assert torch.equal(image(joined), image(load_network(state, schedule="distilled")))


def test_the_training_only_head_is_ignored():
    state = weights(spec("flux_v1pt5"))
    assert any(k.startswith(AUX) for k in state)
    without = {k: v for k, v in state.items() if not k.startswith(AUX)}
    net = load_network(state, schedule="distilled")
    assert not any("aux" in k for k in net.state_dict())
    assert torch.equal(image(net), image(load_network(without)))


def test_the_callers_dictionary_is_left_alone(state):
    source = {f"net.{k}": v for k, v in split(state).items()}
    names, before = list(source), {k: v.clone() for k, v in source.items()}
    load_network(source)
    assert list(source) == names and all(torch.equal(source[k], before[k]) for k in names)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(state, tmp_path, stored, wanted):
    save_file({k: v.to(stored) for k, v in state.items()}, tmp_path / "a.safetensors")
    net = load_network(tmp_path / "a.safetensors", dtype=wanted)
    assert net.compute_dtype == wanted and net.patch_blocks[0].mlp_x.w1.weight.dtype == wanted
    assert net.patch_blocks[0].norm_x1.weight.dtype == torch.float32  # norms stay exact
    assert image(net).dtype == torch.float32
    if stored == torch.bfloat16 and wanted == torch.float32:  # the goldens' weights are bfloat16 values
        assert torch.equal(net.patch_blocks[0].mlp_x.w1.weight, state["patch_blocks.0.mlp_x.w1.weight"])


def test_ready_for_inference(state):
    net = load_network(state)
    assert not net.training and not any(p.requires_grad or p.is_meta for p in net.parameters())


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth"])
def test_weights_stay_on_disk_until_used(state, tmp_path, file):
    """Tensors of one file share one mapping: nothing was read into memory of its own."""
    path = tmp_path / file
    save_file(state, path) if file.endswith("safetensors") else torch.save(state, path)
    read = read_checkpoint(path).state_dict
    lowest = min(v.data_ptr() for v in read.values())
    assert max(v.data_ptr() for v in read.values()) - lowest < path.stat().st_size
    if os.path.exists("/proc/self/maps"):
        with open("/proc/self/maps", encoding="utf-8") as maps:
            assert str(path) in maps.read()


def test_the_network_takes_over_tensors_that_fit(state):
    net = load_network(state)
    assert net.s_embedder.proj.weight.data_ptr() == state["s_embedder.proj.weight"].data_ptr()


def test_another_attention_and_other_operations(state, expected):
    calls = []

    def attention(q, k, v):
        calls.append(q.shape)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    class Operations:
        Linear, Conv2d, GroupNorm, RMSNorm = torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.RMSNorm

    net = load_network(state, attention=attention, operations=Operations)
    assert torch.equal(image(net), expected)
    assert len(calls) == 2 * (net.config.patch_depth + net.config.pixel_depth)


# What the file tells besides


def test_family(state):
    assert load_network(state).family is None
    assert load_network(state, family="zimage").family == "flux"
    assert load_network(weights(spec("sdxl_v1"))).family == "sdxl"
    assert load_network(weights(spec("sdxl_v1")), family="sdxl").family == "sdxl"
    assert "family sdxl has latents of 4 channels, this checkpoint takes 16" in error(state, family="sdxl")
    assert "unknown latent family 'chroma'" in error(state, family="chroma")


def test_metadata_of_a_file(state, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(state, path, metadata={"pid_config": json.dumps({"family": "sd3", "prediction": "x0"})})
    net = load_network(path)
    assert (net.family, net.config.prediction) == ("sd3", "x0")
    assert "made for sd3, not for flux" in error(path, family="flux")
    save_file(state, path, metadata={"pid_config": '{"hidden_size": 64}'})
    assert error(path) == "a.safetensors: the metadata entry pid_config says hidden_size = 64, the tensors say 32"


def test_configuration_stored_as_a_tensor(state):
    config = read_checkpoint(state, family="sd3").config
    assert read_checkpoint({**state, "pid_config": config_tensor(config)}).config == config
    assert "uint8" in error({**state, "pid_config": torch.zeros(3)})


@pytest.mark.parametrize("shape", [(3, 25), (2, 3, 24), (24,)])
def test_a_stored_caption_that_does_not_fit(state, shape):
    assert "its default_caption has shape" in error({**state, "default_caption": torch.zeros(shape)})


# What is refused


def without(state, *names):
    return {k: v for k, v in state.items() if k not in names}


@pytest.mark.parametrize("prefix", ["", "net."])
def test_missing_and_unexpected_tensors_are_named(state, prefix):
    def named(tensors):
        return {prefix + k: v for k, v in tensors.items()}

    norms = [f"patch_blocks.{i}.norm_x2.weight" for i in range(4)]
    text = error(named(without(state, *norms)))
    assert "4 missing tensors (patch_blocks.0.norm_x2.weight" in text and "patch_blocks.3" not in text
    text = error(named(state) | {"extra.weight": torch.zeros(1)})
    assert "1 unexpected tensors (extra.weight)" in text
    text = error(named(without(state, norms[2]) | {"patch_blocks.0.odd": torch.zeros(1)}))
    assert "patch_blocks.2.norm_x2.weight" in text and "patch_blocks.0.odd" in text


def test_a_missing_tensor_that_sizes_are_read_from_is_named(state):
    for name in ("lq_proj.latent_proj.0.weight", "s_embedder.proj.weight", "patch_blocks.0.attn.q_norm_x.weight"):
        assert name in error(without(state, name))


def test_names_with_a_word_where_a_number_belongs(state):
    assert "patch_blocks.last.bias" in error({**state, "patch_blocks.last.bias": torch.zeros(1)})


def test_the_same_tensor_with_and_without_prefix(state):
    twice = {f"net.{k}": v for k, v in state.items()} | {"y_pos_embedding": state["y_pos_embedding"]}
    assert "y_pos_embedding twice" in error(twice)


def test_a_training_checkpoint_with_two_sets_of_weights(state):
    both = {prefix + k: v for k, v in state.items() for prefix in ("net.", "net_ema.")}
    assert "several prefixes or an unknown one (net.lq_proj." in error(both)
    assert "an unknown one (student.lq_proj." in error({f"student.{k}": v for k, v in state.items()})


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_dtypes_the_network_cannot_run_in(state, dtype):
    assert f"not in {dtype}" in error(state, dtype=dtype)


def test_integer_weights(state):
    name = "patch_blocks.1.mlp_x.w1.weight"
    assert f"{name} is torch.int8" in error({**state, name: state[name].to(torch.int8)})


def test_split_modulation_that_does_not_fit(state):
    halves = split(state)
    name = "pixel_blocks.0.adaLN_modulation_msa.weight"
    assert "cannot be joined" in error({**halves, name: halves[name][:-1]})
    assert "adaLN_modulation_mlp.weight" in error(without(halves, name))


NAMES_OF_TENSORS = sorted(spec("flux_v1")["tensors"])


@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(NAMES_OF_TENSORS), st.sampled_from(["missing", "longer", "shorter", "flat", "scalar", "empty"]))
def test_any_broken_tensor_is_one_line(state, name, how):
    value = state[name]
    longer = [n + 1 for n in value.shape] or [2]
    changed = {
        "longer": torch.zeros(longer),
        "shorter": torch.zeros([max(n - 1, 1) for n in value.shape] if value.numel() > 1 else [3]),
        "flat": torch.zeros(value.numel() + 1),
        "scalar": torch.zeros(()) if value.ndim else torch.zeros(1, 1),
        "empty": torch.zeros([0, *value.shape[1:]]),
    }
    broken = without(state, name) if how == "missing" else {**state, name: changed[how]}
    if how != "missing" and broken[name].shape == value.shape:
        return
    line = error(broken)
    # the tensor, or the size that it alone decides
    size = re.search(r"(?:the network's \w+ is|which does not divide the width) (\d+)", line)
    assert name in line or (size and int(size[1]) in broken[name].shape), line


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["decoder.conv_in.weight", "encoder.conv_in.weight", "quant_conv.weight"], "a VAE"),
        (["first_stage_model.decoder.conv_in.weight"], "a VAE"),
        (["decoder.conv1.weight", "encoder.conv1.weight", "conv1.weight"], "a video VAE"),
        (["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"], "a text encoder"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder (CLIP)"),
        (["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"], "a text encoder (T5)"),
        (["double_blocks.0.img_attn.qkv.weight"], "a Flux diffusion model"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "an SD3 diffusion model"),
        (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"], "an SDXL"),
        (["transformer_blocks.0.attn.to_q.weight"], "a diffusion transformer"),
        (["diffusion_model.patch_blocks.0.attn.qkv_x.lora_A.weight"], "a LoRA"),
        (["lora_unet_patch_blocks_0.lora_down.weight"], "a LoRA"),
        (["diffusion_model.lq_proj.output_heads.0.lora_A.weight"], "a LoRA"),
    ],
)
def test_other_models_are_named(names, kind, tmp_path):
    tensors = {n: torch.zeros(2, 2) for n in names}
    assert f"it seems to be {kind}" in error(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    assert error(tmp_path / "other.safetensors").startswith("other.safetensors: this is no PiD checkpoint")


def test_pixeldit_is_loaded_without_a_latent_branch(state):
    plain = {k: v for k, v in state.items() if not k.startswith("lq_proj.")}
    extras = {"core.pos_embed": torch.zeros(1, 4, 8), "_repa_projector.0.weight": torch.zeros(2, 2)}
    net = load_network({f"core.{k}": v for k, v in plain.items()} | extras)
    assert not net.config.has_latent and net.config.version == "PixelDiT" and net.family is None
    assert set(net.state_dict()) == set(plain)
    assert "PixelDiT, which takes no latents" in error(plain, family="flux")
    assert "PixelDiT, which has no distilled form" in error(plain, schedule="distilled")
    with pytest.raises(ValueError, match="PixelDiT: it draws from text alone"):
        decode(net, torch.zeros(1, 16, 1, 1), torch.zeros(1, 5, 24))


def test_a_pid_that_lost_its_latent_branch_is_no_pixeldit():
    state = weights(spec("flux_v1pt5"))
    assert "unexpected tensors (pit_lq_gate" in error({k: v for k, v in state.items() if not k.startswith("lq_proj.")})
    some = {k: v for k, v in state.items() if not k.startswith("lq_proj.latent_proj.")}
    assert "lq_proj.latent_proj.0.weight" in error(some)


def test_something_else_entirely():
    assert "no lq_proj tensors (first names: conv_first.weight" in error({"conv_first.weight": torch.zeros(1)})
    assert "it holds no tensors" in error({})


def test_dictionaries_that_are_not_flat(state, tmp_path):
    assert "entry 'state_dict' is none" in error({"state_dict": state})
    assert "entry 0 is none" in error({0: torch.zeros(1)})
    torch.save([1, 2], tmp_path / "list.pth")
    assert error(tmp_path / "list.pth") == "list.pth holds a list, not a dictionary of tensors"


def test_missing_files(tmp_path):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            load_network(path)


class Malicious:
    """Unpickling it would leave a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(state, tmp_path, zipped):
    proof, path = tmp_path / "proof", tmp_path / "evil.pth"
    torch.save({**state, "x": Malicious(proof)}, path, _use_new_zipfile_serialization=zipped)
    text = error(path)
    assert re.search(r"holds \w+\.mkdir besides tensors", text) and "can run code" in text
    assert not proof.exists()


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth", "a"])
@pytest.mark.parametrize("content", [b"", b"\x00", b"hello world " * 9, b"<!DOCTYPE html><html>\n\n</html>", b"{" * 99])
def test_files_that_are_no_checkpoint(tmp_path, file, content):
    path = tmp_path / file
    path.write_bytes(content)
    assert f"{file} ({len(content)} bytes) cannot be read; it is truncated, corrupt or no checkpoint" in error(path)


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth"])
def test_truncated_or_corrupt_files(state, tmp_path, file):
    path = tmp_path / file
    save_file(state, path) if file.endswith("safetensors") else torch.save(state, path)
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(6):
        path.write_bytes(whole[: dice.randrange(len(whole) - 1)])
        assert "cannot be read" in error(path)
    for _ in range(6):
        damaged = bytearray(whole)
        for _ in range(30):
            damaged[dice.randrange(2000)] ^= 0xFF
        path.write_bytes(damaged)
        error(path)


def test_building_by_hand_needs_no_checkpoint(state):
    config = read_checkpoint(state).config
    net = PiDNetwork(config)
    net.load_state_dict(state, strict=True)
    assert torch.equal(image(net.eval()), image(load_network(state)))


def test_an_rgb_file_that_lost_its_configuration_is_refused():
    """Its output is x0, which shapes cannot tell: taken for a velocity it would decode to noise."""
    flux = PiDConfig.from_state_dict(weights(spec("flux_v1")))
    config = replace(flux, patch_size=8, latent_channels=12, latent_down=2, prediction="x0", family="rgb")
    tensors = {k: torch.zeros(v.shape) for k, v in PiDNetwork(config, device="meta").state_dict().items()}
    with pytest.raises(ValueError, match="pid_config was lost"):
        read_checkpoint(tensors)
    assert read_checkpoint(tensors | {"pid_config": config_tensor(config)}).config == config
