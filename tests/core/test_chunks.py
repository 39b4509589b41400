"""Working in chunks of tokens changes memory and speed, and nothing else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import PiDNetwork
from pid_core.model import attention, chunks, pixel_cache
from pid_core.model.attention import attend, attend_by_products
from pid_core.model.chunks import SMALLEST_CHUNK, map_tokens, token_spans
from pid_core.sampling.decode import decode
from pid_core.sampling.predict import predict_x0_by_windows, x0_from_velocity
from pid_core.windows.plan import plan_windows
from pid_core.windows.run import WindowRun
from support.sizes import SMALL
from support.small import inputs, seeded

SIDE, TOKENS = 48, 36  # of the images here, patches of 8


@pytest.fixture(scope="module")
def net():
    return seeded(PiDNetwork(SMALL).eval())


@given(st.integers(1, 5000), st.integers(1, 3), st.integers(1, 50_000), st.integers(1, 1 << 24), st.integers(1, 12))
def test_spans_cover_in_order_and_hold_the_limit(tokens, batch, width, limit, parts):
    spans = token_spans(tokens, batch, width, limit, parts)
    assert [i for span in spans for i in range(tokens)[span]] == list(range(tokens))
    sizes = {span.stop - span.start for span in spans[:-1]}
    assert len(sizes) <= 1 and spans[-1].stop - spans[-1].start <= spans[0].stop
    assert 4 * batch * width * spans[0].stop <= max(limit, 4 * batch * width)
    if tokens * 4 * batch * width > parts * SMALLEST_CHUNK:
        assert len(spans) >= min(parts, tokens)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(1, 1 << 21), st.sampled_from([0, 200_000, 1 << 40]), st.integers(1, 2))
def test_any_chunk_size_gives_the_same_image(net, chunk_bytes, cache_bytes, batch):
    """And so does what is cached of the pixel stream: nothing, the stream, or the modulation too."""
    given_inputs = inputs(batch)
    before = copy.deepcopy(given_inputs)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        net.driver.chunk_bytes = 1 << 40
        patch.setattr(pixel_cache, "CACHE_BYTES", 1 << 40)
        patch.setattr("pid_core.model.chunks.SMALLEST_CHUNK", 1 << 40)
        whole = net(**given_inputs)
        net.driver.chunk_bytes = chunk_bytes
        patch.setattr(pixel_cache, "CACHE_BYTES", cache_bytes)
        assert torch.allclose(net(**given_inputs), whole, atol=2e-5)
    assert all(torch.equal(given_inputs[name], before[name]) for name in before)


def test_the_cases_above_keep_nothing_the_stream_and_all():
    caches = {tuple(pixel_cache.default_cache(SMALL, TOKENS * batch, 4, "cpu")) for batch in (1, 2)}
    assert caches == {(True, True)}
    with pytest.MonkeyPatch.context() as patch:
        for limit, expected in ((0, (False, False)), (200_000, (True, False))):
            patch.setattr(pixel_cache, "CACHE_BYTES", limit)
            assert pixel_cache.default_cache(SMALL, TOKENS, 4, "cpu") == expected


def test_gradients_reach_every_weight(net):
    """The same as without chunks: under autograd there are none."""
    grads = []
    for chunk_bytes in (1 << 40, 1 << 14):
        trained = copy.deepcopy(net)
        trained.driver.chunk_bytes = chunk_bytes
        trained(**inputs()).square().mean().backward()
        grads.append({name: p.grad for name, p in trained.named_parameters() if not name.startswith("lq_proj.latent")})
    dead = {name for name, grad in grads[0].items() if grad is None}
    # after the last block the caption stream has no use
    last = f"patch_blocks.{SMALL.patch_depth - 1}."
    assert all(name.startswith((last + "norm_y2", last + "mlp_y", last + "attn.")) for name in dead)
    for name in grads[0].keys() - dead:
        assert torch.equal(grads[0][name], grads[1][name])
        assert grads[0][name].abs().sum() > 0 or name == last + "attn.q_norm_y.weight", name


def test_results_are_written_over_a_stream_only_where_asked():
    x, other, spans = torch.randn(2, 7, 3), torch.randn(2, 7, 3), [slice(0, 4), slice(4, 7)]
    expected = x * other
    kept = map_tokens(torch.mul, spans, x, other)
    assert torch.equal(kept, expected) and not torch.equal(x, expected)
    assert map_tokens(torch.mul, spans, x, other, reuse=True) is x
    assert torch.equal(x, expected)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    *(st.integers(1, n) for n in (2, 3, 150, 90)), st.sampled_from([8, 24, 64, 72]), st.floats(0.2, 4.0), st.integers()
)
def test_attention_by_products(batch, heads, queries, more, head_dim, scale, seed):
    """As near the exact result as bfloat16 scores allow, however sharp the attention is."""
    generator = torch.Generator().manual_seed(seed % 2**32)

    def draw(tokens):
        return torch.randn(batch, heads, tokens, head_dim, generator=generator).bfloat16()

    q, k, v = draw(queries) * scale, draw(queries + more), draw(queries + more)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pid_core.model.attention.SCORE_BYTES", 1)
        out = attend_by_products(q, k, v)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    scores = (q.double() @ k.double().mT / head_dim**0.5).abs().amax()
    assert out.dtype == q.dtype and out.shape == q.shape
    assert (out - exact).abs().max() <= (2 + scores) * 2**-8 * v.abs().max()


def test_attention_is_sdpa_for_autograd_and_float32():
    q, k, v = (torch.randn(1, 2, 9, 8) for _ in range(3))
    assert torch.equal(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
    q = q.bfloat16().requires_grad_()
    attend(q, k.bfloat16(), v.bfloat16()).sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "products"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_which_attention_a_cpu_takes(monkeypatch, avx512_bf16, amx, products):
    """Products only in bfloat16, where the CPU multiplies it but PyTorch's kernel does not use that."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(attention, "_products_beat_sdpa", attention._products_beat_sdpa.__wrapped__)
    monkeypatch.setattr(attention, "attend_by_products", lambda q, k, v: "products")
    monkeypatch.setattr(attention, "sdpa", lambda q, k, v: "sdpa")
    short, wide = torch.zeros(1, 2, 9, 8, dtype=torch.bfloat16), torch.zeros(1, 2, 9, 8)
    with torch.no_grad():
        assert attention._attend(short, short, short) == ("products" if products else "sdpa")
        assert attention._attend(wide, wide, wide) == "sdpa"


def test_one_compiled_graph_serves_every_window_and_step():
    torch._dynamo.reset()
    net = seeded(PiDNetwork(SMALL).eval())
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=backend, fullgraph=True, dynamic=False)
    plan = plan_windows(96, 96, 64, 32, align=8)
    image = inputs(1, 96)
    given_inputs = image["x"], image["caption"], image["lq_features"], image["degrade_sigma"][:1]
    with torch.no_grad():
        for t in (0.866, 0.342):
            arguments = given_inputs[0], torch.tensor(t), *given_inputs[1:]
            made = predict_x0_by_windows(compiled, *arguments, run=WindowRun(plan))
            assert torch.allclose(made, predict_x0_by_windows(net, *arguments, run=WindowRun(plan)), atol=2e-5)
    assert plan.count > 1 and len(graphs) == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_some_rows_of_a_canvas_at_a_time_give_the_same_bits(monkeypatch, rows, dtype):
    generator = torch.Generator().manual_seed(1)
    x, velocity = torch.randn(2, 2, 3, 10, 4, generator=generator).to(dtype)
    t = torch.tensor([0.3, 0.9]).view(2, 1, 1, 1)
    with torch.no_grad():
        whole = x0_from_velocity(x, t, velocity)
        monkeypatch.setattr(chunks, "CANVAS_VALUES", rows * x.numel() // x.shape[-2])
        found = x0_from_velocity(x, t, velocity)
    assert torch.equal(found, whole) and found.dtype == torch.float32


def test_a_decode_by_rows_of_its_canvas_gives_the_same_bits(net, monkeypatch):
    config = net.config
    latent = torch.randn(1, config.latent_channels, 3, 3, generator=torch.Generator().manual_seed(1))
    caption = torch.randn(1, 5, config.caption_width, generator=torch.Generator().manual_seed(2))
    whole = decode(net, latent, caption, seed=1)
    monkeypatch.setattr(chunks, "CANVAS_VALUES", 3 * whole.numel() // whole.shape[-2])
    assert torch.equal(decode(net, latent, caption, seed=1), whole)
