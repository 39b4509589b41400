"""Picture files: a rule for every kind on the way in, and outputs that are checked before anything is drawn.

Nothing is lost in silence: what a picture holds beside 8-bit sRGB colours is used, or said in a note, or refused.
Pillow reads and writes; PyAV, where it is there (ComfyUI brings it), reads the 16-bit colours that Pillow cuts to 8.
"""

from __future__ import annotations

import io
import json
import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import prints_bare
from ..files import move
from ..printable import printable
from .deep_png import deep_png

if TYPE_CHECKING:  # Pillow is needed for pictures only, and PyTorch not to find them
    from PIL import Image, ImageCms, ImageFile
    from torch import Tensor

# How each ending is written. PNG: as small as level 9 to a few percent, in a tenth of its time. JPEG: as good as it
# gets before files grow without a visible gain, and colours at full resolution, which is what was just restored.
# WebP and TIFF: without loss.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 4}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True, "method": 2}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}
LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}  # what the formats can hold
SOFTWARE, DESCRIPTION, ORIENTATION = 0x0131, 0x010E, 0x0112  # EXIF
_UPRIGHT = {  # EXIF orientation -> what brings rows and columns of [H, W, ...] in order
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


class Picture(NamedTuple):
    """image [H, W, 3] sRGB in [0, 1], upright. alpha [H, W] in [0, 1], None where all is opaque. notes: a line each."""

    image: Tensor
    alpha: Tensor | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: Path) -> Picture:
    """Read a picture file of any mode. Raises ValueError in one line for what is no picture or cannot be kept whole."""
    from PIL import Image

    path = Path(path)
    name = printable(path.name)
    if not path.exists():
        raise ValueError(f"there is no file {printable(path)}")
    if not path.is_file():
        raise ValueError(f"{printable(path)} is no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of pictures that are merely large
            with Image.open(path) as file:
                return _read(file, path, name)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # None is no limit
        raise ValueError(
            f"{name} has more than {limit / 1e6:.0f} megapixels: cut it into parts, or make it smaller"
        ) from None
    except _Refused as refused:
        raise ValueError(f"{name} {refused}") from None
    except Exception as error:  # Pillow's readers raise anything over a broken file
        reason = printable(error).replace(str(path), name)
        what = "is no picture that can be read" if isinstance(error, Image.UnidentifiedImageError) else "cannot be read"
        raise ValueError(f"{name} {what}" + ("" if "is no" in what else f": {reason}")) from None


@prints_bare
class _Refused(Exception):
    pass


def _read(file: ImageFile.ImageFile, path: Path, name: str) -> Picture:
    notes = []
    frames = getattr(file, "n_frames", 1)
    if frames > 1:
        notes.append(f"{name} holds {frames} frames: the first is used")
    deep = _is_deep(file)
    orientation = file.getexif().get(ORIENTATION, 1)
    profile = _profile(file)
    if deep and profile is not None:
        notes.append(f"{name}: 16 bits are cut to 8, to apply its colour profile")
    elif deep:
        values = _read_deep(path)
        if values is None:
            notes.append(f"{name}: 16 bits are cut to 8, because PyAV is not there to read them")
        else:
            return _picture(values.astype(np.float32) / 65535, orientation, notes)
    if file.mode.startswith("I") or file.mode == "F":
        values = _single_channel(file)
    else:
        values = np.asarray(_to_rgb(file, profile, name, notes)).astype(np.float32) / 255
    return _picture(values, orientation, notes)


def _picture(values: np.ndarray, orientation: int, notes: list[str]) -> Picture:
    import torch

    values = _UPRIGHT.get(orientation, lambda a: a)(values)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    alpha = tensor[..., 3] if tensor.shape[-1] == 4 and bool((tensor[..., 3] < 1).any()) else None
    return Picture(tensor[..., :3].contiguous(), alpha, tuple(notes))


def _is_deep(file: ImageFile.ImageFile) -> bool:
    """Whether Pillow would cut 16-bit colours to 8. Asked before anything is loaded, which forgets it."""
    return any(";16" in str(tile[3]) for tile in file.tile) and not file.mode.startswith("I")


def _read_deep(path: Path) -> np.ndarray | None:
    """[H, W, 3 or 4] uint16, None where it cannot be had."""
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            alpha = any(part in frame.format.name for part in ("a64", "ya16"))
            return frame.to_ndarray(format="rgba64le" if alpha else "rgb48le")
    except (av.FFmpegError, StopIteration, ValueError):
        return None


def _single_channel(file: Image.Image) -> np.ndarray:
    """16-bit grey and floating point, [H, W] in [0, 1]."""
    values = np.asarray(file)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    low, high = float(values.min()), float(values.max())
    whole, what = (1.0, "floating point") if file.mode == "F" else (65535.0, "whole numbers")
    if not (low >= 0 and high <= whole):
        raise _Refused(
            f"holds {what} from {low:g} to {high:g}, which has no meaning as brightness here: bring it to 0 to "
            f"{whole:g}"
        )
    return values.astype(np.float32) / whole


def _to_rgb(file: Image.Image, profile: ImageCms.ImageCmsProfile | None, name: str, notes: list[str]) -> Image.Image:
    """8-bit RGB, or RGBA where anything is transparent, in sRGB."""
    picture = file
    if picture.mode in ("P", "PA") or (picture.mode in ("RGB", "L", "1") and "transparency" in picture.info):
        picture = picture.convert("RGBA")
    elif picture.mode in ("LA", "La", "RGBa"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    alpha = picture.getchannel("A") if "A" in picture.getbands() else None
    if profile is not None:
        picture = _to_srgb(picture, profile, name, notes)
    elif picture.mode == "CMYK":
        notes.append(f"{name} is CMYK without a colour profile: its colours are a guess")
    picture = picture.convert("RGB")
    if alpha is not None:
        picture.putalpha(alpha)
    return picture


def _profile(file: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The colour profile of a file, None where there is none or it is sRGB."""
    from PIL import ImageCms

    data = file.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        description = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError):
        return None
    return None if "srgb" in description.lower() else profile


def _to_srgb(picture: Image.Image, profile, name: str, notes: list[str]) -> Image.Image:
    from PIL import ImageCms

    colours = picture.convert({"LA": "L", "RGBA": "RGB", "1": "L"}.get(picture.mode, picture.mode))
    try:
        converted = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError as error:
        notes.append(f"{name}: its colour profile cannot be applied ({printable(error)}), colours may be off")
        return picture
    return converted or picture  # None comes only of work in place


def check_output(
    path: Path, size: tuple[int, int], *, source: Path | None = None, overwrite: bool = False, alpha: bool = False
) -> None:
    """Find what would keep a picture of size (H, W) from being written, before it is drawn.

    source: never overwritten. overwrite: whether another file of that name may be replaced. alpha: whether the picture
    has transparent parts. Raises ValueError in one line.
    """
    path = Path(path)
    shown = printable(path)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        known = ", ".join(dict.fromkeys(FORMATS))
        raise ValueError(f"{shown} ends in {printable(ending) or 'nothing'!r}; pictures are written as {known}")
    kind, _ = FORMATS[ending]
    if max(size) > LARGEST_SIDE.get(kind, max(size)):
        raise ValueError(f"{kind} holds at most {LARGEST_SIDE[kind]} pixels a side, not {max(size)}: write PNG or TIFF")
    if alpha and kind == "JPEG":
        raise ValueError("the picture has transparent parts, which JPEG cannot hold: write PNG, WebP or TIFF")
    try:
        if path.is_dir():
            raise ValueError(f"{shown} is a folder: give the name of a file")
        if source is not None and path.exists() and path.samefile(source):
            raise ValueError(f"{shown} is the picture itself: choose another name for the result")
        if path.exists() and not overwrite:
            raise ValueError(f"{shown} is there already: choose another name, or add --overwrite")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise ValueError(f"{printable(folder)} is a file, so no folder can be made there: choose another name")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(
                f"{printable(folder)} cannot be written to: choose another folder, or change its permissions"
            )
    except OSError as error:
        raise ValueError(f"{shown} cannot be written: {error.strerror}") from None


def write_picture(
    path: Path,
    image: Tensor,
    alpha: Tensor | None = None,
    *,
    about: Mapping[str, object] | None = None,
    overwrite: bool = False,
    quality: int | None = None,
    bits: int = 8,
    durable: bool = False,
    mark: str = "",
) -> Path:
    """[H, W, 3] in [0, 1], and alpha [H, W] where there is one, to a file; returns its path.

    Written beside and renamed, so that nobody sees half a file. about: what made it, as JSON in the file's metadata.
    A file that came there meanwhile stays, without `overwrite`: the picture then gets a number behind its name.
    quality: 1 to 100 of JPEG, and of WebP, which is then not without loss. bits: of a channel, 8 or 16; 16 is PNG's.
    durable: on the disk, and not only on its way there, before it has its name. mark: begins the name of the
    unfinished file, by which `remove_unfinished` finds what a process that was killed left. Raises OSError.
    """
    import torch

    path = Path(path)
    channels = image if alpha is None else torch.cat([image, alpha[..., None].to(image)], dim=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{mark}{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        _write(part, channels.clamp(0, 1), about, quality, bits)
        if durable:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        return _move(part, path, overwrite)
    finally:
        part.unlink(missing_ok=True)


def remove_unfinished(path: Path, mark: str) -> None:
    """Remove what `write_picture` with this mark, for this path, left where it was killed."""
    for part in Path(path).parent.glob(f".{mark}*.part*"):
        part.unlink(missing_ok=True)


def check_form(format: str, quality: int | None, bits: int) -> None:
    """Raise ValueError for what `write_picture` cannot do with files that end in .`format`."""
    kind, _ = FORMATS[f".{format}"]
    if bits not in (8, 16):
        raise ValueError(f"bits is {bits}, and can be 8 or 16")
    if bits == 16 and kind != "PNG":
        raise ValueError(f"16 bits a channel are written as png, not as {format}")
    if quality is not None and kind not in ("JPEG", "WEBP"):
        raise ValueError(f"quality is of jpg and webp; {format} is without loss")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}, and can be 1 to 100")


def read_about(path: Path) -> dict[str, Any] | None:
    """What `write_picture` wrote of a picture's making, without its pixels; None for a picture of others.

    Raises OSError.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                text = file.info.get("pidkit") or file.getexif().get(DESCRIPTION)
        about = json.loads(text)
    except OSError:
        if path.is_file() and path.stat().st_size:  # there, and no picture
            return None
        raise
    except Exception:  # Pillow's readers raise anything over a broken file
        return None
    return about if isinstance(about, dict) else None


def _write(path: Path, channels: Tensor, about: Mapping[str, object] | None, quality: int | None, bits: int) -> None:
    """channels: [H, W, 3 or 4] in [0, 1]."""
    from PIL import Image

    kind, options = FORMATS[path.suffix.lower()]
    if bits == 16:
        deep = (channels.double() * 65535).round().int().cpu().numpy().astype(np.uint16)
        path.write_bytes(deep_png(deep, _texts(about)))
        return
    if quality is not None:
        options = {"quality": quality, "subsampling": 0} if kind == "JPEG" else {"quality": quality}
    picture = Image.fromarray((channels * 255).round().byte().cpu().numpy())
    content = io.BytesIO()  # Pillow's own way into a file takes a disk that is full in the middle for one that is not
    picture.save(content, kind, **options, **_metadata(kind, about))
    path.write_bytes(content.getbuffer())


def _move(part: Path, path: Path, overwrite: bool) -> Path:
    number, first = 1, path
    while not overwrite and path.exists():
        number += 1
        path = first.with_name(f"{first.stem} ({number}){first.suffix}")
    move(part, path)
    return path


def _texts(about: Mapping[str, object] | None) -> dict[str, str]:
    return {} if about is None else {"Software": "ComfyUI-PiDKit", "pidkit": json.dumps(dict(about))}


def _metadata(kind: str, about: Mapping[str, object] | None) -> dict:
    if about is None:
        return {}
    from PIL import Image, PngImagePlugin

    texts = _texts(about)
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        for word, text in texts.items():
            info.add_text(word, text)
        return {"pnginfo": info}
    exif = Image.Exif()
    exif[SOFTWARE], exif[DESCRIPTION] = texts["Software"], texts["pidkit"]
    return {"exif": exif.tobytes() if kind != "TIFF" else exif}
