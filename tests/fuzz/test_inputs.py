"""Odd values for every input of every node: only errors of one line come out, raised by this pack itself.

The same every time and short; see fuzzing.py for more of them.
"""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comfy_env
from support.fuzzing import examples

EXAMPLES = 30  # for each node
LONGEST = 700  # characters of a message
# they fetch files, only expand into nodes that are tried themselves, or take seconds
NOT_RUN = ("PiDKitDownload", "PiDKitRAEEncode", "PiDKitUpscale", "PiDKitUpscalePicture", "PiDKitBench")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)
DTYPES += (torch.complex64, torch.float8_e4m3fn)


class Odd:
    """Something of a type nobody knows."""

    def __repr__(self):
        return "odd\n" * 1000


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=6).map(tuple))
    fill = draw(st.sampled_from([0.0, 0.5, -1.0, 1.0, 7.0, 3e38, float("nan"), float("inf")]))
    dtype = draw(st.sampled_from(DTYPES))
    kind = draw(st.sampled_from(["plain", "plain", "plain", "meta", "sparse", "inference", "grad"]))
    if kind == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    whole = not dtype.is_floating_point and not dtype.is_complex
    tensor = torch.full(shape, int(min(fill, 1)) if whole and abs(fill) < 1e9 else 0 if whole else fill).to(dtype)
    if kind == "sparse" and dtype in (torch.float32, torch.int64):
        return tensor.to_sparse()
    if kind == "inference":
        with torch.inference_mode():
            return tensor.clone()
    return tensor.requires_grad_() if kind == "grad" and dtype == torch.float32 else tensor


@st.composite
def images(draw):
    """Pictures with one thing odd."""
    channels, dtype = draw(st.integers(0, 6)), draw(st.sampled_from(DTYPES))
    size = draw(st.sampled_from([(1, 1), (1, 17), (5, 3), (16, 16), (2, 400), (0, 4)]))
    batch = draw(st.integers(0, 3))
    return torch.zeros(batch, *size, channels).to(dtype)


@st.composite
def latents(draw):
    channels = draw(st.sampled_from([1, 3, 4, 12, 16, 48, 64, 128, 768]))
    shape = draw(st.sampled_from([(1, channels, 2, 2), (2, channels, 1, 1), (1, channels, 2, 1, 1), (channels, 2, 2)]))
    samples = torch.ones(shape).to(draw(st.sampled_from(DTYPES)))
    more = draw(
        st.sampled_from([{}, {"noise_mask": None}, {"pidkit_family": "sd3"}, {"pidkit_noise": 3}, {"type": "audio"}])
    )
    return {"samples": samples, **more}


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([1e308, -0.0, 2**64 - 1, 2**64, 10**400]),
    st.text(max_size=20),
    st.sampled_from(["", "\ud800", "a\nb\x1b[31m", "\0", "x" * 5000, "nan", "1e999", "0, nan", "1;2;x", "../../etc"]),
    st.binary(max_size=4),
)
odd = st.one_of(
    plain,
    tensors(),
    images(),
    latents(),
    st.builds(Odd),
    st.sampled_from(
        [np.zeros((2, 2)), range(3), print, Odd, {}, [], (), [[]], [{}], {"samples": None}, {"samples": []}]
    ),
    st.lists(plain, max_size=3),
    st.lists(tensors(), max_size=2),
    tensors().map(lambda t: {"samples": t}),
    tensors().map(lambda t: [[t, {}]]),
    tensors().map(lambda t: [[t, None]]),
    st.dictionaries(st.text(max_size=3), plain, max_size=2),
)


@pytest.fixture(scope="session")
def good(comfyui) -> dict:
    """A value for every input of every node that it takes, by node and input."""
    model, _ = comfyui.load("flux")
    nodes = comfyui.nodes
    image = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    _, framing, _ = nodes.PiDKitPrepareImage.execute(image, "factor", "rgb", "pad", 4.0).args
    text = [[torch.randn(1, 3, 24), {}]]
    by_type = {
        "MODEL": model,
        "IMAGE": image,
        "LATENT": {"samples": torch.randn(1, 16, 1, 1)},
        "CONDITIONING": text,
        "SIGMAS": torch.tensor([1.0, 0.5, 0.0]),
        "VAE": nodes.PiDKitPixelVAE.execute().args[0],
        "PIDKIT_FRAMING": framing,
        "PIDKIT_REGIONS": nodes.PiDKitRegionalCaption.execute(text, 0, 0, 64, 64).args[0],
    }
    found = {}
    for node in nodes.NODES:
        schema = node.define_schema()
        values = {}
        for entry in schema.inputs:
            kind = entry.get_io_type()
            value = by_type.get(kind, getattr(entry, "default", None))
            if value is None and getattr(entry, "options", None):
                value = entry.options[0]
            if value is None and kind == "STRING":
                value = "a text"
            if value is not None and not (getattr(entry, "optional", False) and kind not in ("INT", "FLOAT", "COMBO")):
                values[entry.id] = [value] if schema.is_input_list else value
        found[node.__name__] = values
    found["PiDKitDecode"] |= {"steps": 1}
    found["PiDKitSigmaSweep"] |= {"steps": [1], "sigmas": ["0"]}
    found["PiDKitFinishImage"] |= {"image": torch.rand(1, 64, 64, 3)}
    found["PiDKitCheck"] |= {"source": image}
    return found


def names() -> list[str]:
    """Names of the nodes, read from the source: ComfyUI is not there when tests are collected."""
    text = (comfy_env.ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8")
    inside = text.partition("[type[io.ComfyNode]] = [")[2].partition("]")[0]
    return [name.strip() for name in inside.split(",") if name.strip()]


def fine(error: Exception) -> None:
    """An error that a user may see: one line of ours."""
    line = str(error)
    shown = "".join(traceback.format_exception(error))
    assert isinstance(error, ValueError | FileNotFoundError | torch.OutOfMemoryError), shown
    assert line and "\n" not in line and len(line) <= LONGEST, shown
    line.encode("utf-8")
    frames = traceback.extract_tb(error.__traceback__)
    assert Path(frames[-1].filename).is_relative_to(comfy_env.ROOT), shown
    assert ".venv" not in frames[-1].filename, shown


def test_there_are_nodes():
    assert len(names()) > 20


@pytest.mark.parametrize("name", [name for name in names() if name not in NOT_RUN])
def test_odd_values_give_one_line(comfyui, good, name):
    node = getattr(comfyui.nodes, name)
    schema = node.define_schema()
    inputs = [entry.id for entry in schema.inputs]
    if not inputs:
        return

    @examples(EXAMPLES)
    @given(st.sampled_from(inputs), odd, st.booleans())
    def tried(which, value, listed):
        if schema.is_input_list and listed:
            value = [value]
        try:
            with torch.inference_mode():
                node.execute(**good[name] | {which: value})
        except Exception as error:
            fine(error)

    tried()


@pytest.mark.parametrize("name", names())
def test_typed_values_are_judged_before_the_run(comfyui, name):
    """What a prompt can hold: ComfyUI hands it to the node as it is where the node validates it itself."""
    node = getattr(comfyui.nodes, name)
    hooks = [hook for hook in ("validate_inputs", "check_lazy_status", "fingerprint_inputs") if hook in node.__dict__]
    if not hooks:
        return
    listed = node.define_schema().is_input_list
    known = {entry.id for entry in node.define_schema().inputs}

    @examples(EXAMPLES)
    @given(st.sampled_from(hooks), st.data())
    def tried(hook, data):
        call = getattr(node, hook)
        wanted = [name for name in inspect.signature(call).parameters if name in known]
        values = {name: data.draw(plain) for name in wanted}
        answer = call(**({name: [value] for name, value in values.items()} if listed else values))
        if hook == "validate_inputs":
            assert answer is True or (isinstance(answer, str) and answer and "\n" not in answer), answer
            assert answer is True or len(answer.encode("utf-8")) <= 4 * LONGEST

    tried()
