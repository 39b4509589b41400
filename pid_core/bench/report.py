"""The report as Markdown and as JSON; written anew after every row, so that a run that ends early loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..files import replace_file
from .rows import MEASURED, Row, Value

SCHEMA = 1  # of the JSON
NAME = "pidkit_bench"


@dataclass
class Report:
    """machine: see `describe_machine`. model: its name, dtype and settings. complete: whether all parts are done."""

    machine: Mapping[str, Value]
    model: Mapping[str, Value]
    rows: list[Row] = field(default_factory=list)
    complete: bool = False

    def as_json(self) -> str:
        """An object that JSON of any reader takes; see SCHEMA."""
        values = {
            "schema": SCHEMA,
            "complete": self.complete,
            "machine": dict(self.machine),
            "model": dict(self.model),
            "rows": [asdict(row) for row in self.rows],
        }
        return json.dumps(values, indent=1, ensure_ascii=False)

    def as_markdown(self) -> str:
        """A table of two columns."""
        lines = ["| PiD bench | |", "|---|---|", *(_line(*pair) for pair in self._about())]
        for row in self.rows:
            lines.append(_line(row.title, row.text if row.status == MEASURED else f"{row.status}: {row.text}"))
        if not self.complete:
            lines.append(_line("incomplete", "the run was not finished"))
        return "\n".join(lines) + "\n"

    def _about(self) -> list[tuple[str, str]]:
        here, model = self.machine, self.model
        gb = f"{float(here['memory'] or 0) / 1e9:.0f} GB"
        driver = f", driver {here['driver']}" if here["driver"] else ""
        threads = f", {here['threads']} threads" if here["device"] == "cpu" else ""
        runtime = next((f" ({name} {here[name]})" for name in ("cuda", "hip") if here[name]), "")
        return [
            ("machine", f"{here['name']}, {gb}{driver}{threads}, {here['system']}"),
            ("versions", f"PiDKit {here['pidkit']}, PyTorch {here['torch']}{runtime}, Python {here['python']}"),
            ("model", f"{model['name']}, {model['dtype']}{', quick' if model['quick'] else ''}"),
        ]


class Files:
    """The two files of a report, in a folder; of a name that was free when the run began."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        number, stem = 1, NAME
        while any((folder / f"{stem}{ending}").exists() for ending in (".md", ".json")):
            number += 1
            stem = f"{NAME}_{number}"
        self.markdown, self.json = folder / f"{stem}.md", folder / f"{stem}.json"

    def write(self, report: Report) -> None:
        """Both, each in one move."""
        replace_file(self.json, report.as_json().encode())
        replace_file(self.markdown, report.as_markdown().encode())


def _line(title: str, text: str) -> str:
    return f"| {_cell(title)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
