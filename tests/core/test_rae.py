"""The encoders of the two RAE families: the whole chain by a reference written here, and files that are not theirs."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pid_core.rae.arithmetic import encoder_input, latent_of
from pid_core.rae.encoder import encode, load_encoder
from pid_core.rae.facts import RAE
from pid_core.rae.files import examine_encoder, find_parts, read_statistics
from support.tiny_rae import CELLS, CHANNELS, as_in_files, reference, save_encoder, tiny_encoder, tiny_statistics

FAMILIES = tuple(RAE)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {family: save_encoder(folder / f"{family}.safetensors", family) for family in FAMILIES}


def picture(height, width, batch=1):
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(512, 512), (300, 517), (64, 48)])
def test_the_whole_chain_is_the_reference(files, family, size):
    image = picture(*size)
    expected = reference(family, image)
    got = encode(load_encoder(files[family]), image)
    assert got.shape == (1, CHANNELS[family], CELLS[family], CELLS[family]) and got.dtype == torch.float32
    assert (got - expected).abs().max() < 1e-5 and got.std() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_picture_of_a_batch_on_its_own(files, family):
    images, encoder = picture(40, 50, batch=9), load_encoder(files[family])
    got = encode(encoder, images)
    assert len(got) == 9 and torch.allclose(got[8:], encode(encoder, images[8:]), atol=1e-5)


def test_transparency_is_dropped(files):
    image = picture(30, 30)
    seen = encoder_input(torch.cat([image, torch.zeros(1, 30, 30, 1)], -1), RAE["siglip"])
    assert torch.equal(seen, encoder_input(image, RAE["siglip"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_the_rest_stays_float32(files, family):
    encoder, image = load_encoder(files[family], dtype=torch.bfloat16), picture(100, 100)
    exact = encode(load_encoder(files[family]), image)
    got = encode(encoder, image)
    assert encoder.dtype == torch.bfloat16 and got.dtype == torch.float32
    assert 0 < (got - exact).abs().mean() < 0.05
    assert encoder.mean is None or encoder.mean.dtype == torch.float32


def test_a_folder_as_hugging_face_has_it_and_one_in_parts(files, tmp_path):
    image, expected = picture(60, 60), encode(load_encoder(files["siglip"]), picture(60, 60))
    whole = tmp_path / "whole"
    tiny_encoder("siglip").save_pretrained(whole)
    assert torch.allclose(encode(load_encoder(whole), image), expected, atol=1e-6)

    weights = load_file(files["siglip"])
    parts = tmp_path / "parts"
    parts.mkdir()
    names = sorted(weights)
    for number, some in enumerate((names[:5], names[5:]), 1):
        save_file({name: weights[name] for name in some}, parts / f"model-0000{number}-of-00002.safetensors")
    assert torch.equal(encode(load_encoder(parts), image), expected)
    (parts / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"one of 2 parts, and model-00002-of-00002.safetensors is not there"):
        find_parts(parts / "model-00001-of-00002.safetensors")


def test_the_whole_of_siglip_with_its_text_tower_is_taken(files, tmp_path):
    weights = load_file(files["siglip"])
    words = "text_model.embeddings.token_embedding.weight"
    save_file(weights | {words: torch.zeros(256, 8), "logit_scale": torch.zeros(1)}, tmp_path / "whole.safetensors")
    image, whole = picture(60, 60), load_encoder(tmp_path / "whole.safetensors")
    assert torch.equal(encode(whole, image), encode(load_encoder(files["siglip"]), image))
    save_file(weights | {words: torch.zeros(32_000, 8)}, tmp_path / "first.safetensors")
    with pytest.raises(ValueError, match=r"first.safetensors: it is SigLIP, the first one, with 32000 words"):
        examine_encoder(tmp_path / "first.safetensors")


WRONG = {
    "no register tokens": ("dinov2", lambda w: w.pop("embeddings.register_tokens")),
    "embeddings.position_embeddings is [1, 257, 768], that of DINOv2 base with registers is [1, 1370, 768]": (
        "dinov2",
        lambda w: w.update({"embeddings.position_embeddings": torch.zeros(1, 257, 768)}),
    ),
    "position_embedding.weight is [729, 1152], that of SigLIP 2 so400m, patch 14, 224 pixels is [256, 1152]": (
        "siglip",
        lambda w: w.update({"vision_model.embeddings.position_embedding.weight": torch.zeros(729, 1152)}),
    ),
    "it is no encoder that PiD has latents of": ("dinov2", lambda w: w.clear() or w.update(x=torch.zeros(1))),
    "lacks encoder.layer.0.norm2.bias, so it is damaged": (
        "dinov2",
        lambda w: w.pop("encoder.layer.0.norm2.bias"),
    ),
    "it holds no encoder.layer.0, so it is damaged": (
        "dinov2",
        lambda w: [w.pop(name) for name in list(w) if name.startswith("encoder.layer.")],
    ),
    "it is quantised, with scales that are not read here": (  # its weights alone would give a wrong latent
        "siglip",
        lambda w: w.update({"vision_model.encoder.layers.0.mlp.fc1.scale_weight": torch.ones(())}),
    ),
    "its encoder.layer.0.norm2.bias is of int8: use the encoder in bfloat16": (
        "dinov2",
        lambda w: w.update({"encoder.layer.0.norm2.bias": torch.zeros(768, dtype=torch.int8)}),
    ),
    "its encoder.layer.0.norm2.bias is [5], [768] is needed": (
        "dinov2",
        lambda w: w.update({"encoder.layer.0.norm2.bias": torch.zeros(5)}),
    ),
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_file_is_one_line(files, tmp_path, line):
    family, change = WRONG[line]
    weights = load_file(files[family])
    change(weights)
    save_file(weights, tmp_path / "wrong.safetensors")
    torch.save(tiny_statistics(), tmp_path / "stat.pt")
    with pytest.raises(ValueError) as error:
        load_encoder(tmp_path / "wrong.safetensors")
    told = str(error.value)
    assert line in told and told.startswith("wrong.safetensors") and "\n" not in told


def test_the_encoder_of_the_other_family_is_told(files):
    with pytest.raises(ValueError, match=r"it is SigLIP 2 .*, and dinov2 latents are made by DINOv2"):
        load_encoder(files["siglip"], family="dinov2")


def test_statistics_that_are_missing_or_wrong_are_one_line(files, tmp_path):
    save_file(as_in_files("dinov2", tiny_encoder("dinov2")), tmp_path / "alone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"normalised by statistics: there is no rae_dinov2_stat.pt beside it"):
        load_encoder(tmp_path / "alone.safetensors")
    right = tiny_statistics()
    for name, change, line in (
        ("shape", {"mean": torch.zeros(768, 16, 16)}, r"its mean is \[768, 16, 16\], .* \[768, 32, 32\] are needed"),
        ("below", {"var": -right["var"]}, "its var holds values below 0"),
        ("nan", {"var": right["var"] * float("nan")}, "its var holds NaN"),
        ("text", {"mean": "x"}, "it holds no tensor mean"),
    ):
        torch.save(right | change, tmp_path / f"{name}.pt")
        with pytest.raises(ValueError, match=f"{name}.pt: {line}"):
            read_statistics(tmp_path / f"{name}.pt", RAE["dinov2"])
    torch.save({key: value[None] for key, value in right.items()}, tmp_path / "batch.pt")
    assert torch.equal(read_statistics(tmp_path / "batch.pt", RAE["dinov2"]).mean, right["mean"])


def test_tokens_of_another_size_and_missing_statistics_are_one_line():
    with pytest.raises(ValueError, match=r"gives 255 tokens 1152 wide, and a siglip latent is made of 256 tokens"):
        latent_of(torch.zeros(1, 255, 1152), RAE["siglip"])
    with pytest.raises(ValueError, match="normalised by statistics, and none are given"):
        latent_of(torch.zeros(1, 1029, 768), RAE["dinov2"])
    with pytest.raises(ValueError, match=r"an image is \[B, H, W, 3\]"):
        encoder_input(torch.zeros(1, 3, 5, 5), RAE["siglip"])


def test_without_transformers_the_line_says_so(files, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="need the Python package transformers"):
        load_encoder(files["siglip"])
