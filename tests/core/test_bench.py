"""The command bench with tiny checkpoints: what it writes, that nothing private is in it, and what goes wrong."""

import getpass
import json
import socket
from pathlib import Path

import pytest
import torch

from pid_core.__main__ import main
from pid_core.bench import beside_core, measure, run, steps
from pid_core.bench.estimate import Estimate
from pid_core.bench.header import describe_config
from pid_core.bench.private import Scrub
from pid_core.bench.report import SCHEMA
from pid_core.commands import bench as command
from pid_core.model.config import RELEASED
from pid_core.windows.plan import TooLittleMemoryError
from support.tiny import save_tiny, tiny_config

PARTS = ["header", "load", "steps", "precision", "core", "seams", "nan"]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No ComfyUI is found, and the photo is small."""
    monkeypatch.setattr(command, "find_comfyui", lambda path=None: None)
    monkeypatch.setattr("pid_core.commands.bridges.find_comfyui", lambda path=None: None)
    monkeypatch.setattr(run, "CROP", {"cpu": 128})


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "home" / "alice" / "Secret Project"
    folder.mkdir(parents=True)
    return save_tiny(folder / "alices_flux.safetensors", "flux", "v1.5", caption=3, window_min=64, window_max=128)


def bench(tmp_path, *arguments, size="128"):
    """(exit code, Markdown, JSON) of a run."""
    out = tmp_path / "out"
    code = main(["bench", "-o", str(out), "--device", "cpu", "--size", size, *map(str, arguments)])
    return (
        code,
        (out / "pidkit_bench.md").read_text(encoding="utf-8"),
        json.loads((out / "pidkit_bench.json").read_text(encoding="utf-8")),
    )


def rows(report):
    return {row["part"]: row for row in report["rows"]}


def test_every_part_is_a_row_in_both_files(tmp_path, checkpoint, capsys):
    code, markdown, report = bench(tmp_path, "--model", checkpoint)
    assert code == 0 and report["complete"] and report["schema"] == SCHEMA
    assert [row["part"] for row in report["rows"]] == PARTS
    for row in report["rows"]:
        assert set(row) == {"part", "title", "text", "status", "values"}
        assert f"| {row['title']} | " in markdown and row["text"].replace("|", "\\|") in markdown
    found = rows(report)
    assert "hidden_size 32 (1536)" in found["header"]["text"] and found["header"]["values"]["as_released"] is False
    step = found["steps"]["values"]
    assert step["side"] == 128 and step["windows"] >= 1 and 0 < step["step_s"] < step["decode_s"] and step["finite"]
    assert step["expected_bytes"] > 0
    assert 20 < found["precision"]["values"]["db"] < 90
    assert found["core"]["status"] == found["seams"]["status"] == "not measured"
    assert "--comfyui PATH" in found["core"]["text"] and "needs the VAE of flux" in found["seams"]["text"]
    assert found["nan"]["values"] == {"decodes": 5, "repeated_calls": 0, "finite": True}
    said = capsys.readouterr()
    assert "this is a CPU" in said.err and "5 parts, about" in said.err and markdown in said.out


def test_the_bundled_model_is_what_is_left_and_draws_the_photo_in_windows(tmp_path, capsys):
    code, _, report = bench(tmp_path, "--quick", size="256")
    assert code == 0 and report["model"] == {"name": "pid_nano (bundled)", "dtype": "float32", "quick": True}
    seams = rows(report)["seams"]["values"]
    assert seams["windows"] == 4 and max(seams["height"], seams["width"]) <= 256 and seams["frame_ratio"] is None
    assert "the bundled model is taken" in capsys.readouterr().err


def test_nothing_private_is_in_the_files(tmp_path, checkpoint, monkeypatch):
    """Not even where every part fails with a message that is full of it."""
    monkeypatch.setenv("HOME", str(checkpoint.parents[1]))
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    monkeypatch.setattr(socket, "gethostname", lambda: "alices-laptop.lan")

    def fail(*_, **__):
        raise RuntimeError(f"alice on alices-laptop: {checkpoint} and C:\\Users\\alice\\x.txt, alices_flux.safetensors")

    monkeypatch.setattr(steps, "decode", fail)
    monkeypatch.setattr("pid_core.bench.precision.decode", fail)
    monkeypatch.setattr("pid_core.bench.nan_check.decode", fail)
    code, markdown, report = bench(tmp_path, "--model", checkpoint)
    assert code == 1 and rows(report)["steps"]["status"] == "failed"
    assert report["model"]["name"] == "another file, v1.5, flux"
    text = markdown + json.dumps(report)
    for secret in ("alice", "laptop", "Secret", "flux.safetensors", "photo", str(tmp_path), tmp_path.name, "\\x.txt"):
        assert secret.lower() not in text.lower(), secret


def test_a_released_name_is_told(tmp_path, checkpoint):
    known = checkpoint.rename(checkpoint.with_name("pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors"))
    _, _, report = bench(tmp_path, "--model", known, "--quick")
    assert report["model"]["name"] == known.name
    assert "RELEASED WITH 2,800,450,070" in rows(report)["header"]["text"]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), TooLittleMemoryError("no room"), MemoryError("")]
)
def test_what_does_not_fit_is_one_row_and_the_rest_goes_on(tmp_path, checkpoint, monkeypatch, error):
    def too_large(subject, side, count, **more):
        if side == 256:
            raise error
        return measured(subject, side, count, **more)

    measured = steps.measure_steps
    monkeypatch.setattr(steps, "measure_steps", too_large)
    out = tmp_path / "out"
    arguments = ["bench", "-o", str(out), "--model", str(checkpoint), "--size", "128", "256", "--device", "cpu"]
    assert main(arguments) == 0
    report = json.loads((out / "pidkit_bench.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in report["rows"] if row["part"] == "steps"] == ["measured", "out of memory"]
    assert report["complete"] and report["rows"][-1]["part"] == "nan"


def test_a_stop_keeps_the_rows_that_are_there(tmp_path, checkpoint, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pid_core.bench.precision.measure_precision", stop)
    code, markdown, report = bench(tmp_path, "--model", checkpoint)
    assert code == 130 and not report["complete"] and "the run was not finished" in markdown
    assert [row["part"] for row in report["rows"]] == PARTS[:3]
    assert markdown in capsys.readouterr().out


def test_a_second_run_leaves_the_first_alone(tmp_path, checkpoint):
    first = bench(tmp_path, "--model", checkpoint, "--quick")[1]
    assert bench(tmp_path, "--model", checkpoint, "--quick")[1] == first
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pidkit_bench.json",
        "pidkit_bench.md",
        "pidkit_bench_2.json",
        "pidkit_bench_2.md",
    ]


def test_cores_network_stands_beside_ours(tmp_path, checkpoint, monkeypatch):
    """Stood for by ours itself, a little off."""

    def make(net):
        def call(x, timestep, caption, latent, sigma):
            features = net.encode_lq(latent, *x.shape[-2:])
            return 1.01 * net(x, timestep, caption, lq_features=features, degrade_sigma=sigma)

        return {"sdpa": call}

    monkeypatch.setattr(command, "_core", lambda *_: (make, ""))
    _, _, report = bench(tmp_path, "--model", checkpoint, "--quick")
    values = rows(report)["core"]["values"]
    assert values["difference"] == pytest.approx(0.01 / 1.01, rel=1e-3) and values["core_attention"] == "sdpa"
    ours = beside_core.STEPS * values["step_s"] + values["trunk_s"]
    assert values["ratio"] == pytest.approx(beside_core.STEPS * values["core_step_s"] / ours)


def test_calls_that_were_repeated_are_counted(tmp_path, checkpoint, monkeypatch):
    decode = steps.decode

    def once_more(net, *args, **options):
        out = decode(net, *args, **options)
        net.repeated.append("the network at noise level 0.9 in bfloat16")
        return out

    monkeypatch.setattr(steps, "decode", once_more)
    _, markdown, report = bench(tmp_path, "--model", checkpoint, "--quick")
    assert rows(report)["nan"]["values"]["repeated_calls"] == 1 and "1 calls gave NaN" in markdown


def test_a_cpu_is_spared_large_sizes_and_a_card_is_not():
    config = RELEASED["v1.5"]
    slow, fast = (Estimate(config, torch.device(kind), rate) for kind, rate in (("cpu", 4e11), ("cuda", 3e14)))
    assert slow.choose_sizes(2, False) == [512, 1024] and slow.choose_sizes(2, True) == [512]
    assert fast.choose_sizes(4, False) == [2048, 4096] and fast.choose_sizes(4, True) == [2048]
    assert Estimate(config, torch.device("cpu"), 1e9).choose_sizes(2, False) == [256]


def test_a_released_configuration_is_known():
    row = describe_config(RELEASED["v1.5"])
    assert row.values["as_released"] and "all sizes are those of the released v1.5" in row.text
    assert "19 more" not in row.text
    assert describe_config(tiny_config("rgb")).values["as_released"] is None


def test_memory_of_a_cpu_is_seen():
    before = measure.own_memory()
    if before is None:
        pytest.skip("this system does not tell a process's memory")
    with measure.watched(torch.device("cpu")) as peak:
        block = torch.ones(40_000_000)
        for _ in range(10):
            block.add_(1)
        del block
    assert 120e6 < peak.bytes < 400e6


def test_a_name_that_begins_with_a_tilde_is_no_persons():
    assert Scrub([Path("~nobody-of-this-name/out")])("into ~nobody-of-this-name/out") == "into ..."


def test_paths_of_every_kind_are_taken_out():
    scrub = Scrub([Path("/srv/bob/models/mine.safetensors")])
    line = scrub(
        "no file ~/x/y.bin, ./a/b, C:\\Users\\bob\\z.png, \\\\nas\\share, /srv/bob/models/mine.safetensors; 3/4, ab"
    )
    for secret in ("bob", "mine", "x/y", "nas", "a/b", "srv", "z.png"):
        assert secret not in line, line
    quoted = scrub("[Errno 2] No such file: 'D:\\\\My Work\\\\for Eve, Ltd\\\\x.png' -> \"/m/a b.png\", and 'so on'")
    assert quoted == "[Errno 2] No such file: '...' -> \"...\", and 'so on'"
    assert line.endswith("; 3/4, ab") and "\n" not in scrub("two\nlines")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--size", "8"], "a side is 2K, 4K or 128 to"),
        (["--size", "12K"], "a side is 2K, 4K or 128 to"),
        (["--model", "nowhere.safetensors"], "no such file"),
        (["--picture", "nowhere.png"], "there is no file"),
        (["--vae", "nowhere.safetensors", "--model", "nano"], "takes pictures as they are"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_no_file(tmp_path, capsys, arguments, line):
    arguments = [str(command.NANO_PATH) if one == "nano" else one for one in arguments]
    try:
        code = main(["bench", "-o", str(tmp_path / "out"), *arguments])
    except SystemExit as end:  # argparse
        code = end.code
    assert code and line in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
