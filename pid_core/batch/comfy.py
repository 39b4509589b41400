"""The comfyui engine: each row runs a workflow on one of several running ComfyUI servers.

The workflow is any in API form (Export (API)). Where an input is "{image}", "{prompt}", "{degrade_sigma}" or "{seed}",
the row's stands there; "{name}" may be a part of a text, such as a save prefix.
"""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..images.files import read_picture
from ..printable import printable
from .comfy_server import Server, ServerGoneError
from .jobs import Job, Options
from .report import Report
from .results import CRASHED, FAILED, Result, RunStoppedError, result_of
from .rows import AUTO
from .run_row import Stages, Work, local_copy, run_row

NAME = "{name}"
TRIES = (1.0, 5.0, 20.0)  # seconds until a server that does not answer is asked again


def read_workflow(path: Path) -> dict[str, Any]:
    """A workflow in API form. Raises ValueError in one line for what is none, or has no place for the picture."""
    try:
        workflow = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{printable(path)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{printable(path)} is no JSON") from None
    nodes = list(workflow.values()) if isinstance(workflow, dict) else []
    if not nodes or not all(isinstance(node, dict) and "class_type" in node and "inputs" in node for node in nodes):
        raise ValueError(f"{printable(path)} is no workflow in API form: export it with Workflow, Export (API)")
    if not any(value == "{image}" for node in nodes for value in node["inputs"].values()):
        raise ValueError(f'{printable(path)} has no input "{{image}}": write that where Load Image names its file')
    return workflow


class ServerRunner(Stages):
    """Jobs by a workflow on one server."""

    def __init__(self, options: Options, server: Server, workflow: dict[str, Any]):
        super().__init__(options)
        self.server, self.workflow = server, workflow

    def read(self, work: Work) -> None:
        """Nothing: the server reads it."""
        if work.job.row.is_latent:
            raise ValueError("a server takes pictures; a latent needs --engine local")
        if work.job.sigma == AUTO:
            raise ValueError("degrade_sigma auto is for --engine local; here the workflow can suggest it")
        work.sigma = float(work.job.sigma)

    def draw(self, work: Work) -> None:
        """Send the picture, run the workflow, fetch what it made."""
        if work.result is not None:
            return
        job = work.job
        with self.stage(work, "encode"), local_copy(job.row.source) as path:
            picture = read_picture(path)  # a broken one need not be sent
            work.notes += picture.notes
            name = self.server.upload(f"{job.key[:16]}{path.suffix.lower()}", path.read_bytes())
        if work.result is not None:
            return
        with self.stage(work, "decode"):
            outputs = self.server.run(self._filled(job, name))
            work.image = self._fetch(outputs, work)

    def _filled(self, job: Job, image: str) -> dict[str, Any]:
        values = {
            "{image}": image,
            "{prompt}": job.text or "",
            "{degrade_sigma}": float(job.sigma),
            "{seed}": job.seed,
        }
        workflow = copy.deepcopy(self.workflow)
        for node in workflow.values():
            for key, value in node["inputs"].items():
                if isinstance(value, str):
                    node["inputs"][key] = values.get(value, value.replace(NAME, job.key[:16]))
        return workflow

    def _fetch(self, outputs: dict[str, Any], work: Work) -> torch.Tensor:
        images = [image for node in outputs.values() for image in node.get("images", ())]
        saved = [image for image in images if image.get("type") == "output"] or images
        if not saved:
            raise ValueError("the workflow ended without a picture: it needs a Save Image or Preview Image")
        if len(saved) > 1:
            work.notes.append(f"the workflow made {len(saved)} pictures: the first is taken")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(saved[0]["filename"]).name)
            path.write_bytes(self.server.picture(saved[0]))
            picture = read_picture(path)
        channels = [picture.image] if picture.alpha is None else [picture.image, picture.alpha[..., None]]
        return torch.cat(channels, -1)


class ComfyEngine:
    """Runs jobs on servers, one at a time on each. Its arguments are those of LocalEngine."""

    def __init__(
        self,
        options: Options,
        servers: Sequence[str],
        workflow: dict[str, Any],
        report: Report,
        *,
        attempts: int = 3,
        most_failed: int | None = None,
        on_result: Callable[[Result], None] = lambda result: None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.options, self.report, self.attempts = options, report, attempts
        self.most_failed, self.on_result, self._sleep = most_failed, on_result, sleep
        self._runners = [ServerRunner(options, Server(url), workflow) for url in servers]
        self._lock = threading.Lock()
        self._later: deque[Job] = deque()  # handed back by a server that is gone
        self._raised: Exception | None = None  # in a thread
        self._alive = len(servers)
        self._in_hand: dict[str, Job] = {}  # by their numbers
        self._read_all = False
        self.finishing = False

    def run(self, jobs: Iterator[Job]) -> bool:
        """Whether all jobs have ended; not where `finish` was called. Raises RunStoppedError in one line."""
        # a second Ctrl-C does not wait for what the servers are at
        threads = [threading.Thread(target=self._serve, args=(one, jobs), daemon=True) for one in self._runners]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # so that Ctrl-C is heard
        finally:
            with self._lock, contextlib.suppress(OSError, RunStoppedError):
                for job in self._in_hand.values():  # the run's end is not their fault, and is no attempt
                    self.report.drop(job.key)
        if self._raised is not None:
            raise self._raised
        return not self.finishing

    def finish(self) -> None:
        """Send nothing more."""
        self.finishing = True

    def _serve(self, runner: ServerRunner, jobs: Iterator[Job]) -> None:
        try:
            if not self._answers(runner.server, (0.0, *TRIES)):  # so that it is no row's fault
                return
            while not self._nothing_left():
                job = self._next(jobs)
                if job is None:  # another server may still hand its job back
                    self._sleep(0.2)
                elif not self._run(runner, job):
                    return
        except Exception as error:  # else the other threads would wait for this one's job
            self._raised, self.finishing = error, True

    def _nothing_left(self) -> bool:
        with self._lock:
            return self.finishing or (self._read_all and not self._later and not self._in_hand)

    def _next(self, jobs: Iterator[Job]) -> Job | None:
        with self._lock:
            job = next(jobs, None)
            self._read_all = job is None
            if job is None and self._later:
                job = self._later.popleft()
            if job is None:
                return None
            begun_before = self.report.attempts(job.key) > 0
            self.report.begin(job.key)
            self._in_hand[job.number] = job
            return replace(job, again=begun_before)

    def _run(self, runner: ServerRunner, job: Job) -> bool:
        """Whether the server is still there."""
        try:
            result = run_row(runner, job)
        except ServerGoneError as error:
            self._gone(job, error)
            return self._answers(runner.server, TRIES)
        with self._lock:
            del self._in_hand[job.number]
            self._end(replace(result, attempts=max(1, self.report.attempts(job.key))))
        return True

    def _gone(self, job: Job, error: ServerGoneError) -> None:
        """The job goes to another server; after so many it is to blame."""
        with self._lock:
            del self._in_hand[job.number]
            attempts = self.report.attempts(job.key)
            if attempts < self.attempts:
                self._later.append(job)
            else:
                self._end(result_of(job, CRASHED, error=f"{attempts} servers stopped answering: {error}"))

    def _answers(self, server: Server, pauses: Sequence[float]) -> bool:
        for pause in pauses:
            self._sleep(pause)
            try:
                server.check()
            except ServerGoneError:
                continue
            return True
        with self._lock:
            self._alive -= 1
            if not self._alive:
                raise RunStoppedError(f"no server answers any more, {server.url} was the last")
        return False

    def _end(self, result: Result) -> None:
        self.report.end(result)
        self.on_result(result)
        bad = self.report.counts[FAILED] + self.report.counts[CRASHED]
        if self.most_failed is not None and bad > self.most_failed:
            raise RunStoppedError(f"{bad} have failed, more than --max-failed {self.most_failed}: {result.error}")
