"""The core stands alone: no ComfyUI, nothing but torch, einops and safetensors."""

import json
import subprocess
import sys

import pytest

PROBE = """
import importlib, json, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Absent())
import pid_core
names = [m.name for m in pkgutil.walk_packages(pid_core.__path__, "pid_core.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([names, sorted(sys.modules)]))
"""
COMFY = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "nodes", "folder_paths", "server", "execution")


def imported(root, absent=()):
    code = f"ABSENT = {set(absent)!r}\n{PROBE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def loaded(root):
    return imported(root, {*COMFY, "pid_bridges", "PIL", "torchvision", "skimage", "yaml", "scipy"})


def test_every_module_imports_with_torch_einops_and_safetensors_alone(loaded):
    names, modules = loaded
    some = {"pid_core.model.network", "pid_core.checkpoints.reading", "pid_core.sampling.decode", "pid_core.__main__"}
    assert some <= set(names)
    assert {"torch", "einops", "safetensors"} <= set(modules)


def test_no_module_of_comfyui_is_imported(loaded):
    _, modules = loaded
    top = {name.partition(".")[0] for name in modules}
    assert not {name for name in top if name in COMFY or name.startswith("comfy")}


def test_the_compiler_is_not_imported_before_something_is_compiled(loaded):
    """It takes as long to import as PyTorch itself, and doctor or fetch would wait for it."""
    _, modules = loaded
    assert "pid_core.model.compiled" in modules and "torch._dynamo" not in modules
