"""The made-up full-size checkpoints have the released files' names and shapes."""

import json

import pytest
import torch

from benchmarks.synthetic import file_shapes, file_tensors, full_size_config, write_safetensors
from pid_core import PiDConfig, load_network, read_checkpoint
from support.goldens import FOLDER, spec

SHAPES = json.loads((FOLDER / "full_size_param_shapes.json").read_text(encoding="utf-8"))
BASE = "v1_16ch(flux,sd3,qwen)"
RELEASED = {
    ("v1", "flux"): BASE,
    ("v1", "sd3"): BASE,
    ("v1", "flux2"): "v1_flux2",
    ("v1", "sdxl"): "v1_sdxl",
    ("v1.5", "flux"): "v1pt5_16ch_student_file(no_aux)",
    ("v1.5", "qwenimage"): "v1pt5_16ch_student_file(no_aux)",
    ("v1.5", "flux2"): "v1pt5_flux2",
}


def released_shapes(key: str) -> dict[str, tuple[int, ...]]:
    entry = SHAPES[key]
    shapes = dict(SHAPES[BASE]["shapes"]) | entry.get("added_or_changed", {})
    aux = "lq_proj.lq_aux_rgb_head."  # in the listing of one variant, in no student's file
    gone = set(entry.get("removed", []))
    return {k: tuple(v) for k, v in shapes.items() if k not in gone and not k.startswith(aux)}


@pytest.mark.parametrize(("version", "family"), RELEASED)
def test_names_and_shapes_are_the_released_ones(version, family):
    made = file_shapes(full_size_config(version, family))
    assert made == {f"net.{k}": v for k, v in released_shapes(RELEASED[version, family]).items()}


def test_a_pair_that_was_never_released():
    with pytest.raises(ValueError, match="no v1.5 for sdxl"):
        full_size_config("v1.5", "sdxl")


@pytest.fixture
def small() -> PiDConfig:
    tensors = {k: torch.empty(v, device="meta") for k, v in spec("flux_v1")["tensors"].items()}
    return PiDConfig.from_state_dict(tensors)


def test_both_layouts_hold_the_same_network(small, tmp_path):
    nets = []
    for layout in ("nvidia", "comfyui"):
        path = tmp_path / f"{layout}.safetensors"
        write_safetensors(path, small, seed=3, layout=layout)
        assert {k for k, _ in file_tensors(small, 3, layout)} == set(file_shapes(small, layout))
        nets.append(load_network(path).state_dict())
    assert nets[0].keys() == nets[1].keys()
    assert all(torch.equal(nets[0][k], nets[1][k]) for k in nets[0])


def test_a_pth_file_with_a_caption_loads(small, tmp_path):
    torch.save(dict(file_tensors(small, caption=5)), tmp_path / "small.pth")
    checkpoint = read_checkpoint(tmp_path / "small.pth")
    assert checkpoint.config == small
    assert checkpoint.default_caption.shape == (1, 5, small.caption_width)
