"""Natural colour photos that ship inside well-kept Python packages: for evaluation only, never for training.

| photo | package | licence |
|---|---|---|
| astronaut (NASA), rocket (SpaceX) | scikit-image | public domain |
| chelsea (S. van der Walt), coffee (R. Michetti) | scikit-image | CC0 |
| motorcycle (Middlebury stereo 2014, left) | scikit-image | for research, not redistributed here |
| china (danielbuechele), flower (vultilion) | scikit-learn | CC BY 2.0 |
| grace_hopper (US Navy) | matplotlib | public domain |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

MULTIPLE = 32


def load_photos() -> list[tuple[str, torch.Tensor]]:
    """(name, float32 [3, H, W] in [0, 1]) for each photo found; H and W are multiples of 32.

    Raises RuntimeError when none of the packages is installed. Nothing is downloaded.
    """
    photos = [(path.stem, read_photo(path)) for path in photo_paths() if path.exists()]
    if not photos:
        raise RuntimeError("no evaluation photos found: install scikit-image, scikit-learn or matplotlib")
    return photos


def photo_paths() -> list[Path]:
    """Where the photos are, in a fixed order."""
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
        try:
            root = Path(__import__(package).__file__).parent
        except ImportError:
            continue
        paths += [root / folder / name for name in names]
    return paths


def read_photo(path: Path) -> torch.Tensor:
    """One picture, float32 [3, H, W] in [0, 1], cropped at the right and bottom to multiples of 32."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    height, width = (side // MULTIPLE * MULTIPLE for side in pixels.shape[:2])
    return torch.from_numpy(pixels[:height, :width]).permute(2, 0, 1).contiguous()
