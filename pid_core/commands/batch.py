"""The command `batch`. What draws, and PyTorch with it, is imported where a run begins: not to read a manifest."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..assets import NANO_PATH
from ..batch.jobs import NAME, Job, Options
from ..batch.plan import Survey, jobs_in, survey
from ..batch.report import BAD_BEFORE, GOOD_BEFORE, Report, failed_keys, summary
from ..batch.results import GOOD, SKIPPED, Result, RunStoppedError, result_of
from ..batch.rows import check_sigmas
from ..batch.shards import Shard, find_shard
from ..captions.fingerprint import fingerprint
from ..errors import prints_bare
from ..images.files import FORMATS
from ..printable import printable
from ..sampling.schedule import check_steps
from .bridges import add_bridge_arguments
from .remedies import explain
from .seeds import check_seed

ABOUT = "`batch MANIFEST|FOLDER|PATTERN --out DIR`: enlarge many pictures; what is done is kept when it is run again."
FAILED_SOME, USAGE, COULD_NOT_RUN, INTERRUPTED = 1, 2, 3, 128 + signal.SIGINT


@prints_bare
class UsageError(ValueError):
    """Arguments that cannot be, whatever the files and the machine are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `batch` takes."""
    parser.add_argument(
        "source", nargs="?", metavar="MANIFEST|FOLDER|PATTERN", help=".jsonl, .csv or .parquet; or pictures"
    )
    parser.add_argument("--out", type=Path, help="folder for the results; the report is in its _pidkit")
    parser.add_argument("--model", type=Path, default=NANO_PATH, help="a checkpoint; by default the bundled one")
    parser.add_argument("--family", help="latent family of the checkpoint, where its file does not tell")
    add_bridge_arguments(parser, text=False)
    _add_picture_arguments(parser)
    _add_run_arguments(parser)


def _add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--degrade-sigmas", nargs="+", default=["0"], metavar="SIGMA",
        help="0 to 1, a picture for each; or auto: what each picture's noise and blur suggest",
    )  # fmt: skip
    parser.add_argument("--target", choices=("2K", "4K"), help="area of the result; by default --factor decides")
    parser.add_argument(
        "--factor", type=float, help="how many times as long each side becomes; by default 4, of dinov2 and siglip 2K"
    )
    parser.add_argument("--steps", type=int, help="1 to 4; by default what the checkpoint is best at")
    parser.add_argument("--seed", type=int, default=0, help="of rows that name none")
    parser.add_argument("--name", default=NAME, help="of the results: index, stem, id, sigma, seed in braces")
    parser.add_argument("--format", default="png", choices=[ending[1:] for ending in FORMATS], help="of the results")
    parser.add_argument("--quality", type=int, help="1 to 100, of jpg and webp")
    parser.add_argument("--bits", type=int, default=8, help="of a colour, 8 or 16; 16 is for png")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is there and was made with other settings, or by others"
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=("local", "ray", "comfyui"), default="local", help="what draws; local by default"
    )
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="of the engine ray: a cluster; else one starts here")
    parser.add_argument("--server", nargs="+", metavar="URL", help="of the engine comfyui: running servers")
    parser.add_argument("--workflow", type=Path, help="of the engine comfyui: API form, with marks (docs/batch.md)")
    parser.add_argument("--gpus", help="all, or numbers such as 0,1: a worker on each; by default one worker")
    parser.add_argument(
        "--workers", type=int, help="without GPU, or of the engine ray: how many; 1 by default, or all GPUs"
    )
    parser.add_argument("--threads", type=int, help="of each worker; by default the machine's shared among them")
    parser.add_argument("--shard", help="I/N: every Nth row from I on; SLURM's and torchrun's variables say it too")
    parser.add_argument("--limit", type=int, help="only the first rows, for a trial")
    parser.add_argument("--attempts", type=int, default=3, help="with a row before it counts as crashed")
    parser.add_argument("--max-failed", type=int, help="end when more have failed")
    parser.add_argument("--retry", choices=("failed",), help="also what failed or crashed in an earlier run")
    parser.add_argument("--dry-run", action="store_true", help="read the manifest, say what there is to do, and end")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    parser.add_argument("--status", type=Path, metavar="DIR", help="sum up the report in this folder, and end")


def run(args: argparse.Namespace) -> int:
    """0: all done or kept. 1: some failed. 2: wrong arguments. 3: it could not run or go on. 130: interrupted."""
    try:
        if args.status is not None:
            return _say(args, summary(args.status))
        return _run(args)
    except (ValueError, OSError) as error:
        print(f"pid_core: {printable(explain(error), 2000)}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else COULD_NOT_RUN
    except RunStoppedError as error:
        print(f"pid_core: the run stops: {printable(error, 2000)}", file=sys.stderr)
        return COULD_NOT_RUN


def _run(args: argparse.Namespace) -> int:
    if args.source is None or args.out is None:
        raise UsageError("batch needs a manifest, a folder or a pattern, and --out")
    _check_files(args)
    try:
        _check_numbers(args)
        shard, options = find_shard(args.shard), _options(args)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.dry_run:
        return _say(args, _as_dict(survey(args.source, options, shard, args.limit), shard))
    from ..batch.encoding import with_captions
    from . import engines

    options, open_bridge = engines.fitted(args, options), engines.bridge_of(args)
    found = survey(args.source, options, shard, args.limit)
    make_engine = engines.engine_of(args, options, open_bridge)
    retried = failed_keys(args.out) if args.retry else set()
    with Report(args.out, shard.suffix) as report, _bar(found.jobs, report.counts) as on_result:
        jobs = _fresh(jobs_in(args.source, options, shard, args.limit), report, retried, on_result)
        engine = make_engine(report=report, on_result=on_result)
        try:
            with _interruptible(engine.finish):
                finished = engine.run(with_captions(jobs, options, partial(open_bridge, engines.encoding_device())))
        except RunStoppedError:
            _say(args, {"rows": dict(report.counts), "finished": False})
            raise
        report.close(finished)
        _say(args, {"rows": dict(report.counts), "finished": finished})
        if report.counts[SKIPPED]:
            skipped = f"{report.counts[SKIPPED]} failed in an earlier run and were not tried again"
            print(f"pid_core: {skipped}: --retry failed takes them, --status {args.out} says why", file=sys.stderr)
        if not finished:
            return INTERRUPTED
        return FAILED_SOME if any(report.counts[status] for status in report.counts if status not in GOOD) else 0


def _check_files(args: argparse.Namespace) -> None:
    if args.engine == "comfyui":
        if not args.server or args.workflow is None:
            raise UsageError("the engine comfyui needs --server URL and --workflow FILE")
        from ..batch.comfy import read_workflow

        read_workflow(args.workflow)
    if args.engine != "local" and args.gpus is not None:
        raise UsageError("--gpus is of the engine local: Ray's workers take all GPUs, or as many as --workers says")
    for option, engine in (("server", "comfyui"), ("workflow", "comfyui"), ("ray_address", "ray")):
        if getattr(args, option) is not None and args.engine != engine:
            raise UsageError(f"--{option.replace('_', '-')} is of the engine {engine}: add --engine {engine}")
    if args.engine != "comfyui" and not args.model.is_file():
        raise ValueError(f"there is no checkpoint {printable(args.model)}")
    for option in ("vae", "statistics", "clip", "caption"):
        path = getattr(args, option)
        if path is not None and not (path.is_file() or (option == "vae" and path.is_dir())):
            raise ValueError(f"--{option}: there is no file {printable(path)}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out is {printable(args.out)}, which is a file: a folder is needed")


def _check_numbers(args: argparse.Namespace) -> None:
    check_seed(args.seed)
    if args.steps is not None:
        check_steps(args.steps)
    for name, least in (("workers", 1), ("threads", 1), ("limit", 1), ("attempts", 1), ("max_failed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, but must be at least {least}")


def _options(args: argparse.Namespace) -> Options:
    model = args.workflow if args.engine == "comfyui" else args.model
    return Options(
        out=str(args.out),
        model=str(model),
        model_fingerprint=fingerprint(model),
        family=args.family,
        size=args.target or ("4" if args.factor is None else f"{args.factor:g}"),
        steps=args.steps,
        seed=args.seed,
        sigmas=check_sigmas(args.degrade_sigmas, "--degrade-sigmas"),
        name=args.name,
        format=args.format,
        quality=args.quality,
        bits=args.bits,
        text=None if args.clip is None else "",
        caption=None if args.caption is None else str(args.caption),
        vae=None if args.vae is None else str(args.vae),
        statistics=None if args.statistics is None else str(args.statistics),
        clip=None if args.clip is None else str(args.clip),
        clip_fingerprint="" if args.clip is None else fingerprint(args.clip),
        overwrite=args.overwrite,
    )


def _fresh(
    jobs: Iterator[Job], report: Report, retried: set[str], on_result: Callable[[Result], None]
) -> Iterator[Job]:
    """Without those that failed in an earlier run and are not asked for again."""
    for job in jobs:
        before = report.before(job.key)
        if before == BAD_BEFORE and job.key not in retried:
            result = result_of(job, SKIPPED, error="failed in an earlier run")
            report.end(result)
            on_result(result)
        else:
            yield replace(job, reported=True) if before == GOOD_BEFORE else job


@contextmanager
def _bar(total: int, counts: Counter[str]) -> Iterator[Callable[[Result], None]]:
    """Rate and time left, and a line for what fails."""
    from tqdm import tqdm

    # into a batch system's log a line a minute, not two a second
    often = 0.5 if sys.stderr.isatty() else 60.0
    with tqdm(total=total, unit="picture", file=sys.stderr, mininterval=often, maxinterval=2 * often) as bar:

        def show(result: Result) -> None:
            if result.status not in (*GOOD, SKIPPED):
                bar.write(f"{result.status}: {printable(result.id)}: {result.error}", file=sys.stderr)
            bar.set_postfix(counts, refresh=False)
            bar.update()

        yield show


@contextmanager
def _interruptible(finish: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, or a batch system's notice, lets the pictures in hand end; the second ends at once."""
    asked = False

    def on_signal(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nthe pictures in hand are finished; once more to stop at once", file=sys.stderr)
        finish()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_dict(found: Survey, shard: Shard) -> dict[str, Any]:
    facts = {"rows": found.rows, "outputs": found.jobs, "of them wrong": found.broken, "shard": list(shard)}
    return facts if found.why is None else facts | {"the first of them": printable(found.why, 500)}


def _say(args: argparse.Namespace, facts: dict[str, Any]) -> int:
    if args.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        text = ", ".join(f"{v} {k}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name}: {text if text != '' else 'none'}")
    return 0
