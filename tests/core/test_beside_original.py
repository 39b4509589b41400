"""README's first picture and the demo's: what is drawn beside the original, and the figures over it."""

import numpy as np
import pytest
from PIL import ImageDraw

import beside_original
from benchmarks.restoration import eight_bits, enlarge


@pytest.fixture
def words(monkeypatch):
    """What is written into the picture, from left to right."""
    written, text = [], ImageDraw.ImageDraw.text

    def noted(self, at, words, *more, **options):
        written.append(words)
        return text(self, at, words, *more, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return written


def test_a_restored_picture_no_better_than_bicubic_looks_and_counts_the_same(words):
    sheet = beside_original.draw(eight_bits(enlarge(beside_original.small_one())), 1)
    _, bicubic, restored, original = np.split(np.pad(np.asarray(sheet), ((0, 0), (0, 8), (0, 0))), 4, axis=1)
    below = slice(beside_original.LINE, beside_original.LINE + 256)
    assert np.array_equal(bicubic[below], restored[below]) and not np.array_equal(bicubic[below], original[below])
    assert words[0::2][0] == "small" and words[0::2][3] == "original"
    figure = words[2].removeprefix("bicubic, ")
    assert figure.endswith(" dB") and words[4] == f"pid_nano, 1 step, {figure}"
    assert words[3] == words[5] and words[3].startswith("three times larger, ")
