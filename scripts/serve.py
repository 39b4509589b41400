"""Runs ComfyUI with the pack in it, as `dev.py comfyui` does. Arguments are passed on to ComfyUI's main.py."""

from __future__ import annotations

import sys

import torch

import comfy_env
from child_process import become


def main() -> int:
    try:
        folder, _ = comfy_env.find_comfyui()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    device = [] if torch.cuda.is_available() else ["--cpu"]
    command = [comfy_env.python(), "main.py", "--disable-auto-launch", *device, *sys.argv[1:]]
    try:
        return become(command, cwd=folder)
    except KeyboardInterrupt:  # where ComfyUI was a child, and has heard it too
        return 130


if __name__ == "__main__":
    sys.exit(main())
