"""The options of a command that name a VAE and a text, and what then encodes with them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..captions.text import check_text, read_caption
from ..hub.model_sets import TEXT_ENCODERS
from ..machine.comfy_home import find_comfyui
from ..machine.encoders import check_text_encoder, check_vae
from ..printable import printable
from ..upscale.bridge import Bridge
from ..upscale.upscaler import Upscaler


def add_bridge_arguments(parser: argparse.ArgumentParser, *, text: bool = True) -> None:
    """--vae, --clip, --caption, --comfyui; text: and --text."""
    parser.add_argument("--vae", type=Path, metavar="FILE", help="the VAE that the checkpoint was made for")
    parser.add_argument("--clip", type=Path, metavar="FILE", help=f"PiD's text encoder, {TEXT_ENCODERS[0]}")
    if text:
        parser.add_argument("--text", help="with --clip: what the picture shows; may be empty")
    parser.add_argument("--caption", type=Path, metavar="FILE", help="an encoded text, instead of --clip")
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="ComfyUI's folder, where it is not found")


def check_bridge_arguments(args: argparse.Namespace, *, text: str | None = None) -> None:
    """Raise ValueError in one line for options that cannot stand together. text: what is to be encoded, if any."""
    if args.clip is not None and args.caption is not None:
        raise ValueError("--clip and --caption are both given: --caption is a text already, leave one of them out")
    if text is not None and args.clip is None:
        raise ValueError("--text is given, but not what encodes it: name PiD's text encoder with --clip")
    check_text(text or "")


def read_text(args: argparse.Namespace, upscaler: Upscaler) -> Tensor | None:
    """The caption of --caption, None without one. Raises ValueError where the checkpoint has no text, or a wrong one.

    A text encoder's file is looked at, not loaded.
    """
    if args.clip is not None:
        check_text_encoder(args.clip, upscaler.net.config.caption_width)
    caption = None if args.caption is None else read_caption(args.caption).states
    upscaler.check_caption(caption, encoder=args.clip is not None)
    return caption


def bridge_for(args: argparse.Namespace, upscaler: Upscaler) -> BridgeFiles | None:
    """What encodes with --vae and --clip, None where neither is given. Nothing is loaded.

    Raises ValueError in one line for a VAE of another family than the checkpoint's, and where no ComfyUI is found.
    """
    if args.vae is not None and not upscaler.needs_vae:
        raise ValueError(f"{upscaler.name} takes pictures as they are: leave --vae out")
    if args.vae is not None:
        check_vae(args.vae, upscaler.family.name)
    if args.vae is None and args.clip is None:
        return None
    return BridgeFiles(upscaler.family.name, args.vae, args.clip, _code(args.comfyui))


@dataclass(frozen=True)
class BridgeFiles:
    """What a bridge is made of; it can be sent to another process. comfyui: the folder with ComfyUI's code."""

    family: str
    vae: Path | None
    clip: Path | None
    comfyui: Path

    def open(self, device: torch.device) -> Bridge:
        """The bridge, for a network on this device. Nothing is loaded before it is asked for."""
        from pid_bridges.comfyui import ComfyBridge  # here, because the core does without it

        return ComfyBridge(self.comfyui, device, vae=self.vae, clip=self.clip)


def _code(named: Path | None) -> Path:
    """The folder with ComfyUI's code: its models may lie in another."""
    folder = find_comfyui(named)
    if folder is None:
        raise ValueError(
            "VAE and text encoder are read by ComfyUI's own code, and no ComfyUI was found: name its folder with "
            "--comfyui PATH"
        )
    if not (folder / "comfy" / "sd.py").is_file():
        raise ValueError(
            f"{printable(folder)} holds ComfyUI's models but not its code: name the folder with main.py with --comfyui"
        )
    return folder
