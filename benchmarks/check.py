"""What PiD Check says of honest results and of ones that were tampered with, by the bundled model in one step.

    python -m benchmarks.check --held FOLDER [--limit N] [--out DIR] [--write]

Photos are made four times smaller and restored. Tampering is done to the result of sigma 0: the patch with most
structure is copied some pixels to the right; grain, a cast, speckles, a step at a window's border are added. Speckles
are single pixels raised by 0.25 to 0.6 at random places, 200 per megapixel, where there is room below white.
Highlights are what must stay: a pixel that is a star in a dark sky, small round glints, and every bright pixel of the
photos themselves. With --out the results that were tampered with and their heat pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.colour import tint
from benchmarks.photos import load_held, load_photos
from benchmarks.restoration import eight_bits, enlarge, restore, shrink, to_latent, to_picture
from benchmarks.written import RESULTS, write_between
from pid_core import NANO_PATH, load_network
from pid_core.images.blur import gaussian
from pid_core.images.check import Checked, check_picture
from pid_core.images.quality import sigma_for_noise
from pid_core.images.seams import borders_of
from pid_core.images.speckles import find_speckles, remove_speckles
from pid_core.images.structure import CHANGED, heat_picture
from pid_core.latents.lq_input import prepare_lq
from pid_core.windows.plan import WindowPlan, plan_windows

PATCH = 40  # pixels a side of what is moved
DENSITY = 200  # speckles per megapixel
SIGMAS = (0.0, 0.2, 0.4)
NOISE = 10  # of a source, in 1/255
HEADINGS = (
    "| | dB | cast | edges | speckles per megapixel | changed, % | strongest change |\n|---|---|---|---|---|---|---|"
)


def flat(image: Tensor) -> Tensor:
    """[1, 3, H, W] -> [H, W, 3]."""
    return image[0].movedim(0, -1).contiguous()


def grain(image: Tensor, level: float) -> Tensor:
    return eight_bits(image + level / 255 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1)))


def draw(net, small: Tensor, sigma: float, latent_noise: str = "add") -> Tensor:
    latent = prepare_lq(to_latent(small), "rgb", sigma, latent_noise=latent_noise, seed=1).latent
    return eight_bits(restore(net, latent, 1, sigma))


def busiest(small: Tensor) -> tuple[int, int]:
    """Row and column, in pixels of the result, of the patch with most structure."""
    grey = small.mean(1, keepdim=True)
    variance = F.avg_pool2d((grey - F.avg_pool2d(grey, 9, 1, 4)).square(), 13, 1, 6)[0, 0, 16:-16, 16:-16]
    row, col = divmod(int(variance.argmax()), variance.shape[1])
    return 4 * (row + 16) - PATCH // 2, 4 * (col + 16) - PATCH // 2


def moved(image: Tensor, place: tuple[int, int], by: int) -> Tensor:
    (row, col), out = place, image.clone()
    out[..., row : row + PATCH, col + by : col + by + PATCH] = image[..., row : row + PATCH, col : col + PATCH]
    return out


def speckled(image: Tensor) -> tuple[Tensor, Tensor]:
    """A picture [1, 3, H, W] with speckles, and their places [n, 2]."""
    generator, (height, width) = torch.Generator().manual_seed(5), image.shape[-2:]
    number = round(height * width * DENSITY / 1e6)
    places = torch.stack([torch.randint(0, side, (number,), generator=generator) for side in (height, width)], 1)
    raised = 0.25 + 0.35 * torch.rand(number, generator=generator)
    room = image[0].mean(0)[places[:, 0], places[:, 1]] + raised <= 1
    places, out = places[room], image.clone()
    out[..., places[:, 0], places[:, 1]] += raised[room]
    return eight_bits(out), places


def plan_of(image: Tensor) -> WindowPlan:
    return plan_windows(*image.shape[-2:], 512, 128, align=8)


def stepped(image: Tensor, levels: float) -> Tensor:
    """Brighter from where the second column of windows begins."""
    out = image.clone()
    out[..., plan_of(image).lefts[1] :] += levels / 255
    return eight_bits(out)


def row_of(name: str, checks: list[Checked]) -> str:
    """A line of the table: means, of edges over pictures that have some."""
    values = [[c.check.close.agreement, c.check.close.cast, c.check.sharpness, c.check.speckles] for c in checks]
    means = np.nanmean(np.array(values), 0)
    share = np.mean([100 * c.check.changed for c in checks])
    strongest = max(float(c.changed.max()) for c in checks)
    cells = (f"{means[0]:.1f}", f"{means[1]:.2f}", f"{means[2]:.2f}", f"{means[3]:.1f}", f"{share:.2f}")
    return f"| {name} | {' | '.join(cells)} | {strongest:.2f} |"


def found_where(checks: list[Checked], places: list[tuple[int, int]], by: int) -> str:
    """In how many pictures the moved patch is found, and how far from it nothing is."""
    hits, elsewhere = 0, 0
    for (_, changed, _), (row, col) in zip(checks, places, strict=True):
        near = torch.zeros_like(changed, dtype=torch.bool)
        margin = 24  # what is compared together reaches so far
        rows = slice(max(row - margin, 0) // 4, (row + PATCH + margin) // 4)
        near[rows, max(col - margin, 0) // 4 : (col + PATCH + by + margin) // 4] = True
        hits += bool((changed[near] > CHANGED).any())
        elsewhere += int((changed[~near] > CHANGED).sum())
    return f"found in {hits} of {len(checks)}, elsewhere {elsewhere} pixels of the sources"


def sky(kind: str, noise: float) -> tuple[Tensor, str]:
    """[1, 3, 1536, 1536] with 700 highlights: stars of one pixel, or round glints of 0.5 to 1.5 pixels' deviation."""
    generator = torch.Generator().manual_seed(3)
    image = torch.zeros(1536, 1536)
    rows, cols = (torch.randint(8, 1528, (700,), generator=generator) for _ in range(2))
    heights = 0.25 + 0.65 * torch.rand(700, generator=generator)
    for i, width in enumerate((0.0,) if kind == "stars" else (0.5, 1.0, 1.5)):
        dots = torch.zeros_like(image)
        some = slice(None) if kind == "stars" else slice(i, None, 3)
        dots[rows[some], cols[some]] = heights[some]
        image += gaussian(dots, width) / gaussian(_dot(), width).max() if width else dots
    plain = grain((image + 0.05).clamp(0, 1).expand(1, 3, -1, -1), noise)
    return plain, f"{kind}, noise of {noise:g}/255"


def _dot() -> Tensor:
    dot = torch.zeros(33, 33)
    dot[16, 16] = 1
    return dot


def highlights(photos: list[Tensor]) -> list[str]:
    """Lines on what must stay: how many isolated bright pixels there are, and how many would be touched."""
    lines = [
        "| highlights | isolated bright pixels | taken for speckles | pixels changed, per megapixel |",
        "|---|---|---|---|",
    ]
    for kind, noise in (("stars", 0), ("stars", 1), ("stars", 2.5), ("stars", 5), ("glints", 0), ("glints", 2.5)):
        picture, name = sky(kind, noise)
        lines.append(_kept(name, [picture]))
    lines.append(_kept("the photos themselves as results", photos))
    return lines


def _kept(name: str, pictures: list[Tensor]) -> str:
    bright = taken = changed = area = 0
    for picture in pictures:
        image, source = flat(picture), flat(eight_bits(shrink(picture)))
        speckles = find_speckles(image.mean(-1), source.mean(-1))
        bright, taken = bright + speckles.number + speckles.explained, taken + speckles.number
        changed += int((remove_speckles(image, speckles) != image).any(-1).sum())
        area += image[..., 0].numel()
    return f"| {name} | {bright} | {taken} | {changed * 1e6 / area:.1f} |"


def recall(pictures: list[Tensor], sources: list[Tensor]) -> tuple[int, int, float]:
    """Speckles found, of how many; and by how much what was put in their place is off, in 1/255."""
    found = there = 0
    errors = []
    for picture, source in zip(pictures, sources, strict=True):
        worn, places = speckled(picture)
        speckles = find_speckles(flat(worn).mean(-1), flat(source).mean(-1))
        hits = set(map(tuple, speckles.places.tolist())) & set(map(tuple, places.tolist()))
        found, there = found + len(hits), there + len(set(map(tuple, places.tolist())))
        if hits:
            at = tuple(torch.tensor(sorted(hits)).T)
            errors.append((remove_speckles(flat(worn), speckles)[at] - flat(picture)[at]).abs().mean() * 255)
    return found, there, float(torch.stack(errors).mean())


def seams(results: list[Tensor], sources: list[Tensor], levels: float) -> str:
    """Ratio and step at the borders of windows, mean over the photos (largest)."""
    found = []
    for result, source in zip(results, sources, strict=True):
        worn = flat(stepped(result, levels) if levels else result)
        found.append(check_picture(worn, flat(source), borders_of(plan_of(result))).check.seams)
    ratios, steps = ([getattr(one, name) for one in found if one] for name in ("ratio", "step"))
    return f"| {levels:g} | {np.mean(ratios):.2f} ({max(ratios):.2f}) | {np.mean(steps):.2f} ({max(steps):.2f}) |"


def seconds() -> float:
    """Of a check of 4096 x 4096, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    result = flat(enlarge(F.avg_pool2d(source, 3, 1, 1)))
    start = time.perf_counter()
    check_picture(result, flat(source))
    torch.set_num_threads(threads)
    return time.perf_counter() - start


def measure(net, photos: list[tuple[str, Tensor]], out: Path | None) -> str:
    originals = [eight_bits(photo[None]) for _, photo in photos]
    clean = [eight_bits(shrink(photo)) for photo in originals]
    noisy = [grain(small, NOISE) for small in clean]
    drawn = {
        (n, s): [draw(net, small, s) for small in group] for n, group in ((0, clean), (NOISE, noisy)) for s in SIGMAS
    }
    own = sigma_for_noise(NOISE / 255)
    calmed = [draw(net, small, own, "scale") for small in noisy]
    results, places = drawn[0, 0.0], [busiest(small) for small in clean]

    def checked(pictures: list[Tensor], sources: list[Tensor]) -> list[Checked]:
        return [check_picture(flat(a), flat(b)) for a, b in zip(pictures, sources, strict=True)]

    def changed_by(change: Callable[[Tensor], Tensor]) -> list[Checked]:
        return checked([change(result) for result in results], clean)

    lines = ["Honest results:", "", HEADINGS]
    lines.append(row_of("bicubic", checked([enlarge(small) for small in clean], clean)))
    for (noise, sigma), pictures in drawn.items():
        what = f"source with noise of {noise}/255" if noise else "clean source"
        lines.append(row_of(f"{what}, sigma {sigma:g}", checked(pictures, noisy if noise else clean)))
    lines.append(row_of(f"the same, its own noise counts (`scale`, sigma {own:.2f})", checked(calmed, noisy)))
    lines.append(row_of("the photos themselves", checked(originals, clean)))

    lines += ["", "Tampered with, sigma 0:", "", HEADINGS]
    notes = []
    for by in (8, 12, 16):
        worn = [moved(result, place, by) for result, place in zip(results, places, strict=True)]
        checks = checked(worn, clean)
        lines.append(row_of(f"a feature of {PATCH} px moved by {by} px", checks))
        notes.append(f"moved by {by} px: {found_where(checks, places, by)}")
        if out and by == 12:
            for (name, _), picture, one in zip(photos, worn, checks, strict=True):
                heat = heat_picture(flat(picture), one.changed)
                to_picture(picture).save(out / f"{name}_moved.png")
                to_picture(heat.movedim(-1, 0)[None]).save(out / f"{name}_heat.png")
    for level in (10, 20, 40):
        lines.append(row_of(f"grain of {level}/255", changed_by(lambda image, level=level: grain(image, level))))
    lines.append(row_of("a teal cast", changed_by(lambda image: eight_bits(tint(2 * image - 1).add(1).div(2)))))
    lines.append(row_of(f"{DENSITY} speckles per megapixel", changed_by(lambda image: speckled(image)[0])))
    lines += ["", "The moved feature: " + "; ".join(notes) + "."]

    lines += ["", "| speckles added to | found | what is put in their place is off by, 1/255 |", "|---|---|---|"]
    total = np.zeros(2, int)
    for (noise, sigma), pictures in drawn.items():
        found, there, error = recall(pictures, noisy if noise else clean)
        total += found, there
        lines.append(f"| noise {noise}/255, sigma {sigma:g} | {100 * found / there:.1f} % of {there} | {error:.1f} |")
    lines.append(f"| all of these | {100 * total[0] / total[1]:.1f} % of {total[1]} | |")
    found, there, error = recall(originals, clean)
    lines.append(f"| the photos themselves | {100 * found / there:.1f} % of {there} | {error:.1f} |")
    lines += ["", *highlights(originals)]
    lines += [
        "",
        "| a step at a border, 1/255 | ratio, mean (largest) | jump, 1/255, mean (largest) |",
        "|---|---|---|",
    ]
    lines += [seams(results, clean, levels) for levels in (0, 1, 2, 4)]
    return "\n".join([*lines, "", f"A check of 4096 x 4096 in one thread: {seconds():.1f} s."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--held", type=Path, help="folder of benchmarks/photos.py's held photos; else those for choices"
    )
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    parser.add_argument("--write", action="store_true", help="with --held: the figures into RESULTS.md")
    options = parser.parse_args()
    if options.write and (not options.held or options.limit):
        parser.error("--write is for all held photos: give --held, and no --limit")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    photos = (load_held(options.held) if options.held else load_photos())[: options.limit]
    report = measure(load_network(NANO_PATH), photos, options.out)
    print(report)
    if options.write:
        write_between(RESULTS, "check", report)


if __name__ == "__main__":
    main()
