"""scripts/dev.py and what it runs with, also as on a system that is not here."""

import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import child_process
import comfy_env
import dev
import folder_links
import setup as set_up

SCRIPT = comfy_env.ROOT / "scripts" / "dev.py"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("COMFYUI_PATH", "COMFYUI_COMMIT", "JOBS", "PORT", "CI", "OLDEST_PYTHON", "OLDEST_TORCH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ran(monkeypatch):
    """What dev.py runs, and in place of running it the exit codes that a test puts into `codes`."""
    seen = types.SimpleNamespace(commands=[], codes=[])

    def run_to_end(command, **options):
        seen.commands.append([str(word) for word in command])
        return seen.codes.pop(0) if seen.codes else 0

    monkeypatch.setattr(dev, "run_to_end", run_to_end)
    monkeypatch.setattr(set_up, "main", lambda: 0)
    return seen


def script(*arguments, **env):
    command = [sys.executable, "-S", "-E", "-X", "warn_default_encoding", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, **env})


def test_help_needs_the_standard_library_only_and_names_every_command(tmp_path):
    shown = script("--help")
    assert shown.returncode == 0 and not shown.stderr
    assert re.findall(r"^ {4}(\S+)", shown.stdout, re.MULTILINE) == list(dev.COMMANDS)


def test_make_has_the_same_commands(root):
    """And does nothing of its own: not every system has make."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^COMMANDS = (.*)$", text, re.MULTILINE)[1].split() == list(dev.COMMANDS)
    assert re.findall(r"^\t(.*)$", text, re.MULTILINE) == ["@$(PYTHON) scripts/dev.py $@"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tests"], "invalid choice: 'tests'"),
        ([], "required: COMMAND"),
        (["demo", "--fast"], "demo takes no --fast"),
        (["test", "--jobs", "two"], "invalid int value: 'two'"),
    ],
)
def test_wrong_arguments_are_said_in_a_line(arguments, said):
    shown = script(*arguments)
    assert shown.returncode == 2 and not shown.stdout
    assert said in shown.stderr and len(shown.stderr.splitlines()) == 1


def test_variables_and_arguments_reach_the_tests(ran, monkeypatch):
    monkeypatch.setenv("JOBS", "3")
    assert dev.main(["test", "tests/core/test_dev.py", "-k", "reach"]) == 0
    assert dev.main(["coverage", "--jobs", "1"]) == 0
    first, second = ran.commands
    assert first[0] == second[0] == str(comfy_env.python())
    assert first[1:] == ["-m", "pytest", "-n", "3", "--dist", "worksteal", "tests/core/test_dev.py", "-k", "reach"]
    assert second[3:5] == ["-n", "1"]


def test_comfyui_has_the_port_and_what_else_is_for_it(ran, monkeypatch):
    monkeypatch.setenv("PORT", "9000")
    dev.main(["comfyui", "--lowvram"])
    dev.main(["comfyui", "--port", "1"])
    assert [command[2:] for command in ran.commands] == [["--port", "9000", "--lowvram"], ["--port", "1"]]


def test_a_command_ends_with_the_first_that_fails(ran):
    ran.codes = [0, 5]
    assert dev.main(["lint"]) == 5
    assert len(ran.commands) == 2


def test_without_comfyui_only_ci_stops(ran, monkeypatch):
    monkeypatch.setattr(set_up, "main", lambda: set_up.NO_COMFYUI)
    assert dev.main(["setup"]) == dev.main(["demo"]) == 0 and len(ran.commands) == 1
    monkeypatch.setenv("CI", "true")
    assert dev.main(["setup"]) == dev.main(["demo"]) == 3 and len(ran.commands) == 1


def test_the_oldest_python_is_asked_for_as_the_system_knows_it(ran, monkeypatch, tmp_path, capsys):
    assert dev.oldest_python("nt") == ["py", "-3.10"]
    assert dev.oldest_python("posix") == ["python3.10"]
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setenv("OLDEST_PYTHON", "/old python")
    ran.codes = [1]
    assert dev.main(["test-oldest"]) == 1
    assert capsys.readouterr().err.startswith("dev: no /old python that can make an environment")
    assert ran.commands == [["/old python", "-m", "venv", "--clear", str(tmp_path / ".venv-oldest")]]


def test_an_environment_has_its_python_where_the_system_puts_it():
    assert comfy_env.venv_python(Path("a"), "posix") == Path("a/bin/python")
    assert comfy_env.venv_python(Path("a"), "nt") == Path("a/Scripts/python.exe")
    assert comfy_env.venv_python(Path(sys.prefix)).exists()


def test_packages_of_a_folder_of_any_name_are_lent(monkeypatch, tmp_path):
    """The file that lends them is read in the system's encoding, which may not have such letters."""
    base, venv = tmp_path / "Bilder für 图片", tmp_path / "venv"
    for folder in (base, venv):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    monkeypatch.setattr(set_up, "BASE_VENV", base)
    (set_up.packages_folder(base) / "lent_to_others.py").touch()
    set_up.lend_packages(venv)
    assert (set_up.packages_folder(venv) / "pidkit-base.pth").read_bytes().isascii()
    subprocess.run([comfy_env.venv_python(venv), "-c", "import lent_to_others"], check=True)


def test_windows_gets_a_junction(monkeypatch, tmp_path):
    """A symbolic link needs a right there."""
    made = []
    junctions = types.SimpleNamespace(CreateJunction=lambda *words: made.append(words))
    monkeypatch.setitem(sys.modules, "_winapi", junctions)
    monkeypatch.setattr(Path, "symlink_to", lambda *_: pytest.fail("a symbolic link"))
    folder_links.link_folder(tmp_path / "nodes" / "link", tmp_path, system="nt")
    assert made == [(str(tmp_path), str(tmp_path / "nodes" / "link"))]


def test_a_link_leads_to_where_it_is_asked_to(tmp_path):
    first, second, link = tmp_path / "first", tmp_path / "second", tmp_path / "below" / "link"
    for target in (first, second, second):
        target.mkdir(exist_ok=True)
        folder_links.link_folder(link, target)
        assert folder_links.is_link(link) and link.resolve() == target
    second.rmdir()
    assert folder_links.is_link(link) and not folder_links.is_link(first)


def test_what_is_no_link_is_never_replaced(tmp_path):
    (tmp_path / "link").mkdir()
    with pytest.raises(FileExistsError, match="is no link. Move it away"):
        folder_links.link_folder(tmp_path / "link", tmp_path)


def test_a_disk_without_links_is_said_in_a_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(OSError, match="cannot be made a link to .*not permitted.*put the project on a local disk"):
        folder_links.link_folder(tmp_path / "link", tmp_path / "target")


def test_windows_waits_for_what_takes_its_place(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("execv"))
    code = "import os, sys; sys.exit(7 if os.path.samefile(os.getcwd(), sys.argv[1]) else 1)"
    assert child_process.become([sys.executable, "-c", code, tmp_path], cwd=tmp_path, system="nt") == 7


def test_a_program_that_is_not_there_is_said(tmp_path, capsys):
    assert child_process.run_to_end([tmp_path / "none"], cwd=tmp_path) == 127
    assert capsys.readouterr().out == f"{tmp_path / 'none'}: No such file or directory\n"


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 9)])
def test_a_signal_waits_for_the_program(tmp_path, sent, code):
    """SIGTERM reaches it; what Ctrl-C sends, to both, ends nothing that is still at work."""
    child = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"os.kill(os.getppid(), {int(sent)}); signal.alarm(20); sys.stdin.read(); sys.exit(9)"
    )
    parent = (
        "import sys; sys.path.insert(0, 'scripts'); from pathlib import Path; import child_process\n"
        f"try: sys.exit(child_process.run_to_end([sys.executable, '-c', {child!r}], cwd=Path()))\n"
        "except KeyboardInterrupt: sys.exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", parent], cwd=comfy_env.ROOT, stdin=subprocess.DEVNULL)
    assert done.returncode == code
