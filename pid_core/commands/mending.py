"""What `doctor --fix` offers: each thing by a question of its own, and nothing without a yes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..hub.catalogue import FILES, HubFile, known_file
from ..hub.licences import LICENCES, accepted
from ..machine.comfy_home import Home
from ..machine.extra_paths import NAME, add_section, models_elsewhere
from ..printable import printable
from .fetch import RECORD, fetch_file

MOST_NAMES = 3  # of workflows in a question
NETWORK_DRIVES = ("nfs", "cifs", "smb", "sshfs", "9p", "afs")


@dataclass(frozen=True)
class Offer:
    """question: without the mark. run: mends it and returns a line. licence: of a file, where it must be accepted.

    size: of what is fetched, in bytes, 0 where nobody knows.
    """

    question: str
    run: Callable[[], str]
    licence: str | None = None
    size: int = 0


class Consent:
    """yes: to every question but those about licences; accept_licence: to those. Else the terminal is asked."""

    def __init__(self, *, yes: bool, accept_licence: bool, ask: Callable[[str], str] = input):
        self._yes, self._accept, self._ask = yes, accept_licence, ask
        self._answers: dict[str, bool] = {}  # by licence

    def to(self, offer: Offer) -> bool:
        """Whether it may be done; a licence is asked about once."""
        if self._yes:
            print(f"{offer.question}: yes")
        elif not self._asked(f"{offer.question}? [y/N] "):
            return False
        return offer.licence is None or self._licence(offer.licence)

    def _licence(self, key: str) -> bool:
        if self._accept:
            return True
        licence = LICENCES[key]
        if self._yes:
            print(f"  left out: {licence.name} is not accepted by --yes ({licence.page}); add --accept-licence")
            return False
        if key not in self._answers:
            terms = f"{licence.name} ({licence.summary}; {licence.page})"
            self._answers[key] = self._asked(f"  Do you accept {terms}? [y/N] ")
        return self._answers[key]

    def _asked(self, question: str) -> bool:
        try:
            return self._ask(question).strip().lower() in ("y", "yes")
        except (EOFError, RuntimeError):  # nobody is there; RuntimeError where stdin or stdout itself is closed
            print()
            return False


def mend(report: dict, home: Home | None, consent: Consent) -> int:
    """Go through all that can be mended; returns the exit code, 1 where something failed."""
    for line in flags(report, home):
        print(line)
    if home is None:
        print("no ComfyUI was found, so no file can be put anywhere: name its folder with --comfyui PATH")
        return 1
    failed, found = 0, list(offers(report, home))
    total = sum(offer.size for offer in found)
    if total:
        print(f"{total / 1e9:.0f} GB and more, if all is fetched")
    for offer in found:
        if not consent.to(offer):
            continue
        try:
            print(f"  {offer.run()}")
        except (ValueError, OSError) as error:
            failed += 1
            print(f"  failed: {printable(error, 400)}", file=sys.stderr)
    if not found:
        print("there is nothing to fetch or to write")
    return 1 if failed else 0


def offers(report: dict, home: Home) -> Iterator[Offer]:
    """Models that lie elsewhere come first: what is found there need not be fetched."""
    found = set()
    for models in models_elsewhere(home):
        found |= {path.name for path in models.rglob("*") if path.is_file()}
        what = f"Add the models in {printable(models, 200)} to {NAME}"
        yield Offer(what, partial(_add_section, home.code / NAME, models))
    record = home.user / RECORD
    for file, workflows in _missing(report).items():
        if file.name not in found:
            yield _fetch_offer(file, workflows, home, record)


def _add_section(config: Path, models: Path) -> str:
    copy = add_section(config, models)
    kept = "" if copy is None else f"; as it was, it is {copy.name}"
    return f"written{kept}. Start ComfyUI anew"


def _fetch_offer(file: HubFile, workflows: list[str], home: Home, record: Path) -> Offer:
    licence = LICENCES[file.licence]
    size = "" if file.size is None else f"{file.size / 1e9:.1f} GB, "
    more = "" if len(workflows) <= MOST_NAMES else f" and {len(workflows) - MOST_NAMES} more"
    wanted = f"{', '.join(workflows[:MOST_NAMES])}{more}"
    question = f"Fetch {file.name} ({size}{licence.name}) from {file.page}, for {wanted}"
    must_ask = licence.ask and file.licence not in accepted(record)
    run = partial(_fetch, file, home, record)
    return Offer(question, run, file.licence if must_ask else None, file.size or 0)


def _fetch(file: HubFile, home: Home, record: Path) -> str:
    # where its licence must be accepted, that was asked before
    return str(fetch_file(file, home.folders[file.folder], record, True))


def _missing(report: dict) -> dict[HubFile, list[str]]:
    """Known files that example workflows lack -> the workflows; in the catalogue's order."""
    wanted: dict[HubFile, list[str]] = {}
    for workflow, needs in report.get("workflows", {}).items():
        for need in needs:
            file = None if need["here"] else known_file(need["name"])
            if file is not None and file.folder == need["folder"] and "subfolder" not in (need["how"] or ""):
                wanted.setdefault(file, []).append(workflow)
    return {file: wanted[file] for file in FILES if file in wanted}


def flags(report: dict, home: Home | None) -> Iterator[str]:
    """ComfyUI's own flags that this machine needs; they are named, for ComfyUI is started elsewhere."""
    if report["device"]["kind"] == "cpu":
        yield "start ComfyUI with --cpu: PyTorch finds no graphics card here"
    elif not report["plan_4k"]["fits"]:
        yield "4096 x 4096 does not fit beside the weights: start ComfyUI with --novram, to keep them in main memory"
    if home is None:
        return
    if home.models.resolve() != (home.code / "models").resolve():
        yield f"start ComfyUI with --models-directory {printable(home.models, 200)}, as you told doctor"
    if _on_network_drive(home.models):
        yield "the models lie on a network drive: if loading is slow, start ComfyUI with --disable-mmap"


def _on_network_drive(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = folder.resolve()
    except OSError:
        return False
    points = [(Path(parts[1]), parts[2]) for parts in (line.split() for line in lines) if len(parts) > 2]
    under = [(len(point.parts), kind) for point, kind in points if point == place or point in place.parents]
    kind = max(under, default=(0, ""))[1]
    return any(kind.startswith(("fuse." + name, name)) for name in NETWORK_DRIVES)
