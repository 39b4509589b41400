"""`convert`: one safetensors file that says what it is, with the same weights."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pid_core import read_checkpoint
from pid_core.__main__ import main
from pid_core.checkpoints.convert import default_target
from pid_core.checkpoints.quantised import CONF
from support.goldens import spec, weights

EXPERIMENT = "PiD_v1pt5_res2kto4k_sr4x_official_flux_undistilled"


@pytest.fixture
def nvidias(tmp_path):
    """An undistilled v1.5 file as NVIDIA ships it: bf16 .pth, prefix net., with the teacher's head."""
    path = tmp_path / EXPERIMENT / "model_ema_bf16.pth"
    path.parent.mkdir()
    state = {f"net.{k}": v.to(torch.bfloat16) for k, v in weights(spec("flux_v1pt5")).items()}
    torch.save(state | {"default_caption": torch.ones(3, 24)}, path)
    return path


def metadata(path) -> dict:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_nvidias_pth_becomes_a_file_that_tells(nvidias, capsys):
    assert main(["convert", str(nvidias)]) == 0
    out = nvidias.with_name(f"{EXPERIMENT}.safetensors")
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out) and "PiD v1.5, flux, undistilled" in printed.err
    assert sorted(p.name for p in nvidias.parent.iterdir()) == [f"{EXPERIMENT}.safetensors", nvidias.name]
    told = metadata(out)
    assert (told["family"], told["version"], told["schedule"], told["sr_scale"]) == ("flux", "v1.5", "undistilled", "4")
    assert json.loads(told["pid_config"])["family"] == "flux"
    # under another name nothing is left to guess from
    renamed = out.rename(nvidias.parent.parent / "renamed.safetensors")
    before, after = read_checkpoint(nvidias), read_checkpoint(renamed)
    assert after.config == before.config and after.config.schedule == "undistilled"
    assert torch.equal(after.default_caption, before.default_caption)
    assert after.state_dict.keys() == before.state_dict.keys()
    assert all(torch.equal(v, before.state_dict[k]) and v.dtype == torch.bfloat16 for k, v in after.state_dict.items())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_what_is_written(nvidias, tmp_path):
    """ComfyUI may run as another user than who converts."""
    before = os.umask(0o022)
    try:
        assert main(["convert", str(nvidias), "-o", str(tmp_path / "out.safetensors")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_family_is_asked_for_where_nothing_tells_it(tmp_path, capsys):
    source = tmp_path / "pid.pth"
    torch.save(weights(spec("flux_v1")), source)
    assert main(["convert", str(source)]) == 1
    assert (
        "can be of flux, sd3, qwenimage, and neither the file nor its name tells: add --family"
        in capsys.readouterr().err
    )
    assert main(["convert", str(source), "--family", "sd3", "-o", str(tmp_path / "new" / "sd3.safetensors")]) == 0
    assert read_checkpoint(tmp_path / "new" / "sd3.safetensors").config.family == "sd3"


def test_pixeldit_keeps_the_prefix_that_comfyui_knows_it_by(tmp_path):
    state = {f"core.{k}": v for k, v in weights(spec("flux_v1")).items() if not k.startswith("lq_proj.")}
    torch.save(state | {"core.pos_embed": torch.zeros(1)}, tmp_path / "pixeldit.pth")
    assert main(["convert", str(tmp_path / "pixeldit.pth")]) == 0
    out = tmp_path / "pixeldit.safetensors"
    assert all(k.startswith("core.") for k in load_file(out)) and "family" not in metadata(out)
    assert read_checkpoint(out).config == replace(read_checkpoint(tmp_path / "pixeldit.pth").config)


def test_an_existing_file_is_not_overwritten(nvidias, tmp_path, capsys):
    out = tmp_path / "there.safetensors"
    out.write_bytes(b"mine")
    assert main(["convert", str(nvidias), "-o", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err and out.read_bytes() == b"mine"


def test_a_file_that_is_no_pid(tmp_path, capsys):
    torch.save({"decoder.conv_in.weight": torch.zeros(2)}, tmp_path / "vae.pth")
    assert main(["convert", str(tmp_path / "vae.pth")]) == 1
    error = capsys.readouterr().err
    assert "it seems to be a VAE" in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["vae.pth"]


def test_quantised_files_stay_as_they_are(tmp_path, capsys):
    state = weights(spec("flux_v1"))
    layer = "patch_blocks.0.attn.qkv_x"
    state[f"{layer}.weight"] = state[f"{layer}.weight"].to(torch.float8_e4m3fn)
    conf = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    source = tmp_path / "flux_fp8_scaled.safetensors"
    save_file(state | {f"{layer}.weight_scale": torch.ones(()), f"{layer}.{CONF}": conf}, source)
    assert main(["convert", str(source), "-o", str(tmp_path / "out.safetensors")]) == 1
    assert "its weights are quantised (float8_e4m3fn)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a/pid.pth", "a/pid.safetensors"),
        ("PiD_x_4step/model_ema_bf16.pth", "PiD_x_4step/PiD_x_4step.safetensors"),
        ("a/pid.safetensors", "a/pid.safetensors"),
    ],
)
def test_default_names(tmp_path, name, target):
    assert default_target(tmp_path / name) == tmp_path / target
