"""One operation of a decode fails: it recovers or ends in one line, and the next decode is what it would have been.

A few places, the same every time; see fuzzing.py for any number of them.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from support.fuzzing import examples

EXAMPLES = 10  # for each way to decode
LATENT = torch.randn(2, 16, 2, 1, generator=torch.Generator().manual_seed(1))
PICTURE = torch.rand(1, 16, 8, 3, generator=torch.Generator().manual_seed(2))
WAYS = {
    "one frame": {"latent": LATENT[:1], "window_mode": "off"},
    "windows": {"latent": LATENT[:1], "window_mode": "manual", "window_size": 32, "window_overlap": 0},
    "a batch": {"latent": LATENT, "window_mode": "off", "colour_hold": "low_frequencies", "reference": PICTURE},
    "each with its sigma": {"latent": LATENT, "sigma_list": [0.1, 0.3], "window_mode": "off"},
}
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Fails(TorchDispatchMode):
    """Counts operations, and raises in the one whose number is `at`."""

    def __init__(self, at: int = -1, error: BaseException | None = None):
        super().__init__()
        self.count, self._at, self._error = 0, at, error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count - 1 == self._at:
            raise self._error
        return func(*args, **(kwargs or {}))


class Decode(NamedTuple):
    run: object  # () -> the image of the real node
    plain: torch.Tensor
    operations: int


@pytest.fixture(scope="module")
def decode_of(comfyui):
    """decode_of(way): a decode on a model of its own, what it gives, and how many operations it has."""

    @functools.cache
    def make(way: str) -> Decode:
        patcher, _ = comfyui.load()
        options = {"degrade_sigma": 0.2, "steps": 2, "seed": 3} | WAYS[way]
        latent = {"samples": options.pop("latent")}
        cache = comfyui.module("nodes.shared.image_cache").image_cache

        def run() -> torch.Tensor:
            cache._of_model.clear()  # every time anew
            with torch.inference_mode():
                return comfyui.nodes.PiDKitDecode.execute(patcher, latent, **options).args[0]

        plain = run()
        with Fails() as counted:
            assert torch.equal(run(), plain)
        return Decode(run, plain, counted.count)

    return make


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
@examples(EXAMPLES)
def test_an_operation_that_fails(comfyui, decode_of, way, data):
    decode = decode_of(way)
    at = data.draw(st.integers(0, decode.operations - 1))
    error = data.draw(
        st.sampled_from(
            [
                torch.OutOfMemoryError(FULL),
                RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
                RuntimeError("CUDA error: unspecified launch failure"),
                comfyui.management.InterruptProcessingException(),
            ]
        )
    )
    try:
        with Fails(at, error):
            image = decode.run()
    except (ValueError, RuntimeError, comfyui.management.InterruptProcessingException) as found:
        line = str(found)
        assert len(line.splitlines()) <= 1
        if isinstance(error, comfyui.management.InterruptProcessingException):
            assert isinstance(found, comfyui.management.InterruptProcessingException)
        else:
            assert line and (str(error) in line or ("memory" in str(error) and "memory" in line))
    else:  # only memory can be found again; smaller windows and images on their own move the picture by a little
        assert "memory" in str(error)
        assert image.shape == decode.plain.shape and bool(image.isfinite().all())
        assert (image - decode.plain).abs().mean() < 0.05
    assert torch.equal(decode.run(), decode.plain)
