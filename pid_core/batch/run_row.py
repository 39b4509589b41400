"""run_row: one job from its row to its output, whatever engine runs it; run twice, it keeps what it made.

Its stages may run in threads of their own: `load` and `write` need no device, `draw` is where the network is.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..captions.text import read_caption
from ..errors import one_line
from ..images.files import Picture, check_output, read_about, read_picture, remove_unfinished, write_picture
from ..images.framing import Framing
from ..images.quality import estimate_quality, suggest_sigma
from ..latents.files import SavedLatent, read_latent
from ..printable import printable
from ..upscale.upscaler import Prepared, Upscaler
from ..version import pack_version
from ..windows.run import is_out_of_memory
from .jobs import Job, Options, parse_size
from .results import DONE, FAILED, KEPT, EngineError, InTheWayError, Result, RunStoppedError, result_of, stops_the_run
from .rows import AUTO, open_source

Value = TypeVar("Value")
PAUSES = (0.5, 3.0)  # seconds before the second and the third try of what a disk or a network did not give


@dataclass
class Work:
    """A job on its way.

    source, framing: what `load` read, and a picture's sizes. image: what `draw` drew. result: once there is one.
    """

    job: Job
    source: Picture | SavedLatent | None = None
    framing: Framing | None = None
    caption: Tensor | None = None
    sigma: float = 0.0
    image: Tensor | None = None
    memory: int | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    result: Result | None = None


class Stages:
    """What every job goes through: `load` and `write` are the same for all, `draw` is where the picture is made."""

    def __init__(self, options: Options, sleep: Callable[[float], None] = time.sleep):
        self.options, self._sleep = options, sleep

    def load(self, work: Work) -> None:
        """Look for the output, then read what the job is about. Raises RunStoppedError, as all stages do."""
        with self.stage(work, "read"):
            if work.job.error is not None:
                raise ValueError(work.job.error)
            if work.job.again:
                remove_unfinished(Path(work.job.path), work.job.mark)
            if self._kept(work):
                return
            self.read(work)

    def read(self, work: Work) -> None:
        """Read what the job is about, and find what can be seen to be wrong with it."""
        raise NotImplementedError

    def draw(self, work: Work) -> None:
        """Make the picture."""
        raise NotImplementedError

    def write(self, work: Work) -> None:
        """Write the output; afterwards there is a result."""
        if work.result is not None or work.image is None:
            return
        with self.stage(work, "write"):
            path = Path(work.job.path)
            self.again(lambda: self._write(work, path))
            work.image = None
            work.result = self._result(work, DONE, output=str(path), sha256=_digest(path))

    def about(self, work: Work) -> dict[str, Any]:
        """What stands in the picture of its making."""
        job = work.job
        return {
            "software": f"ComfyUI-PiDKit {pack_version()}",
            "id": job.row.id,
            "degrade_sigma": work.sigma,
            "seed": job.seed,
            "text": job.text,
            "key": job.key,
        }

    def _kept(self, work: Work) -> bool:
        path = Path(work.job.path)
        if not path.exists() or (path.is_file() and not path.stat().st_size):  # empty: what a power cut leaves
            return False
        found = (read_about(path) or {}).get("key")
        if found != work.job.key:
            if self.options.overwrite:
                return False
            raise InTheWayError(
                f"{path.name} is there already and was made "
                f"{'with other settings' if found else 'by something else'}: take it away, or add --overwrite"
            )
        # an earlier report has it: it is not read once more for that
        work.result = self._result(work, KEPT, output=str(path), sha256=None if work.job.reported else _digest(path))
        return True

    def _write(self, work: Work, path: Path) -> None:
        image, options = work.image, self.options
        assert image is not None
        write_picture(
            path,
            image[..., :3],
            image[..., 3] if image.shape[-1] == 4 else None,
            about=self.about(work),
            overwrite=True,
            quality=options.quality,
            bits=options.bits,
            durable=True,
            mark=work.job.mark,
        )

    def again(self, run: Callable[[], Value]) -> Value:
        """run(), up to three times: disks and networks have their moments."""
        for pause in PAUSES:
            try:
                return run()
            except FileNotFoundError:
                raise
            except OSError as error:
                if stops_the_run(error):
                    raise
                self._sleep(pause)
        return run()

    @contextmanager
    def stage(self, work: Work, name: str):
        """Take the time of a part of the work; what is raised in it is the job's end, in one line."""
        begun = time.perf_counter()
        try:
            yield
        except EngineError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and stops_the_run(error):
                raise RunStoppedError(f"{work.job.path}: {error.strerror}") from None
            self._fail(work, _reason(error), passing=isinstance(error, InTheWayError) or None)
        finally:
            work.seconds[name] = round(time.perf_counter() - begun, 4)

    def _fail(self, work: Work, reason: str, passing: bool | None) -> None:
        work.source = work.image = None
        work.result = self._result(work, FAILED, error=reason, passing=passing)

    def _result(self, work: Work, status: str, **more: Any) -> Result:
        # the seconds of the stage that ends with it are still to come
        return result_of(work.job, status, seconds=work.seconds, memory=work.memory, notes=tuple(work.notes), **more)


class RowRunner(Stages):
    """Jobs by a network here. captions: the caption of a text, made before (texts.py); None without text encoder."""

    def __init__(
        self,
        options: Options,
        upscaler: Upscaler,
        captions: Callable[[str], Tensor] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        super().__init__(options, sleep)
        self.upscaler, self.captions = upscaler, captions
        config = upscaler.net.config
        self.steps = config.steps if options.steps is None else options.steps

    def read(self, work: Work) -> None:
        """The picture or latent, its caption and its sigma."""
        work.source = self.again(lambda: self._read(work))
        work.caption = self._caption(work.job)
        work.sigma = self._sigma(work)
        if isinstance(work.source, Picture):
            work.framing = self._frame(work.source, work.job)
            self._check_output(work, work.source)

    def draw(self, work: Work) -> None:
        """Encode and decode."""
        if work.result is not None or work.source is None:
            return
        with self.stage(work, "encode"):
            prepared = self._prepare(work)
        work.source = None
        if work.result is not None:
            return
        with self.stage(work, "decode"), _peak_memory(work, self.upscaler.device):
            drawing = self.upscaler.plan(prepared.size, self.steps)
            work.image = self.upscaler.draw(
                prepared, drawing, caption=work.caption, steps=self.steps, seed=work.job.seed
            )
            repeated = self.upscaler.net.repeated
            work.notes += [f"repeated in float32, because it gave NaN: {'; '.join(repeated)}"] if repeated else []

    def about(self, work: Work) -> dict[str, Any]:
        """What stands in the picture of its making."""
        model = {
            "model": Path(self.options.model).name,
            "model_fingerprint": self.options.model_fingerprint,
            "size": work.job.size,
            "steps": self.steps,
        }
        return super().about(work) | model

    def _read(self, work: Work) -> Picture | SavedLatent:
        row = work.job.row
        with local_copy(row.source) as path:
            if row.is_latent:
                return read_latent(path)
            picture = read_picture(path)
        work.notes += picture.notes
        return picture

    def _caption(self, job: Job) -> Tensor | None:
        if job.caption is not None:
            with local_copy(job.caption) as path:
                return read_caption(path).states
        if job.text is not None and self.captions is not None:
            return self.captions(job.text)
        if job.text and self.upscaler.needs_vae:
            raise ValueError("the row has a text and nothing encodes it: name PiD's text encoder with --clip")
        return None

    def _sigma(self, work: Work) -> float:
        sigma, source = work.job.sigma, work.source
        if isinstance(source, SavedLatent) and sigma == 0:
            return source.sigma  # the one that it carries
        if sigma != AUTO:
            return float(sigma)
        if not isinstance(source, Picture):
            raise ValueError("degrade_sigma auto is of pictures; a latent needs a number, or says its own")
        return suggest_sigma(estimate_quality(source.image), invents=self.upscaler.net.config.invents)

    def _frame(self, picture: Picture, job: Job) -> Framing:
        self.upscaler.check_pictures()
        target, factor = parse_size(job.size)
        height, width = picture.image.shape[:2]
        return self.upscaler.frame(height, width, target, factor)

    def _check_output(self, work: Work, picture: Picture) -> None:
        assert work.framing is not None
        source = None if "://" in work.job.row.source else Path(work.job.row.source)
        transparent = picture.alpha is not None
        check_output(Path(work.job.path), work.framing.output, source=source, overwrite=True, alpha=transparent)

    def _prepare(self, work: Work) -> Prepared:
        source, seed = work.source, work.job.seed
        if isinstance(source, SavedLatent):
            return self.upscaler.prepare_latent(source, work.sigma or None, seed)
        assert source is not None and work.framing is not None
        # What is measured in a picture is in the bundled model's latents as it is; a VAE makes something else of it.
        measured = work.job.sigma == AUTO and not self.upscaler.needs_vae
        latent_noise = "scale" if measured else "add"
        return self.upscaler.prepare_picture(source, work.framing, work.sigma, seed, latent_noise=latent_noise)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError | OSError):
        return one_line(error)
    if is_out_of_memory(error):
        return f"out of memory, with the smallest windows too: {one_line(error)}"
    return f"{type(error).__name__}: {one_line(error)}"


def run_row(runner: Stages, job: Job) -> Result:
    """All stages, one after another. Raises RunStoppedError where no other row could be done either."""
    work = Work(job)
    for stage in (runner.load, runner.draw, runner.write):
        stage(work)
    assert work.result is not None
    return work.result


@contextmanager
def local_copy(source: str):
    """The file on this machine: itself, or a copy of what lies at an address, for as long as it is needed."""
    if "://" not in source:
        path = Path(source)
        if path.exists() and not path.is_file():  # reading a device or a pipe may never end
            raise ValueError(f"{printable(path.name)} is no file")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(source.split("?")[0]).name or "file")
        with open_source(source) as there, path.open("wb") as here:
            shutil.copyfileobj(there, here)
        yield path


@contextmanager
def _peak_memory(work: Work, device: torch.device):
    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield
    work.memory = torch.cuda.max_memory_allocated(device)
