"""What a file's path tells: only where its shapes and metadata do not, and never against the user."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pid_core import read_checkpoint
from pid_core.checkpoints.hints import AUX_HEAD, family_hint, field_hints
from support.goldens import spec, weights

PID = ["net.lq_proj.latent_proj.0.weight", "net.s_embedder.proj.weight"]
TEACHER = [*PID, f"net.{AUX_HEAD}0.weight"]


@pytest.mark.parametrize(
    ("path", "names", "schedule"),
    [
        ("PiD_v1pt5_res2kto4k_sr4x_official_flux_undistilled/model_ema_bf16.pth", TEACHER, "undistilled"),
        ("PiD_v1pt5_res2kto4k_sr4x_official_flux_distill_4step/model_ema_bf16.pth", PID, "distilled"),
        ("diffusion_models/pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors", PID, "distilled"),
        ("diffusion_models/pid_flux1_Undistilled.safetensors", PID, "undistilled"),
        ("diffusion_models/renamed.safetensors", TEACHER, "undistilled"),
        ("diffusion_models/renamed.safetensors", PID, "distilled"),
        ("diffusion_models/4step.safetensors", TEACHER, "distilled"),
        (None, TEACHER, "undistilled"),
        (None, PID, "distilled"),
    ],
)
def test_schedule(path, names, schedule):
    assert field_hints(names, path and Path(path))["schedule"] == schedule


def test_pixeldits_rope():
    plain = ["s_embedder.proj.weight", "pixel_embedder.proj.weight"]
    assert field_hints([f"core.{n}" for n in plain]) == {"schedule": "undistilled", "rope_mode": "original"}
    assert field_hints([f"net.{n}" for n in plain]) == {"schedule": "undistilled", "rope_mode": "ntk_aware"}


@pytest.mark.parametrize(
    ("path", "channels", "family"),
    [
        ("PiD_res2k_sr4x_official_flux_distill_4step/model_ema_bf16.pth", 16, "flux"),
        ("PiD_res2k_sr4x_official_sd3_distill_4step/model_ema_bf16.pth", 16, "sd3"),
        ("PiD_v1pt5_res2kto4k_sr4x_official_qwenimage_distill_4step/model_ema_bf16.pth", 16, "qwenimage"),
        ("diffusion_models/pid_flux1_512_to_2048_4step_bf16.safetensors", 16, "flux"),
        ("diffusion_models/pid_sd3_512_to_2048.safetensors", 16, "sd3"),
        ("diffusion_models/pid-z_image.safetensors", 16, "flux"),
        ("diffusion_models/anima_pid.safetensors", 16, "qwenimage"),
        ("diffusion_models/pid_krea2_512.safetensors", 16, "qwenimage"),
        ("diffusion_models/flux_or_sd3.safetensors", 16, None),
        ("diffusion_models/pid.safetensors", 16, None),
        ("diffusion_models/pid_flux1.safetensors", 20, None),
        (None, 16, None),
    ],
)
def test_family(path, channels, family):
    assert family_hint(channels, path and Path(path)) == family


def test_the_file_and_the_user_outrank_the_name(tmp_path):
    state = weights(spec("flux_v1"))
    path = tmp_path / "pid_sd3_undistilled.safetensors"
    save_file(state, path)
    read = read_checkpoint(path).config
    assert (read.family, read.schedule) == ("sd3", "undistilled")
    read = read_checkpoint(path, family="flux", schedule="distilled").config
    assert (read.family, read.schedule) == ("flux", "distilled")
    save_file(state, path, {"pid_config": '{"family": "qwenimage", "schedule": "distilled"}'})
    read = read_checkpoint(path).config
    assert (read.family, read.schedule) == ("qwenimage", "distilled")
    save_file({k: torch.zeros(1) for k in state}, path)
    with pytest.raises(ValueError, match="unknown schedule 'fast'"):
        read_checkpoint(state, schedule="fast")
