"""Window plans cover, overlap, align and mirror; fuse weights add up; the cheapest that fits is chosen."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core.model.cost import ATTENTION_PRICE, Work, forward_work, peak_bytes, priced
from pid_core.model.pixel_cache import PIXEL_CACHES
from pid_core.windows import plan as planning
from pid_core.windows.plan import (
    FUSE_METHODS,
    NoPlanError,
    Window,
    choose_plan,
    fuse_profiles,
    fuse_weights,
    plan_windows,
)
from support.sizes import FLUX2, NANO, SMALL, V1, V15


@st.composite
def canvases(draw, largest: int = 16384):
    """(height, width, align) with a ratio of 1:8 to 8:1."""
    align = draw(st.sampled_from([8, 16, 32, 64, 128]))
    long = draw(st.integers(1, largest // align))
    short = draw(st.integers(-(-long // 8), long))
    height, width = draw(st.permutations([long, short]))
    return height * align, width * align, align


@st.composite
def requests(draw, largest: int = 16384):
    """Arguments of plan_windows; sizes and overlaps need not be multiples of align."""
    height, width, align = draw(canvases(largest))
    # A sixteenth of the canvas at least, or plans would run to tens of thousands of windows.
    sides = st.integers(max(2 * align, max(height, width) // 16), max(4096, 2 * align))
    size = draw(st.one_of(sides, st.tuples(sides, sides)))
    smallest = (min(size) if isinstance(size, tuple) else size) // align * align
    overlap = draw(st.integers(0, min(smallest - align, smallest // 2 + align)))
    return height, width, size, overlap, align


def limits(size, align):
    return [side // align * align for side in (size if isinstance(size, tuple) else (size, size))]


def axes(plan):
    return (plan.tops, plan.size[0], plan.height), (plan.lefts, plan.size[1], plan.width)


@settings(max_examples=250, deadline=None)
@given(requests())
def test_plan_holds_what_it_promises(request):
    height, width, size, overlap, align = request
    plan = plan_windows(height, width, size, overlap, align=align)
    wanted = -(-overlap // align) * align
    assert plan.overlap == wanted
    assert plan.align == align
    assert plan.windows == tuple(Window(top, left, *plan.size) for top in plan.tops for left in plan.lefts)
    assert plan.count == plan.rows * plan.cols
    for (starts, side, canvas), limit in zip(axes(plan), limits(size, align), strict=True):
        assert starts[0] == 0 and starts[-1] + side == canvas
        assert side <= limit or side == canvas <= limit
        assert side % align == 0 and all(start % align == 0 for start in starts)
        steps = [b - a for a, b in pairwise(starts)]
        assert all(0 < step <= side - wanted for step in steps)
        assert max(steps, default=0) - min(steps, default=0) <= align


@settings(max_examples=200, deadline=None)
@given(requests())
def test_plan_mirrors_itself(request):
    height, width, size, overlap, align = request
    plan = plan_windows(height, width, size, overlap, align=align)
    for (starts, side, canvas), limit in zip(axes(plan), limits(size, align), strict=True):
        mirrored = tuple(canvas - side - start for start in reversed(starts))
        # Only an odd count whose middle window would sit on half a cell cannot, and only when it may not grow.
        stuck = len(starts) % 2 and (canvas - side) // align % 2 and side == limit
        assert (mirrored == starts) == (not stuck)


@settings(max_examples=150, deadline=None)
@given(requests())
def test_turned_canvas_gets_the_turned_plan(request):
    height, width, size, overlap, align = request
    turned = size[::-1] if isinstance(size, tuple) else size
    plan = plan_windows(height, width, size, overlap, align=align)
    other = plan_windows(width, height, turned, overlap, align=align)
    assert (plan.tops, plan.lefts) == (other.lefts, other.tops)
    if height == width and not isinstance(size, tuple):
        assert plan.tops == plan.lefts


@settings(max_examples=150, deadline=None)
@given(requests())
def test_no_fewer_and_hardly_smaller_windows_would_do(request):
    height, width, size, overlap, align = request
    plan = plan_windows(height, width, size, overlap, align=align)
    for (starts, side, canvas), limit in zip(axes(plan), limits(size, align), strict=True):
        count = len(starts)
        if count > 1:
            assert (count - 1) * (limit - plan.overlap) + plan.overlap < canvas
            # One cell may have gone into the middle window's place.
            smaller = side - align * (2 if count % 2 else 1)
            assert count * (smaller - plan.overlap) + plan.overlap < canvas


@settings(max_examples=60, deadline=None)
@given(canvases(), st.integers(0, 64))
def test_canvas_that_fits_is_one_window(canvas, extra):
    height, width, align = canvas
    plan = plan_windows(height, width, (height + extra, width + extra), 0, align=align)
    assert plan.windows == (Window(0, 0, height, width),)
    assert "one window" in plan.describe()
    if height * width <= 512 * 512:
        for method in FUSE_METHODS:
            assert torch.equal(fuse_weights(plan, method), torch.ones(1, height, width))


@settings(max_examples=120, deadline=None)
@given(requests(), st.sampled_from(FUSE_METHODS))
def test_profiles_add_up_on_every_canvas(request, method):
    height, width, size, overlap, align = request
    plan = plan_windows(height, width, size, overlap, align=align)
    for weights, (starts, side, canvas) in zip(fuse_profiles(plan, method), axes(plan), strict=True):
        total = torch.zeros(canvas, dtype=torch.float64)
        for row, start in zip(weights, starts, strict=True):
            total[start : start + side] += row
        assert weights.shape == (len(starts), side)
        assert weights.min() > 0
        assert (total - 1).abs().max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(requests(largest=512), st.sampled_from(FUSE_METHODS))
def test_weights_add_up_in_two_dimensions(request, method):
    height, width, size, overlap, align = request
    plan = plan_windows(height, width, size, overlap, align=align)
    weights = fuse_weights(plan, method)
    assert weights.dtype == torch.float32 and weights.shape == (plan.count, *plan.size)
    total = torch.zeros(height, width)
    for window, weight in zip(plan.windows, weights, strict=True):
        total[window.slices()] += weight
    assert (total - 1).abs().max() <= 1e-6
    last = plan.count - 1
    assert torch.equal(fuse_weights(plan, method, [last, 0]), weights[[last, 0]])


def test_ramps_lie_inside_the_overlaps_only():
    plan = plan_windows(160, 96, (96, 96), 32, align=8)
    assert plan.tops == (0, 64) and plan.lefts == (0,)
    for method in ("linear", "cosine"):
        down, across = fuse_profiles(plan, method)
        assert torch.equal(across, torch.ones(1, 96, dtype=torch.float64))
        assert torch.equal(down[0, :64], torch.ones(64, dtype=torch.float64))
        assert (down[0, 64:].diff() < 0).all()
        assert torch.allclose(down[0], down[1].flip(0))
    linear, cosine, flat = (fuse_profiles(plan, method)[0] for method in ("linear", "cosine", "flat"))
    assert torch.allclose(linear[0, 64:], 1 - (torch.arange(32, dtype=torch.float64) + 0.5) / 32)
    assert torch.allclose(cosine[0, 64:], torch.sin(math.pi / 2 * linear[0, 64:]).square())
    assert torch.equal(flat[0, 64:], torch.full((32,), 0.5, dtype=torch.float64))
    assert torch.allclose(fuse_profiles(plan, "pyramid")[0], linear)


def test_a_ramp_is_straight_between_any_two_windows():
    plan = plan_windows(264, 96, (96, 96), 8, align=8)
    assert len(plan.tops) == 3
    linear = fuse_profiles(plan, "linear")[0]
    for i, (first, second) in enumerate(pairwise(plan.tops)):
        overlap = first + 96 - second
        ramp = 1 - (torch.arange(overlap, dtype=torch.float64) + 0.5) / overlap
        assert torch.allclose(linear[i, -overlap:], ramp) and torch.allclose(linear[i + 1, :overlap], 1 - ramp)


def test_pyramid_falls_to_every_inner_edge():
    plan = plan_windows(320, 320, 128, 32, align=8)
    weight = fuse_weights(plan, "pyramid", [plan.count // 2])[0]
    assert weight[64, 64] == 1
    for edge in (weight[0], weight[-1], weight[:, 0], weight[:, -1]):
        assert edge.max() < 0.02


def test_window_slices_in_cells():
    assert Window(64, 32, 128, 256).slices(32) == (slice(2, 6), slice(1, 9))


def test_rounding_is_told():
    plan = plan_windows(4096, 4096, 2060, 500, align=32)
    assert plan.size[0] <= 2048 and plan.overlap == 512
    assert plan.describe().endswith("size 2060 rounded down to 2048 px; overlap 500 rounded up to 512 px")
    exact = plan_windows(4096, 4096, 2048, 512, align=32)
    assert exact == plan and not exact.notes
    assert exact.describe() == (
        "9 windows of 1728 x 1728 px (3 across, 3 down) on 4096 x 4096 px, overlap at least 512 px"
    )


def test_windows_that_are_no_squares_are_told_as_width_by_height():
    plan = plan_windows(64, 1024, 256, 64, align=32)
    assert plan.size == (64, 256)
    assert f"{plan.count} windows of 256 x 64 px ({plan.count} across, 1 down)" in plan.describe()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4096, 4096, 512, 512, 32), "overlap 512 must be smaller than the window size 512"),
        ((4096, 4096, 543, 490, 32), "overlap 512, size 512"),
        ((4096, 4096, (512, 256), 300, 32), "overlap 300"),
        ((4096, 4096, 24, 0, 32), "window size 24 is too small: set it to at least 32 px, one cell of the latent"),
        ((4096, 4096, -5, 0, 32), "window size -5"),
        ((4096, 4096, (512,), 0, 32), "window size (512,)"),
        ((4096, 4096, 1024, -1, 32), "overlap -1 is negative"),
        ((4096, 4100, 1024, 0, 32), "the canvas is 4100 x 4096 px; both sides must be positive multiples of 32 px"),
        ((0, 64, 1024, 0, 32), "64 x 0"),
        ((-64, 64, 1024, 0, 32), "64 x -64"),
        ((64, 64, 1024, 0, 0), "align is 0"),
    ],
)
def test_one_line_errors(arguments, words):
    *rest, align = arguments
    with pytest.raises(ValueError) as error:
        plan_windows(*rest, align=align)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_unknown_fuse_method():
    with pytest.raises(ValueError, match="'gauss' is unknown; known: pyramid, linear, cosine, flat"):
        fuse_weights(plan_windows(64, 64, 64, 0, align=8), "gauss")


# choose_plan


def choose(height, width, config=V1, budget=math.inf, overlap=512, device="cuda", **more):
    return choose_plan(height, width, config, memory_budget=budget, overlap=overlap, device=device, **more)


def test_cheapest_plan_is_nine_windows_of_1728():
    """And four of 2304 where the checkpoint saw nothing smaller than 2048."""
    assert choose(4096, 4096) == plan_windows(4096, 4096, 1728, 512, align=32)
    assert choose(4096, 4096, V15) == plan_windows(4096, 4096, 2304, 512, align=32)
    assert choose(2048, 2048).count == 1


def test_cuts_for_memory_what_fits_the_bounds():
    whole, least = (peak_bytes(V1, 2048, 2048, cache=cache) for cache in (PIXEL_CACHES[0], PIXEL_CACHES[-1]))
    assert (choose(2048, 2048, budget=whole).count, choose(2048, 2048, budget=whole).pixel_cache) == (
        1,
        PIXEL_CACHES[0],
    )
    less = choose(2048, 2048, budget=whole - 1)
    assert less.pixel_cache != PIXEL_CACHES[0] and peak_bytes(V1, *less.size, cache=less.pixel_cache) < whole
    cut = choose(2048, 2048, budget=least - 1)
    assert cut.count > 1 and peak_bytes(V1, *cut.size, cache=cut.pixel_cache) < least
    with pytest.raises(ValueError, match=r"1536 to 2304 px a side fits 0.20 GB: the smallest, 1536 x 1536, needs"):
        choose(2048, 2048, budget=2e8)


@settings(max_examples=80, deadline=None)
@given(canvases(), st.integers(0, 768), st.sampled_from([V1, V15, FLUX2]), st.sampled_from(["cpu", "cuda"]))
def test_chosen_plans_stay_in_bounds_and_budget(canvas, overlap, config, device):
    height, width, _ = canvas
    height, width = (-(-side // 64) * 64 for side in (height, width))
    budget = 8e9
    plan = choose(height, width, config, budget, overlap, device, dtype_bytes=2)
    low, high = config.window_min, config.window_max
    for starts, side, length in axes(plan):
        assert min(low, length) <= side <= high
        assert starts[0] == 0 and starts[-1] + side == length
        assert all(0 < b - a <= side - overlap for a, b in pairwise(starts))
    assert plan.align == (64 if config is FLUX2 else 32)
    assert peak_bytes(config, *plan.size) <= budget


def test_lower_bound_widens_the_overlap():
    plan = choose(2432, 1536)
    assert plan.count == 2 and plan.size == (1536, 1536)
    assert plan.tops == (0, 896)


def test_bounds_below_the_overlap_end_in_a_plan():
    plan = choose(400, 4096, SMALL, bounds=(128, 1024))
    assert plan.size[0] == 400 and 512 < plan.size[1] <= 1024


@pytest.mark.parametrize(("device", "windows"), [("cpu", 25), ("cuda", 25), ("mps", 16)])
def test_windows_are_smaller_where_attention_is_dear(device, windows):
    """2.9 times the price of a linear layer on a CPU, 1.6 times on a card; another device was not measured."""
    work = Work(linear=0, attention=1000)
    assert priced(work, device) == pytest.approx({"cpu": 2856, "cuda": 1609, "mps": 1000}[device], abs=1)
    assert choose(6144, 6144, device=device).count == windows


def test_canvas_off_the_latent_cell_is_cut_at_patches():
    assert choose(4096 + 16, 4096).align == 16


def test_choose_plan_errors():
    with pytest.raises(ValueError, match="overlap 2304 must be smaller than the largest window side, 2304 px"):
        choose(4096, 4096, overlap=2304)
    with pytest.raises(ValueError, match="from 300 to 310 px hold no positive multiple of 32"):
        choose(4096, 4096, bounds=(300, 310))
    with pytest.raises(ValueError, match="4100 x 4096"):
        choose(4096, 4100)


def exhaustive(height, width, config, budget, overlap, device, bounds, batch):
    """The search as it was before it was fast: every cut of both sides, each with its cost and its memory.

    (size, rows, cols, what is cached) of the cheapest that fits, or the least memory any needs.
    """
    align, price = config.latent_cell, ATTENTION_PRICE.get(device, 1.0)
    low, high, least_overlap = -(-bounds[0] // align), bounds[1] // align, -(-overlap // align)

    def cuts(cells):
        smallest, found = min(max(low, least_overlap + 1), cells), []
        count = 1 if cells <= high else -(-(cells - least_overlap) // (high - least_overlap))
        while True:
            window = cells if count == 1 else least_overlap - (-(cells - least_overlap) // count)
            odd = count % 2 and (cells - max(window, smallest)) % 2
            found.append((count, max(window, smallest) + bool(odd and max(window, smallest) < high)))
            if window <= smallest:
                return found
            count += 1

    best, least = None, math.inf
    for rows, down in cuts(height // align):
        for cols, across in cuts(width // align):
            side = down * align, across * align
            for cache in PIXEL_CACHES:
                needed = peak_bytes(config, *side, batch, 2, device, cache)
                least = min(least, needed)
                if needed > budget:
                    continue
                work = forward_work(config, *side, cache=cache)
                cost = rows * cols * (work.linear + price * work.attention), rows * cols
                if best is None or cost < best[0]:
                    best = cost, (side, rows, cols, cache)
    return best[1] if best else least


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([V1, V15, FLUX2, NANO]),
    st.integers(1, 130),
    st.integers(1, 130),
    st.integers(0, 8),
    st.sampled_from([1, 3]),
    st.sampled_from(["cpu", "cuda"]),
    st.integers(0, 3),
    st.floats(5.5, 10.5).map(lambda exponent: 10**exponent),
)
def test_the_plan_is_that_of_an_exhaustive_search(config, rows, cols, overlap, batch, device, smaller, budget):
    cell = config.latent_cell
    low = max(config.window_min // (1 + smaller) // cell, 2) * cell
    wanted = min(overlap * config.window_max // 16, config.window_max // 2)
    height, width, bounds = rows * cell, cols * cell, (low, config.window_max)
    expected = exhaustive(height, width, config, budget, wanted, device, bounds, batch)
    options = {"align": cell, "bounds": bounds, "batch": batch, "dtype_bytes": 2}
    if not isinstance(expected, tuple):
        with pytest.raises(NoPlanError) as caught:
            choose(height, width, config, budget, wanted, device, **options)
        assert caught.value.needed == expected
        return
    plan = choose(height, width, config, budget, wanted, device, **options)
    assert (plan.size, plan.rows, plan.cols, plan.pixel_cache) == expected


@pytest.mark.parametrize("config", [V1, V15, NANO], ids=["v1", "v1.5", "nano"])
@pytest.mark.parametrize(("width", "height"), [(4096, 4096), (12000, 8000), (16384, 16384), (16384, 512)])
def test_few_candidates_are_looked_at(monkeypatch, config, width, height):
    """Counted and not timed. An exhaustive search of 16384 x 16384 looks at more than 600 000 with pid_nano."""
    looked, peaks = [], []
    work = planning.forward_work
    monkeypatch.setattr(planning, "forward_work", lambda *a, **k: looked.append(a) or work(*a, **k))

    def peak(height, width, cache):
        peaks.append((height, width))
        return height * width

    cell = config.latent_cell
    options = {"align": cell, "bounds": (config.window_min // 3, config.window_max), "peak": peak}
    height, width, overlap = -(-height // cell) * cell, -(-width // cell) * cell, config.window_min // 6
    choose(height, width, config, math.inf, overlap, **options)
    assert len(looked) < 2500 and len(peaks) == 1
    with pytest.raises(NoPlanError):
        choose(height, width, config, 1, overlap, **options)
    assert len(peaks) < 3 * 2500


def test_counting_large_chunks_builds_no_list(monkeypatch):
    """It was what made planning slow: memory was read off a list with an entry per chunk."""
    monkeypatch.setattr("pid_core.model.chunks.token_spans", None)
    assert peak_bytes(V1, 16384, 16384, kind="cpu") > 1e9
