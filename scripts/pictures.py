"""Copies screenshots of the browser tests to where the docs show them. `make pictures` runs the tests first.

`pictures.py tour` takes only those whose name begins with "tour".
"""

from __future__ import annotations

import sys

from PIL import Image

import comfy_env
from comfy_env import ROOT

TAKEN = ROOT / "output" / "screenshots" / comfy_env.commit()[:8]
TOUR, NODE = 1200, 480  # longest side in pixels: of the tour's pictures, of a plain node
# File of the docs -> screenshot. Other nodes show themselves as they are when added.
CHOSEN = {
    "docs/tour_1_open.jpg": "tour_1_open",
    "docs/tour_2_tune.jpg": "tour_2_tune",
    "docs/tour_3_compare.jpg": "tour_3_compare",
    "js/docs/PiDKitSigmaTuner/node.jpg": "tour_3_compare",
    "js/docs/PiDKitSigmaSweep/node.jpg": "tour_4_sweep",
    "js/docs/PiDKitSigmaMap/node.jpg": "sigma_map_vue",
    "js/docs/PiDKitTouchUp/node.jpg": "touch_up_vue",
}


def pictures() -> dict[str, str]:
    """File of the docs -> screenshot."""
    nodes = {f"js/docs/{page.parent.name}/node.jpg": page.parent.name for page in (ROOT / "js/docs").glob("*/en.md")}
    return {file: f"node_{node}" for file, node in sorted(nodes.items())} | CHOSEN


def main(beginning: str = "") -> int:
    chosen = {file: name for file, name in pictures().items() if name.startswith(beginning)}
    missing = sorted({name for name in chosen.values() if not (TAKEN / f"{name}.png").exists()})
    if missing:
        print(f"not taken yet, run the browser tests: {', '.join(missing)}")
        return 1
    for file, name in chosen.items():
        longest = TOUR if file in CHOSEN else NODE
        with Image.open(TAKEN / f"{name}.png") as picture:
            picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            picture.convert("RGB").save(ROOT / file, quality=85, subsampling=0, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
