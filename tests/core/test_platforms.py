"""What differs between systems, as on one that is not here; and what no file of the project may take for granted."""

import ast
import ctypes
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pid_core import files, names
from pid_core.batch import children, report
from pid_core.batch.jobs import Options, jobs_of
from pid_core.batch.report import Report
from pid_core.batch.rows import Row

ROOT = Path(__file__).parents[2]
TREE = ("pid_core", "pid_bridges", "nodes", "scripts", "benchmarks", "training", "tests")
# What a system may lack, and the files that have another way there.
OF_ONE_SYSTEM = {
    "bin/python": {"scripts/comfy_env.py"},
    "lib/python": set(),
    "os.exec": {"scripts/child_process.py"},
    "os.fork": set(),
    "os.getuid": set(),
    "os.geteuid": set(),
    "os.killpg": set(),
    "os.setsid": set(),
    "os.sysconf": {"pid_core/machine/memory.py"},
    "os.uname": {"pid_core/batch/ray_worker.py"},
    "symlink": {"scripts/folder_links.py"},
    "preexec_fn": set(),
    "signal.SIGKILL": set(),
    "signal.alarm": {"benchmarks/gpu.py"},
    "fcntl": {"pid_core/batch/report.py"},
}


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def modes(call):
    """The texts among the arguments that can be a file's mode."""
    given = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return [text for text in texts if text and set(text) <= set("rwaxbt+")]


def opens_text(call):
    """Whether it reads or writes a file as text without a word on its encoding."""
    if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return isinstance(call.func, ast.Attribute) and len(call.args) == (name == "write_text")
    mode = modes(call)
    plain = isinstance(call.func, ast.Name) and len(call.args) < 2 and not mode
    return name in ("open", "NamedTemporaryFile") and (plain or (mode != [] and not any("b" in one for one in mode)))


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("read_text(args)", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("open(path, 'rb')", False),
        ("open(path, mode)", False),
        ("path.open('a')", True),
        ("path.open(mode='ab')", False),
        ("Image.open(path)", False),
    ],
)
def test_a_file_without_an_encoding_is_found(code, wrong):
    assert opens_text(ast.parse(code, mode="eval").body) is wrong


def test_every_text_file_has_an_encoding():
    """Windows takes cp1252 else, and a name or a caption in another script is no text there, or another one."""
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for path in sources(*TREE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if opens_text(node)
    ]
    assert not found


def test_what_one_system_lacks_stands_where_there_is_another_way():
    folders = ("pid_core", "pid_bridges", "nodes", "scripts", "benchmarks")
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources(*folders)}
    named = {name: _code(text) for name, text in texts.items() if any(word in text for word in OF_ONE_SYSTEM)}
    assert {word: {name for name, code in named.items() if word in code} for word in OF_ONE_SYSTEM} == OF_ONE_SYSTEM


def _code(text):
    """Without comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.unparse(tree)


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(names, "WINDOWS", True)
    monkeypatch.setattr(files, "WINDOWS", True)


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("a:b", "holds :, which Windows takes in no file name"),
        ("latents/what?", "holds ?"),
        ("%date:yyyy%", "holds :"),
        ("nul", "Windows keeps for a device"),
        ("Com1.x/a", "Windows keeps for a device"),
    ],
)
def test_a_prefix_that_windows_does_not_take(windows, prefix, said):
    with pytest.raises(ValueError, match=r"^filename_prefix ") as caught:
        names.check_prefix(prefix)
    assert said in str(caught.value)


@pytest.mark.parametrize("prefix", ["PiD", "latents/PiD", "a\\b", r"D:\ComfyUI\output\x", "图/é", "connect", "com10"])
def test_a_prefix_that_windows_takes(windows, prefix):
    names.check_prefix(prefix)


def test_other_systems_take_these_names():
    for prefix in ("a:b", "what?", "nul"):
        names.check_prefix(prefix)


def job(**row):
    options = Options(out="out", model="m", model_fingerprint="f", name="{id}")
    (found,) = jobs_of(Row(0, "a.png", **{"id": "a", **row}), options)
    return found


def test_names_that_a_batch_makes_fit_every_system():
    assert job(id='what? <1|2> "a*b" c:d').name == "what_ _1_2_ _a_b_ c_d.png"


def test_a_batch_writes_into_no_device(windows):
    assert "Windows keeps for a device" in job(id="nul").error
    assert "holds ?" in job(output="a?").error
    assert job(output="a").error is None


def test_a_file_that_a_scanner_holds_is_moved_when_it_lets_go(windows, monkeypatch, tmp_path):
    tries, replace = [], files.os.replace

    def held(part, path):
        tries.append(path)
        if len(tries) < 3:
            raise PermissionError(13, "Access is denied")
        replace(part, path)

    monkeypatch.setattr(files.os, "replace", held)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    files.replace_file(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x" and len(tries) == 3
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Access is denied")))
    with pytest.raises(PermissionError):
        files.replace_file(tmp_path / "a", b"y")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_runs_on_windows_do_not_write_one_report(monkeypatch, tmp_path):
    """The lock lies on a file beside it: what is locked can be read there by nobody."""
    locked = []

    def locking(number, how, count):
        locked.append(number)
        if len(locked) == 2:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(report, "sys", types.SimpleNamespace(platform="win32"))
    with Report(tmp_path) as first:
        assert (first.folder / "report.lock").exists() and first._file.fileno() not in locked
        with pytest.raises(ValueError, match="another run is writing"):
            Report(tmp_path)
    with pytest.raises(OSError):  # let go, and closed
        files.os.fstat(locked[0])


def test_a_worker_on_windows_is_started_without_ears(monkeypatch):
    """What a process ignores there, those that it starts ignore too."""
    heard = []
    kernel = types.SimpleNamespace(SetConsoleCtrlHandler=lambda handler, add: heard.append((handler, add)))
    monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(children, "sys", types.SimpleNamespace(platform="win32"))
    children.start_deaf(types.SimpleNamespace(start=lambda: heard.append("started")))
    assert heard == [(None, True), "started", (None, False)]


def test_a_terminal_without_the_letters_of_a_folder_fails_nothing(tmp_path):
    """As Windows' is where output goes into a file."""
    code = "import terminal; terminal.print_anything(); print('图片 ü')"
    env = {"PYTHONPATH": str(ROOT / "scripts"), "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, env=env)
    assert done.stdout.decode("cp1252").strip() == r"\u56fe\u7247 ü"
