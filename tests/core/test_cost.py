"""The cost model agrees with the network: floating point operations and peak memory."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.live_bytes import LiveBytes
from pid_core import PiDNetwork
from pid_core.model.chunks import chunk_bytes
from pid_core.model.cost import forward_flops, forward_work, peak_bytes, trunk_bytes
from pid_core.model.driver import Driver
from pid_core.model.pixel_cache import PIXEL_CACHES, pixel_chunks
from pid_core.windows.plan import plan_flops, plan_windows
from support.sizes import SMALL, V1, V15

# Few blocks, because building them takes the time.
SHALLOW = (replace(V1, patch_depth=3), replace(V15, patch_depth=3), SMALL, replace(SMALL, attends=False))
NAMES = ("v1", "v1.5", "small", "small without attention")


def run_on_meta(config, side, *, batch=1, dtype=torch.bfloat16, device="cuda", mode, attention, cache=None):
    """One forward without storage or arithmetic, under a dispatch mode, in the chunks of `device`."""
    net = PiDNetwork(config, dtype=dtype, device="meta", attention=attention).eval()
    net.driver = Driver(1 << 62, 1)
    tokens = (side // config.patch_size) ** 2
    x = torch.empty(batch, 3, side, side, device="meta")
    caption = torch.empty(batch, config.caption_length, config.caption_width, dtype=dtype, device="meta")
    features = torch.empty(batch, tokens, config.lq_width, dtype=dtype, device="meta")
    number = torch.empty(batch, device="meta")
    inputs = {"lq_features": features, "degrade_sigma": number}
    with torch.no_grad():
        net(x, number, caption, **inputs)  # in one chunk: fills the position tables' caches
        net.driver = Driver(chunk_bytes(device), pixel_chunks(device), cache)
        if isinstance(mode, LiveBytes):
            mode.ignore([*net.parameters(), x, caption, features, number])
        with mode:
            net(x, number, caption, **inputs)
    return (x.nbytes + features.nbytes) + tokens * 4 * (config.head_dim + config.pixel_head_dim)


@pytest.mark.parametrize("config", SHALLOW, ids=NAMES)
def test_flops_equal_the_network(config):
    counter = FlopCounterMode(display=False)
    run_on_meta(config, 512, mode=counter, attention=lambda q, k, v: (q @ k.transpose(-1, -2)) @ v)
    assert forward_flops(config, 512, 512) == counter.get_total_flops()


@pytest.mark.parametrize("config", SHALLOW, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("device", "side", "batch"), [("cpu", 512, 1), ("cuda", 1024, 2)])
def test_peak_is_the_network_s_live_tensors(config, dtype, device, side, batch):
    live = LiveBytes()
    options = {"batch": batch, "dtype": dtype, "device": device, "attention": lambda q, k, v: torch.empty_like(q)}
    outside = run_on_meta(config, side, mode=live, **options)
    most = 1.1 if config.attends else 1.15
    assert 0.99 <= peak_bytes(config, side, side, batch, dtype.itemsize, device) / (live.peak + outside) <= most


def test_a_cpu_needs_less_than_half_of_what_core_does():
    """Core counts 2,511 MB there (benchmarks/RESULTS.md)."""
    assert peak_bytes(V15, 2048, 2048, kind="cpu") < 1.2e9


def test_peak_where_the_pixel_stream_is_made_again():
    """Where less is cached less is needed, and the prediction knows it."""
    config, peaks = SHALLOW[0], []
    for cache in PIXEL_CACHES:
        live = LiveBytes()
        attention = lambda q, k, v: torch.empty_like(q)  # noqa: E731
        outside = run_on_meta(config, 1024, mode=live, device="cpu", attention=attention, cache=cache)
        peaks.append(live.peak + outside)
        assert 0.97 <= peak_bytes(config, 1024, 1024, kind="cpu", cache=cache) / peaks[-1] <= 1.1
    assert peaks[0] > 1.6 * peaks[1] > 1.6 * 1.3 * peaks[2]


@pytest.mark.parametrize("cache", PIXEL_CACHES)
def test_what_is_made_again_counts(cache):
    for config in SHALLOW[0], SMALL:
        counter = FlopCounterMode(display=False)
        run_on_meta(config, 512, mode=counter, attention=lambda q, k, v: (q @ k.transpose(-1, -2)) @ v, cache=cache)
        assert forward_flops(config, 512, 512, cache=cache) == counter.get_total_flops()


@pytest.mark.parametrize("config", SHALLOW, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_trunk_s_peak_is_its_live_tensors(config, dtype):
    net = PiDNetwork(config, dtype=dtype, device="meta").eval()
    cells = 1024 // config.latent_cell
    latent = torch.empty(2, config.latent_channels, cells, cells, device="meta", dtype=dtype)
    live = LiveBytes()
    live.ignore([*net.parameters(), latent])
    with torch.no_grad(), live:
        features = net.encode_lq(latent, 1024, 1024)
    peak, result = trunk_bytes(config, 1024, 1024, 2, dtype.itemsize)
    assert 0.97 <= peak / live.peak <= 1.1
    assert result == features.nbytes


def test_cutting_4096_saves_half_the_work():
    """Near the plain estimate (patch and pixel blocks only) of 471, 247 and 222 TFLOP; ours counts every layer."""
    for size, count, estimate in ((4096, 1, 471e12), (2304, 4, 247e12), (1728, 9, 222e12)):
        plan = plan_windows(4096, 4096, size, 512, align=32)
        assert plan.count == count and plan.size == (size, size)
        assert 1.0 <= plan_flops(plan, V1) / estimate < 1.08


def test_caption_tokens_stop_at_the_checkpoint_s_length():
    assert forward_work(V1, 512, 512, 10_000) == forward_work(V1, 512, 512)
    assert forward_flops(V1, 512, 512, 10) < forward_flops(V1, 512, 512)
