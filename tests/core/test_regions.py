"""A window takes the rectangle that covers most of it, from half of it on."""

from hypothesis import given
from hypothesis import strategies as st

from pid_core.windows.plan import Window
from pid_core.windows.regions import Region, covered_share, region_of

WINDOW = Window(top=100, left=200, height=50, width=40)


def test_shares():
    assert covered_share(WINDOW, Region(left=200, top=100, width=40, height=50)) == 1
    assert covered_share(WINDOW, Region(left=0, top=0, width=1000, height=1000)) == 1
    assert covered_share(WINDOW, Region(left=220, top=125, width=1000, height=1000)) == 0.25
    assert covered_share(WINDOW, Region(left=240, top=100, width=40, height=50)) == 0
    assert covered_share(WINDOW, Region(left=0, top=0, width=10, height=10)) == 0


def test_the_largest_share_wins_from_half_on_and_the_first_of_equals():
    half, most, whole = Region(200, 100, 20, 50), Region(200, 100, 30, 50), Region(0, 0, 999, 999)
    assert region_of(WINDOW, []) is None
    assert region_of(WINDOW, [half]) == 0
    assert region_of(WINDOW, [Region(200, 100, 19, 50)]) is None
    assert region_of(WINDOW, [half, most]) == 1
    assert region_of(WINDOW, [half, whole, most]) == 1
    assert region_of(WINDOW, [whole, Region(*whole)]) == 0


lengths = st.integers(0, 300)


@given(st.builds(Region, lengths, lengths, lengths, lengths))
def test_share_is_that_of_the_pixels(region):
    rows = set(range(region.top, region.top + region.height)) & set(range(WINDOW.top, WINDOW.bottom))
    cols = set(range(region.left, region.left + region.width)) & set(range(WINDOW.left, WINDOW.right))
    assert covered_share(WINDOW, region) == len(rows) * len(cols) / (50 * 40)
