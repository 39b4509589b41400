"""What a step costs on an NVIDIA card, counted without one: a change that loses it again is seen here."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu_bytes import count_ours
from benchmarks.synthetic import full_size_config
from pid_core.assets import NANO_PATH
from pid_core.checkpoints.reading import load_network
from pid_core.model.cost import forward_flops, peak_bytes
from support.old import NO_CARD, skip_before

pytest.importorskip("triton", reason="NOT TESTED: what the Triton kernels move, for Triton is missing")
skip_before("torch", (2, 6), NO_CARD)
V15 = full_size_config("v1.5")


@pytest.fixture(scope="module")
def fused():
    return count_ours(V15, 2048, 2048)


def test_bytes_and_kernels_of_a_step_at_2048(fused):
    """Core moves 87 GB in 1,034 kernels, its projector included."""
    assert fused.bytes <= 56e9
    assert fused.kernels <= 660


def test_a_later_step_reads_no_modulation_matrix(fused):
    """28 of 9216 x 1536 and their biases: more than a quarter of the weights."""
    later = count_ours(V15, 2048, 2048, known=True)
    assert fused.bytes - later.bytes > 28 * 2 * 9216 * 1536 and fused.kernels - later.kernels >= 28
    assert later.peak <= fused.peak


def test_peak_at_2048_is_known_before(fused):
    whole = peak_bytes(V15, 2048, 2048, kind="kernels")
    # what stands outside the call: the image, its features and the position tables
    assert fused.peak <= 1.33e9
    assert 0.97 <= whole / (fused.peak + 3 * 4 * 2048**2 + 2 * 16384 * 1024 + 4 * 16384 * (64 + 72)) <= 1.1


def test_nothing_is_multiplied_twice(fused):
    counted = sum(found.flop for found in fused.operations.values())
    assert 0.97 <= counted / forward_flops(V15, 2048, 2048) <= 1


def test_plain_definitions_move_and_launch_more(fused):
    plain = count_ours(V15, 2048, 2048, kernels=False)
    assert plain.bytes > 2 * fused.bytes and plain.kernels > 3 * fused.kernels


def test_the_bundled_model_s_plan_knows_that_its_pixels_are_plain():
    """Its eight channels a pixel are too few for the pixel kernels, so its pixel path makes float32 copies."""
    config = load_network(NANO_PATH).config
    for side in (512, 1024):
        counted = count_ours(config, side, side, dtype=torch.float32)
        tokens = (side // config.patch_size) ** 2
        outside = 4 * tokens * (3 * config.patch_size**2 + config.lq_width + config.head_dim + config.pixel_head_dim)
        planned = peak_bytes(config, side, side, dtype_bytes=4, kind="kernels")
        assert 0.95 <= planned / (counted.peak + outside) <= 1.15
