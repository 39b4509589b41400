"""New files take the next free number, whoever else writes there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pid_core import files
from pid_core.files import write_new
from pid_core.names import check_prefix

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_numbers_go_on_and_nothing_is_replaced(tmp_path, monkeypatch, links):
    if not links:  # as on FAT

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr(files.os, "link", refuse)
    folder = tmp_path / "new"
    for content in (b"1", b"2"):
        write_new(folder, "PiD", ".latent", content)
    (folder / "PiD_00009_.latent").write_bytes(b"9")
    (folder / "PiD_2_00050_.latent").write_bytes(b"another name")
    assert write_new(folder, "PiD", ".latent", b"10").name == "PiD_00010_.latent"
    assert write_new(folder, "PiD_2", ".latent", b"51").name == "PiD_2_00051_.latent"
    assert [(folder / f"PiD_0000{i}_.latent").read_bytes() for i in (1, 2, 9)] == [b"1", b"2", b"9"]
    assert not [name for name in names(folder) if "part" in name]


def test_a_name_that_is_taken_meanwhile_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_highest", lambda *_: 0)  # both have looked before either wrote
    first, second = (write_new(tmp_path, "PiD", ".latent", content) for content in (b"1", b"2"))
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")


def test_two_processes_lose_nothing(tmp_path):
    # with files.py alone: the package around it imports PyTorch
    code = (
        "import sys, types; from pathlib import Path\n"
        "package = types.ModuleType('pid_core'); package.__path__ = ['pid_core']; sys.modules['pid_core'] = package\n"
        "from pid_core.files import write_new\n"
        "for i in range(60): write_new(Path(sys.argv[1]), 'PiD', '.latent', f'{sys.argv[2]}{i}'.encode())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=ROOT) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    contents = {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert contents == {f"{name}{i}" for name in "ab" for i in range(60)}


def test_a_disk_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_new(tmp_path, "PiD", ".latent", b"x")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "prefix", ["a\0b", "a\nb", "\ud800", "\x1b[31m", "x" * 201, "é" * 101, "a/" * 2000, "x" * 50_000]
)
def test_prefixes_that_no_file_system_takes(prefix):
    with pytest.raises(ValueError, match="filename_prefix") as caught:
        check_prefix(prefix)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 300
    json.dumps(line).encode()


@pytest.mark.parametrize("prefix", ["", "PiD", "latents/PiD", "a\\b", "猫/é", "%date%", "x" * 200, os.sep])
def test_prefixes_that_are_fine(prefix):
    check_prefix(prefix)
