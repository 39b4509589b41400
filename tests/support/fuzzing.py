"""What every fuzz test shares: how many examples, odd texts, odd files, and what counts as an answer.

The same examples every time, few of them; with PIDKIT_FUZZ_EXAMPLES=10000 other ones at every call, and many.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from safetensors.torch import save

MANY = os.environ.get("PIDKIT_FUZZ_EXAMPLES", "")


def examples(few: int) -> settings:
    """Settings of a fuzz test that takes `few` examples unless more are asked for."""
    return settings(
        max_examples=int(MANY) if MANY else few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # the first failure is shown as it is: what is broken is a file, which no one reads the numbers of
        phases=(Phase.explicit, Phase.generate) if not MANY else tuple(Phase),
    )


TEXT = st.text(st.characters(exclude_categories=[]), max_size=12)  # control characters, halves of characters
NUMBER = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**63, -(2**63), 10**18, 10**400, 0.5, 1e308, float("inf"), float("nan"), True]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
DEEP = st.sampled_from(["[" * 20_000, '{"a":' * 20_000, "9" * 9000, "", "\0"])


def entry(*keys: str) -> st.SearchStrategy[str]:
    """The text of a metadata entry: JSON with these keys and others, or no JSON at all."""
    some = st.dictionaries(st.one_of(st.sampled_from(keys), TEXT), JSON, max_size=3)
    return st.one_of(some.map(json.dumps), JSON.map(json.dumps), DEEP, TEXT.map(lambda text: repr(text)[1:-1]))


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int64, torch.bool]
DTYPES += [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]


@st.composite
def bent(draw, tensor: torch.Tensor) -> torch.Tensor:
    """Another tensor in the place of this one."""
    how = draw(st.sampled_from(["dtype", "shape", "flat", "scalar", "empty", "fill", "one"]))
    if how == "dtype":
        return tensor.to(draw(st.sampled_from(DTYPES)))
    if how == "shape":
        return torch.ones(draw(st.lists(st.integers(0, 5), max_size=5)), dtype=draw(st.sampled_from(DTYPES)))
    if how == "fill":
        return torch.full_like(tensor, draw(st.sampled_from([float("nan"), float("inf"), -1e30, 0.0, 3e38])))
    if how == "one" and tensor.numel():
        changed = tensor.clone()
        changed.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = draw(st.sampled_from([float("nan"), float("inf")]))
        return changed
    return {"flat": tensor.flatten(), "scalar": torch.ones(()), "empty": tensor[:0] if tensor.ndim else tensor}.get(
        how, tensor
    )


def of_bytes(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with some of its bytes changed, most of them in its header, or cut, or with another header altogether."""
    length = struct.unpack("<Q", whole[:8])[0] + 8
    place = st.one_of(st.integers(0, 15), st.integers(0, length), st.integers(0, len(whole) - 1))
    changes = st.lists(st.tuples(place, st.binary(max_size=4), st.integers(0, 8)), min_size=1, max_size=4)

    def change(list_of: list[tuple[int, bytes, int]]) -> bytes:
        content = whole
        for at, new, gone in list_of:
            content = content[:at] + new + content[at + gone :]
        return content

    header = st.one_of(JSON.map(lambda value: json.dumps(value).encode()), DEEP.map(str.encode), st.binary(max_size=40))
    headed = st.tuples(header, st.binary(max_size=20)).map(lambda p: struct.pack("<Q", len(p[0])) + p[0] + p[1])
    cut = st.integers(0, len(whole)).map(lambda n: whole[:n])
    return st.one_of(changes.map(change), changes.map(change), cut, headed, st.binary(max_size=40))


def write(path: Path, tensors: dict, metadata: dict[str, str]) -> bool:
    """Write a safetensors file; False where its library takes no such names or texts."""
    try:
        path.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, metadata))
    except Exception:
        return False
    return True


def answer(read: Callable, *arguments, kinds: tuple = (ValueError, FileNotFoundError)):
    """What a reader returns, or None where it refuses in one line that any log takes. Other errors go on."""
    try:
        return read(*arguments)
    except kinds as error:
        line = str(error)
        assert line.isprintable() and 0 < len(line) < 1200, line
        return None
