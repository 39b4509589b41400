"""`batch`: whatever fails or dies, every row ends once, with the picture that the plain loop gives it."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pid_core import NANO_PATH
from pid_core.__main__ import main
from pid_core.batch.children import start_deaf
from pid_core.batch.encoding import with_captions
from pid_core.batch.jobs import Options, jobs_of, with_key
from pid_core.batch.plan import jobs_in, survey
from pid_core.batch.report import FOLDER, NOTHING, REPLACED, Report, failed_keys
from pid_core.batch.results import RunStoppedError, result_of
from pid_core.batch.rows import Row, check_sigmas, read_rows
from pid_core.batch.run_row import run_row
from pid_core.batch.shards import Shard, find_shard
from pid_core.batch.texts import CaptionStore
from pid_core.batch.worker import open_runner
from pid_core.captions.fingerprint import fingerprint
from pid_core.images.files import read_about, read_picture
from pid_core.latents.files import SavedLatent, latent_bytes
from pid_core.latents.rgb import to_rgb_latent
from pid_core.names import LONGEST_NAME
from support import batch_faults

ROOT = Path(__file__).parents[2]
ALL = Shard()


def photos(folder, count, size=8):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 255, (size, size + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def options(out, **more):
    return Options(str(out), str(NANO_PATH), fingerprint(NANO_PATH), **more)


@pytest.fixture(scope="module")
def runner_for():
    """A runner with the bundled model, loaded once."""
    loaded = open_runner(options("nowhere"), "cpu")

    def make(chosen):
        return type(loaded)(chosen, loaded.upscaler, sleep=lambda seconds: None)

    return make


def plainly(runner_for, source, out, shard=ALL, **more):
    """The plain loop: results by id, and the outputs' bytes by name."""
    chosen = options(out, **more)
    runner = runner_for(chosen)
    results = [run_row(runner, job) for job in jobs_in(str(source), chosen, shard)]
    return results, outputs(out)


def outputs(out):
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def report(out, shard=""):
    return [
        json.loads(line) for line in Path(out, FOLDER, f"report{shard}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def batch(*arguments):
    return main(["batch", *map(str, arguments)])


def driver(kills, last, *arguments):
    """Its exit code, in a process that may die."""
    script = [sys.executable, batch_faults.__file__, kills, str(last), "batch", *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(script, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    return done.returncode


def test_workers_and_the_driver_are_killed_and_every_picture_is_the_plain_loops(tmp_path, runner_for):
    source, out = photos(tmp_path / "in", 200), tmp_path / "out"
    _, expected = plainly(runner_for, source, tmp_path / "plain")
    settings = source, "--out", out, "--workers", 2, "--threads", 1
    assert driver("10,30", 60, *settings) == -9
    assert driver("20,80", 130, *settings) == -9
    assert driver("150", 0, *settings) == 0
    assert outputs(out) == expected and len(expected) == 200  # and so no unfinished files
    lines = report(out)
    assert Counter(line["id"] for line in lines) == Counter(str(path) for path in sorted(source.iterdir()))
    assert {line["status"] for line in lines} <= {"done", "kept"}
    assert not list(Path(out, FOLDER).glob("begun*"))


def test_a_row_that_kills_its_worker_ends_as_crashed_and_its_neighbours_are_done(tmp_path, monkeypatch, capsys):
    source, out, manifest = photos(tmp_path / "in", 9), tmp_path / "out", tmp_path / "rows.jsonl"
    entries = [{"image": str(path)} for path in sorted(source.iterdir())]
    entries[3]["id"] = "deadly"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    entries += [{"image": str(broken), "id": "broken"}, {"image": str(tmp_path / "gone.png"), "id": "gone"}]
    manifest.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    monkeypatch.setattr("pid_core.commands.engines.no_bridge", batch_faults.deadly)
    assert batch(manifest, "--out", out, "--workers", 2, "--threads", 1) == 1
    lines = {line["id"]: line for line in report(out)}
    assert Counter(line["status"] for line in lines.values()) == {"done": 8, "crashed": 1, "failed": 2}
    assert lines["deadly"]["attempts"] == 3 and "killed by signal 9" in lines["deadly"]["error"]
    assert lines["broken"]["error"] == "broken.png is no picture that can be read"
    assert "there is no file" in lines["gone"]["error"] and len(outputs(out)) == 8
    # what failed is not tried again unless it is asked for
    Image.new("RGB", (8, 8)).save(broken)
    capsys.readouterr()
    assert batch(manifest, "--out", out) == 1 and len(outputs(out)) == 8
    err = capsys.readouterr().err
    assert "11/11" in err and "3 failed in an earlier run and were not tried again: --retry failed takes them" in err
    monkeypatch.undo()
    capsys.readouterr()
    assert batch(manifest, "--out", out, "--retry", "failed", "--json") == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows == {"done": 2, "kept": 8, "failed": 1}
    assert Counter(line["id"] for line in report(out)).most_common(1)[0][1] == 1


def test_a_manifest_of_nvidias_is_taken_as_it_is(tmp_path, runner_for):
    source = photos(tmp_path / "in", 3)
    lines = [json.dumps({"image": f"in/{n:03}.png", "prompt": "a photo"}) for n in range(3)]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    results, made = plainly(runner_for, manifest, tmp_path / "out", sigmas=(0.0, 0.2))
    assert [result.status for result in results] == ["done"] * 6
    assert set(made) == {f"{n:08}_{n:03}_{sigma}.png" for n in range(3) for sigma in ("0", "0.2")}
    assert [result.id for result in results[::2]] == [f"in/{n:03}.png" for n in range(3)] and source.is_dir()


def test_the_same_rows_from_jsonl_csv_and_parquet(tmp_path):
    rows = [{"image": "a.png", "degrade_sigma": 0.2, "id": "one", "shelf": "x"}, {"image": "b.png", "seed": 7}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "rows.csv").write_text(
        "image,degrade_sigma,id,shelf,seed\na.png,0.2,one,x,\nb.png,,,,7\n", encoding="utf-8"
    )
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = [list(read_rows(str(tmp_path / f"rows.{kind}"))) for kind in ("jsonl", "csv", "parquet")]
    assert found[0] == found[1]
    assert [row.source for row in found[2]] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    first, second = found[0]
    assert (first.id, first.sigmas, dict(first.extra)) == ("one", (0.2,), {"shelf": "x"})
    assert (second.id, second.seed, second.sigmas) == ("b.png", 7, ())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{", "line 1 is no JSON"),
        ('["a"]', "an object is needed"),
        ('"a"', "an object is needed"),
        ('{"image": "a.png", "seed": 1e999}', "a whole number is needed"),
        ('{"image": "a.png", "seed": 7.5}', "a whole number is needed"),
        ('{"image": "a.png", "sigmas": [null]}', "numbers from 0 to 1, or auto, are needed"),
        ('{"image": "a.png", "sigmas": {"a": 1}}', "numbers from 0 to 1, or auto, are needed"),
        ('{"image": "a.png", "x": ' + 300 * "[" + 300 * "]" + "}", "more than 50 lists and objects within each other"),
        ('{"prompt": "x"}', "neither image nor latent"),
        ('{"image": "a.png", "latent": "b"}', "both image and latent"),
        ('{"image": "a.png", "degrade_sigma": 1.5}', "must be between 0 and 1"),
        ('{"image": "a.png", "seed": -1}', "must be from 0 to 2^64 - 1"),
        ('{"image": 3}', "a text is needed"),
        ('{"image": "a.png", "size": "huge"}', "is none of 2K, 4K"),
        ('{"image": "a.png", "output": "../a"}', "does not stay within the output folder"),
        ('{"image": "a.png", "output": "C:/a"}', "does not stay within the output folder"),
    ],
)
def test_a_wrong_row_fails_alone_in_one_line(tmp_path, runner_for, entry, words):
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text(entry, encoding="utf-8")
    ((result,), made) = plainly(runner_for, manifest, photos(tmp_path / "out", 0))
    assert result.status == "failed" and words in result.error and "\n" not in result.error and not made


def test_odd_tables_are_read_row_by_row(tmp_path):
    (tmp_path / "rows.csv").write_text("image,prompt\na.png," + "x" * 200_000 + "\nb.png,y\n", encoding="utf-8")
    first, second = read_rows(str(tmp_path / "rows.csv"))
    assert "field larger than field limit" in first.error and second.id == "b.png"
    table = {"image": ["a.png"], "degrade_sigma": [Decimal("0.2")], "seed": [7.0], "x": [float("nan")]}
    parquet.write_table(pyarrow.table(table), tmp_path / "rows.parquet")
    (row,) = read_rows(str(tmp_path / "rows.parquet"))
    assert (row.sigmas, row.seed, row.extra, row.error) == ((0.2,), 7, {}, None)


def test_auto_stands_among_numbers_and_each_sigma_makes_one_picture():
    assert check_sigmas(["0", "0.2", "auto", "0.2"], "--degrade-sigmas") == (0.0, 0.2, "auto")


def test_what_was_written_is_no_source_of_the_next_run(tmp_path, runner_for):
    source = photos(tmp_path / "in", 2)
    (source / "._000.png").write_bytes(b"what macOS leaves on other disks")
    for where in (source, source / "*.png"):
        statuses = [[result.status for result in plainly(runner_for, where, source)[0]] for _ in range(2)]
        assert statuses[1] == ["kept"] * 2, where
    assert len(list(read_rows(str(source), str(tmp_path / "elsewhere")))) == 4  # to enlarge them once more


@pytest.mark.parametrize(
    "name", ["10.00\u202fAM", "\u65e5\u672c\u3000\u8a9e", "12:30", "a\nb", "caf\udce9", "photo[1]", "\u56fe" * 83]
)
def test_a_picture_of_any_name_is_done(tmp_path, runner_for, name):
    source = photos(tmp_path / "in", 1) / f"{name}.png"
    (tmp_path / "in" / "000.png").rename(source)
    for where in (source, source.parent):
        ((result,), _) = plainly(runner_for, where, tmp_path / f"out of {where == source}")
        assert result.status == "done" and Path(result.output).exists()


def test_long_names_that_are_cut_stay_apart(tmp_path):
    options = Options(out="out", model="m", model_fingerprint="f", name="{id}")
    jobs = [next(jobs_of(Row(0, "a.png", "\u56fe" * 200 + end), options)) for end in "ab"]
    assert not any(job.error for job in jobs) and jobs[0].name != jobs[1].name
    assert all(len(job.name.encode()) <= LONGEST_NAME for job in jobs)


def test_a_pattern_in_a_folder_whose_name_could_be_one(tmp_path):
    source = photos(tmp_path / "2024 [a] 100%", 2)
    assert len(list(read_rows(str(source / "*.png")))) == 2
    assert len(list(read_rows(str(tmp_path / "2024*" / "*.png")))) == 2
    assert len(list(read_rows(str(tmp_path / "**" / "*.png")))) == 2


def test_two_rows_with_one_output_are_found_before_anything_is_drawn(tmp_path, capsys):
    source = photos(tmp_path / "in", 2)
    assert batch(source, "--out", tmp_path / "out", "--name", "same") == 3
    assert "rows 0 and 1 would both write" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_model_or_gpu_is_one_line_and_exit_code_3(tmp_path, capsys):
    source = photos(tmp_path / "in", 1)
    for arguments, words in (
        (["--model", "gone.safetensors"], "there is no checkpoint"),
        (["--gpus", "7"], "there is no GPU 7"),
        (["--caption", "gone"], "--caption: there is no file gone"),
        (["--out", source / "000.png"], "which is a file: a folder is needed"),
        (["--out", source / "000.png" / "x"], "_pidkit cannot be written (Not a directory)"),
    ):
        assert batch(source, "--out", tmp_path / "out", *arguments) == 3
        err = capsys.readouterr().err
        assert words in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "-1"], "--threads is -1, but must be at least 1"),
        (["--engine", "comfyui"], "needs --server URL and --workflow FILE"),
        (["--name", "{what}"], "index, stem, id, sigma, seed can stand there"),
        (["--name", "{index:q}"], "cannot be used"),
        (["--name", "../{stem}"], "does not stay within the output folder"),
        (["--max-failed", "-1"], "--max-failed is -1, but must be at least 0"),
        (["--server", "127.0.0.1:8188"], "add --engine comfyui"),
        (["--degrade-sigmas", "2"], "must be between 0 and 1"),
        (["--shard", "3/3"], "--shard is '3/3'"),
        (["--bits", "16", "--format", "jpg"], "16 bits a channel are written as png"),
        (["--quality", "90"], "quality is of jpg and webp"),
        (["--steps", "9"], "steps is 9"),
        (["--factor", "0"], "no factor such as 4"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(tmp_path, capsys, arguments, words):
    source = photos(tmp_path / "in", 1)
    assert batch(source, "--out", tmp_path / "out", *arguments) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


def test_outputs_of_others_and_of_other_settings_are_never_replaced(tmp_path, runner_for):
    source, out = photos(tmp_path / "in", 2), tmp_path / "out"
    _, made = plainly(runner_for, source, out)
    (out / "00000001_001_0.png").write_bytes(b"mine")
    results, _ = plainly(runner_for, source, out)
    assert [result.status for result in results] == ["kept", "failed"]
    assert "was made by something else" in results[1].error and (out / "00000001_001_0.png").read_bytes() == b"mine"
    results, after = plainly(runner_for, source, out, seed=1)
    assert [result.status for result in results] == ["failed", "failed"]
    assert "was made with other settings" in results[0].error
    results, after = plainly(runner_for, source, out, overwrite=True)
    assert [result.status for result in results] == ["kept", "done"] and after == made


def test_what_was_in_the_way_is_tried_again_once_it_is_gone(tmp_path, capsys):
    """The advice of the error, followed to the letter, had the rows skipped."""
    source, out = photos(tmp_path / "in", 1), photos(tmp_path / "out", 0)
    (out / "00000000_000_0.png").write_bytes(b"mine")
    assert batch(source, "--out", out, "--threads", 1) == 1
    assert "take it away, or add --overwrite" in capsys.readouterr().err
    assert batch(source, "--out", out, "--threads", 1, "--overwrite") == 0
    assert [line["status"] for line in report(out)] == ["done"]


def test_the_picture_says_what_made_it(tmp_path, runner_for):
    source = photos(tmp_path / "in", 1)
    for kind in ("png", "jpg", "webp", "tif"):
        (result,), _ = plainly(runner_for, source, tmp_path / kind, format=kind, sigmas=(0.3,), seed=5)
        about = read_about(Path(result.output))
        assert about["key"] == result.key and about["degrade_sigma"] == 0.3 and about["seed"] == 5
        assert about["model_fingerprint"] == fingerprint(NANO_PATH)


def test_sixteen_bits_are_all_there(tmp_path, runner_for):
    source = photos(tmp_path / "in", 1)
    (result,), _ = plainly(runner_for, source, tmp_path / "deep", bits=16)
    (eight,), _ = plainly(runner_for, source, tmp_path / "eight")
    deep, short = read_picture(Path(result.output)).image, read_picture(Path(eight.output)).image
    assert (deep - short).abs().max() < 0.0021 and len((deep * 65535).round().unique()) > 256
    assert read_about(Path(result.output))["key"] == result.key


def test_shards_are_the_whole(tmp_path, runner_for):
    source = photos(tmp_path / "in", 7)
    _, expected = plainly(runner_for, source, tmp_path / "whole")
    for number in (2, 0):
        plainly(runner_for, source, tmp_path / "parts", Shard(number, 3))
    assert batch(source, "--out", tmp_path / "parts", "--shard", "1/3", "--threads", 1) == 0
    assert outputs(tmp_path / "parts") == expected
    assert {line["index"] for line in report(tmp_path / "parts", "-1-of-3")} == {1, 4}  # as they were finished


@given(st.integers(1, 9), st.integers(0, 40))
def test_every_row_is_in_one_shard(count, index):
    assert sum(Shard(number, count).has(index) for number in range(count)) == 1


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8)),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, (0, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"}, (2, 3)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_PROCID": "1", "SLURM_NTASKS": "2",
            },
            (3, 6),
        ),
    ],
)  # fmt: skip
def test_the_shard_that_a_batch_system_means(environment, shard):
    assert find_shard(None, environment) == shard


def test_auto_is_what_the_picture_suggests_and_it_is_written_down(tmp_path, runner_for):
    source = tmp_path / "in"
    source.mkdir()
    noise = np.random.default_rng(0).normal(128, 30, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(source / "noisy.png")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(source / "clean.png")
    results, _ = plainly(runner_for, source, tmp_path / "out", sigmas=("auto",))
    clean, noisy = (read_about(Path(result.output))["degrade_sigma"] for result in results)
    assert clean == 0 and noisy > 0.1
    assert [Path(result.output).name for result in results] == ["00000000_clean_auto.png", "00000001_noisy_auto.png"]


def test_a_latent_gives_what_its_picture_gives(tmp_path, runner_for):
    source = photos(tmp_path / "in", 1)
    latent = to_rgb_latent(read_picture(source / "000.png").image[None])
    (tmp_path / "one.latent").write_bytes(latent_bytes(SavedLatent(latent, "rgb")))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"latent": "one.latent", "output": "000"}), encoding="utf-8")
    plainly(runner_for, tmp_path / "rows.jsonl", tmp_path / "from latent")
    plainly(runner_for, source, tmp_path / "from picture", name="{stem}")
    latents, pictures = (read_picture(tmp_path / name / "000.png").image for name in ("from latent", "from picture"))
    assert (latents - pictures).abs().max() < 1.5 / 255  # the file's lies elsewhere in memory: a rounding may differ
    assert (latents - pictures).abs().mean() < 1e-4


def test_no_room_on_the_disk_stops_the_run_and_leaves_no_half_file(tmp_path, runner_for, monkeypatch):
    source, out = photos(tmp_path / "in", 3), tmp_path / "out"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pid_core.images.files.os.fsync", full)
    with pytest.raises(RunStoppedError, match="No space left"):
        plainly(runner_for, source, out)
    assert outputs(out) == {}
    monkeypatch.undo()
    results, made = plainly(runner_for, source, out)
    assert [result.status for result in results] == ["done"] * 3 and len(made) == 3


def test_the_last_row_finds_no_room_and_a_run_that_was_stopped_is_no_attempt(tmp_path, monkeypatch, capsys):
    source, out = photos(tmp_path / "in", 1), tmp_path / "out"
    monkeypatch.setattr("pid_core.commands.engines.no_bridge", batch_faults.full)
    for _ in range(2):
        assert batch(source, "--out", out, "--threads", 1, "--attempts", 1) == 3
        assert "No space left on device" in capsys.readouterr().err and outputs(out) == {}
    monkeypatch.undo()
    assert batch(source, "--out", out, "--threads", 1, "--attempts", 1) == 0
    assert [line["status"] for line in report(out)] == ["done"] and len(outputs(out)) == 1


def an_engine(run):
    """In place of an engine, which does this with the report and the command's way of ending it."""

    def engine_of(*_):
        def make(report, on_result):
            finish = []
            return SimpleNamespace(finish=lambda: finish.append(1), run=lambda jobs: run(report, finish))

        return make

    return engine_of


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full here")
def test_no_room_for_the_report_stops_the_run_too(tmp_path, monkeypatch, capsys):
    source, full = photos(tmp_path / "in", 1), Path("/dev/full")
    monkeypatch.setattr("pid_core.batch.report._opened", lambda path: full.open("ab", buffering=0))
    monkeypatch.setattr("pid_core.commands.engines.engine_of", an_engine(lambda report, _: report.begin("a")))
    assert batch(source, "--out", tmp_path / "out", "--json") == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == {"rows": {}, "finished": False}
    assert err.splitlines()[-1] == "pid_core: the run stops: /dev/full: No space left on device"


def test_the_second_ctrl_c_does_not_wait(tmp_path, monkeypatch, capsys):
    source = photos(tmp_path / "in", 1)

    def run(report, finish):
        signal.raise_signal(signal.SIGINT)
        assert finish == [1]
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr("pid_core.commands.engines.engine_of", an_engine(run))
    assert batch(source, "--out", tmp_path / "out") == 130
    assert "once more to stop at once" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="a process cannot be started so here")
def test_a_ctrl_c_while_a_worker_starts_is_no_traceback():
    process = multiprocessing.get_context("spawn").Process(target=signal.raise_signal, args=(signal.SIGINT,))
    start_deaf(process)
    process.join()
    assert process.exitcode == 0


def test_a_batch_systems_notice_to_all_processes_lets_the_pictures_in_hand_end(tmp_path):
    source, out = photos(tmp_path / "in", 12), tmp_path / "out"
    assert driver("", -2, source, "--out", out, "--threads", 1) == 130
    lines = report(out)
    assert 2 <= len(lines) < 12 and {line["status"] for line in lines} == {"done"}
    begun = [json.loads(line) for line in Path(out, FOLDER, "begun.jsonl").read_text(encoding="utf-8").splitlines()]
    left = Counter()
    for line in begun:
        left[line["key"]] += line["begun"]
    assert {key for key, count in left.items() if count} == {line["key"] for line in lines}


@pytest.mark.parametrize("kind", ["jpg", "webp", "tif", "png"])
def test_no_room_stops_the_run_in_every_format(tmp_path, runner_for, monkeypatch, kind):
    """Pillow's way into a TIFF said of a full disk "encoder error -2", which failed each row for itself."""

    def write_bytes(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = photos(tmp_path / "in", 1)
    monkeypatch.setattr("pid_core.images.files.Path.write_bytes", write_bytes)
    with pytest.raises(RunStoppedError, match="No space left"):
        plainly(runner_for, source, tmp_path / "out", format=kind)
    assert outputs(tmp_path / "out") == {}


def test_an_empty_file_is_no_output(tmp_path, runner_for):
    source, out = photos(tmp_path / "in", 1), photos(tmp_path / "out", 0)
    (out / "00000000_000_0.png").touch()
    ((result,), _) = plainly(runner_for, source, out)
    assert result.status == "done"


def test_a_disk_with_a_bad_moment_is_asked_again(tmp_path, runner_for, monkeypatch):
    source, calls = photos(tmp_path / "in", 1), []
    fsync = os.fsync

    def sometimes(number):
        calls.append(number)
        if len(calls) < 3:
            raise OSError(errno.EIO, "Input/output error")
        fsync(number)

    monkeypatch.setattr("pid_core.images.files.os.fsync", sometimes)
    (result,), made = plainly(runner_for, source, tmp_path / "out")
    assert result.status == "done" and len(calls) == 3 and len(made) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing says here what a process took at most")
def test_memory_does_not_grow_with_the_manifest(tmp_path):
    """Eight bytes a row: 50,000 rows as objects would take twenty megabytes. And PyTorch takes half a gigabyte."""
    manifest = tmp_path / "rows.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"image": f"/photos/{n:07}.png", "prompt": f"thing {n}"}) + "\n" for n in range(50_000)
        )
    script = (
        "import re, sys; from pathlib import Path; from pid_core.__main__ import main;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "main([*sys.argv[1:], '--limit', '1']); before = peak(); main(sys.argv[1:]);"
        "print(before, peak() - before, 'torch' in sys.modules)"
    )
    arguments = ["batch", manifest, "--out", tmp_path / "out", "--dry-run", "--steps", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *_, found, memory = done.stdout.splitlines()
    before, grown, torch_is_there = memory.split()
    assert json.loads(found)["rows"] == 50_000 and torch_is_there == "False"
    assert int(grown) < 8000 and int(before) < 100_000  # KB


def test_the_report_sums_up(tmp_path, runner_for, capsys):
    source, out = photos(tmp_path / "in", 2), tmp_path / "out"
    (source / "bad.png").write_bytes(b"x")
    assert batch(source, "--out", out, "--threads", 1) == 1
    capsys.readouterr()
    assert batch("--status", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == {"done": 2, "failed": 1}
    assert found["errors"] == {"bad.png is no picture that can be read": 1} and found["seconds"]["decode"] > 0
    assert batch("--status", tmp_path / "in") == 3
    assert "holds no report of a batch" in capsys.readouterr().err


def test_rows_count_once_where_the_number_of_shards_changed(tmp_path, runner_for, capsys):
    source, out = photos(tmp_path / "in", 3), tmp_path / "out"
    whole = (source / "001.png").read_bytes()
    for shard, content in ((ALL, b"x"), (Shard(0, 2), whole), (Shard(1, 2), whole)):
        (source / "001.png").write_bytes(content)
        with Report(out, shard.suffix) as open_report:
            for job in jobs_in(str(source), options(out), shard):
                open_report.end(run_row(runner_for(options(out)), job))
    assert batch("--status", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"kept": 2, "done": 1}
    # a shard's report knows nothing of what was made before, and says what it is all the same
    (kept, *_) = report(out, "-0-of-2")
    assert kept["sha256"] == hashlib.sha256(Path(kept["output"]).read_bytes()).hexdigest()


def test_an_output_whose_settings_changed_counts_once(tmp_path, capsys):
    """The status said of two pictures: 2 done, 2 failed."""
    rows = [Row(n, f"{n}.png", str(n)) for n in range(2)]
    mild, strong = (
        [with_key(job, chosen) for row in rows for job in jobs_of(row, chosen)]
        for chosen in (options(tmp_path), options(tmp_path, seed=1))
    )

    def run(jobs, status):
        """What was known of them before."""
        open_report = Report(tmp_path)
        before = [open_report.before(job.key) for job in jobs]
        for job in jobs:
            open_report.begin(job.key)
            open_report.end(result_of(job, status))
        open_report.close(finished=False)
        assert batch("--status", tmp_path, "--json") == 0
        assert json.loads(capsys.readouterr().out)["rows"] == {status: 2}
        return before

    assert run(mild, "failed") == [NOTHING] * 2
    assert len(failed_keys(tmp_path)) == 2
    assert run(strong, "done") == [NOTHING] * 2
    assert failed_keys(tmp_path) == set()  # so that --retry and the status agree
    assert run(mild, "kept") == [REPLACED] * 2  # neither skipped nor left out of the report
    assert len(report(tmp_path)) == 2
    with Report(tmp_path) as again:
        assert [again.attempts(job.key) for job in strong] == [0, 0]  # they ended, and have no line any more


@given(st.text(max_size=20), st.floats(0, 1))
def test_a_job_has_a_key_or_an_error_whatever_its_names(name, sigma):
    row = Row(0, name, name, sigmas=(sigma,), output=name or None)
    (job,) = jobs_of(row, options("out"))
    assert bool(job.path) != bool(job.error)
    assert job.error or Path(job.path).resolve().is_relative_to(Path("out").resolve())


def test_a_dry_run_says_what_there_is_to_do(tmp_path, capsys):
    source = photos(tmp_path / "in", 4)
    arguments = source, "--out", tmp_path / "out", "--degrade-sigmas", 0, 0.2, "--shard", "1/2", "--dry-run", "--json"
    assert batch(*arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 4, "outputs": 4, "of them wrong": 0, "shard": [1, 2]}
    assert not (tmp_path / "out").exists()
    (tmp_path / "rows.csv").write_text("image,output\n000.png,../x\n", encoding="utf-8")
    assert batch(tmp_path / "rows.csv", "--out", tmp_path / "out", "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["of them wrong"] == 1 and "'../x.png' does not stay within" in found["the first of them"]
    assert survey(str(source), options("x"), Shard()).jobs == 4


def test_a_source_is_never_replaced(tmp_path, runner_for):
    source = photos(tmp_path / "in", 1)
    before = (source / "000.png").read_bytes()
    (result,), _ = plainly(runner_for, source, source, name="{stem}", overwrite=True)
    assert result.status == "failed" and "is the picture itself" in result.error
    assert (source / "000.png").read_bytes() == before


def test_what_a_format_cannot_hold_is_found_before_it_is_drawn(tmp_path, runner_for):
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (4096, 2)).save(source / "long.png")
    (result,), _ = plainly(runner_for, source, photos(tmp_path / "out", 0), format="webp")
    assert "WEBP holds at most 16383 pixels a side, not 16384" in result.error
    assert "decode" not in result.seconds


def test_a_long_run_remembers_only_what_has_not_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("pid_core.batch.report.TIDY_AFTER", 10)
    chosen = options(tmp_path)
    jobs = [with_key(job, chosen) for n in range(25) for job in jobs_of(Row(n, f"{n}.png", str(n)), chosen)]
    with Report(tmp_path) as open_report:
        for job in jobs:
            open_report.begin(job.key)
            if job.row.index != 3:
                open_report.end(result_of(job, "done"))
    assert len((tmp_path / FOLDER / "begun.jsonl").read_text(encoding="utf-8").splitlines()) < 12
    with Report(tmp_path) as again:
        assert [again.attempts(job.key) for job in jobs] == [int(job.row.index == 3) for job in jobs]
        assert [again.before(job.key) for job in jobs] == [int(job.row.index != 3) for job in jobs]


def test_half_a_line_is_taken_off_and_two_runs_do_not_write_one_report(tmp_path):
    chosen = options(tmp_path)
    (job,) = (with_key(job, chosen) for job in jobs_of(Row(0, "a.png", "a"), chosen))
    with Report(tmp_path) as first:
        first.end(result_of(job, "done"))
        with pytest.raises(ValueError, match="another run is writing"):
            Report(tmp_path)
    path = tmp_path / FOLDER / "report.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "b", "ke')
    with Report(tmp_path) as second:
        assert second.before(job.key) == 1
    assert path.read_bytes() == whole


def test_a_long_report_is_there_as_parquet_too(tmp_path, monkeypatch):
    monkeypatch.setattr("pid_core.batch.report.PARQUET_FROM", 4)
    chosen = options(tmp_path)
    open_report = Report(tmp_path)
    for n in range(6):
        for job in jobs_of(Row(n, f"{n}.png", str(n), extra={"shelf": n}), chosen):
            facts = {"status": "failed", "error": "x"} if n == 2 else {"status": "done"}
            open_report.end(result_of(with_key(job, chosen), **facts))
    open_report.close(finished=True)
    rows = parquet.read_table(tmp_path / FOLDER / "report.parquet").to_pylist()
    assert [row["id"] for row in rows] == list("012345") and rows[2]["error"] == "x"
    assert json.loads(rows[5]["columns"]) == {"shelf": 5}


def test_each_text_is_encoded_once_and_the_encoder_goes(tmp_path):
    chosen, log = options(tmp_path / "out", clip="gemma.safetensors", clip_fingerprint="f"), tmp_path / "log"
    rows = [Row(n, f"{n}.png", str(n), text=text) for n, text in enumerate(["cat", "dog", "cat", None, "cat"])]
    jobs = [job for row in rows for job in jobs_of(row, chosen)]
    for _ in range(2):  # a run that goes on encodes nothing again
        found = list(with_captions(iter(jobs), chosen, partial(batch_faults.CountingBridge, log)))
        assert found == jobs
    assert log.read_text(encoding="utf-8").splitlines() == ["loaded", "cat", "dog", "freed"]
    assert float(CaptionStore(chosen.out, "f")("cat").mean()) == 3


def test_a_text_that_nothing_encodes_is_the_rows_error(tmp_path, runner_for, monkeypatch):
    source = photos(tmp_path / "in", 1)
    monkeypatch.setattr("pid_core.upscale.upscaler.Upscaler.needs_vae", True)
    (result,), _ = plainly(runner_for, source, photos(tmp_path / "out", 0), text="a cat")
    assert "name PiD's text encoder with --clip" in result.error


def test_a_noisy_latent_says_its_own_sigma(tmp_path, runner_for):
    latent = torch.randn(1, 12, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    (tmp_path / "noisy.latent").write_bytes(latent_bytes(SavedLatent(latent, "rgb", 0.3)))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"latent": "noisy.latent"}), encoding="utf-8")
    (result,), _ = plainly(runner_for, tmp_path / "rows.jsonl", tmp_path / "out")
    assert result.status == "done" and read_about(Path(result.output))["degrade_sigma"] == pytest.approx(0.3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path, runner_for):
    os.mkfifo(tmp_path / "pipe.latent")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"latent": "pipe.latent"}), encoding="utf-8")
    (result,), _ = plainly(runner_for, tmp_path / "rows.jsonl", photos(tmp_path / "out", 0))
    assert result.status == "failed" and "pipe.latent is no file" in result.error


def test_a_run_that_stops_says_how_far_it_came(tmp_path, capsys):
    source = photos(tmp_path / "in", 1)
    (source / "bad.png").write_bytes(b"x")
    assert batch(source, "--out", tmp_path / "out", "--max-failed", 0, "--threads", 1, "--json") == 3
    out = json.loads(capsys.readouterr().out)
    assert out["finished"] is False and out["rows"]["failed"] == 1


def test_a_number_makes_the_picture_that_upscale_makes(tmp_path, runner_for):
    """With the noise of `scale` it came out pale: the bundled model took what was missing for haze."""
    source = photos(tmp_path / "in", 1)
    plainly(runner_for, source, tmp_path / "batch", name="{stem}", sigmas=(0.3,), seed=4)
    alone = tmp_path / "000.png"
    assert main([str(source / "000.png"), "-o", str(alone), "--sigma", "0.3", "--seed", "4"]) == 0
    found, wanted = (read_picture(path).image for path in (tmp_path / "batch" / "000.png", alone))
    assert torch.equal(found, wanted)
