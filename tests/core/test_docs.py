"""The pages for users: links lead somewhere, figures say where they come from, quoted messages are ours."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks.hardware import PAGE, tables

ROOT = Path(__file__).parents[2]
HELP = ROOT / "js" / "docs"
PAGES = sorted(
    path
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md")),
        ROOT / "pid_core" / "assets" / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *HELP.rglob("*.md"),
    ]
    if path.exists()
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A figure that somebody measured or counted, and what may stand behind it.
FIGURE = re.compile(r"\d (?:times as fast|times the|dB|GB|%|ms)|within \d")
SOURCE = re.compile(r"\]\([^)]*(?:RESULTS|measured|bundled_model)\S*\.md|`tests/|`benchmarks/")
LARGEST_README = 6500  # bytes: a first screen, and the way to the rest


def names(pages):
    return [path.relative_to(ROOT).as_posix() for path in pages]


def text_of(path):
    """Without code, which holds no links."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(path):
    """The anchors that GitHub makes of a page's headings."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", text_of(path), flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {name if number == 0 else f"{name}-{number}" for name, last in found.items() for number in range(last + 1)}


def targets(path):
    """(link, file it leads to, anchor) of a page's own links. Those of a help page begin in js/docs, as in ComfyUI."""
    for link in LINK.findall(text_of(path)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        base = HELP if path.is_relative_to(HELP) else path.parent
        yield link, (base / name).resolve() if name else path, anchor


@pytest.mark.parametrize("path", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(path):
    for link, target, anchor in targets(path):
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_two_clicks_away():
    """From README: what lies behind the first click, and behind the second."""
    reached = {ROOT / "README.md"}
    for _ in range(2):
        reached |= {to for page in reached if page.suffix == ".md" for _, to, _ in targets(page) if to.exists()}
    pages = {*(ROOT / "docs").glob("*.md"), *HELP.rglob("en.md"), ROOT / "benchmarks" / "RESULTS.md"}
    assert not names(sorted(pages - reached))


def test_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= LARGEST_README


@pytest.mark.parametrize("name", ["README.md", "docs/speed.md", "docs/large_pictures.md", "docs/bundled_model.md"])
def test_a_figure_says_where_it_is_from(name):
    """In its paragraph, its point of a list or its row."""
    for part in re.split(r"\n\n|\n(?=- |\d\. |\|)", text_of(ROOT / name)):
        bare = part.startswith("|") and "--" not in part and "[" not in part  # a table that a script writes
        is_size = "about 6 GB" in part or "instead of 2.8" in part  # of a file, not measured
        assert bare or is_size or not FIGURE.search(part) or SOURCE.search(part), part


def test_the_tables_of_cards_are_what_the_memory_model_says():
    page = PAGE.read_text(encoding="utf-8")
    for name, text in tables().items():
        assert f"<!-- {name} -->\n\n{text}\n\n<!-- /{name} -->" in page, "run python -m benchmarks.hardware --write"


@cache
def messages():
    """All texts in the code, with ... where a value is put in."""
    found = []
    for package in ("nodes", "pid_core", "pid_bridges"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if id(node) in docstrings:
                    continue
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_quoted_messages_are_ours():
    """What stands in quotation marks in the page of symptoms can be searched for by who has it on the screen."""
    page = text_of(ROOT / "docs" / "troubleshooting.md")
    quotes = {" ".join(quote.split()) for quote in re.findall(r'"([^"]+)"', page)}
    of_others = {quote for quote in quotes if re.match(OTHERS, quote)}
    pieces = {(quote, piece) for quote in quotes - of_others for piece in re.split(r" ?\.\.\.[,:;]? ?", quote) if piece}
    assert len(pieces) > 40
    assert not sorted(quote for quote, piece in pieces if piece not in messages())


OTHERS = "PidNet requires|Cannot convert a MPS|Trying to convert Float8|a different, darker|snake skin"


def test_every_node_is_in_the_list_in_both_languages():
    page = (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8")
    for path in HELP.rglob("*.md"):
        assert f"(../{path.relative_to(ROOT).as_posix()})" in page


def test_nodes_and_inputs_are_called_as_they_are():
    """In bold type, in the pages for users."""
    told = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    nodes = {node["display_name"] for node in told.values()}
    inputs = {name for node in told.values() for name in node.get("inputs", {})}
    for path in {*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "install.md"}:  # its bold words are no inputs
        bold = {" ".join(name.split()) for name in re.findall(r"\*\*\[?([^]*]+?)\]?(?:\([^)]*\))?\*\*", text_of(path))}
        assert {name for name in bold if re.fullmatch(r"PiD [A-Z][\w ]+", name)} <= nodes, path
        assert {name for name in bold if re.fullmatch(r"[a-z]+(_[a-z]+)*", name)} <= inputs, path
