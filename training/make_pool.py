"""Writes a pool of training scenes: `python -m training.make_pool OUT.npy --count 600 --seed 1`."""

from __future__ import annotations

import argparse
import os
from functools import partial
from multiprocessing import get_context

import numpy as np

from .scenes import scene
from .textures import bank


def numbered_scene(index: int, seed: int, size: int) -> np.ndarray:
    """Scene `index` of the pool `seed`: the same picture whatever the number of processes."""
    return scene(np.random.default_rng((seed, index)), size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="the .npy file to write: uint8 [count, size, size, 3]")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    bank()  # before the fork, so that the processes share the tiles
    shape = (options.count, options.size, options.size, 3)
    unfinished = options.out + ".unfinished"  # training may look into the folder meanwhile
    pool = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
    make = partial(numbered_scene, seed=options.seed, size=options.size)
    with get_context("fork").Pool(options.processes) as workers:
        for index, picture in enumerate(workers.imap(make, range(options.count), chunksize=4)):
            pool[index] = picture
    pool.flush()
    os.replace(unfinished, options.out)


if __name__ == "__main__":
    main()
