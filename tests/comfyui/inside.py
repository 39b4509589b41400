"""ComfyUI's own modules and the pack inside the test process, for what the HTTP API cannot show.

Nothing is imported before `load` is called, so that tests which do not need ComfyUI run without it.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import ModuleType

import comfy_env

PACK = "pidkit_pack"


@functools.cache
def load() -> ModuleType:
    """Import ComfyUI for the CPU and the pack beside it; returns the pack's package.

    Raises FileNotFoundError where there is no ComfyUI, ImportError where this Python lacks its requirements.
    """
    comfyui, _ = comfy_env.find_comfyui()
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    root = comfy_env.ROOT
    spec = importlib.util.spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)
    return module
