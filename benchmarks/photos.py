"""Natural colour photos that others ship: for evaluation only, never for training, never copied into the project.

For choices (`chosen`), from Python packages:

| photo | package | licence |
|---|---|---|
| astronaut (NASA), rocket (SpaceX) | scikit-image | public domain |
| chelsea (S. van der Walt), coffee (R. Michetti) | scikit-image | CC0 |
| motorcycle (Middlebury stereo 2014, left) | scikit-image | for research, not redistributed here |
| china (danielbuechele), flower (vultilion) | scikit-learn | CC BY 2.0 |
| grace_hopper (US Navy) | matplotlib | public domain |

For the bars (`held`), from Debian's packages; no choice may be made by them:

| photo | package |
|---|---|
| Elephants | mate-backgrounds |
| Autumn, ColorfulCups | plasma-workspace-wallpapers |
| picosdeeuropa, greentock, umang, Bridge, Wine | lomiri-wallpapers-16.04 |

    mkdir wallpapers && cd wallpapers
    apt-get download mate-backgrounds plasma-workspace-wallpapers lomiri-wallpapers-16.04
    for f in *.deb; do dpkg-deb -x $f .; done
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

MULTIPLE = 32
HELD_OUT = {
    "Elephants": "backgrounds/mate/abstract/Elephants.jpg",
    "Autumn": "wallpapers/Autumn/contents/images/2560x1600.jpg",
    "ColorfulCups": "wallpapers/ColorfulCups/contents/images/2560x1600.jpg",
    "picosdeeuropa": "backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "greentock": "backgrounds/greentock_by_Peter_Nerlich.jpg",
    "umang": "backgrounds/umang_by_Abhishek_Mudgal.jpg",
    "Bridge": "backgrounds/Bridge_by_Sander_Klootwijk.jpg",
    "Wine": "backgrounds/Wine_by_Jakkub_Mede.jpg",
}
HELD_OUT_SIDE = 768  # the shorter side that held-out photos are made, so that they are sharp at pixel size


def load_photos() -> list[tuple[str, torch.Tensor]]:
    """(name, float32 [3, H, W] in [0, 1]) for each photo found; H and W are multiples of 32.

    Raises RuntimeError when none of the packages is installed. Nothing is downloaded.
    """
    photos = [(path.stem, read_photo(path)) for path in photo_paths() if path.exists()]
    if not photos:
        raise RuntimeError("no evaluation photos found: install scikit-image, scikit-learn or matplotlib")
    return photos


def load_held(folder: Path) -> list[tuple[str, torch.Tensor]]:
    """The held photos, as `load_photos`, from a folder that Debian's packages were unpacked in.

    Raises RuntimeError when one is missing.
    """
    paths = {name: folder / "usr/share" / path for name, path in HELD_OUT.items()}
    missing = [name for name, path in paths.items() if not path.exists()]
    if missing:
        raise RuntimeError(f"not in {folder}: {', '.join(missing)}; benchmarks/photos.py says how to get them")
    return [(name, read_photo(path, HELD_OUT_SIDE)) for name, path in paths.items()]


def photo_paths() -> list[Path]:
    """Where the photos for choices are, in a fixed order."""
    paths = []
    for package, folder, names in (
        (
            "skimage",
            "data",
            ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
        ),
        ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
        ("matplotlib", "mpl-data/sample_data", ("grace_hopper.jpg",)),
    ):
        if (found := find_spec(package)) and found.origin:
            paths += [Path(found.origin).parent / folder / name for name in names]
    return paths


def read_photo(path: Path, shorter: int | None = None) -> torch.Tensor:
    """One picture, float32 [3, H, W] in [0, 1], cropped at the right and bottom to multiples of 32.

    shorter: the length in pixels that its shorter side is made first.
    """
    picture = Image.open(path).convert("RGB")
    if shorter:
        scale = shorter / min(picture.size)
        picture = picture.resize(tuple(round(scale * side) for side in picture.size), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, np.float32) / 255
    height, width = (side // MULTIPLE * MULTIPLE for side in pixels.shape[:2])
    return torch.from_numpy(pixels[:height, :width]).permute(2, 0, 1).contiguous()
