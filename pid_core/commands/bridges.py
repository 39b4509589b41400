"""The options of a command that name a VAE and a text, and what then encodes with them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..hub.model_sets import TEXT_ENCODERS
from ..machine.comfy_home import find_comfyui
from ..printable import printable
from ..rae.facts import is_rae
from ..upscale.bridge import Bridge

if TYPE_CHECKING:  # batch --dry-run does without PyTorch, which takes half a gigabyte
    import torch
    from torch import Tensor

    from ..upscale.upscaler import Upscaler

BRIDGES = ("comfyui", "diffusers")
WEIGHTS = "diffusion_pytorch_model.safetensors"  # in a folder that diffusers wrote


def add_bridge_arguments(parser: argparse.ArgumentParser, *, text: bool = True) -> None:
    """--vae, --statistics, --clip, --caption, --comfyui, --bridge; text: and --text."""
    parser.add_argument(
        "--vae",
        type=vae_file,
        metavar="FILE",
        help="the VAE that the checkpoint was made for; of dinov2 and siglip the encoder's file or folder",
    )
    parser.add_argument(
        "--statistics", type=Path, metavar="FILE", help="of dinov2, where it does not lie beside its encoder"
    )
    parser.add_argument("--clip", type=Path, metavar="FILE", help=f"PiD's text encoder, {TEXT_ENCODERS[0]}")
    if text:
        parser.add_argument("--text", help="with --clip: what the picture shows; may be empty")
    parser.add_argument("--caption", type=Path, metavar="FILE", help="an encoded text, instead of --clip")
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="ComfyUI's folder, where it is not found")
    parser.add_argument(
        "--bridge",
        choices=BRIDGES,
        help="whose code encodes with --vae and --clip: ComfyUI's where it is found, else diffusers",
    )


def vae_file(name: str) -> Path:
    """A VAE's file; of a folder that diffusers wrote, the one in it."""
    path = Path(name)
    return path / WEIGHTS if (path / WEIGHTS).is_file() else path


def check_bridge_arguments(args: argparse.Namespace, *, text: str | None = None) -> None:
    """Raise ValueError in one line for options that cannot stand together. text: what is to be encoded, if any."""
    if args.clip is not None and args.caption is not None:
        raise ValueError("--clip and --caption are both given: --caption is a text already, leave one of them out")
    if text is not None and args.clip is None:
        raise ValueError("--text is given, but not what encodes it: name PiD's text encoder with --clip")
    if text is not None:
        from ..captions.text import check_text

        check_text(text)


def read_text(args: argparse.Namespace, upscaler: Upscaler) -> Tensor | None:
    """The caption of --caption, None without one. Raises ValueError where the checkpoint has no text, or a wrong one.

    A text encoder's file is looked at, not loaded.
    """
    from ..captions.text import read_caption
    from ..machine.encoders import check_text_encoder

    if args.clip is not None:
        check_text_encoder(args.clip, upscaler.net.config.caption_width)
    caption = None if args.caption is None else read_caption(args.caption).states
    upscaler.check_caption(caption, encoder=args.clip is not None)
    return caption


def bridge_for(args: argparse.Namespace, upscaler: Upscaler) -> BridgeFiles | None:
    """What encodes with --vae and --clip, None where neither is given. Nothing is loaded.

    Raises ValueError in one line for a VAE of another family than the checkpoint's, and where no ComfyUI is found.
    """
    from ..machine.encoders import check_vae

    if args.vae is not None and not upscaler.needs_vae:
        raise ValueError(f"{upscaler.name} takes pictures as they are: leave --vae out")
    family = upscaler.family.name
    if args.statistics is not None and (args.vae is None or family != "dinov2"):
        raise ValueError("--statistics is of dinov2's encoder, which --vae names: leave it out")
    if args.vae is not None:
        check_vae(args.vae, family)
    if args.vae is None and args.clip is None:
        return None
    if not is_rae(family):
        return BridgeFiles(family, args.vae, args.clip, _comfyui_for(args))
    if args.vae is not None:
        _check_rae(args)
    comfyui = None if args.clip is None else _comfyui_for(args)
    return BridgeFiles(family, args.vae, args.clip, comfyui, args.statistics)


def _check_rae(args: argparse.Namespace) -> None:
    """Raise ValueError, or FileNotFoundError, where the encoder cannot be run: nothing large is read."""
    from ..rae.encoder import find_statistics
    from ..rae.files import examine_encoder

    if find_spec("transformers") is None:
        raise ValueError("the encoders of RAE need the Python package transformers: pip install transformers")
    find_statistics(examine_encoder(args.vae), args.vae, args.statistics)


@dataclass(frozen=True)
class BridgeFiles:
    """What a bridge is made of; it can be sent to another process.

    comfyui: the folder with ComfyUI's code, None for the bridge of diffusers. statistics: of dinov2, where they do not
    lie beside its encoder.
    """

    family: str
    vae: Path | None
    clip: Path | None
    comfyui: Path | None
    statistics: Path | None = None

    def open(self, device: torch.device) -> Bridge:
        """The bridge, for a network on this device. Nothing is loaded before it is asked for."""
        if self.vae is None or not is_rae(self.family):
            return self._open(device, self.vae)
        from ..upscale.rae_bridge import RAEBridge

        texts = None if self.clip is None else self._open(device, None)
        return RAEBridge(device, self.family, self.vae, self.statistics, texts)

    def _open(self, device: torch.device, vae: Path | None) -> Bridge:
        # here, because the core does without them
        if self.comfyui is None:
            from pid_bridges.diffusers import DiffusersBridge

            return DiffusersBridge(device, vae=vae, clip=self.clip)
        from pid_bridges.comfyui import ComfyBridge

        return ComfyBridge(self.comfyui, device, vae=vae, clip=self.clip)


def _comfyui_for(args: argparse.Namespace) -> Path | None:
    """The folder with ComfyUI's code; None where diffusers is to encode. Raises ValueError where neither is there."""
    folder = None if args.bridge == "diffusers" else find_comfyui(args.comfyui)
    if folder is None and args.bridge == "comfyui":
        raise ValueError("no ComfyUI was found: name its folder with --comfyui PATH")
    if folder is None:
        lacking = [name for name in ("diffusers", "transformers") if find_spec(name) is None]
        if lacking:
            found = "" if args.bridge else "and no ComfyUI was found: name its folder with --comfyui PATH, or "
            raise ValueError(
                "VAE and text encoder are read by ComfyUI's own code or by diffusers, "
                f"{found or 'which is not here: '}"
                'pip install ".[diffusers]"'
            )
        return None
    if not (folder / "comfy" / "sd.py").is_file():
        raise ValueError(
            f"{printable(folder)} holds ComfyUI's models but not its code: name the folder with main.py with "
            "--comfyui, or encode with --bridge diffusers"
        )
    return folder
