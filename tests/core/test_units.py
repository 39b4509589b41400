"""The reference's own intermediate values, `golden/units.safetensors`, piece by piece."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pid_core import degrade, distilled_sigmas
from pid_core.model.lq import LQProjector, SigmaGate
from pid_core.model.positions import image_rope, rotate, sine_cosine, text_rope, timestep_features
from support.goldens import FOLDER
from support.sizes import SMALL

UNITS = load_file(FOLDER / "units.safetensors")
IMAGE_ROPES = sorted({k.rpartition(".")[0] for k in UNITS if k.startswith("rope2d_")})
CHECKED = ("rope2d_", "rope_text.", "rope_apply.", "sincos.", "timestep.", "gate.", "noise.", "t_list.steps", "flux2.")


def close(made, name, tolerance=2e-6):
    assert made.dtype == torch.float32
    assert made.shape == UNITS[name].shape
    assert (made - UNITS[name]).abs().max() <= tolerance


def test_no_unit_is_left_out():
    # the even grid is the undistilled sampler's, which this pack does not have
    assert {k for k in UNITS if not k.startswith(CHECKED)} == {"t_list.linspace4"}


@pytest.mark.parametrize("name", IMAGE_ROPES)
def test_image_rope(name):
    head_dim, rows, cols = map(int, re.search(r"hd(\d+)\.h(\d+)w(\d+)", name).groups())
    reference = re.search(r"ref(\d+)", name)
    cos, sin = image_rope(rows, cols, head_dim, reference=reference and int(reference[1]))
    close(cos, f"{name}.cos", 2e-5)
    close(sin, f"{name}.sin", 2e-5)


def test_text_rope():
    cos, sin = text_rope(300, 64)
    close(cos, "rope_text.hd64.len300.cos", 5e-5)  # angles up to 299 rad in float32
    close(sin, "rope_text.hd64.len300.sin", 5e-5)


@pytest.mark.parametrize("which", ["q", "k"])
def test_rotation(which):
    name = next(n for n in IMAGE_ROPES if "hd64.h6w10.ref64" in n)
    x = UNITS[f"rope_apply.{which}"]
    close(rotate(x, (UNITS[f"{name}.cos"], UNITS[f"{name}.sin"])), f"rope_apply.{which}_out")
    close(rotate(x, image_rope(6, 10, 64, reference=64)), f"rope_apply.{which}_out", 5e-5)


def test_pixel_embedding():
    columns, rows = sine_cosine(0, 48, 8), sine_cosine(0, 32, 8)
    both = torch.cat([columns[None].expand(32, 48, 8), rows[:, None].expand(32, 48, 8)], dim=-1)
    close(both.flatten(0, 1), "sincos.dim16.h32w48", 1e-7)


def test_timestep_features():
    close(timestep_features(UNITS["timestep.t"], 256), "timestep.freq256", 1e-4)  # angles up to 999 rad in float32


@pytest.mark.parametrize(("name", "rows"), [("gate.per_token", 1), ("gate.per_token_per_dim", 8)])
def test_gate(name, rows):
    gate = SigmaGate(8, rows)
    gate.load_state_dict(
        {k: UNITS[f"{name}.{k}"] for k in ("log_alpha", "content_proj.weight", "content_proj.bias")}, strict=True
    )
    x, features, sigma = (UNITS[f"{name}.{k}"] for k in ("x", "lq", "sigma"))
    with torch.no_grad():
        out = gate(x, features, sigma.view(-1, 1, 1))
    close(out, f"{name}.out")
    strong = features.abs() > 0.1
    opened = ((out - x) / features)[strong]
    assert (opened - UNITS[f"{name}.gate"].expand_as(x)[strong]).abs().max() < 1e-4


@pytest.mark.parametrize(("form", "family"), [("flow", "flux"), ("vp", "sdxl")])
@pytest.mark.parametrize("sigma", [0.0, 0.25, 0.8, 1.0])
def test_noise_forms(form, family, sigma, monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: UNITS["noise.eps"])
    close(degrade(UNITS["noise.z0"], sigma, family, seed=0), f"noise.{form}.{sigma}", 1e-6)


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_schedules(steps):
    assert torch.equal(distilled_sigmas(steps), UNITS[f"t_list.steps{steps}"])


@pytest.mark.parametrize("steps", [5, 6, 8])
def test_longer_schedules_only_repeat_the_levels_and_are_refused(steps):
    assert set(UNITS[f"t_list.steps{steps}"].tolist()) == set(distilled_sigmas(4).tolist())
    with pytest.raises(ValueError, match=f"steps is {steps}, but 4-step"):
        distilled_sigmas(steps)


def test_flux2_unpacking():
    """What the projector's first convolution is given of a latent whose channels hold 2 x 2 cells."""
    packed, unpacked = UNITS["flux2.unpatchify_in"], UNITS["flux2.unpatchify_out"]
    config = replace(SMALL, latent_channels=8, latent_down=16, latent_unpack=2, lq_width=32)
    projector, seen = LQProjector(config), []
    projector.latent_proj[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    cells = config.latent_cell // config.patch_size
    projector(packed, *(cells * side for side in packed.shape[-2:]))
    assert torch.equal(seen[0][..., :: cells // 2, :: cells // 2], unpacked)
