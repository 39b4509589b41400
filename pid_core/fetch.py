"""Downloading a known file: huggingface_hub asks the hub and carries the bytes; here is what makes it safe to use.

A file is written beside its place, under a hidden name that ends in .part, and moved there when size and SHA-256 are
right. What a broken connection or a cancelled run left is continued by the next one, in another process too: that is
why the hub's own hf_hub_download is not used, which starts again. There are no links and no cache folder. HF_ENDPOINT,
HF_HUB_OFFLINE, HF_TOKEN and the proxy variables work as everywhere with huggingface_hub.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from .hub import HubFile

Progress = Callable[[int, int], None]  # bytes done, bytes in all
TRIES = 3  # without a byte arriving
SPARE = 200_000_000  # bytes left free on the disk
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FetchError(OSError):
    """A download that did not work, in one line for the user."""


def fetch(file: HubFile, folder: Path, *, progress: Progress | None = None, endpoint: str | None = None) -> Path:
    """Download `file` into `folder` and return its path; a file that is there already is left as it is.

    progress(done, total) is called as bytes arrive; what it raises ends the download, which can be continued later.
    endpoint: another hub than HF_ENDPOINT names. Raises FetchError.
    """
    target = Path(folder) / file.name
    if target.is_file():
        return target
    try:
        from filelock import FileLock, Timeout
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
    except ImportError as error:
        raise FetchError(
            f"huggingface_hub cannot be imported ({error}); it comes with ComfyUI: use its Python"
        ) from None
    url = hf_hub_url(file.repo, file.path, endpoint=endpoint)
    with _explained(file):
        about = get_hf_file_metadata(url, token=None)
    size, sha256 = _expected(file, about.size, about.etag)
    part = target.with_name(f".{file.name}.{(sha256 or about.etag or 'none')[:12]}.part")
    lock = target.with_name(f".{file.name}.lock")
    try:
        with _explained(file):
            target.parent.mkdir(parents=True, exist_ok=True)
            held = FileLock(lock, timeout=0)
        with _explained(file), held, _removed_after(lock):
            if not target.is_file():
                _drop_other_parts(part, file.name)
                _check_space(file, part, size)
                _download(url, part, size, progress)
                _check(file, part, size, sha256)
                os.replace(part, target)
    except Timeout:
        raise FetchError(f"{file.name} is being fetched already, by another process: wait for it") from None
    return target


def _expected(file: HubFile, size: int | None, etag: str | None) -> tuple[int | None, str | None]:
    """Size and SHA-256 to check against: ours where we know them, else the hub's, whose ETag is that of large files."""
    known = etag if etag and _SHA256.fullmatch(etag) else None
    for what, ours, theirs in (("bytes", file.size, size), ("SHA-256", file.sha256, known)):
        if ours is not None and theirs is not None and ours != theirs:
            raise FetchError(
                f"{file.name} is not fetched: the hub now has another file there ({what} {theirs}, not {ours}); update "
                f"this pack, or get it by hand from {file.page}"
            )
    return file.size or size, file.sha256 or known


@contextlib.contextmanager
def _removed_after(path: Path):
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            path.unlink()


def _drop_other_parts(part: Path, name: str) -> None:
    """Half files of an older version of this file on the hub."""
    for other in part.parent.glob(f".{name}.*.part"):
        if other != part:
            other.unlink(missing_ok=True)


def _check_space(file: HubFile, part: Path, size: int | None) -> None:
    done = part.stat().st_size if part.exists() else 0
    if size is not None and done > size:
        part.unlink()
        done = 0
    free = shutil.disk_usage(part.parent).free
    if size is not None and size - done + SPARE > free:
        raise FetchError(
            f"{file.name} needs {_gb(size - done)} and the disk of the models folder has {_gb(free)} free: make room, "
            "or put another folder into extra_model_paths.yaml"
        )


def _download(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Append to `part` what is missing, trying again as long as something still arrives."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    tries = TRIES
    with part.open("ab") as out:
        out.seek(0, os.SEEK_END)
        while size is None or out.tell() < size:
            done = out.tell()
            try:
                http_get(url, _Watched(out, size, progress), resume_size=done, headers=build_hf_headers())
                return
            except Exception as error:
                status = _status(error)
                if status == 416:
                    return  # the hub has less than we do: the size will tell
                tries = TRIES if out.tell() > done else tries - 1
                if not _is_network(error) or status is not None or not tries:
                    raise
                time.sleep(1)


class _Watched:
    """A file that reports every write."""

    def __init__(self, file, size: int | None, progress: Progress | None):
        self._file, self._size, self._progress = file, size, progress

    def write(self, data: bytes) -> int:
        count = self._file.write(data)
        if self._progress is not None:
            self._progress(self._file.tell(), self._size or 0)
        return count

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def _check(file: HubFile, part: Path, size: int | None, sha256: str | None) -> None:
    wrong = None
    if size is not None and part.stat().st_size != size:
        wrong = f"{part.stat().st_size:,} bytes came, {size:,} were promised"
    elif sha256 is not None:
        digest = _sha256(part)
        if digest != sha256:
            wrong = f"its SHA-256 is {digest[:12]}..., not {sha256[:12]}..."
    if wrong:
        part.unlink()
        raise FetchError(f"{file.name} came damaged and was thrown away ({wrong}): try again, or get it at {file.page}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


@contextlib.contextmanager
def _explained(file: HubFile):
    """Turns what the hub, the network and the disk can raise into one line that says what to do."""
    from huggingface_hub import errors

    what = f"{file.name} cannot be fetched"
    try:
        yield
    except FetchError:
        raise
    except errors.OfflineModeIsEnabled:
        raise FetchError(f"{what}: HF_HUB_OFFLINE is set. Unset it, or get the file by hand at {file.page}") from None
    except errors.GatedRepoError:
        raise FetchError(f"{what}: its page asks for consent. {_sign_in(file)}") from None
    except errors.EntryNotFoundError:
        raise FetchError(
            f"{what}: the hub has no {file.path} in {file.repo} any more (404). Update this pack, or see {file.page}"
        ) from None
    except Exception as error:
        status = _status(error)
        if status in (401, 403):
            raise FetchError(f"{what}: the hub refuses it ({status}). {_sign_in(file)}") from None
        if status == 404:
            raise FetchError(
                f"{what}: the hub has no {file.repo} any more (404). Update this pack, or see {file.page}"
            ) from None
        if status is not None:
            raise FetchError(f"{what}: the hub answered {status}. Try again later") from None
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise FetchError(f"{what}: the disk is full. What came is kept and continued next time") from None
        if isinstance(error, OSError) and error.filename is not None:
            raise FetchError(f"{what}: writing to the models folder failed: {error.strerror}") from None
        if not _is_network(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:160] or type(error).__name__
        raise FetchError(
            f"{what}: no connection to the hub ({reason}). Check the network and the proxy (HTTPS_PROXY), or name a "
            "mirror in HF_ENDPOINT; what came is kept and continued next time"
        ) from None


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error of the hub's library, whichever HTTP client its version uses."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_network(error: Exception) -> bool:
    clients = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "huggingface_hub")
    return isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in clients


def _sign_in(file: HubFile) -> str:
    return (
        f"Open {file.page}, sign in and accept what it asks; then put a token of your account into HF_TOKEN, or run "
        "`hf auth login`, and try again"
    )
