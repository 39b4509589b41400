"""The projector's trunk in strips of rows is the trunk on the whole canvas, in a fraction of the memory."""

import pytest
import torch

from benchmarks.live_bytes import LiveBytes
from pid_core import PiDNetwork, load_network
from pid_core.model import strips
from pid_core.model.cost import trunk_bytes
from support.sizes import NANO, SMALL, V1, V15
from support.tiny import tiny_state_dict

CELLS = 10, 7  # of the latent


def in_strips(net, latent, size, monkeypatch, rows):
    cols = size[1] // net.config.patch_size
    monkeypatch.setattr(strips, "STRIP_BYTES", 4 * rows * cols * net.config.lq_width * latent.shape[0])
    monkeypatch.setattr("pid_core.model.chunks.SMALLEST_CHUNK", 0)
    assert len(strips.strips(size[0] // net.config.patch_size, cols, net.config.lq_width, latent.shape[0])) > 1
    with torch.no_grad():
        return net.encode_lq(latent, *size)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("family", "version"), [("flux", "v1"), ("flux", "v1.5"), ("flux2", "v1.5")])
def test_in_float32(family, version, rows, monkeypatch):
    net = load_network(tiny_state_dict(family, version))
    latent = 3 + torch.randn(2, net.config.latent_channels, *CELLS)
    size = net.config.output_size(*CELLS)
    with torch.no_grad():
        whole = net.encode_lq(latent, *size)
    assert len(strips.strips(size[0] // net.config.patch_size, 7, net.config.lq_width, 2)) == 1
    got = in_strips(net, latent, size, monkeypatch, rows)
    assert got.is_contiguous() and (got - whole).abs().max() < 1e-6 * whole.abs().max()


def test_in_bfloat16_it_is_as_near_to_float32_as_the_whole(monkeypatch):
    weights = {name: value.bfloat16() for name, value in tiny_state_dict("flux", "v1.5").items()}
    exact, net = load_network(weights), load_network(weights, dtype=torch.bfloat16)
    latent, size = torch.randn(1, 16, *CELLS), exact.config.output_size(*CELLS)
    with torch.no_grad():
        reference, whole = (n.encode_lq(latent, *size).float() for n in (exact, net))
    got = in_strips(net, latent, size, monkeypatch, 3).float()
    distance = (whole - reference).square().mean().sqrt()
    assert (got - reference).square().mean().sqrt() < 1.1 * distance
    assert (got - whole).abs().max() < 0.05 * whole.abs().max()


def test_a_norm_that_is_called_in_another_way_sees_the_whole(monkeypatch):
    net = load_network(tiny_state_dict("flux", "v1"))
    latent, seen = torch.randn(1, 16, *CELLS), []
    for layer in net.lq_proj.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.register_forward_hook(lambda layer, inputs, out: seen.append(inputs[0].shape[2]))
    in_strips(net, latent, net.config.output_size(*CELLS), monkeypatch, 3)
    assert seen == 2 * net.config.lq_res_blocks * [20]


@pytest.mark.parametrize("config", [V1, V15, SMALL, NANO], ids=["v1", "v1.5", "small", "nano"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_its_peak_is_predicted(config, dtype):
    """At 8192, where the whole trunk would take 3.8 GB in bfloat16."""
    net = PiDNetwork(config, dtype=dtype, device="meta").eval()
    cells, live = 8192 // config.latent_cell, LiveBytes()
    latent = torch.empty(1, config.latent_channels, cells, cells, device="meta", dtype=dtype)
    live.ignore([*net.parameters(), latent])
    with torch.no_grad(), live:
        features = net.encode_lq(latent, 8192, 8192)
    peak, result = trunk_bytes(config, 8192, 8192, 1, dtype.itemsize)
    assert 0.97 <= peak / live.peak <= 1.1 and result == features.nbytes
    if config is V15 and dtype == torch.bfloat16:
        assert peak < 2.0e9
