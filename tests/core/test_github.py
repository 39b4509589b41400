"""What .github and CONTRIBUTING.md tell people and machines to run is there."""

import re

import pytest

import dev
from pid_core.__main__ import main
from pid_core.commands import COMMANDS

yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def pages(root):
    found = [*(root / ".github").rglob("*.yml"), root / "CONTRIBUTING.md"]
    assert len(found) == 6
    return {path.name: path.read_text("utf-8") for path in found}


def test_every_script_and_command_of_ours_is_there(pages, root):
    told = "\n".join(pages.values())
    commands = set(re.findall(r"python scripts/dev\.py ([a-z-]+)", told))
    assert {"demo", "test", "lint"} <= commands <= set(dev.COMMANDS)
    paths = set(re.findall(r"(?<![\w/])(?:scripts|tests|docs|nodes|js|pid_core|\.ci)/[\w./-]*\w", told))
    assert not [path for path in paths if not (root / path).exists()]


def test_the_commands_that_the_forms_ask_for_exist(pages, capsys):
    asked = set(re.findall(r"pidkit (\w+)(?: (--\w+))?", pages["bug_report.yml"] + pages["bench.yml"]))
    assert ("doctor", "--json") in asked and {name for name, _ in asked} <= set(COMMANDS)
    for name, option in {*asked, ("bench", "--quick"), ("bench", "--model")}:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert option in capsys.readouterr().out


@pytest.mark.parametrize("name", ["bug_report.yml", "bench.yml"])
def test_a_form_has_what_github_asks_of_one(pages, name):
    form = yaml.safe_load(pages[name])
    assert form["name"] and form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in fields} <= {"checkboxes", "dropdown", "input", "textarea"}
    assert len({part["id"] for part in fields}) == len(fields)
    assert all(part["attributes"]["label"] for part in fields)
    assert any(part.get("validations", {}).get("required") for part in fields)


def test_three_systems_and_the_oldest_and_newest_python_are_tested(pages):
    matrix = yaml.safe_load(pages["tests.yml"])["jobs"]["systems"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "windows", "macos"}
    assert matrix["python"] == ["3.10", "3.13"]


def test_pytorch_without_cuda_comes_by_uv(pages):
    """Set-up's pip would bring gigabytes of it."""
    workflow = yaml.safe_load(pages["tests.yml"])
    assert workflow["env"]["UV_TORCH_BACKEND"] == "cpu"
    for name in ("systems", "oldest-comfyui"):
        steps = workflow["jobs"][name]["steps"]
        uv = next(number for number, step in enumerate(steps) if "setup-uv@" in step.get("uses", ""))
        assert uv < next(number for number, step in enumerate(steps) if "dev.py" in step.get("run", ""))


def test_publishing_sends_the_changelog_and_leaves_no_link_behind(pages):
    steps = yaml.safe_load(pages["publish.yml"])["jobs"]["registry"]["steps"]
    *before, last = steps
    said = "\n".join(step.get("run", "") for step in before)
    assert "scripts/release_notes.py" in said and "scripts/archive_links.py" in said
    assert "publish-node-action@" in last["uses"] and last["with"]["skip_checkout"] == "true"
