"""What a user gets from ComfyUI's registry: small, complete, harmless, and at work in a fresh ComfyUI."""

import ast
import io
import json
import os
import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import archive_links
import comfy_env
from comfy_server import ComfyServer
from pid_core.version import pack_version
from support import archive

MEGABYTES, FILES = 4.5, 520  # above what it is, so that what grows is noticed
NEEDED = [
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "__init__.py",
    "__main__.py",
    "pyproject.toml",
    "requirements.txt",
    "docs/batch.md",
    "example_workflows/pid_upscale_demo.json",
    "example_workflows/pid_upscale_demo.jpg",
    "example_workflows/api/pid_upscale_demo.json",
    "example_workflows/pidkit_photo.png",
    "example_workflows/pid_upscale.app.json",
    "js/pidkit.css",
    "js/docs/PiDKitDecode/en.md",
    "js/docs/PiDKitDecode/zh.md",
    "js/docs/PiDKitDecode/node.jpg",
    "locales/en/nodeDefs.json",
    "locales/zh/nodeDefs.json",
    "nodes/__init__.py",
    "pid_bridges/comfyui.py",
    "pid_core/assets/pid_nano.safetensors",
    "pid_core/assets/README.md",
    "pid_core/commands/upscale.py",
]
UNWANTED = re.compile(
    r"^(\.|Makefile|CONTRIBUTING|install\.py|(benchmarks|scripts|tests|training)/|docs/.*\.(?!md$))"
    r"|__pycache__|\.(pyc|whl|zip|log)$"
)

RUNS_TEXT = ("eval", "exec", "compile", "__import__")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    if missing := archive.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"No archive to test: {missing}")
        pytest.skip(f"NOT TESTED, the registry's archive: {missing}")
    return archive.checkout(tmp_path_factory.mktemp("source") / "pack")


@pytest.fixture(scope="session")
def packed(source) -> Path:
    archive.comfy_cli(source, "node", "pack")
    return source / "node.zip"


@pytest.fixture(scope="session")
def unpacked(packed, tmp_path_factory) -> Path:
    """The pack where the registry's clients put it, in the folder that a ComfyUI has for its files."""
    pack = tmp_path_factory.mktemp("base") / "custom_nodes" / archive.NODE_ID
    with zipfile.ZipFile(packed) as file:
        file.extractall(pack)
    return pack


def test_it_holds_what_users_need_and_no_more(packed):
    with zipfile.ZipFile(packed) as file:
        names = file.namelist()
    size = packed.stat().st_size / 1e6
    assert size < MEGABYTES and len(names) < FILES, f"{size:.2f} MB, {len(names)} files"
    assert not [name for name in NEEDED if name not in names]
    assert not [name for name in names if UNWANTED.search(name)]


def test_every_example_and_help_page_comes_whole(unpacked):
    examples = {path.relative_to(comfy_env.ROOT) for path in (comfy_env.ROOT / "example_workflows").rglob("*.*")}
    pages = {path.relative_to(comfy_env.ROOT) for path in (comfy_env.ROOT / "js").rglob("*.*")}
    assert {path for path in examples | pages if not (unpacked / path).is_file()} == set()


def test_no_link_of_its_pages_leads_nowhere(unpacked):
    pages = list(unpacked.rglob("*.md"))
    help_pages = unpacked / "js" / "docs"  # the front end reads their links from here, whatever folder a page is in
    links = []
    for page in pages:
        folder = help_pages if help_pages in page.parents else page.parent
        links += [folder / found["path"] for found in archive_links.LINK.finditer(page.read_text("utf-8"))]
    assert not [str(target.relative_to(unpacked)) for target in links if not target.exists()]
    ours = re.compile(rf"(?:{archive_links.PAGES}|{archive_links.PICTURES})([^)#\"\s]+)")
    out = {path for page in pages for path in ours.findall(page.read_text("utf-8"))}
    assert out, "no page links to what was left out"
    assert not [path for path in out if not (comfy_env.ROOT / path).exists()]


def called(tree: ast.AST) -> set[str]:
    """What a module calls, as it writes it: "eval", "os.system", "subprocess.run"."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_no_code_runs_text_or_installs_packages(unpacked):
    """The registry refuses both. One program is asked: nvidia-smi, by `bench`, for the driver's version."""
    starts = re.compile(r"(os\.(system|popen|exec|spawn)\w*|(subprocess|pip|runpy|marshal)\.\w+)$")
    found = {}
    for path in unpacked.rglob("*.py"):
        text = path.read_text("utf-8")
        bad = {name for name in called(ast.parse(text)) if name in RUNS_TEXT or starts.match(name)}
        if bad == {"subprocess.run"} and text.count("subprocess.run(") == text.count('["nvidia-smi"'):
            continue
        if bad or "import pip" in text or "ensurepip" in text:
            found[str(path.relative_to(unpacked))] = bad
    assert found == {}
    scripts = "\n".join(path.read_text("utf-8") for path in unpacked.rglob("*.js"))
    assert not re.search(r"\beval\(|new Function\(|https?://(?!www\.w3\.org)", scripts)


def test_comfy_cli_finds_nothing_to_object_to(source):
    said = archive.comfy_cli(source, "node", "validate")
    assert "All validation checks passed" in said and "Warning" not in said, said


@pytest.mark.parametrize(
    "command", ["doctor --json", "fetch --list", "upscale example_workflows/pidkit_photo.png -o large.png"]
)
def test_its_commands_run_from_its_folder(unpacked, command, tmp_path):
    words = [str(unpacked / word) if (unpacked / word).exists() else word for word in command.split()]
    done = subprocess.run(
        [comfy_env.python(), unpacked, *words], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    if "--json" in command:
        assert json.loads(done.stdout)["versions"]["pidkit"] == pack_version()
    elif command.endswith(".png"):
        with Image.open(tmp_path / "large.png") as large, Image.open(words[1]) as small:
            assert large.size == (4 * small.width, 4 * small.height)


def test_a_command_is_named_by_the_folder_that_it_is_in(unpacked):
    done = subprocess.run([comfy_env.python(), unpacked, "--help"], capture_output=True, encoding="utf-8")
    assert done.stdout.startswith("usage: python custom_nodes/pidkit ")


def test_a_fresh_comfyui_runs_the_first_workflow(unpacked, tmp_path):
    try:
        comfyui = comfy_env.find_comfyui()[0]
    except (FileNotFoundError, ValueError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"No ComfyUI to test in: {error}")
        pytest.skip(f"NOT TESTED in ComfyUI: {error}")
    base = unpacked.parents[1]
    graph = json.loads((unpacked / "example_workflows" / "api" / "pid_upscale_demo.json").read_text("utf-8"))
    arguments = ("--base-directory", str(base))
    with ComfyServer(comfyui, comfy_env.python(), tmp_path, pack=archive.NODE_ID, arguments=arguments) as server:
        node = server.object_info("PiDKitDecode")
        finished = server.queue(graph)
        (picture,) = server.image_files(finished)
        examples = server.get("/workflow_templates")
        log = server.log()
    assert node["python_module"] == f"custom_nodes.{archive.NODE_ID}"
    assert "pid_upscale_demo" in examples[archive.NODE_ID]
    assert str(comfy_env.ROOT / "nodes") not in log and "IMPORT FAILED" not in log
    with (
        Image.open(io.BytesIO(picture)) as large,
        Image.open(unpacked / "example_workflows" / "pidkit_photo.png") as small,
    ):
        assert large.size == (4 * small.width, 4 * small.height)
        again = np.asarray(large.convert("RGB").resize(small.size, Image.Resampling.BOX)).astype(float)
        difference = np.abs(again - np.asarray(small.convert("RGB"))).mean()
    assert difference < 4, f"{difference:.2f} levels of 255 off its source"
