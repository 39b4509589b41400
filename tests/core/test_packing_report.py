"""What `convert --to` reports: error per layer and of the decode, against the file's own weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pid_core import NANO_PATH, PiDNetwork, load_network
from pid_core.__main__ import main
from pid_core.checkpoints import packing_report
from pid_core.checkpoints.packing import pack, unpack
from pid_core.checkpoints.packing_report import measure, read_as_latent
from pid_core.checkpoints.packing_rule import packed_layers
from pid_core.latents.files import SavedLatent, latent_bytes
from support.sizes import PACKABLE


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(packing_report, "SMALL_SIDE", 64)


@pytest.fixture
def picture(tmp_path):
    from PIL import Image

    path = tmp_path / "mine.png"
    Image.linear_gradient("L").resize((40, 48)).convert("RGB").save(path)
    return path


def test_of_the_bundled_model_and_a_picture(tmp_path, picture, capsys):
    out = tmp_path / "nano_fp8.safetensors"
    assert main(["convert", str(NANO_PATH), "-o", str(out), "--to", "fp8", "--picture", str(picture)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out) and out.exists()
    lines = printed.err.splitlines()
    assert lines[0].endswith("fp8") and "0.1 of 1.3 million parameters in 8 bits" in lines[1]
    assert any(line.strip().startswith("patch_blocks.*.attn.qkv_x (1)") for line in lines)
    kept = [line for line in lines if line.startswith("kept: ")]
    assert len(kept) == 6 and sum("patch_blocks.*.mlp_x.w2" in line and "no multiples" in line for line in kept) == 1
    kinds = [kind for line in kept for kind in line.removeprefix("kept: ").partition(" (")[0].split(", ")]
    assert len(kinds) == len(set(kinds))  # each under one reason, its own
    decodes = [line for line in lines if line.startswith("decode of ")]
    # What is packed of it is attention, and that is switched off.
    assert len(decodes) == 2 and "decode of mine.png, 64 x 64 pixels, 4 steps: PSNR inf dB" in decodes[1]


def test_figures_are_those_of_the_packed_weights(packable):
    found = measure(packable, "int8", family="flux", schedule="distilled")
    assert [row.layer for row in found.layers] == packed_layers(PACKABLE, "int8")
    weight = load_file(packable)[f"{found.layers[0].layer}.weight"].float()
    off = (unpack("int8", pack("int8", weight)) - weight).norm() / weight.norm()
    assert found.layers[0].weights == pytest.approx(float(off), rel=1e-4)
    assert all(0 < row.weights < 0.02 and row.output < row.in_8_bits < 0.05 for row in found.layers if row.output)
    assert found.notes == ["the file holds no caption: a random one was used"]
    worse = measure(packable, "fp8", family="flux", schedule="distilled")
    for report in (found, worse):
        assert report.decodes[0].weights > report.decodes[0].in_8_bits
    assert found.decodes[0].weights > worse.decodes[0].weights + 3


def test_a_latent_stands_for_the_picture_where_a_vae_made_it(packable, tmp_path, picture, capsys):
    path = tmp_path / "mine.latent"
    path.write_bytes(latent_bytes(SavedLatent(torch.randn(1, 16, 2, 1), "flux")))
    latents = {path.name: read_as_latent(path, load_network(packable, family="flux").config)}
    found = measure(packable, "fp8", family="flux", latents=latents)
    assert [row.latent for row in found.decodes] == ["a synthetic latent", "mine.latent"]
    assert (found.decodes[1].height, found.decodes[1].width) == (64, 32)
    told = ["convert", str(packable), "--family", "flux", "--to", "fp8", "--picture"]
    assert main([*told, str(picture)]) == 1
    assert "mine.png is a picture, and this checkpoint decodes flux latents" in capsys.readouterr().err
    path.write_bytes(latent_bytes(SavedLatent(torch.randn(1, 4, 2, 1), "sdxl")))
    assert main([*told, str(path)]) == 1
    assert "mine.latent holds a latent of sdxl with 4 channels" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_fp8.safetensors"))  # found out before anything is written


def test_what_belongs_to_the_packing_is_refused_without_it(packable, tmp_path, capsys):
    assert main(["convert", str(packable), "--family", "flux", "--picture", str(packable)]) == 1
    assert "belong to --to" in capsys.readouterr().err
    assert (
        main(["convert", str(packable), "--family", "flux", "--to", "fp8", "--picture", str(tmp_path / "no.png")]) == 1
    )
    error = capsys.readouterr().err
    assert "no.png" in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [packable.name]


def test_without_a_report_nothing_is_run(packable, monkeypatch, capsys):
    monkeypatch.setattr("pid_core.commands.convert.measure", None)
    assert main(["convert", str(packable), "--family", "flux", "--to", "mxfp8", "--no-report"]) == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_a_checkpoint_that_is_no_four_step_decoder(tmp_path):
    path = tmp_path / "undistilled.safetensors"
    save_file({k: torch.randn(v.shape) for k, v in PiDNetwork(PACKABLE).state_dict().items()}, path)
    found = measure(path, "fp8", family="flux", schedule="undistilled")
    assert not found.decodes and "no decode was measured" in found.notes[0] and len(found.layers) == 20
