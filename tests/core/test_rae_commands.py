"""The two RAE families on the command line: one picture, many, and what doctor says of their files."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pid_core.__main__ import main
from pid_core.hub.catalogue import get_file, known_file
from pid_core.images.files import read_picture
from pid_core.images.framing import prepare_image
from pid_core.latents.files import read_latent
from pid_core.rae.facts import RAE
from pid_core.rae.files import STATISTICS
from pid_core.upscale.rae_bridge import RAEBridge
from pid_core.upscale.upscaler import Upscaler
from support.tiny import save_tiny
from support.tiny_rae import reference, save_encoder

FAMILIES = tuple(RAE)
ENCODERS = {"dinov2": "dinov2_with_registers_base.safetensors", "siglip": "siglip2_so400m_patch14_224.safetensors"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint and an encoder of each family, and a picture of 30 x 20."""
    folder = tmp_path_factory.mktemp("rae")
    for family in FAMILIES:
        save_tiny(folder / f"{family}.safetensors", family, caption=3, patch_depth=2, pixel_depth=1)
        save_encoder(folder / ENCODERS[family], family)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


def run(capsys, *arguments) -> tuple[int, str]:
    """The exit code, and what came on stderr."""
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


def upscale(files, family, *more):
    return "upscale", files / "photo.png", "--model", files / f"{family}.safetensors", "--device", "cpu", *more


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_decoded_is_the_references_latent(files, family):
    upscaler = Upscaler.load(files / f"{family}.safetensors", CPU, RAEBridge(CPU, family, files / ENCODERS[family]))
    picture = read_picture(files / "photo.png")
    framing = upscaler.frame(20, 30, "2K")
    prepared = upscaler.prepare_picture(picture, framing)
    expected = reference(family, prepare_image(picture.image[None], framing))
    assert (prepared.lq.latent - expected).abs().max() < 1e-5
    assert prepared.size == (2048, 2048) and framing.output == (1365, 2048)


def test_a_batch_without_a_size_makes_2k(files, tmp_path, capsys):
    command = [
        "batch",
        files / "photo.png",
        "--model",
        files / "siglip.safetensors",
        "--vae",
        files / ENCODERS["siglip"],
    ]
    code, said = run(capsys, *command, "--out", tmp_path, "--steps", 1, "--name", "{stem}", "--threads", 1)
    assert code == 0, said
    assert Image.open(tmp_path / "photo.png").size == (2048, 1365)


def test_what_is_missing_or_wrong_is_one_line(files, tmp_path, capsys):
    out = ("-o", tmp_path / "out.png")
    dinov2, siglip = (files / ENCODERS[family] for family in FAMILIES)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(dinov2.read_bytes())
    for more, line in (
        ([], f"give the encoder of dinov2 ({ENCODERS['dinov2']}) with --vae, or a latent with --latent"),
        (["--vae", siglip], "and dinov2 latents are made by DINOv2 base with registers"),
        (["--vae", alone], "there is no rae_dinov2_stat.pt beside it"),
        (
            ["--vae", alone, "--statistics", files / "photo.png"],
            "photo.png cannot be read; it is truncated, corrupt or no",
        ),
        (["--vae", tmp_path], "holds no model.safetensors"),
        (["--vae", dinov2, "--target", "4K"], "dinov2 draws 2048 x 2048 pixels and no more: choose target 2K"),
    ):
        code, said = run(capsys, *upscale(files, "dinov2", *out, *more))
        assert code != 0 and line in said and said.strip().count("\n") == 0, said
    code, said = run(capsys, *upscale(files, "siglip", *out, "--vae", siglip, "--statistics", files / STATISTICS[0]))
    assert code != 0 and "--statistics is of dinov2's encoder" in said


def test_doctor_lists_what_is_there_and_what_is_missing(files, tmp_path, capsys):
    comfyui, folder = tmp_path / "ComfyUI", tmp_path / "ComfyUI" / "models" / "clip_vision"
    (comfyui / "comfy").mkdir(parents=True)
    (comfyui / "main.py").touch()
    (folder / "siglip2-so400m-patch14-224").mkdir(parents=True)
    whole = folder / "siglip2-so400m-patch14-224" / "model.safetensors"
    whole.symlink_to(files / ENCODERS["siglip"])
    save_file({"x": torch.zeros(1)}, folder / ENCODERS["dinov2"])
    save_file({"x": torch.zeros(1)}, folder / "clip_vision_h.safetensors")
    main(["doctor", "--comfyui", str(comfyui), "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {file["name"]: (file["what"], file["usable"]) for file in report["files"]}
    assert found["model.safetensors"] == ("SigLIP 2 so400m, patch 14, 224 pixels, encoder of siglip", True)
    assert found[ENCODERS["dinov2"]][1] is False and "no encoder" in found[ENCODERS["dinov2"]][0]
    assert "clip_vision_h.safetensors" not in found
    needs = {need["name"]: need for need in report["workflows"]["pid_with_dinov2_to_2k"]}
    assert needs["rae_dinov2_stat.pt"]["how"].endswith("fetch rae_dinov2_stat.pt")
    needs = {need["name"]: need for need in report["workflows"]["pid_with_siglip_to_2k"]}
    assert needs[ENCODERS["siglip"]]["here"] and not needs["PiD_res2k_sr8x_official_siglip_distill_4step.pth"]["here"]


@pytest.mark.parametrize(
    ("local", "name"),
    [
        ("dinov2-with-registers-base/model.safetensors", ENCODERS["dinov2"]),
        (f"mine/{ENCODERS['siglip']}", ENCODERS["siglip"]),
        ("imagenet1k_512\\stat.pt", "rae_dinov2_stat.pt"),
        ("other/model.safetensors", None),
    ],
)
def test_files_are_known_by_our_names_and_by_those_of_their_folders(local, name):
    assert known_file(local) is (None if name is None else get_file(name))


@pytest.mark.parametrize(("family", "shape"), [("dinov2", (1, 768, 32, 32)), ("siglip", (1, 1152, 16, 16))])
def test_the_lines_that_the_page_gives_write_a_noisy_latent(files, tmp_path, monkeypatch, family, shape):
    page = (Path(__file__).parents[2] / "docs" / "rae.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0].replace('"dinov2"', f'"{family}"')
    monkeypatch.chdir(tmp_path)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    (tmp_path / "lines.py").write_text(code, encoding="utf-8")
    runpy.run_path("lines.py", {"x": x})
    saved = read_latent(tmp_path / "noisy.latent")
    assert saved.family == family and saved.sigma == pytest.approx(6 * 0.1 / (1 + 5 * 0.1)) == 0.4
    upscaler = Upscaler.load(files / f"{family}.safetensors", CPU)
    prepared = upscaler.prepare_latent(saved)
    assert torch.equal(prepared.lq.latent, x) and float(prepared.lq.sigma) == pytest.approx(0.4)
    assert prepared.size == (2048, 2048) and not prepared.lq.warnings
