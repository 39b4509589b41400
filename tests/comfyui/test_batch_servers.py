"""`batch --engine comfyui`: rows over two real servers, one of which is killed."""

import errno
import json
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pid_core.__main__ import main
from pid_core.batch.comfy_server import Server, ServerGoneError
from pid_core.batch.report import FOLDER, Report
from pid_core.batch.results import RunStoppedError
from pid_core.images.files import read_about
from support.booted_comfy import TestServer


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def workflow(root, tmp_path, **changes):
    """The demo's, as a user marks it."""
    nodes = json.loads((root / "example_workflows/api/pid_upscale_demo.json").read_text(encoding="utf-8"))
    for node in nodes.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = "{image}"
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"seed": "{seed}", **changes}
        if node["class_type"] == "PiDKitConditioning":
            node["inputs"]["degrade_sigma"] = "{degrade_sigma}"
        if node["class_type"] == "SaveImage":
            node["inputs"]["filename_prefix"] = "batch/{name}"
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(nodes), encoding="utf-8")
    return path


def batch(pictures, out, servers, workflow, *more):
    urls = [server.address for server in servers]
    arguments = pictures, "--out", out, "--engine", "comfyui", "--server", *urls, "--workflow", workflow, *more
    return main(["batch", *map(str, arguments)])


def pixels(out):
    return {path.name: np.asarray(Image.open(path)) for path in Path(out).glob("*.png")}


def test_rows_go_on_where_a_server_is_killed(comfy, root, tmp_path, pictures, monkeypatch):
    marked, ends = workflow(root, tmp_path), []
    monkeypatch.setattr("pid_core.batch.comfy.TRIES", (0.0,))
    with TestServer(tmp_path / "second") as second:
        end = Report.end

        def end_and_kill(self, result):
            end(self, result)
            ends.append(result)
            if len(ends) == 3:
                os.kill(second.pid, signal.SIGKILL)

        monkeypatch.setattr(Report, "end", end_and_kill)
        out = tmp_path / "out"
        assert batch(pictures, out, [comfy, second], marked, "--degrade-sigmas", "0.2") == 1
    assert Counter(result.status for result in ends) == {"done": 9, "failed": 1}
    monkeypatch.undo()
    assert batch(pictures, tmp_path / "alone", [comfy], marked, "--degrade-sigmas", "0.2") == 1
    found, alone = pixels(out), pixels(tmp_path / "alone")
    assert found.keys() == alone.keys() and len(found) == 9
    assert all(np.array_equal(found[name], alone[name]) and found[name].shape == (32, 40, 3) for name in found)
    assert read_about(next(out.glob("*.png")))["degrade_sigma"] == 0.2
    lines = [json.loads(line) for line in (out / FOLDER / "report.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(Counter(line["id"] for line in lines).values()) == {1: 10}


def test_what_a_server_says_is_the_rows_error(comfy, root, tmp_path, pictures, capsys):
    refused = workflow(root, tmp_path, steps=0)
    assert batch(pictures, tmp_path / "out", [comfy], refused, "--limit", "1") == 1
    assert "Value 0 smaller than min" in capsys.readouterr().err


def test_no_server_at_all_stops_the_run(root, tmp_path, pictures, monkeypatch, capsys):
    monkeypatch.setattr("pid_core.batch.comfy.TRIES", (0.0,))
    arguments = pictures, "--out", tmp_path / "out", "--engine", "comfyui", "--server", "127.0.0.1:9"
    assert main(["batch", *map(str, arguments), "--workflow", str(workflow(root, tmp_path)), "--attempts", "1"]) == 3
    assert "no server answers any more" in capsys.readouterr().err
    assert not (tmp_path / "out" / FOLDER / "report.jsonl").read_text(encoding="utf-8")  # it was no row's fault


def test_what_a_server_lost_is_not_waited_for(monkeypatch):
    """Taken out of the queue by somebody in a browser, it was asked for, for ever."""
    answers = {"/prompt": {"prompt_id": "a"}, "/history/a": {}, "/queue": {"queue_running": [], "queue_pending": []}}
    monkeypatch.setattr(Server, "_ask", lambda self, path, *_: json.dumps(answers[path]))
    with pytest.raises(ServerGoneError, match="lost it"):
        Server("here", sleep=lambda seconds: pytest.fail("it waits")).run({})


def test_what_fails_beside_the_rows_ends_the_run(root, tmp_path, pictures, monkeypatch, capsys):
    """In a thread it was lost, and the other servers' threads waited for its row for ever."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Report, "begin", full)
    monkeypatch.setattr(Server, "check", lambda self: None)
    arguments = pictures, "--out", tmp_path / "out", "--engine", "comfyui", "--server", "127.0.0.1:9", "127.0.0.1:9"
    assert main(["batch", *map(str, arguments), "--workflow", str(workflow(root, tmp_path))]) == 3
    assert "No space left" in capsys.readouterr().err


def test_the_end_of_a_run_is_no_attempt_at_the_row_in_hand(root, tmp_path, pictures, monkeypatch):
    def full(*_):
        raise RunStoppedError("No space left on device")

    monkeypatch.setattr("pid_core.batch.comfy.run_row", full)
    monkeypatch.setattr(Server, "check", lambda self: None)
    arguments = pictures, "--out", tmp_path / "out", "--engine", "comfyui", "--server", "127.0.0.1:9"
    assert main(["batch", *map(str, arguments), "--workflow", str(workflow(root, tmp_path))]) == 3
    begun = [
        json.loads(line)["begun"]
        for line in (tmp_path / "out" / FOLDER / "begun.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert begun == [1, -1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ('{"nodes": []}', "is no workflow in API form"),
        ('{"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}', 'has no input "{image}"'),
    ],
)
def test_a_workflow_that_cannot_be_used_is_one_line(tmp_path, pictures, capsys, text, words):
    path = tmp_path / "workflow.json"
    path.write_text(text, encoding="utf-8")
    arguments = pictures, "--out", tmp_path / "out", "--engine", "comfyui", "--server", "x", "--workflow", path
    assert main(["batch", *map(str, arguments)]) == 3
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1
