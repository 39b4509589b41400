"""The driver gives what the plain forward gives: in one chunk to the bit in float32, and nearly so in many."""

import pytest
import torch

from pid_core import load_network
from pid_core.model import chunks
from pid_core.model.pixel_cache import PIXEL_CACHES
from support.calls import velocity
from support.tiny import tiny_state_dict

KINDS = [("flux", "v1"), ("flux2", "v1.5"), ("sdxl", "v1"), ("pixeldit", "v1")]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", params=[(*kind, dtype) for kind in KINDS for dtype in DTYPES], ids=str)
def case(request):
    """A network, and what a call of it takes."""
    family, version, dtype = request.param
    net = load_network(tiny_state_dict(family, version), dtype=dtype)
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(2, *shape, generator=generator)

    config = net.config
    height, width = config.output_size(3, 4) if config.has_latent else (96, 128)
    given = [draw(3, height, width), torch.tensor([866.0, 342.0]), draw(7, config.caption_width)]
    latent = [draw(config.latent_channels, 3, 4), torch.tensor([0.0, 0.4])] if config.has_latent else []
    return net, [*given, *latent]


def call(net, given):
    return velocity(net, *given) if net.config.has_latent else net(*given)


@pytest.fixture
def plain(case):
    """The forward under autograd is the plain one."""
    with torch.enable_grad():
        return call(*case).detach()


def test_in_one_chunk_it_is_the_plain_forward_to_the_bit(case, plain, monkeypatch):
    monkeypatch.setattr(chunks, "SMALLEST_CHUNK", 1 << 40)
    with torch.no_grad():
        found = call(*case)
    if case[0].compute_dtype == torch.float32:
        assert torch.equal(found, plain)
    else:  # some processors' kernels for it sum in an order that depends on the shape
        assert is_near(found, plain, 0.02)


def is_near(found, plain, bound):
    return (found - plain).square().mean() <= bound**2 * plain.square().mean()


@pytest.mark.parametrize("cache", PIXEL_CACHES, ids=["all", "stream", "nothing"])
def test_in_chunks_it_is_so_but_for_the_order_of_sums(case, plain, cache, monkeypatch):
    net, given = case
    monkeypatch.setattr(chunks, "SMALLEST_CHUNK", 0)
    driver = net.driver
    for name, value in {"chunk_bytes": 1 << 14, "pixel_chunks": 5, "pixel_cache": cache}.items():
        monkeypatch.setattr(driver, name, value)
    with torch.no_grad():
        found = call(net, given)
    assert len(driver._spans(given[0], 16, 3 * net.config.mlp_size)) > 1
    assert is_near(found, plain, 2e-6 if net.compute_dtype == torch.float32 else 0.02)


def test_what_a_call_is_given_stays_as_it_is(case):
    net, given = case
    before = [value.clone() for value in given]
    with torch.no_grad():
        call(net, given)
    assert all(torch.equal(value, old) for value, old in zip(given, before, strict=True))
