"""`python -m pid_core`, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from goldens import spec, weights
from PIL import Image
from safetensors.torch import save_file

from pid_core import NANO_PATH
from pid_core.__main__ import main
from pid_core.checkpoint import read_checkpoint
from pid_core.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "pid_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def photo(tmp_path):
    """A 21 x 17 gradient, odd on both sides."""
    path = tmp_path / "photo.png"
    ramp = np.linspace(40, 215, 21, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (17, 21, 3)).copy()).save(path)
    return path


def test_makes_a_picture_four_times_the_size_that_looks_like_the_first(photo, tmp_path):
    out = tmp_path / "new folder" / "out.png"
    done = run(photo, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    steps = read_checkpoint(NANO_PATH).config.steps  # what the bundled model says it is best at
    assert f"step {steps} of {steps}" in done.stderr
    with Image.open(out) as big, Image.open(photo) as small:
        assert big.size == (84, 68)
        plain = small.convert("RGB").resize(big.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(big, int) - np.asarray(plain, int)).mean() < 6
    assert list(out.parent.iterdir()) == [out]  # nothing left beside it


def test_seed_decides_the_picture(photo, tmp_path):
    pictures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.png"
        assert run(photo, "-o", out, "--seed", seed, "--steps", 2, "--sigma", 0.3).returncode == 0
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sigma", "1.5"], "between 0 and 1"),
        (["--steps", "5"], "steps is 5, but 4-step checkpoints know 1 to 4"),
        (["--model", "missing.safetensors"], "no such file"),
    ],
)
def test_bad_settings_are_one_line(photo, tmp_path, arguments, message):
    done = run(photo, "-o", tmp_path / "out.png", *arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_a_picture_that_is_none(tmp_path):
    path = tmp_path / "photo.png"
    path.write_text("no picture")
    done = run(path, "-o", tmp_path / "out.png")
    assert done.returncode == 1
    assert done.stderr.strip() == f"pid_core: {path} is no picture that can be read"


def test_a_checkpoint_for_vae_latents_is_refused(photo, tmp_path):
    model = tmp_path / "sdxl.safetensors"
    save_file(weights(spec("sdxl_v1")), model)
    done = run(photo, "-o", tmp_path / "out.png", "--model", model)
    assert done.returncode == 1
    assert "decodes sdxl latents, not pictures" in done.stderr


def test_the_command_may_be_named(photo, tmp_path):
    short, named = tmp_path / "short.png", tmp_path / "named.png"
    assert main([str(photo), "-o", str(short), "--steps", "1"]) == 0
    assert main(["upscale", str(photo), "-o", str(named), "--steps", "1"]) == 0
    assert short.read_bytes() == named.read_bytes()


@pytest.mark.parametrize("isolated", [True, False])
def test_it_starts_by_its_path_from_any_folder(tmp_path, isolated):
    """As in ComfyUI's portable build, whose Python ignores the working folder."""
    command = [sys.executable, *["-I"] * isolated, str(ROOT), "fetch", "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors" in done.stdout


@pytest.mark.parametrize("way", [["-m", "pid_core"], [str(ROOT)]], ids=["module", "path"])
def test_a_python_without_torch_is_told_in_one_line(way):
    # -S: no installed packages at all
    done = subprocess.run([sys.executable, "-S", *way, "doctor"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("pid_core: this Python has no torch; run it with the Python that ComfyUI runs in")


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta", "xpu", ""])
def test_a_device_that_does_not_work(photo, tmp_path, device, capsys):
    assert main([str(photo), "-o", str(tmp_path / "out.png"), f"--device={device}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pid_core: device {device} does not work here") and line.endswith("or use cpu")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_code_page_loses_no_picture(tmp_path, encoding):
    path = tmp_path / "写真.png"
    Image.new("RGB", (4, 4)).save(path)
    out = tmp_path / "大.png"
    command = [sys.executable, "-m", "pid_core", str(path), "-o", str(out), "--steps", "1"]
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert out.exists() and done.stdout.decode("ascii").strip().endswith("\\u5927.png")


def test_stopping_it_is_no_error(photo, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pid_core.commands.upscale.decode", stopped)
    assert main([str(photo), "-o", str(tmp_path / "out.png")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "pid_core: stopped"
    assert list(tmp_path.iterdir()) == [photo]


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in arguments or COMMANDS)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_without_docstrings(command):
    """As with python -OO."""
    done = subprocess.run([sys.executable, "-OO", ".", *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: python custom_nodes/ComfyUI-PiDKit" in done.stdout
