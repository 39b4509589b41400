"""Runs ComfyUI with the pack in it, as `make comfyui` does. Arguments are passed on to ComfyUI's main.py."""

from __future__ import annotations

import os
import sys

import torch

import comfy_env


def main() -> None:
    try:
        folder, _ = comfy_env.find_comfyui()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    os.chdir(folder)
    device = [] if torch.cuda.is_available() else ["--cpu"]
    command = [str(comfy_env.python()), "main.py", "--disable-auto-launch", *device, *sys.argv[1:]]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
