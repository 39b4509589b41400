"""`python -m pid_core`, run as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pid_core import NANO_PATH
from pid_core.__main__ import main
from pid_core.checkpoints.reading import read_checkpoint
from pid_core.commands import COMMANDS
from pid_core.latents.noise import degrade
from pid_core.latents.rgb import from_rgb_latent
from pid_core.model.cost import forward_flops, peak_bytes
from pid_core.version import pack_version
from pid_core.windows.plan import plan_flops
from support.goldens import spec, weights

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "pid_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def refused(capsys, *arguments) -> str:
    """The one line that a command ends in, which writes nothing else."""
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


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
    assert done.stderr.startswith("21 x 17 -> 84 x 68 on ")
    assert "in one frame, about 0.0 GB" in done.stderr and "100%" in done.stderr
    with Image.open(out) as big, Image.open(photo) as small:
        assert big.size == (84, 68)
        plain = small.convert("RGB").resize(big.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(big, int) - np.asarray(plain, int)).mean() < 6
    assert list(out.parent.iterdir()) == [out]  # nothing left beside it


def test_seed_decides_the_picture(photo, tmp_path):
    pictures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.png"
        assert main([str(photo), "-o", str(out), "--seed", str(seed), "--steps", "2", "--sigma", "0.3"]) == 0
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sigma", "1.5"], "between 0 and 1"),
        (["--steps", "5"], "steps is 5, but 4-step checkpoints know 1 to 4"),
        (["--model", "missing.safetensors"], "no such file"),
        (["--seed", str(2**64)], "must be from 0 to 2^64 - 1"),
        (["--seed", "-1"], "must be from 0 to 2^64 - 1"),
        (["--factor", "0"], "factor must be above 0"),
        (["--factor", "nan"], "factor must be above 0"),
        (["--factor", "1000"], "at most 16384 pixels a side are possible"),
    ],
)
def test_bad_settings_are_one_line(photo, tmp_path, capsys, arguments, message):
    assert message in refused(capsys, photo, "-o", tmp_path / "out.png", *arguments)
    assert not (tmp_path / "out.png").exists()


def test_a_picture_that_is_none(tmp_path):
    path = tmp_path / "photo.png"
    path.write_text("no picture", encoding="utf-8")
    done = run(path, "-o", tmp_path / "out.png")
    assert done.returncode == 1
    assert done.stderr.strip() == "pid_core: photo.png is no picture that can be read"


def test_a_checkpoint_for_vae_latents_is_refused(photo, tmp_path, capsys):
    model = tmp_path / "sdxl.safetensors"
    save_file(weights(spec("sdxl_v1")), model)
    line = refused(capsys, photo, "-o", tmp_path / "out.png", "--model", model)
    assert "sdxl.safetensors decodes latents of sdxl, not pictures" in line


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

    monkeypatch.setattr("pid_core.upscale.upscaler.decode", stopped)
    assert main([str(photo), "-o", str(tmp_path / "out.png")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "pid_core: stopped"
    assert list(tmp_path.iterdir()) == [photo]


def test_ctrl_c_while_it_starts_is_one_line(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pid_core.__main__.import_module", stopped)
    assert main(["bench"]) == 130 and capsys.readouterr().err.strip() == "pid_core: stopped"


def test_ctrl_c_while_it_draws_ends_in_one_line(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 900, 3), np.uint8)).save(path)
    command = [sys.executable, "-m", "pid_core", str(path), "-o", str(tmp_path / "out.png")]
    # a shell's background jobs are deaf to Ctrl-C, and these tests may run in one
    hearing = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    done = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **hearing)
    seen = b""
    while b"/s" not in seen.rpartition(b"?FLOP/s")[2]:  # a rate: it draws
        seen += (part := os.read(done.stderr.fileno(), 1000))
        assert part, seen
    done.send_signal(signal.SIGINT)
    out, rest = done.communicate()
    assert done.returncode == 130 and out == b""
    assert b"Traceback" not in rest and rest.splitlines()[-1] == b"pid_core: stopped"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("size", "factor", "result"), [((333, 333), 2, (666, 666)), ((21, 17), 4, (84, 68)), ((25, 35), 1.5, (38, 52))]
)
def test_the_factor_is_the_factor(tmp_path, size, factor, result):
    path, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.new("RGB", size, (90, 120, 200)).save(path)
    assert main([str(path), "-o", str(out), "--factor", str(factor)]) == 0
    with Image.open(out) as picture:
        assert picture.size == result
        assert np.abs(np.asarray(picture, int) - (90, 120, 200)).mean() < 4


def upscaled(monkeypatch, path, out, *arguments):
    """The picture that stands in for a decode: the latent, plainly enlarged."""

    def plain(net, latent, degrade_sigma=0.0, **options):
        return torch.nn.functional.interpolate(from_rgb_latent(latent), scale_factor=4, mode="bicubic")

    monkeypatch.setattr("pid_core.upscale.upscaler.decode", plain)
    assert main([str(path), "-o", str(out), *arguments]) == 0
    return np.asarray(Image.open(out))


def test_a_phones_picture_comes_out_upright_and_in_srgb(tmp_path, monkeypatch):
    """Rotated by EXIF, 16-bit grey, CMYK: all came out wrong without a word."""
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.linspace(0, 255, 24, dtype=np.uint8)[:, None].repeat(12, 1)
    path = tmp_path / "phone.jpg"
    Image.fromarray(np.stack([ramp] * 3, -1)).save(path, exif=exif, quality=95)
    out = upscaled(monkeypatch, path, tmp_path / "phone.png")
    assert out.shape == (48, 96, 3) and out[24, 8, 0] > 200 and out[24, 88, 0] < 50
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 20000, np.uint16)).save(deep)
    assert abs(int(upscaled(monkeypatch, deep, tmp_path / "deep_4x.png")[16, 16, 0]) - 78) <= 1
    cmyk = tmp_path / "cmyk.tif"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk)
    assert (upscaled(monkeypatch, cmyk, tmp_path / "cmyk.png")[16, 16] == (255, 0, 0)).all()


def test_transparency_is_kept_or_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "glass.png"
    Image.new("RGBA", (9, 7), (200, 40, 40, 100)).save(path)
    out = upscaled(monkeypatch, path, tmp_path / "out.png")
    assert out.shape == (28, 36, 4) and abs(int(out[14, 18, 3]) - 100) <= 1
    assert main([str(path), "-o", str(tmp_path / "out.jpg")]) == 1
    assert "JPEG cannot hold" in capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_written_is_found_before_the_decode(photo, tmp_path, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("it began to draw")

    monkeypatch.setattr("pid_core.upscale.upscaler.decode", never)
    monkeypatch.setattr("pid_core.upscale.upscaler.load_network", never)
    there = tmp_path / "there.png"
    there.write_bytes(b"mine")
    for out, words in [
        (there, "add --overwrite"),
        (photo, "is the picture itself"),
        (tmp_path / "out.doc", "pictures are written as .png"),
        (tmp_path, "ends in 'nothing'" if not tmp_path.suffix else "pictures are written as"),
        (photo / "sub" / "out.png", "so no folder can be made there"),
    ]:
        assert main([str(photo), "-o", str(out)]) == 1
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert main([str(photo), "-o", str(photo), "--overwrite"]) == 1  # never the source
    assert there.read_bytes() == b"mine"


def test_overwrite_replaces_and_the_file_says_what_made_it(photo, tmp_path, monkeypatch):
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    upscaled(monkeypatch, photo, out, "--overwrite", "--seed", str(2**64 - 1), "--sigma", "0.25")
    about = json.loads(Image.open(out).info["pidkit"])
    assert about["seed"] == 2**64 - 1 and about["degrade_sigma"] == 0.25 and about["model"] == NANO_PATH.name
    assert about["steps"] == read_checkpoint(NANO_PATH).config.steps and about["software"].endswith(pack_version())


def test_sigma_is_the_noise_that_is_added_and_what_the_network_is_told(photo, tmp_path, monkeypatch):
    calls = []

    def seen(net, latent, degrade_sigma=0.0, **_):
        calls.append((latent, degrade_sigma))
        return torch.zeros(1, 3, 4 * 2 * latent.shape[-2], 4 * 2 * latent.shape[-1])

    monkeypatch.setattr("pid_core.upscale.upscaler.decode", seen)
    for name, arguments in (("plain", []), ("noisy", ["--sigma", "0.25"])):
        assert main([str(photo), "-o", str(tmp_path / f"{name}.png"), "--seed", "3", *arguments]) == 0
    (clean, nothing), (noised, level) = calls
    assert (nothing, level) == (0.0, 0.25)
    assert torch.equal(noised, degrade(clean, 0.25, "rgb", 3))


def test_a_large_picture_goes_in_windows_and_that_is_said_before(tmp_path, monkeypatch, capsys):
    """A call on the whole frame would take 2 GB, and the network was trained on pieces of at most 512."""
    path, plans = tmp_path / "photo.png", []

    def planned(net, latent, windows, size, degrade_sigma=0.0, **options):
        err = capsys.readouterr().err
        plans.append((windows, err.splitlines()[0]))
        return torch.zeros(1, 3, *size)

    monkeypatch.setattr("pid_core.upscale.upscaler.decode", planned)
    Image.new("RGB", (1000, 750)).save(path)
    assert main([str(path), "-o", str(tmp_path / "out.jpg")]) == 0
    ((plan, line),) = plans
    config = read_checkpoint(NANO_PATH).config
    assert max(plan.size) <= config.window_max and plan.count > 50
    window, frame = (peak_bytes(config, *size, dtype_bytes=4, kind="plain") for size in (plan.size, (3000, 4000)))
    assert window < frame / 20 and plan_flops(plan, config) < 2 * forward_flops(config, 3000, 4000)
    assert f"in {plan.count} windows of {plan.size[1]} x {plan.size[0]}" in line and " GB, " in line and "TFLOP" in line


def test_too_little_memory_is_said_before(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pid_core.upscale.upscaler.free_memory", lambda device: 1e5)
    assert main([str(photo), "-o", str(tmp_path / "out.png")]) == 1
    assert "too little memory for 88 x 72 pixels" in capsys.readouterr().err.splitlines()[-1]


def test_out_of_memory_is_one_line(photo, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("pid_core.upscale.upscaler.decode", full)
    assert main([str(photo), "-o", str(tmp_path / "out.png")]) == 1
    assert "pid_core: out of memory: close other programs" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in arguments or COMMANDS)


def test_help_without_docstrings():
    """As with python -OO."""
    code = """
import sys
sys.path.insert(0, ".")
from pid_core.__main__ import COMMANDS, main
for command in ([], *([name] for name in COMMANDS)):
    try:
        main([*command, "--help"])
    except SystemExit as ended:
        print("ended with", ended.code)
"""
    done = subprocess.run([sys.executable, "-OO", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: python custom_nodes/ComfyUI-PiDKit") == 1 + len(COMMANDS)
    assert done.stdout.count("ended with 0") == 1 + len(COMMANDS)
