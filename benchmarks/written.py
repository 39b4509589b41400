"""Puts measured figures where they are read, between two marks in a Markdown file.

    python -m benchmarks.seams --size 256 --overlap 64 | python -m benchmarks.written seams

writes what comes in between <!-- seams --> and <!-- /seams --> in benchmarks/RESULTS.md, and prints it.
"""

from __future__ import annotations

import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of this name. Raises ValueError where they are not there once each."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    whole = path.read_text(encoding="utf-8")
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise ValueError(f"{path} does not have {begin.strip()} and {end} once each, in this order")
    before, _, rest = whole.partition(begin)
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}", encoding="utf-8", newline="\n")


def main() -> None:
    (name,) = sys.argv[1:]
    text = sys.stdin.read()
    if not text.strip():
        sys.exit("nothing came in: what stands there stays")
    print(text, end="")
    write_between(RESULTS, name, text)


if __name__ == "__main__":
    main()
