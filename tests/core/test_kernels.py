"""The Triton kernels against the plain definitions, in Triton's interpreter (float32: it rounds bfloat16 wrongly)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pid_core.model import fused, ops
from pid_core.model.positions import image_rope, sine_cosine
from support.old import skip_before

pytest.importorskip("triton", reason="NOT TESTED: the Triton kernels, for Triton is missing")
from pid_core.model import kernels

skip_before("triton", (3, 2), "has an interpreter that takes no constant for the length of an arange")

BATCH = 2


@pytest.fixture
def with_kernels(monkeypatch):
    """Calls an operation twice, plain and by its kernel, on copies of the same tensors."""

    def call(operation, *arguments):
        results = []
        for on in (False, True):
            monkeypatch.setattr(ops, "runs_kernels", lambda x, on=on: on)
            monkeypatch.setattr(ops, "kernels", kernels)
            copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
            with torch.no_grad():
                results.append(operation(*copies))
        return results

    return call


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm(width: int) -> nn.RMSNorm:
    layer = nn.RMSNorm(width, eps=1e-6)
    layer.weight.data = 1 + 0.2 * draw(width, seed=9)
    return layer


def close(results) -> None:
    plain, fused = results
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (plain, fused)), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


def lines(width: int) -> tuple[ops.Modulation, ops.Modulation]:
    return ops.split_modulation(draw(BATCH, 1, 6 * width, seed=5))


@pytest.mark.parametrize("width", [64, 96])
def test_patch_stream(with_kernels, width):
    """Streams are chunks of a longer one, as in a call in chunks."""
    attn, mlp = lines(width)
    stream, x, layer = draw(BATCH, 7, width), draw(BATCH, 5, width, seed=1), norm(width)

    def run(stream, x):
        chunk = stream[:, 1:6]
        first = ops.norm_modulate(chunk, layer, attn, torch.float32)
        chunk, second = ops.gate_add_norm_modulate(chunk, attn.gate, x, layer, mlp)
        chunk = ops.gate_add(chunk, mlp.gate, x)
        return first, second, chunk

    close(with_kernels(run, stream, x))


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 64), (3, 24), (2, 72)])
def test_heads(with_kernels, heads, head_dim, turned):
    qkv = draw(BATCH, 6, 3 * heads * head_dim)
    rope = image_rope(2, 3, head_dim, reference=4) if turned else None
    q_norm, k_norm = norm(head_dim), norm(head_dim)

    def run(qkv):
        joint = ops.Joint(qkv, heads, 10, head_dim)
        for buffer in joint.all:
            buffer.zero_()
        joint.put(3, lambda: qkv, q_norm, k_norm, rope)
        return tuple(joint.all)

    close(with_kernels(run, qkv))


def test_heads_in_the_layout_of_a_card(with_kernels, monkeypatch):
    qkv, layer = draw(BATCH, 6, 3 * 2 * 8), norm(8)

    def run(qkv):
        joint = ops.Joint(qkv, 2, 6, 8)
        joint.all = [qkv.new_empty(BATCH, 6, 2, 8).transpose(1, 2) for _ in range(3)]
        joint.put(0, lambda: qkv, layer, layer, image_rope(2, 3, 8, reference=4))
        return tuple(joint.all)

    close(with_kernels(run, qkv))


def test_silu_mul(with_kernels):
    close(with_kernels(ops.silu_mul, draw(2, 3, 500), draw(2, 3, 500, seed=1)))


@pytest.mark.parametrize("offsets", [1, 5], ids=["of an image", "of each token"])
def test_gates(with_kernels, offsets):
    width = 48
    proj, offset = nn.Linear(2 * width, 1), draw(BATCH, offsets, 1, seed=3)
    stream, features, te = draw(BATCH, 7, width), draw(BATCH, 5, width, seed=1), draw(BATCH, 1, width, seed=2)

    def run(stream, features, te):
        chunk = stream[:, 1:6]
        condition = ops.condition_gate(chunk, te, features, proj, offset)
        return ops.token_gate(chunk, features, proj, offset), condition

    close(with_kernels(run, stream, features, te))


@pytest.mark.parametrize("patch", [4, 8])
def test_pixel_path(with_kernels, patch):
    """Three tokens in the middle of a grid of two rows of three."""
    width, inner, rows, cols = 16, 32, 2, 3
    x = draw(BATCH, rows * patch, cols * patch, 3).movedim(-1, 1)  # in no order of memory that a kernel could count on
    tables = [sine_cosine(0, side, width // 2) for side in x.shape[-2:]]
    modulation = draw(BATCH, 3, patch**2 * 6 * width, seed=1)
    attended = draw(BATCH, 3, patch**2 * width, seed=2)
    embed, last, first_norm, second_norm = nn.Linear(3, width), nn.Linear(width, 3), norm(width), norm(width)
    mlp = nn.Sequential()
    mlp.fc1, mlp.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
    mlp.forward = lambda y: mlp.fc2(nn.functional.gelu(mlp.fc1(y)))

    def run(x, modulation, attended):
        u = ops.pixel_embed(x, embed, *tables, patch, slice(2, 5))
        first = u.clone()
        begun = ops.pixel_begin(u, first_norm, modulation)
        u = ops.pixel_end(u, attended, modulation, second_norm, mlp)
        return first, begun, u, ops.pixel_out(u, second_norm, last)

    close(with_kernels(run, x, modulation, attended))


@pytest.mark.parametrize("groups", [1, 4])
def test_group_norm(with_kernels, groups, monkeypatch):
    """Groups of several parts, the last one not full, far from zero."""
    monkeypatch.setattr(kernels, "GROUP_PART", 64)
    monkeypatch.setattr(ops, "GROUP_PART", 64)
    layer = nn.GroupNorm(groups, 8)
    layer.weight.data, layer.bias.data = 1 + 0.2 * draw(8, seed=3), draw(8, seed=4)
    close(with_kernels(ops.group_norm_silu, 20 + draw(BATCH, 8, 7, 9), layer, torch.float32))


def test_a_layer_that_is_called_in_another_way_is_called(with_kernels):
    """As by ComfyUI's bypass LoRA, which replaces a layer's forward, and by forward hooks."""
    width = 48
    proj, offset = nn.Linear(2 * width, 1), draw(BATCH, 1, 1, seed=3)
    plain = proj.forward
    proj.forward = lambda x: plain(x) + 2
    layer = norm(width)
    layer.register_forward_hook(lambda module, args, out: 3 * out)
    attn, _ = lines(width)

    def run(stream, features):
        return ops.norm_modulate(stream, layer, attn, torch.float32), ops.token_gate(stream, features, proj, offset)

    close(with_kernels(run, draw(BATCH, 5, width), draw(BATCH, 5, width, seed=1)))


def test_streams_stay_float32_whatever_the_default_is(with_kernels, monkeypatch):
    layer, linear = norm(16), nn.Linear(16, 3)
    u = draw(1, 2, 16, 16)
    torch.set_default_dtype(torch.bfloat16)
    try:
        results = with_kernels(ops.pixel_out, u, layer, linear)
    finally:
        torch.set_default_dtype(torch.float32)
    assert results[1].dtype == torch.float32
    close(results)


def test_every_kernel_is_registered_with_what_it_writes_and_gives():
    assert fused.register()
    for name, written in fused.WRITTEN.items():
        schema = getattr(torch.ops.pidkit, name).default._schema
        changed = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        assert changed == list(written)
        assert bool(schema.returns) == (name in fused.SHAPES)
