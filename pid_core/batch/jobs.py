"""Jobs: a row at one noise level, with all that its output depends on, and the name it is written under."""

from __future__ import annotations

import hashlib
import json
import os
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..images.files import FORMATS, check_form
from ..names import FOREIGN, LONGEST_NAME, check_part
from ..printable import printable, quoted
from .rows import Row

LONGEST_STEM = LONGEST_NAME - 60  # bytes; a number, a sigma, a seed and an ending stand beside it
NAME = "{index:08d}_{stem}_{sigma}"
FIELDS = ("index", "stem", "id", "sigma", "seed")
TARGETS = ("2K", "4K")
# Control characters, what Windows takes for a drive or a stream, and halves of characters that stand for no byte.
NOT_IN_NAMES = re.compile(r"[:\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")
# In names that are made here also what Windows takes in none: results are copied from system to system.
UNFIT = re.compile(rf"[{re.escape(FOREIGN)}]|{NOT_IN_NAMES.pattern}")


@dataclass(frozen=True)
class Options:
    """What all rows share, where they say nothing else. Paths are texts, so that it can be sent and written.

    model_fingerprint: of the checkpoint's file. size: "2K", "4K", or a factor as text. steps: None as the checkpoint is
    best at. text, caption: of rows without one. vae, clip: for a checkpoint of a VAE's family.
    statistics: with the encoder of an RAE for vae.
    """

    out: str
    model: str
    model_fingerprint: str
    family: str | None = None
    size: str = "4"
    steps: int | None = None
    seed: int = 0
    sigmas: tuple[float | str, ...] = (0.0,)
    name: str = NAME
    format: str = "png"
    quality: int | None = None
    bits: int = 8
    text: str | None = None
    caption: str | None = None
    vae: str | None = None
    statistics: str | None = None
    clip: str | None = None
    clip_fingerprint: str = ""
    overwrite: bool = False

    def __post_init__(self) -> None:
        if f".{self.format}" not in FORMATS:
            raise ValueError(f"format {printable(self.format)} is not known: {', '.join(f[1:] for f in FORMATS)} are")
        check_form(self.format, self.quality, self.bits)
        parse_size(self.size)
        _check_name(self.name)


@dataclass(frozen=True)
class Job:
    """One output. sigma: degrade_sigma, or rows.AUTO. seed, text, caption, size: the row's or the run's.

    name: of the file to be written, within the output folder and with slashes; path: the same, whole; both empty where
    there can be none. key: the same for the same output; another where anything differs that it depends on. error: why
    it cannot be done, in a line. again: it was begun before, and nobody knows how far it came. reported: an earlier
    run's report calls it good.
    """

    row: Row
    sigma: float | str
    seed: int
    text: str | None
    caption: str | None
    size: str
    name: str
    path: str
    key: str
    error: str | None = None
    again: bool = False
    reported: bool = False

    @property
    def mark(self) -> str:
        """Of its unfinished files."""
        return f"{self.key[:16]}."

    @property
    def number(self) -> str:
        """What tells it apart in a run: its row and sigma."""
        return f"{self.row.index}:{sigma_text(self.sigma)}"


def jobs_of(row: Row, options: Options) -> Iterator[Job]:
    """A row's jobs, one for each sigma; each knows its path, and `with_key` its key."""
    for sigma in row.sigmas or options.sigmas:
        size, name, error = row.size or options.size, "", row.error
        try:
            name = _name(row, sigma, options)
            parse_size(size)
        except ValueError as wrong:
            error = error or f"row {row.index}: {wrong}"
        yield Job(
            row,
            sigma,
            _seed(row, options),
            options.text if row.text is None else row.text,
            options.caption if row.caption is None and row.text is None else row.caption,
            size,
            name,
            os.path.join(options.out, *name.split("/")) if name else "",
            f"row {row.index} at {sigma_text(sigma)}",
            error,
        )


def with_key(job: Job, options: Options) -> Job:
    """The job with its key. One that cannot be done has none: it is called by its place."""
    return job if job.error is not None else replace(job, key=_key(job, options))


def _seed(row: Row, options: Options) -> int:
    return options.seed if row.seed is None else row.seed


def parse_size(size: str) -> tuple[str, float]:
    """(target, factor) as `plan_framing` takes them. Raises ValueError in one line."""
    if size.upper() in TARGETS:
        return size.upper(), 4.0
    try:
        factor = float(size.lower().removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1000:
        raise ValueError(f"size {quoted(size)} is none of {', '.join(TARGETS)} and no factor such as 4")
    return "factor", factor


def sigma_text(sigma: float | str) -> str:
    """As it stands in names and reports."""
    return sigma if isinstance(sigma, str) else f"{sigma:g}"


def _key(job: Job, options: Options) -> str:
    """Where a picture lies is no part of it: its id is, or its source where it has none."""
    facts = {
        "id": job.row.id,
        "output": job.name,
        "latent": job.row.is_latent,
        "model": options.model_fingerprint,
        "family": options.family,
        "sigma": sigma_text(job.sigma),
        "seed": job.seed,
        "steps": options.steps,
        "size": parse_size(job.size),
        "text": job.text,
        "caption": job.caption,
        "vae": options.vae and Path(options.vae).name,
        "clip": options.clip and Path(options.clip).name,
        "format": options.format,
        "quality": options.quality,
        "bits": options.bits,
    }
    if options.statistics is not None:
        facts["statistics"] = Path(options.statistics).name
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode(errors="surrogatepass")).hexdigest()[:32]


def _name(row: Row, sigma: float | str, options: Options) -> str:
    if row.output is None:
        name = options.name.format(
            index=row.index,
            stem=_stem(row.source),
            id=_tame(row.id.replace("/", "_").replace("\\", "_")),
            sigma=sigma_text(sigma),
            seed=_seed(row, options),
        )
    else:
        name = _without_ending(row.output)
        if len(row.sigmas or options.sigmas) > 1:
            name = f"{name}_{sigma_text(sigma)}"
    return _within(f"{name}.{options.format}")


def _stem(source: str) -> str:
    name = source.replace("\\", "/").rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    return _tame(stem if dot and stem else name)


def _tame(name: str) -> str:
    """A name from outside, with _ where a letter cannot stand in the name of an output, and cut where it is long.

    A name that is cut ends in a mark, so that it stays unique.
    """
    tame = UNFIT.sub("_", name)
    whole = tame.encode(errors="surrogateescape")
    if len(whole) <= LONGEST_STEM:
        return tame
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{whole[:LONGEST_STEM].decode(errors='ignore')}_{mark}"


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in FORMATS else name


def _within(name: str) -> str:
    """A name within the output folder, with slashes; what would lead out, or no file system takes, is refused."""
    name = name.replace("\\", "/")
    for part in name.split("/"):
        if part in ("", ".", "..") or NOT_IN_NAMES.search(part):
            raise ValueError(f"the output's name {quoted(name)} does not stay within the output folder")
        if len(part.encode(errors="replace")) > LONGEST_NAME:
            raise ValueError(f"the output's name {printable(part, 40)} is longer than {LONGEST_NAME} bytes")
        check_part(part, f"the output's name {quoted(name)}")
    return name


def _check_name(name: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(name) if field is not None]
        unknown = [field for field in fields if field not in FIELDS]
        if not unknown:
            _within(name.format(index=1, stem="a", id="b", sigma="0", seed=1))
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"--name {quoted(name)} cannot be used: {printable(error)}") from None
    if unknown:
        raise ValueError(f"--name has {printable(unknown[0])!r} in braces; {', '.join(FIELDS)} can stand there")
