"""`batch --engine ray`: actors on a cluster give what the plain loop gives, whatever dies.

Ray comes with the development tools: where it is missing in CI these tests fail, they are not skipped.
"""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from shutil import copy
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pid_core import NANO_PATH
from pid_core.__main__ import main
from pid_core.batch.jobs import Options
from pid_core.batch.plan import jobs_in
from pid_core.batch.ray_engine import Cluster
from pid_core.batch.ray_worker import RayWorker
from pid_core.batch.report import FOLDER, Report
from pid_core.batch.results import DONE
from pid_core.batch.run_row import run_row
from pid_core.batch.shards import Shard
from pid_core.batch.worker import Dropped, Ready, Stopped, open_runner
from pid_core.captions.fingerprint import fingerprint
from pid_core.upscale.bridge import no_bridge
from support import batch_faults

ROOT = Path(__file__).parents[2]
ROWS = 7


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with processes that find what a test puts into them."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("ray", reason="NOT TESTED on Ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def rows(tmp_path):
    """A manifest of small photos; one has the id "deadly"."""
    rng, entries = np.random.default_rng(0), []
    for number in range(ROWS):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (8, 8 + number % 3, 3), dtype=np.uint8)).save(path)
        entries.append({"image": path.name, "id": "deadly" if number == 1 else str(number)})
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return manifest


def options(out, **more):
    return Options(str(out), str(NANO_PATH), fingerprint(NANO_PATH), **more)


def jobs(manifest, out):
    return list(jobs_in(str(manifest), options(out), Shard()))


def batch(*arguments):
    return main(["batch", *map(str, arguments)])


def outputs(out):
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def report(out):
    return {
        line["id"]: line
        for line in map(json.loads, Path(out, FOLDER, "report.jsonl").read_text(encoding="utf-8").splitlines())
    }


def test_a_row_that_kills_its_actor_is_ended_and_the_rest_is_the_plain_loops(
    cluster, rows, tmp_path, monkeypatch, capsys
):
    runner = open_runner(options(tmp_path / "plain"), "cpu")
    plain = [run_row(runner, job) for job in jobs(rows, tmp_path / "plain")]
    expected, deadly = outputs(tmp_path / "plain"), Path(plain[1].output).name
    broken = copy(tmp_path / "3.png", tmp_path / "whole.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    arguments = [rows, "--out", tmp_path / "out", "--engine", "ray", "--threads", 1, "--json"]
    monkeypatch.setattr("pid_core.commands.engines.no_bridge", batch_faults.deadly)
    assert batch(*arguments, "--attempts", 2) == 1
    lines = report(tmp_path / "out")
    assert Counter(line["status"] for line in lines.values()) == {"done": ROWS - 2, "crashed": 1, "failed": 1}
    assert lines["deadly"]["attempts"] == 2 and "died 2 times with it in hand" in lines["deadly"]["error"]
    assert outputs(tmp_path / "out").items() <= expected.items()
    # it goes on from what is there
    monkeypatch.undo()
    Path(broken).replace(tmp_path / "3.png")
    capsys.readouterr()
    assert batch(*arguments, "--retry", "failed") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"done": 2, "kept": ROWS - 2}
    assert outputs(tmp_path / "out") == expected and deadly in expected
    assert {name: line["sha256"] for name, line in report(tmp_path / "out").items()} == {
        result.id: result.sha256 for result in plain
    }


def test_more_workers_than_the_cluster_has_room_for(cluster, rows, tmp_path, capsys):
    assert batch(rows, "--out", tmp_path / "out", "--engine", "ray", "--workers", 999, "--threads", 1) == 3
    err = capsys.readouterr().err
    assert "of 1 CPU, not for 999: " in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("machines", "asked", "crew"),
    [
        ([(32, 8), (32, 8), (64, 0)], (None, None), (16, 4, 1)),
        ([(8, 8)], (None, None), (8, 1, 1)),
        ([(32, 8)], (2, 12), (2, 12, 1)),
        ([(16, 0), (8, 0)], (None, None), (1, 16, 0)),
        ([(16, 0), (8, 0)], (4, None), (4, 5, 0)),
        ([(16, 0), (8, 0)], (4, 8), None),
        ([(2, 8)], (None, None), None),
    ],
)
def test_workers_are_as_many_as_the_cluster_has_room_for(machines, asked, crew):
    found = object.__new__(Cluster)
    nodes = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in machines]
    found.ray = SimpleNamespace(nodes=lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99.0}}])
    if crew is None:
        with pytest.raises(ValueError, match="the Ray cluster has room for"):
            found.crew(*asked)
    else:
        assert found.crew(*asked) == crew


def test_a_cluster_that_does_not_answer_is_not_waited_for(cluster, rows, tmp_path, monkeypatch, capsys):
    """Ray itself tries for more than ten minutes."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert batch(rows, "--out", tmp_path / "out", "--engine", "ray", "--ray-address", "127.0.0.1:1") == 3
    err = capsys.readouterr().err
    assert "the Ray cluster at 127.0.0.1:1 does not answer" in err and len(err.splitlines()) == 1


def test_without_ray_it_says_how_to_get_it(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert batch(rows, "--out", tmp_path / "out", "--engine", "ray") == 3
    assert capsys.readouterr().err.splitlines() == [
        'pid_core: the engine ray needs Ray, which is not installed: pip install ".[ray]"'
    ]


def test_a_worker_stops_the_run_for_what_no_row_survives_and_draws_nothing_once_it_ends(rows, tmp_path, monkeypatch):
    chosen = options(tmp_path / "out")
    opening = (1, no_bridge, str(tmp_path))
    assert "does not see" in RayWorker().open(chosen, *opening).reason
    Report(chosen.out).close(finished=False)
    assert "has another file as" in RayWorker().open(replace(chosen, model_fingerprint="x"), *opening).reason
    gone = replace(chosen, model="/gone/pid.safetensors", model_fingerprint="x")
    assert "does not see /gone/pid.safetensors" in RayWorker().open(gone, *opening).reason
    worker = RayWorker()
    assert worker.open(replace(chosen, model="/gone/nano.safetensors"), *opening) == Ready()
    first, second, third, *_ = jobs(rows, chosen.out)
    assert worker.run(first).status == DONE
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", os.fsync)
        batch_faults.full("cpu")
        assert isinstance(stopped := worker.run(second), Stopped) and "No space left on device" in stopped.reason
    worker.finish()
    assert worker.run(third) == Dropped(third.number) and len(outputs(chosen.out)) == 1
