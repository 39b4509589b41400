"""What a checkpoint of a VAE's family needs beside itself, and the core does not bring: its VAE and text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # batch --dry-run does without PyTorch, which takes half a gigabyte
    from torch import Tensor


class Bridge(Protocol):
    """The VAE and the text encoder of a checkpoint, each loaded when it is first asked for."""

    def encode_picture(self, image: Tensor) -> Tensor:
        """[B, H, W, 3] in [0, 1], sides whole latent cells -> the VAE's raw latent [B, C, h, w], float32 on the CPU.

        Raises ValueError in one line where no VAE was named.
        """

    def encode_text(self, text: str) -> Tensor:
        """A caption [1, T, caption_width], float32 on the CPU. Raises ValueError where no text encoder was named."""

    def free(self) -> None:
        """Let go of what is loaded; the next call loads it again."""


def no_bridge(device: str) -> None:
    """For the bundled family, and for latents with captions' files."""
