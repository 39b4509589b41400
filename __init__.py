"""ComfyUI entry point. Outside ComfyUI this imports too, and offers nothing: use pid_core there."""

import importlib.util

WEB_DIRECTORY = "./js"

if __package__ and importlib.util.find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
else:
    __all__ = ["WEB_DIRECTORY"]
