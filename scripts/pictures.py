"""Copies screenshots of the browser tests to where the docs show them. `make pictures` runs the tests first."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import comfy_env
from comfy_env import ROOT

TAKEN = ROOT / "output" / "screenshots" / comfy_env.commit()[:8]
WIDEST = 1000
# Screenshot -> file of the docs. Other nodes show themselves as they are when added.
CHOSEN = {
    "compare_vue": "js/docs/PiDKitSigmaTuner/node.jpg",
    "sweep_vue": "js/docs/PiDKitSigmaSweep/node.jpg",
    "tour_1_open": "docs/tour_1_open.jpg",
    "tour_2_tune": "docs/tour_2_tune.jpg",
    "tour_3_compare": "docs/tour_3_compare.jpg",
}


def destinations() -> dict[Path, Path]:
    found = {TAKEN / f"{name}.png": ROOT / target for name, target in CHOSEN.items()}
    for page in sorted((ROOT / "js" / "docs").glob("*/en.md")):
        target = page.parent / "node.jpg"
        if target not in found.values():
            found[TAKEN / f"node_{page.parent.name}.png"] = target
    return found


def main() -> int:
    missing = [str(source) for source in destinations() if not source.exists()]
    if missing:
        print(f"not taken yet, run the browser tests: {', '.join(missing)}")
        return 1
    for source, target in destinations().items():
        with Image.open(source) as picture:
            picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
            picture.convert("RGB").save(target, quality=85, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
