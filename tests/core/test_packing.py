"""`convert --to`: weights of 8 bits in ComfyUI's formats, and which layers keep theirs."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pid_core import PiDNetwork, read_checkpoint
from pid_core.__main__ import main
from pid_core.checkpoints.convert import convert, default_target
from pid_core.checkpoints.packing import PACKED, fits, pack, rounded_input, unpack
from pid_core.checkpoints.packing_rule import linear_layers, packed_layers, why_not_packed
from pid_core.checkpoints.quantised import CONF, FORMATS
from support.sizes import PACKABLE


@pytest.mark.parametrize(("to", "most"), [("fp8", 0.03), ("int8", 0.012), ("mxfp8", 0.03)])
@pytest.mark.parametrize("shape", [(32, 64), (160, 512)])
def test_unpacked_is_close_to_what_was_packed(to, most, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[0] = 0
    tensors = pack(to, weight)
    assert tensors["weight"].shape == shape and tensors["weight"].dtype.itemsize == 1
    off = (unpack(to, tensors) - weight).norm() / weight.norm()
    assert 1e-4 < off < most
    assert not unpack(to, tensors)[0].any()  # a row of zeros stays one
    off = (rounded_input(to, weight) - weight).norm() / weight.norm()
    assert 1e-4 < off < most


def test_rotation_holds_a_large_value_that_one_scale_would_drown_the_rest_for():
    weight = torch.randn(16, 256, generator=torch.Generator().manual_seed(1))
    weight[:, 7] = 50.0
    off = (unpack("int8", pack("int8", weight)) - weight)[:, 8:].norm() / weight[:, 8:].norm()
    plain = (weight / (weight.abs().amax(1, keepdim=True) / 127)).round() * (weight.abs().amax(1, keepdim=True) / 127)
    assert off < 0.6 * (plain - weight)[:, 8:].norm() / weight[:, 8:].norm()


@pytest.mark.parametrize("to", PACKED)
def test_the_file_is_a_quantised_checkpoint_with_the_sensitive_layers_as_they_were(packable, to):
    target, config = convert(packable, to=to, schedule="distilled")
    assert target.name == f"pid_flux_{to}.safetensors" and target == default_target(packable, to)
    before, after = read_checkpoint(packable), read_checkpoint(target)
    assert after.config == config and PACKED[to].name in FORMATS
    layers = linear_layers(config)
    assert sorted(after.quantised) == sorted(packed_layers(config, to))
    assert all(why_not_packed(name) is None and fits(to, layers[name]) for name in after.quantised)
    for name, tensor in after.state_dict.items():
        if name.removesuffix(".weight") not in after.quantised:
            assert torch.equal(tensor, before.state_dict[name]), name
    assert target.stat().st_size < 0.9 * packable.stat().st_size
    tensors = load_file(target)
    conf = json.loads(bytes(tensors[f"patch_blocks.0.mlp_x.w2.{CONF}"].tolist()))
    assert conf["format"] == PACKED[to].name and conf.get("convrot", False) == (to == "int8")


def test_what_is_not_packed():
    plain = {name for name in linear_layers(PACKABLE) if why_not_packed(name)}
    assert {name.split(".")[0] for name in plain} >= {
        "final_layer",
        "lq_proj",
        "s_embedder",
        "t_embedder",
        "y_embedder",
    }
    assert "pixel_blocks.0.adaLN_modulation.0" in plain and "pixel_blocks.0.mlp.fc1" in plain
    left = {name.split(".", 2)[2] for name in linear_layers(PACKABLE) if name not in plain}
    assert left == {f"attn.{part}_{side}" for part in ("qkv", "proj") for side in "xy"} | {
        f"mlp_{side}.w{index}" for side in "xy" for index in (1, 2, 3)
    }


def test_packed_files_are_not_packed_again(packable, capsys):
    target, _ = convert(packable, to="fp8")
    assert main(["convert", str(target), "--to", "int8"]) == 1
    error = capsys.readouterr().err
    assert "its weights are quantised (float8_e4m3fn)" in error and error.count("\n") == 1
    assert sorted(p.name for p in packable.parent.iterdir()) == sorted([packable.name, target.name])


def test_an_existing_file_stays(packable, capsys):
    default_target(packable, "mxfp8").write_bytes(b"mine")
    assert main(["convert", str(packable), "--to", "mxfp8"]) == 1
    error = capsys.readouterr().err
    assert "exists already" in error and error.count("\n") == 1
    assert default_target(packable, "mxfp8").read_bytes() == b"mine"


def test_a_format_that_is_none(packable):
    with pytest.raises(ValueError, match="packed as fp8, int8, mxfp8, not as nf4"):
        convert(packable, to="nf4")


def test_nothing_is_left_where_the_disk_is_full(packable, monkeypatch, capsys):
    def full(tensors, path, metadata):
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pid_core.checkpoints.convert.save_file", full)
    assert main(["convert", str(packable), "--to", "fp8"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert [p.name for p in packable.parent.iterdir()] == [packable.name]


def test_sizes_that_do_not_fit(tmp_path, capsys):
    config = replace(PACKABLE, hidden_size=40, mlp_size=72, pixel_attn_size=24, family=None)
    save_file(
        {k: torch.zeros(v.shape) for k, v in PiDNetwork(config).state_dict().items()}, tmp_path / "odd.safetensors"
    )
    assert main(["convert", str(tmp_path / "odd.safetensors"), "--family", "flux", "--to", "int8"]) == 1
    error = capsys.readouterr().err
    assert "no layer of this checkpoint can be packed as int8" in error and error.count("\n") == 1
