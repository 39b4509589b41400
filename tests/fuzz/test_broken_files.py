"""Checkpoints, latents and captions that are broken in any way: they are read, or refused in one line."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from pid_core import PiDConfig, PiDNetwork, decode, load_network, read_checkpoint
from pid_core.captions.fingerprint import fingerprint
from pid_core.captions.text import Caption, caption_bytes, read_caption, read_caption_about
from pid_core.checkpoints.reading import examine_checkpoint
from pid_core.hub.intact import damage
from pid_core.latents.files import SavedLatent, latent_bytes, read_latent
from pid_core.model.guard import NonFiniteError
from support.fuzzing import DTYPES, JSON, TEXT, answer, bent, entry, examples, of_bytes, write

SMALLEST = PiDConfig(
    patch_size=4,
    hidden_size=8,
    num_heads=2,
    patch_depth=2,
    mlp_size=5,
    time_features=4,
    pixel_hidden_size=4,
    pixel_attn_size=8,
    pixel_num_heads=2,
    pixel_depth=1,
    pixel_mlp_size=4,
    caption_width=6,
    caption_length=5,
    latent_channels=12,
    latent_down=2,
    lq_width=4,
    lq_res_blocks=1,
    family="rgb",
)


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn(value.shape) for name, value in PiDNetwork(SMALLEST).state_dict().items()}


WEIGHTS = weights() | {"default_caption": torch.ones(2, 6)}
CONFIG = {"pid_config": json.dumps(asdict(SMALLEST))}
NAMES = sorted(WEIGHTS)
HALF = "pixel_blocks.0.adaLN_modulation_{}.weight"
LAYER = "patch_blocks.1.mlp_x.w1"
QUANT = "_quantization_metadata"
BLOCKS = ["patch_blocks.", "pixel_blocks.", "lq_proj.latent_proj.", "lq_proj.output_heads."]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small lose time to a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def look_at_it_all(path) -> None:
    """What else opens a model file."""
    answer(examine_checkpoint, path)
    fingerprint(path)
    damage(path)


def use(path) -> None:
    """A file that is read decodes, or says in one line why not."""
    look_at_it_all(path)
    checkpoint = answer(read_checkpoint, path)
    if checkpoint is None or checkpoint.quantised:
        return
    net = answer(load_network, path)
    latent = torch.zeros(1, net.config.latent_channels, 1, 1)
    image = (
        answer(decode, net, latent, None, 0.0, kinds=(ValueError, NonFiniteError)) if net.config.has_latent else None
    )
    assert image is None or bool(torch.isfinite(image).all())


def test_the_file_that_is_broken_is_fine(folder):
    path = folder / "fine.safetensors"
    assert write(path, WEIGHTS, CONFIG)
    assert read_checkpoint(path).config == SMALLEST
    assert decode(load_network(path), torch.zeros(1, 12, 1, 1)).shape == (1, 3, 8, 8)


@examples(150)
@given(of_bytes(save(WEIGHTS, CONFIG)), st.sampled_from(["a.safetensors", "a.pth", "a"]))
def test_checkpoints_with_other_bytes(folder, content, name):
    path = folder / name
    path.write_bytes(content)
    use(path)


def drop(draw, tensors: dict, metadata: dict) -> None:
    tensors.pop(draw(st.sampled_from(NAMES)), None)


def rename(draw, tensors: dict, metadata: dict) -> None:
    name = draw(st.sampled_from(NAMES))
    other = draw(st.one_of(TEXT, TEXT.map(lambda t: f"net.{t}"), st.just(f"net.{name}")))
    if name in tensors:
        tensors[other] = tensors.pop(name)


def bend(draw, tensors: dict, metadata: dict) -> None:
    name = draw(st.sampled_from(NAMES))
    if name in tensors:
        tensors[name] = draw(bent(tensors[name]))


def add(draw, tensors: dict, metadata: dict) -> None:
    tensors[draw(TEXT)] = torch.ones(draw(st.lists(st.integers(0, 3), max_size=3)))


def add_block(draw, tensors: dict, metadata: dict) -> None:
    number = draw(st.one_of(st.integers(0, 10**6).map(str), TEXT))
    tensors[f"{draw(st.sampled_from(BLOCKS))}{number}.weight"] = torch.ones(1)


def split(draw, tensors: dict, metadata: dict) -> None:
    tensors.pop("pixel_blocks.0.adaLN_modulation.0.weight", None)
    for half in ("msa", "mlp"):
        tensors[HALF.format(half)] = draw(bent(torch.ones(4 * 3 * 16, 8)))


def quantise(draw, tensors: dict, metadata: dict) -> None:
    layer = draw(st.sampled_from([LAYER, "pixel_blocks.0.adaLN_modulation_msa", "final_layer.linear"]))
    if f"{layer}.weight" in tensors:
        tensors[f"{layer}.weight"] = tensors[f"{layer}.weight"].to(draw(st.sampled_from(DTYPES)))
    tensors[f"{layer}.weight_scale"] = draw(bent(torch.ones(())))
    text = draw(st.one_of(entry("format", "params", "convrot_groupsize"), st.just('{"format": "float8_e4m3fn"}')))
    tensors[f"{layer}.comfy_quant"] = torch.tensor(list(text.encode(errors="replace")), dtype=torch.uint8)


def say_in_metadata(draw, tensors: dict, metadata: dict) -> None:
    key = draw(st.sampled_from(["pid_config", QUANT]))
    metadata[key] = draw(entry("family", "patch_size", "sr_scale", "gate", "rope_theta", "layers", "steps"))


def say_in_tensor(draw, tensors: dict, metadata: dict) -> None:
    text = draw(entry("family", "latent_down", "latent_channels", "lq_interval"))
    tensors["pid_config"] = torch.tensor(list(text.encode(errors="replace")), dtype=torch.uint8)
    metadata.pop("pid_config", None)


WAYS = (drop, rename, bend, bend, add, add_block, split, quantise, say_in_metadata, say_in_tensor)


@st.composite
def checkpoints(draw) -> tuple[dict, dict]:
    """Tensors and metadata of a checkpoint with a few things wrong."""
    tensors, metadata = dict(WEIGHTS), dict(CONFIG)
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from(WAYS))(draw, tensors, metadata)
    return tensors, metadata


@examples(150)
@given(checkpoints())
def test_checkpoints_with_other_tensors_and_settings(folder, made):
    path = folder / "b.safetensors"
    if write(path, *made):
        use(path)


OBJECTS = st.one_of(
    JSON,
    st.sampled_from(
        [
            torch.ones(2, 2).to_sparse(),
            torch.empty(2, 2, device="meta"),
            torch.zeros(1).expand(8, 8),
            torch.nn.Parameter(torch.ones(3)),
            torch.Size([1]),
            {"a": torch.ones(1)},
        ]
    ),
)
KEYS = st.one_of(st.sampled_from(NAMES), TEXT, st.integers(), st.none(), st.tuples(TEXT, TEXT))


@examples(100)
@given(st.dictionaries(KEYS, OBJECTS, max_size=3), st.booleans(), st.booleans())
def test_pickles_with_other_things_in_them(folder, odd, whole, zipped):
    path = folder / "c.pth"
    torch.save((WEIGHTS if whole else {}) | odd, path, _use_new_zipfile_serialization=zipped)
    use(path)


LATENT = latent_bytes(SavedLatent(torch.ones(1, 16, 2, 2), "flux", 0.25), {"prompt": "{}"})
CAPTION = caption_bytes(Caption(torch.ones(1, 3, 4), "a fox", "encoder", cut=2))


def use_latent(path) -> None:
    fingerprint(path)
    latent = answer(read_latent, path)
    if latent is not None:
        assert latent.samples.dtype == torch.float32 and bool(torch.isfinite(latent.samples).all())
        assert 0 <= latent.sigma <= 1


def use_caption(path) -> None:
    answer(read_caption_about, path)
    caption = answer(read_caption, path)
    if caption is not None:
        assert caption.states.ndim == 3 and bool(torch.isfinite(caption.states).all()) and caption.cut >= 0


@examples(200)
@given(of_bytes(LATENT))
def test_latents_with_other_bytes(folder, content):
    (folder / "a.latent").write_bytes(content)
    use_latent(folder / "a.latent")


@examples(150)
@given(bent(torch.ones(1, 16, 2, 2)), entry("family", "degrade_sigma", "picture_size"), st.booleans())
def test_latents_with_other_tensors_and_settings(folder, samples, about, mark):
    marks = {"latent_format_version_0": torch.tensor([])} if mark else {}
    if write(folder / "b.latent", {"latent_tensor": samples} | marks, {"pid_latent": about}):
        use_latent(folder / "b.latent")


@examples(200)
@given(of_bytes(CAPTION))
def test_captions_with_other_bytes(folder, content):
    (folder / "a_caption.safetensors").write_bytes(content)
    use_caption(folder / "a_caption.safetensors")


@examples(150)
@given(bent(torch.ones(1, 3, 4)), st.dictionaries(st.sampled_from(["text", "encoder", "cut", "version"]), TEXT))
def test_captions_with_other_tensors_and_texts(folder, states, about):
    if write(
        folder / "b_caption.safetensors", {"caption": states}, {"format": "pidkit_caption", "version": "1"} | about
    ):
        use_caption(folder / "b_caption.safetensors")
