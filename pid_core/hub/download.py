"""Downloading a known file: huggingface_hub asks the hub and carries the bytes; here is what makes it safe to use.

A file is written beside its place, under a hidden name that ends in .part, and moved there when size and SHA-256 are
right. What a broken connection or a cancelled run left is continued by the next one, in another process too: that is
why the hub's own hf_hub_download is not used, which starts again. The bytes come in a thread of their own, so that a
stalled line can be cancelled. There are no links and no cache folder. HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the
proxy variables work as everywhere with huggingface_hub.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import prints_bare
from ..files import move
from ..log import log
from ..printable import printable
from .catalogue import NVIDIA, HubFile
from .intact import BEGINNING, damage, wrong_beginning

Progress = Callable[[int, int], None]  # bytes done, bytes in all
TRIES = 3  # without a byte arriving
PAUSE = 1.0  # seconds before each further one
SILENCE = 20.0  # seconds without a byte after which a try has failed
LOOK = 0.5  # seconds between two reports of progress
SPARE = 200_000_000  # bytes left free on the disk
BLOCK = 1 << 16  # bytes
_SHA256 = re.compile(r"[0-9a-f]{64}")


@prints_bare
class FetchError(OSError):
    """A download that did not work, in one line for the user."""


def fetch(
    file: HubFile,
    folder: Path,
    *,
    progress: Progress | None = None,
    endpoint: str | None = None,
    say: Callable[[str], None] = log.warning,
) -> Path:
    """Download `file` into `folder` and return its path; a file that is there already, and readable, stays as it is.

    A damaged one is moved aside first, under its name and ".damaged". progress(done, total) is called twice a second,
    also while nothing arrives; what it raises ends the download at once, which can be continued later.
    endpoint: another hub than HF_ENDPOINT names. say: told in one line what else the user should know.
    Raises FetchError.
    """
    target = Path(folder) / file.name
    if target.is_file() and not set_aside_if_damaged(target, say):
        return target
    try:
        from filelock import FileLock, Timeout
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise FetchError(
            f"huggingface_hub cannot be imported ({error}); it comes with ComfyUI: use its Python"
        ) from None
    with _explained(file):
        url = hf_hub_url(file.repo, file.path, endpoint=endpoint)
        try:
            about = get_hf_file_metadata(url, token=None)
            promise = Promise(about.size, _hash_in(about.etag))
        except EntryNotFoundError:
            moved = _listed(file, endpoint, anywhere=True)
            if moved is None:
                raise
            say(f"{file.name} has moved to {printable(moved.path)} in {file.repo}")
            url = hf_hub_url(file.repo, moved.path, endpoint=endpoint)
            promise = moved.promise
        if promise.sha256 is None and (file.sha256 is None or file.hearsay):
            # some mirrors leave it out of the answer for the file itself
            listed = _listed(file, endpoint)
            promise = promise if listed is None else listed.promise
    size, sha256 = _expected(file, promise, say)
    part = target.with_name(f".{file.name}.{sha256[:12]}.part")
    lock = target.with_name(f".{file.name}.lock")
    try:
        with _explained(file):
            target.parent.mkdir(parents=True, exist_ok=True)
            file_lock = FileLock(lock, timeout=0)
        with file_lock, _explained(file), _removed_after(lock):
            if not target.is_file():
                _drop_other_parts(part, file.name)
                _check_space(file, part, size)
                _download(file, url, part, size, progress)
                _check(file, part, size, sha256)
                move(part, target)
    except Timeout:
        raise FetchError(f"{file.name} is being fetched already, by another process: wait for it") from None
    except _Ended as ended:
        raise ended.reason from None
    return target


def set_aside_if_damaged(path: Path, say: Callable[[str], None]) -> bool:
    """Move a model file that cannot be read out of the way, and say so. Whether it was moved. Raises FetchError."""
    try:
        wrong = damage(path)
        if wrong is None:
            return False
        aside = path.with_name(f"{path.name}.damaged")
        move(path, aside)
    except FileNotFoundError:  # another ComfyUI with the same models folder was faster
        return True
    except OSError as error:
        raise FetchError(
            f"{path.name} cannot be looked at or moved ({error.strerror}): check its permissions, or remove it by hand"
        ) from None
    say(f"{path.name} cannot be read ({wrong}): it is called {aside.name} now, and is fetched again")
    return True


class Promise(NamedTuple):
    """What the hub says of a file: bytes, and SHA-256 where it is one of its large files."""

    size: int | None
    sha256: str | None


class _Listed(NamedTuple):
    path: str
    promise: Promise


def _listed(file: HubFile, endpoint: str | None, anywhere: bool = False) -> _Listed | None:
    """The file in the hub's list of its repository; anywhere: by its name in whatever folder, if there is just one."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    # NVIDIA calls every checkpoint the same, in a folder of its name
    parts = 2 if file.repo == NVIDIA and file.folder == "diffusion_models" else 1
    tail = PurePosixPath(file.path).parts
    tail = tail[-parts:] if anywhere else tail
    found = []
    for entry in HfApi(endpoint=endpoint).list_repo_tree(file.repo, recursive=True):
        if PurePosixPath(entry.path).parts[-len(tail) :] == tail and isinstance(entry, RepoFile):
            sha256 = _hash_in(entry.lfs.sha256) if entry.lfs else None
            found.append(_Listed(entry.path, Promise(entry.size, sha256)))
    return found[0] if len(found) == 1 else None


def _hash_in(etag: str | None) -> str | None:
    etag = (etag or "").removeprefix("W/").strip('"').lower()
    return etag if _SHA256.fullmatch(etag) else None


def _expected(file: HubFile, promise: Promise, say: Callable[[str], None]) -> tuple[int | None, str]:
    """Size and SHA-256 to check against: ours where we know them, else the hub's."""
    (size, known), sha256 = promise, file.sha256
    for what, ours, theirs in (("bytes", file.size, size), ("SHA-256", file.sha256, known)):
        if ours is None or theirs is None or ours == theirs:
            continue
        if not file.hearsay:
            raise FetchError(
                f"{file.name} is not fetched: the hub now has another file there ({what} {theirs}, not {ours}); update "
                f"this pack, or get it by hand from {file.page}"
            )
        say(f"{file.name}: the hub has {what} {theirs}, this pack was told {ours}; the hub's counts")
    trusted = known or sha256 if file.hearsay else sha256 or known
    if trusted is None:
        raise FetchError(
            f"{file.name} is not fetched: neither this pack nor the hub knows its SHA-256, so what came could not be "
            f"checked (is HF_ENDPOINT a mirror that works?); get it by hand from {file.page}"
        )
    return size or file.size if file.hearsay else file.size or size, trusted


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


def _download(file: HubFile, url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Append to `part` what is missing, trying again as long as something still arrives."""
    transfer = _Transfer(file, url, part, size)
    transfer.start()
    try:
        while transfer.is_alive():
            transfer.join(LOOK)
            if progress is not None:
                progress(transfer.done, size or 0)
    except BaseException as reason:
        transfer.end()
        raise _Ended(reason) from None
    if transfer.error is not None:
        raise transfer.error
    if progress is not None:
        progress(transfer.done, size or transfer.done)


@prints_bare
class _Ended(Exception):
    """Carries what the caller's progress raised past what explains the hub's errors."""

    def __init__(self, reason: BaseException):
        self.reason = reason


class _Transfer(threading.Thread):
    """The bytes of one file. After `end` it writes nothing more, however long the line keeps it waiting.

    done: bytes of the file that are there. error: what ended it, None where all is there.
    """

    def __init__(self, file: HubFile, url: str, part: Path, size: int | None):
        super().__init__(daemon=True, name=f"fetch {file.name}")
        self.error: Exception | None = None
        self._file, self._url, self._size = file, url, size
        self._out = part.open("ab")
        self._out.seek(0, os.SEEK_END)
        self.done = self._out.tell()
        self._beginning = part.read_bytes()[:BEGINNING] if self.done else b""
        self._lock, self._over = threading.Lock(), threading.Event()

    def run(self) -> None:
        try:
            self._try_on()
        except Exception as error:
            self.error = error
        finally:
            self.end()

    def end(self) -> None:
        with self._lock:
            self._over.set()
            self._out.close()

    def _try_on(self) -> None:
        tries, most = TRIES, self.done
        while not self._over.is_set() and (self._size is None or self.done < self._size):
            error: Exception | None = None
            try:
                for data in _stream(self._url, self.done, self._restart):
                    if not self._write(data):
                        return
                if self._size is None:
                    return
            except Exception as raised:
                error = raised
            if error is not None and _status(error) == 416:
                return  # the hub has less than we do: the size will tell
            tries = TRIES if self.done > most else tries - 1
            most = max(most, self.done)
            if error is not None and (not _is_network(error) or _status(error) is not None or not tries):
                raise error
            if not tries:
                return  # the hub sends less than it promised: the size will tell
            self._over.wait(PAUSE)

    def _write(self, data: bytes) -> bool:
        """Whether it goes on."""
        with self._lock:
            if self._over.is_set():
                return False
            if self._size is not None and self.done + len(data) > self._size:
                self._out.truncate(0)
                raise FetchError(
                    f"{self._file.name} is not fetched: more than the {self._size:,} bytes that were promised came; "
                    f"try again, or get it at {self._file.page}"
                )
            if len(self._beginning) < BEGINNING:
                self._beginning += data[: BEGINNING - len(self._beginning)]
                self._check_beginning()
            self._out.write(data)
            self.done += len(data)
            return True

    def _check_beginning(self) -> None:
        if len(self._beginning) < BEGINNING and (self._size is None or len(self._beginning) < self._size):
            return
        wrong = wrong_beginning(self._file.name, self._beginning, self._size)
        if wrong:
            self._out.truncate(0)
            raise FetchError(
                f"{self._file.name} is not fetched: what comes is another file, {wrong}; perhaps the page of a proxy "
                f"or a login. Open {self._file.page} in a browser, and check HF_ENDPOINT and the proxy"
            )

    def _restart(self) -> None:
        """The server sends the file from its first byte, whatever was asked for."""
        with self._lock:
            if not self._over.is_set():
                self._out.truncate(0)
                self._out.seek(0)
                self.done, self._beginning = 0, b""


def _stream(url: str, start: int, restart: Callable[[], None]) -> Iterator[bytes]:
    """The bytes of a file from `start` on, as they arrive; calls `restart` first where they come from 0 instead."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session: Any = get_session()  # httpx's, or before huggingface_hub 1.0 that of requests
    opened: contextlib.AbstractContextManager[Any]
    if hasattr(session, "stream"):
        opened = session.stream("GET", url, headers=headers, timeout=SILENCE, follow_redirects=True)
    else:
        opened = contextlib.closing(session.get(url, headers=headers, timeout=SILENCE, stream=True))
    with opened as response:
        hf_raise_for_status(response)
        if start and response.status_code != 206:
            restart()
        yield from response.iter_raw() if hasattr(response, "iter_raw") else response.iter_content(BLOCK)


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
def _explained(file: HubFile) -> Iterator[None]:
    """Turns what the hub, the network and the disk can raise into one line that says what to do."""
    what = f"{file.name} cannot be fetched"
    try:
        yield
    except (FetchError, _Ended):
        raise
    except Exception as error:
        line = _hub_answer(error, file) or _disk_failure(error) or _no_connection(error)
        if line is None:
            raise FetchError(
                f"{what}: the request could not be made ({type(error).__name__}: {_reason(error)}). Check HF_ENDPOINT, "
                "HF_TOKEN and the proxy variables"
            ) from error
        raise FetchError(f"{what}: {line}") from None


def _hub_answer(error: Exception, file: HubFile) -> str | None:
    from huggingface_hub import errors

    status = _status(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set. Unset it, or get the file by hand at {file.page}"
    if isinstance(error, errors.GatedRepoError):
        return f"its page asks for consent. {_sign_in(file)}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"the hub has no {file.path} in {file.repo} any more (404). Update this pack, or see {file.page}"
    if status in (401, 403):
        return f"the hub refuses it ({status}). {_sign_in(file)}"
    if status == 404:
        return f"the hub has no {file.repo} any more (404). Update this pack, or see {file.page}"
    return None if status is None else f"the hub answered {status}. Try again later"


def _disk_failure(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full. What came is kept and continued next time"
    if isinstance(error, OSError) and error.filename is not None:
        return f"writing to the models folder failed: {error.strerror}"
    return None


def _no_connection(error: Exception) -> str | None:
    if not _is_network(error):
        return None
    return (
        f"no connection to the hub ({_reason(error)}). Check the network and the proxy (HTTPS_PROXY), or name a "
        "mirror in HF_ENDPOINT; what came is kept and continued next time"
    )


def _reason(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [""])[0], 160) or type(error).__name__


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
