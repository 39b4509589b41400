"""The one place that opens files of tensors: checkpoints, latents and captions, .safetensors or PyTorch's own.

What a file says of itself is counted, bounded and checked before anything is made of it, so that neither a damaged file
nor one made to do harm costs more than it weighs. Every error is a ValueError in one line (FileNotFoundError where
there is no file), with advice that helps.
"""

from __future__ import annotations

import errno
import io
import math
import os
import pickle
import pickletools
import re
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from .entries import LARGEST as LARGEST_HEADER
from .entries import MOST_TENSORS, read_object
from .errors import prints_bare
from .printable import printable

SAFETENSORS = (".safetensors", ".sft")
LARGEST_PICKLE = 4_000_000  # bytes of what lists the tensors, which are stored apart
SMALL = 65_536  # bytes of a tensor whose values `read_outline` reads
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": getattr(torch, "uint16", None),
    "U32": getattr(torch, "uint32", None),
    "U64": getattr(torch, "uint64", None),
    "F8_E8M0": getattr(torch, "float8_e8m0fnu", None),
    "C64": torch.complex64,
}
# All that a dictionary of plain tensors needs of a pickle. Others reserve memory, or make tensors without values.
_GLOBALS = re.compile(
    r"collections OrderedDict|torch Size|torch\._utils _rebuild_(tensor_v[23]|parameter)|torch\.nn\.parameter Parameter"
    r"|torch (\w+Storage|(b?float|u?int|bool|complex)\w*)|torch\.storage (Untyped|Typed)Storage"
)


@dataclass(frozen=True)
class Entry:
    """A tensor as a safetensors header tells of it. start: its first byte in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Memory that the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


class Stamp(NamedTuple):
    """What changes when a file is written anew or cut short."""

    size: int
    changed: int  # nanoseconds

    @staticmethod
    def of(path: str | Path) -> Stamp | None:
        """None where there is no such file any more."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return Stamp(found.st_size, found.st_mtime_ns)


def read_tensors(
    path: str | Path, what: str = "checkpoint", *, only: Collection[str] | None = None, mapped: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, on the CPU, and the metadata (empty for PyTorch's files).

    what: what the file should be, for messages. only: names to read, all by default. mapped: tensors stay on the disk
    until they are used, and the file must not change while they are; else they are read into memory now.
    """
    path = Path(path)
    with _explained(path, what):
        size = _check_file(path, what)
        mapped = mapped and _is_utf8(path)  # what maps files takes no other names
        if not _is_safetensors(path):
            return _read_pickled(path, size, mapped), {}
        entries, metadata = _read_header(path, size, what)
        names = [name for name in entries if only is None or name in only]
        if mapped:
            with safe_open(path, framework="pt", device="cpu") as file:
                return {name: file.get_tensor(name) for name in names}, metadata
        with path.open("rb") as file:
            return {name: _values(file, entries[name]) for name in names}, metadata


def read_outline(path: str | Path, what: str = "checkpoint") -> tuple[dict[str, Tensor], dict[str, str]]:
    """As `read_tensors`, but on the meta device: shapes and dtypes, at the cost of the file's header.

    Small ones of bytes (uint8) have their values, because settings are kept so. A file of PyTorch's is mapped instead.
    """
    path = Path(path)
    with _explained(path, what):
        size = _check_file(path, what)
        if not _is_safetensors(path):
            return _read_pickled(path, size, mapped=_is_utf8(path)), {}
        entries, metadata = _read_header(path, size, what)
        with path.open("rb") as file:
            return {name: _outlined(file, entry) for name, entry in entries.items()}, metadata


def read_shapes(path: str | Path, what: str = "model") -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a safetensors file, from its header alone."""
    path = Path(path)
    with _explained(path, what):
        entries, _ = _read_header(path, _check_file(path, what), what)
    return {name: entry.shape for name, entry in entries.items()}


def read_metadata(path: str | Path, what: str = "model") -> tuple[dict[str, str], set[str]]:
    """The metadata of a safetensors file, and the names of its tensors."""
    path = Path(path)
    with _explained(path, what):
        entries, metadata = _read_header(path, _check_file(path, what), what)
    return metadata, set(entries)


def check_plain(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError in one line where a tensor has not all its values in memory: sparse, on meta, one repeated."""
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)
        if not plain or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ValueError(f"its tensor {printable(name)} has no plain values (sparse, repeated or on no device)")


def find_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinite values, None where none does. Reads every value."""
    return next((name for name, tensor in tensors.items() if not _is_finite(tensor)), None)


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel() or tensor.device.type == "meta":
        return True
    if tensor.dtype == torch.float8_e4m3fn:
        return not bool(((tensor.view(torch.uint8) & 0x7F) == 0x7F).any())
    if tensor.dtype == torch.float8_e5m2:
        return not bool(((tensor.view(torch.uint8) & 0x7C) == 0x7C).any())
    if tensor.dtype.itemsize == 1:  # E8M0, whose one NaN has all bits
        return not bool((tensor.view(torch.uint8) == 0xFF).any())
    least, most = torch.aminmax(tensor)  # both are NaN where one value is
    return math.isfinite(least) and math.isfinite(most)


class _explained:
    """Turns whatever reading raises into one line that names the file and says what to do."""

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, _) -> None:
        if not isinstance(error, Exception) or isinstance(error, FileNotFoundError):
            return
        if isinstance(error, _Refused):
            raise ValueError(str(error)) from None
        name = printable(self.path.name)
        if isinstance(error, PermissionError):
            raise ValueError(f"{name} may not be read: give the user that runs this read permission for it") from None
        if isinstance(error, MemoryError) or os.strerror(errno.ENOMEM) in str(error):
            raise ValueError(f"{name} does not fit into memory: close other programs, or use a smaller file") from None
        reason = type(error).__name__
        if str(error) and not isinstance(error, pickle.UnpicklingError):
            reason += f": {printable(str(error).splitlines()[0], 120)}"
        size, advice = "", ""
        if self.what == "checkpoint":  # latents and captions are nowhere to be fetched
            size, advice = f" ({_size(self.path)})", ": fetch it again"
        raise ValueError(
            f"{name}{size} cannot be read; it is truncated, corrupt or no {self.what}{advice} ({reason})"
        ) from None


@prints_bare
class _Refused(Exception):
    """Says all that there is to say."""


def _refusal(path: Path, line: str) -> _Refused:
    """For a file that can be read and is not wanted: the line is complete."""
    return _Refused(f"{printable(path.name)} {line}")


def _size(path: Path) -> str:
    stamp = Stamp.of(path)
    return "gone" if stamp is None else f"{stamp.size:,} bytes"


def _check_file(path: Path, what: str) -> int:
    """The file's size in bytes, where it is one: reading a pipe waits for ever, and a device may never end."""
    try:
        found = os.stat(path)
    except PermissionError:
        raise
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        raise FileNotFoundError(f"no such file: {printable(path.name)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise FileNotFoundError(f"no such file: {printable(path.name)} (it is a folder)")
    if not stat.S_ISREG(found.st_mode):
        raise _refusal(path, f"is no file but a pipe or a device: choose a {what}")
    return found.st_size


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_safetensors(path: Path) -> bool:
    """By name, or by content: eight bytes of length, then JSON."""
    if path.suffix.lower() in SAFETENSORS or path.suffix.lower() == ".latent":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_header(path: Path, size: int, what: str) -> tuple[dict[str, Entry], dict[str, str]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError("its header is cut short")
        if length > LARGEST_HEADER:
            raise _refusal(path, f"is no {what}: its header alone has {length / 1e6:.0f} MB; choose another file")
        header = read_object(file.read(length), "its header")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no list of texts")
    if len(header) > MOST_TENSORS:
        raise _refusal(path, f"is no {what}: it holds {len(header):,} tensors; choose another file")
    entries = {name: _entry(path, name, fields, 8 + length, size) for name, fields in header.items()}
    promised = max((entry.start + entry.bytes for entry in entries.values()), default=8 + length)
    if promised != size:
        raise ValueError(f"it should have {promised:,} bytes")
    return entries, metadata


def _entry(path: Path, name: str, fields: Any, start: int, size: int) -> Entry:
    shown = printable(name)
    try:
        dtype, shape, (first, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"its header says nothing of {shown}") from None
    numbers = [first, end, *(shape if isinstance(shape, list) else [None])]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError(f"the shape or place of {shown} is no list of numbers")
    known = _DTYPES.get(dtype) if isinstance(dtype, str) else None
    if known is None:
        raise _refusal(path, f"holds {shown} as {printable(dtype)}, which this pack cannot read: use the bf16 file")
    entry = Entry(known, tuple(shape), start + first)
    if first <= size - start < end:
        raise ValueError(f"it ends in {shown}: it has {size:,} bytes, {start + end:,} are needed")
    if not first <= end <= size - start or end - first != entry.bytes:
        raise ValueError(f"{shown} has {printable(end - first)} bytes, {printable(entry.bytes)} are needed")
    return entry


def _outlined(file: io.BufferedReader, entry: Entry) -> Tensor:
    if entry.dtype != torch.uint8 or entry.bytes > SMALL:
        return torch.empty(entry.shape, dtype=entry.dtype, device="meta")
    return _values(file, entry)


def _values(file: io.BufferedReader, entry: Entry) -> Tensor:
    """A tensor in memory of its own. A file that is cut short meanwhile raises, where a mapped one ends the process."""
    if not entry.bytes:
        return torch.empty(entry.shape, dtype=entry.dtype)
    file.seek(entry.start)
    values = bytearray(entry.bytes)
    if file.readinto(values) != len(values):
        raise ValueError("it was cut short while it was read")
    return torch.frombuffer(values, dtype=entry.dtype).reshape(entry.shape)


def _read_pickled(path: Path, size: int, mapped: bool) -> dict[str, Tensor]:
    zipped = zipfile.is_zipfile(path)
    for name in _globals(_pickles_in_zip(path, size) if zipped else _pickles_before_1_6(path)):
        if not _GLOBALS.fullmatch(name):
            shown = printable(name.replace(" ", "."))
            raise _refusal(
                path,
                f"is not loaded: it is a pickle that holds {shown} besides tensors, and such files can run code or "
                "hold no plain values; convert it to .safetensors where you trust it",
            )
    if zipped and mapped:
        state_dict = torch.load(path, mmap=True, map_location="cpu", weights_only=True)
    else:
        with path.open("rb") as file:
            state_dict = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state_dict, dict):
        raise _refusal(path, f"holds a {printable(type(state_dict).__name__)}, not a dictionary of tensors")
    if len(state_dict) > MOST_TENSORS:
        raise _refusal(path, f"is no checkpoint: it holds {len(state_dict):,} entries; choose another file")
    return state_dict


def _pickles_in_zip(path: Path, size: int) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if len(parts) > 2 * MOST_TENSORS:
            raise _refusal(path, f"is no checkpoint: it holds {len(parts):,} parts; choose another file")
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > size:
            raise _refusal(path, "is not loaded: its parts are compressed, which PyTorch never does")
        for part in parts:
            if part.filename.endswith("data.pkl"):
                if part.file_size > LARGEST_PICKLE:
                    raise _refusal(path, f"is no checkpoint: its list of tensors has {part.file_size / 1e6:.0f} MB")
                yield archive.read(part)


def _pickles_before_1_6(path: Path) -> Iterator[bytes]:
    """PyTorch's files before version 1.6: five pickles in a row, then the values."""
    with path.open("rb") as file:
        yield file.read(LARGEST_PICKLE)


def _globals(pickles: Iterator[bytes]) -> Iterator[str]:
    """Names that pickles ask for, "module name". Of what follows a pickle, four more are looked at."""
    for data in pickles:
        stream = io.BytesIO(data)
        for _ in range(5):
            if stream.tell() >= len(data):
                break
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name == "GLOBAL":
                    yield str(argument)
                elif operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                    yield operation.name
