"""PiDConfig from tensor names and shapes, and from metadata."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pid_core import LATENT_FAMILIES, PiDConfig, PiDNetwork
from pid_core.model.config import RELEASED
from support.goldens import FOLDER, NAMES, spec

FULL = json.loads((FOLDER / "full_size_param_shapes.json").read_text(encoding="utf-8"))
BASE = FULL["v1_16ch(flux,sd3,qwen)"]["shapes"]
AUX = "lq_proj.lq_aux_rgb_head."
# What shapes cannot tell and no family fixes.
UNTOLD = {"text_rope", "text_rope_theta", "rope_mode", "rope_theta", "prediction"}


def meta(shapes):
    return {k: torch.empty(v, device="meta") for k, v in shapes.items()}


def full_size(name):
    entry = FULL[name]
    removed = set(entry.get("removed", ()))
    return {k: v for k, v in (BASE | entry.get("added_or_changed", {})).items() if k not in removed}


def tiny(name="flux_v1"):
    return meta({k: v for k, v in spec(name)["tensors"].items() if not k.startswith(AUX)})


def build(config):
    return PiDNetwork(config, device="meta").state_dict()


def told(**entries):
    return {"pid_config": json.dumps(entries)}


@pytest.mark.parametrize("name", FULL)
def test_released_sizes(name):
    shapes = full_size(name)
    assert len(shapes) == FULL[name]["num_keys"]
    config = PiDConfig.from_state_dict(meta(shapes))
    built = {k: list(v.shape) for k, v in build(config).items()}
    assert built == {k: v for k, v in shapes.items() if not k.startswith(AUX)}
    aux = sum(math.prod(v) for k, v in shapes.items() if k.startswith(AUX))
    assert sum(math.prod(v) for v in built.values()) + aux == FULL[name]["num_params"]
    assert config.lq_outputs == FULL[name]["num_lq_outputs"]
    assert config.latent_cell / config.latent_unpack / config.patch_size == FULL[name]["z_to_patch_ratio"]
    v15 = name.startswith("v1pt5")
    assert config.version == ("v1.5" if v15 else "v1")
    assert (config.rope_reference, config.lq_padding) == ((2048, "replicate") if v15 else (1024, "zeros"))
    assert config.prediction == "velocity" and config.align == 16 and config.head_dim == 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v1_16ch(flux,sd3,qwen)", (16, 8, 1, 4, None)),
        ("v1_flux2", (128, 16, 1, 4, "flux2")),
        ("v1_sdxl", (4, 8, 1, 4, "sdxl")),
        ("v1_dinov2", (768, 16, 1, 4, "dinov2")),
        ("v1_siglip_sr8", (1152, 16, 1, 8, "siglip")),
        ("v1pt5_flux2", (128, 16, 2, 4, "flux2")),
    ],
)
def test_released_latents(name, expected):
    c = PiDConfig.from_state_dict(meta(full_size(name)))
    assert (c.latent_channels, c.latent_down, c.latent_unpack, c.sr_scale, c.family) == expected


def test_defaults_are_the_released_v1():
    assert PiDConfig.from_state_dict(meta(BASE)) == PiDConfig()


@pytest.mark.parametrize("name", NAMES)
def test_nvidias_own_configuration_agrees(name):
    golden = spec(name)
    config = PiDConfig.from_state_dict(tiny(name))
    assert PiDConfig.from_state_dict(tiny(name), told(**golden["config"])) == config
    assert PiDConfig.from_state_dict(tiny(name), {"pid_config": golden["config"]}) == config
    own, theirs = asdict(config), golden["config"]
    for a, b in (("num_heads", "num_groups"), ("caption_width", "txt_embed_dim"), ("lq_width", "lq_hidden_dim")):
        assert own[a] == theirs[b]
    assert config.latent_unpack == theirs["lq_latent_unpatchify_factor"]


@pytest.mark.parametrize("prefix", ["net.", "core.", "model.diffusion_model.", "diffusion_model."])
def test_names_may_keep_their_prefix(prefix):
    state = tiny()
    assert PiDConfig.from_state_dict({prefix + k: v for k, v in state.items()}) == PiDConfig.from_state_dict(state)


@st.composite
def configs(draw):
    """Small networks; metadata is not needed to tell them apart."""
    family = draw(st.sampled_from(["flux", "flux2", "sdxl", "dinov2", "siglip", "rgb", None]))
    row = LATENT_FAMILIES.get(family)
    v15 = draw(st.booleans()) and family not in ("dinov2", "siglip")
    heads, pixel_heads = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    depth = draw(st.integers(1, 7))
    interval = draw(st.integers(1, depth))
    assume(math.ceil(depth / math.ceil(depth / interval)) == interval)  # 5 blocks by 3 or 4: the same two points
    down, scale, channels = (row.down, row.sr_scale, row.channels) if row else (8, 4, 20)
    unpack = 2 if v15 and family == "flux2" else 1
    cell = down * scale // unpack
    return replace(
        RELEASED["v1.5" if v15 else "v1"],
        patch_size=draw(st.sampled_from([p for p in (4, 8, 16) if p <= cell])),
        hidden_size=heads * draw(st.sampled_from([8, 12, 16])),
        num_heads=heads,
        patch_depth=depth,
        mlp_size=draw(st.integers(1, 70)),
        time_features=2 * draw(st.integers(1, 20)),
        pixel_hidden_size=4 * draw(st.integers(1, 3)),
        pixel_attn_size=pixel_heads * draw(st.sampled_from([4, 8, 12])),
        pixel_num_heads=pixel_heads,
        pixel_depth=draw(st.integers(1, 3)),
        pixel_mlp_size=draw(st.integers(1, 20)),
        caption_width=draw(st.integers(1, 40)),
        caption_length=draw(st.integers(1, 20)),
        latent_channels=channels,
        latent_down=down,
        latent_unpack=unpack,
        sr_scale=scale,
        lq_width=4 * draw(st.integers(1, 6)),
        lq_res_blocks=draw(st.integers(0, 5)),
        lq_interval=interval,
        pit_injection=v15 or draw(st.booleans()),
        family=None if family == "flux" else family,
    )


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))
@given(configs())
def test_small_networks_come_back_from_their_shapes(config):
    assert PiDConfig.from_state_dict(build(config)) == config


@settings(deadline=None, max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck))
@given(configs(), st.sampled_from(["velocity", "x0"]), st.sampled_from([256, 1024, 4096]), st.booleans())
def test_metadata_tells_what_shapes_cannot(config, prediction, reference, text_rope):
    config = replace(config, prediction=prediction, rope_reference=reference, text_rope=text_rope, rope_mode="original")
    config = replace(config, window_min=128, window_max=reference)
    assert PiDConfig.from_state_dict(build(config), told(**asdict(config))) == config


@pytest.mark.parametrize("family", ["flux", "zimage", "sd3", "qwenimage", "krea2"])
def test_metadata_names_the_family(family):
    assert PiDConfig.from_state_dict(tiny(), told(family=family)).family == LATENT_FAMILIES[family].name


def test_metadata_undoes_the_guess_of_an_unpacked_flux2():
    """32 input channels in v1.5 are Flux.2's 128; a network for true 32-channel latents says so."""
    config = PiDConfig.from_state_dict(tiny("flux2_v1pt5"), told(latent_unpack=1))
    assert (config.latent_channels, config.latent_unpack, config.latent_down, config.family) == (32, 1, 8, None)
    config = PiDConfig.from_state_dict(tiny("flux2_v1pt5"), told(latent_channels=128))
    assert (config.latent_channels, config.latent_unpack, config.latent_down, config.family) == (128, 2, 16, "flux2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[1, 2]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"hiden_size": 32}', "unknown key 'hiden_size'"),
        ('{"hidden_size": 64}', "hidden_size = 64, the tensors say 32"),
        ('{"num_groups": 4}', "num_heads = 4, the tensors say 2"),
        ('{"gate": "token"}', "gate = token, the tensors say channel"),
        ('{"hidden_size": "32"}', "a whole number is needed"),
        ('{"hidden_size": null}', "a whole number is needed"),
        ('{"rope_reference": 1024.5}', "a whole number is needed"),
        ('{"rope_reference": true}', "a whole number is needed"),
        ('{"rope_reference": 0}', "rope_reference is 0, a positive number"),
        ('{"rope_reference": -1024}', "positive number"),
        ('{"rope_theta": "big"}', "a number is needed"),
        ('{"rope_theta": Infinity}', "positive number"),
        ('{"rope_theta": NaN}', "positive number"),
        ('{"text_rope": "false"}', "true or false is needed"),
        ('{"prediction": "eps"}', "known: velocity, x0"),
        ('{"prediction": ["x0"]}', "a string is needed"),
        ('{"gate": ["channel"]}', "a string is needed"),
        ('{"family": "chroma"}', "unknown latent family 'chroma'"),
        ('{"family": ["flux"]}', "a string is needed"),
        ('{"family": "sdxl"}', "family sdxl (4 channels), the network takes latents of 16"),
        ('{"latent_channels": 12}', "gives 12 latent channels, un-packed 1 x 1; the tensors take 16"),
        ('{"latent_unpack": 0}', "un-packed 0 x 0; the tensors take 16"),
        ('{"latent_channels": 64, "latent_unpack": 3}', "gives 64 latent channels, un-packed 3 x 3"),
        ('{"lq_interval": 0}', "positive number"),
        ('{"lq_interval": 1}', "gives 4 injection points; the tensors hold 2"),
        ('{"sr_scale": 1}', "less than a patch"),
        ('{"rope_ref_h": 1024, "rope_ref_w": 2048}', "different rope_ref_h and rope_ref_w"),
    ],
)
def test_bad_metadata_is_one_line(text, message):
    with pytest.raises(ValueError) as caught:
        PiDConfig.from_state_dict(tiny(), {"pid_config": text})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_metadata_is_ignored():
    assert PiDConfig.from_state_dict(tiny(), {"format": "pt"}) == PiDConfig.from_state_dict(tiny(), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 30, "num_heads": 4}, "does not split"),
        ({"hidden_size": 36, "num_heads": 6}, "heads of a multiple of 4"),
        ({"pixel_hidden_size": 6}, "multiple of 4"),
        ({"lq_width": 30}, "multiple of 4"),
        ({"time_features": 255}, "multiple of 2"),
        ({"patch_depth": 0}, "positive"),
        ({"latent_unpack": 3}, "un-packed"),
        ({"latent_down": 2}, "less than a patch"),
        ({"steps": 5}, "steps is 5, more than 4"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_sizes_that_cannot_work(change, message):
    with pytest.raises(ValueError, match=message):
        PiDConfig(**change)


def test_frozen():
    with pytest.raises(AttributeError):
        PiDConfig().hidden_size = 3
