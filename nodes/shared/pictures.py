"""Small pictures for our own parts of the front end, in ComfyUI's temp folder."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import folder_paths
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...pid_core.captions.fingerprint import digest
from ...pid_core.images.pixels import eight_bits
from ...pid_core.log import log
from ...pid_core.printable import printable

FOLDER = "pidkit"  # in the temp folder


def save_picture(image: Tensor, name: str, longest: int, exact: bool = False) -> dict[str, str]:
    """Write an image [H, W, C] in [0, 1] as a JPEG, its longer side at most `longest` pixels.

    Returns what ComfyUI's /view wants to know. name: tells the picture and size apart; what is there already stays.
    exact: for a close look, with little loss and colours at full resolution. Where it cannot be written (a full disk),
    the log says so and nothing else is lost: the picture is only missing on the node.
    """
    options = {"quality": 95 if exact else 90, "subsampling": 0 if exact else 2}
    return _save(picture_file(name), lambda: to_pil(image, longest), options)


def picture_file(name: str, ending: str = ".jpg") -> dict[str, str]:
    """What ComfyUI's /view wants to know of a picture that is kept under this name."""
    return {"filename": f"{name}{ending}", "subfolder": FOLDER, "type": "temp"}


def present(node_id: str | None, images: Sequence[Tensor]) -> bool:
    """Show images [1, H, W, 3] on a node that will not come to give them; False where nobody sees it."""
    server, progress = getattr(PromptServer, "instance", None), get_progress_state()
    if not node_id or server is None or server.client_id is None or progress.dynprompt is None:
        return False
    options = {"compress_level": 1}
    entries = [
        _save(picture_file(f"finished_{digest(image)}", ".png"), partial(to_pil, image[0]), options) for image in images
    ]
    message = {
        "node": node_id,
        "display_node": progress.dynprompt.get_display_node_id(node_id),
        "output": {"images": entries},
        "prompt_id": progress.prompt_id,
    }
    server.send_sync("executed", message, server.client_id)
    return True


def _save(entry: dict[str, str], picture: Callable[[], Image.Image], options: dict) -> dict[str, str]:
    file = Path(folder_paths.get_temp_directory()) / entry["subfolder"] / entry["filename"]
    part = file.with_name(f".{uuid.uuid4().hex}{file.suffix}")
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            picture().save(part, **options)
            part.replace(file)
    except (OSError, RuntimeError, MemoryError) as error:
        log.warning("a small picture for the node could not be made: %s", printable(error))
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return entry


def to_pil(image: Tensor, longest: int | None = None) -> Image.Image:
    """[H, W, C] in [0, 1] as an 8-bit RGB picture, made smaller where it is larger than that."""
    return Image.fromarray(eight_bits(image, longest).numpy())
