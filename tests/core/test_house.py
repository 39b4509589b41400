"""The house: wings import only downwards, the nodes know nothing of each other, and the core nothing of ComfyUI."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Lowest first. Wings of one floor do not know each other. Files beside the wings lie below all of them.
FLOORS = {
    "pid_core": [
        {"assets", "model", "captions"},
        {"latents", "windows"},
        {"sampling", "images", "hub", "rae"},
        {"checkpoints"},
        {"machine"},
        {"upscale"},
        {"batch", "bench"},
        {"commands"},
    ],
    "nodes": [{"comfy"}, {"shared"}],
}
# PiDConfig.from_state_dict is public, and reading a state dict is the checkpoints' work.
UPWARDS = {("pid_core/model/config.py", "checkpoints")}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """The files of this project that a module imports from: (package, parts...), absolute or relative."""
    here = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else ()
            named = (*base, *(node.module or "").split("."))
            yield from ((*named, alias.name) if not node.module else named for alias in node.names)


def place(parts, package):
    """The wing that a module or file of the package lies in; None beside the wings."""
    return parts[1] if len(parts) > 1 and (ROOT / package / parts[1]).is_dir() else None


def edges(package):
    """(wing or None, file name, wing or file it imports from)."""
    for path in modules(package):
        parts = path.relative_to(ROOT).parts
        for target in imported(path):
            target = tuple(part for part in target if part)
            if target[:1] == (package,) and len(target) > 1:
                yield place(parts, package), path, place(target, package) or target[1]


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_has_a_floor(package):
    folders = {p.parent.relative_to(ROOT / package).parts[:1] for p in modules(package)} - {()}
    assert {name for (name,) in folders} == set().union(*FLOORS[package])


def height(package, name):
    """The floor of a wing. The core's files beside its wings lie below them; the nodes, and what starts all, above."""
    for number, wings in enumerate(FLOORS[package]):
        if name in wings:
            return number
    return 99 if package == "nodes" or name in ("__init__", "__main__") else -1


@pytest.mark.parametrize("package", FLOORS)
def test_wings_import_only_downwards(package):
    for wing, path, target in edges(package):
        above, below = height(package, wing or path.stem), height(package, target)
        together = wing == target or above == below == height(package, "a file beside the wings")
        assert below < above or together or (path.relative_to(ROOT).as_posix(), target) in UPWARDS, (
            f"{path} imports {target}"
        )


def test_no_node_imports_a_node():
    wings = set().union(*FLOORS["nodes"])
    wrong = [
        f"{path.name} imports {target}"
        for wing, path, target in edges("nodes")
        if path.name != "__init__.py" and target not in wings
    ]
    assert not wrong


def test_a_node_has_a_file_of_its_own():
    for path in (ROOT / "nodes").glob("[!_]*.py"):
        classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
        assert sum("ComfyNode" in ast.unparse(base) for node in classes for base in node.bases) == 1, path.name


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_says_what_lives_there(package):
    for path in (ROOT / package).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_the_core_imports_nothing_of_comfyui_or_the_nodes():
    comfy = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "nodes"}
    for path in modules("pid_core"):
        assert not [target for target in imported(path) if target[0] in comfy], path


def test_the_bridges_reach_the_core_as_it_is_installed():
    """Beside it, by its own name: the pack's folder is no package there."""
    for path in modules("pid_bridges"):
        assert not [one for one in ast.walk(ast.parse(path.read_text("utf-8"))) if getattr(one, "level", 0)], path
        assert not [target for target in imported(path) if target[0] == "nodes"], path


def test_there_is_one_log():
    """Others would lack its prefix, and fail on what cannot be printed."""
    paths = [path for package in FLOORS for path in modules(package)]
    own = [path.name for path in paths if "getLogger" in path.read_text(encoding="utf-8")]
    assert own == ["log.py"]
