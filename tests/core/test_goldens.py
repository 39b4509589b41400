"""The reference's own outputs, reproduced from files through the public API with no override."""

import pytest
import torch
from safetensors.torch import save_file

from pid_core import decode, load_network
from support.calls import velocity
from support.goldens import NAMES, draw, outputs, spec, weights

TOLERANCE = 5e-5
CASES = [(name, case["tag"]) for name in NAMES for case in spec(name)["cases"]]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """name, dtype -> network loaded from a safetensors file with NVIDIA's prefix."""
    cache = {}

    def get(name, dtype=torch.float32):
        if (name, dtype) not in cache:
            # "4step": flux_v1pt5 carries the teacher's auxiliary head, but its cases are the student's
            path = tmp_path_factory.mktemp("golden") / f"{name}_4step.safetensors"
            save_file({f"net.{k}": v.contiguous() for k, v in weights(spec(name)).items()}, path)
            cache[name, dtype] = load_network(path, dtype=dtype)
        return cache[name, dtype]

    return get


def run(net, name, tag):
    golden = spec(name)
    case = next(c for c in golden["cases"] if c["tag"] == tag)
    seed, shape = case["seed"], [case["B"], 3, case["H"], case["W"]]
    first = draw(seed, shape)
    caption = draw(seed + 1, [case["B"], case["Lt"], golden["config"]["txt_embed_dim"]])
    lq_latent = draw(seed + 2, [case["B"], *case["lat"]])
    sigma = torch.tensor(case["sigma"])
    if case["kind"] == "forward":
        t = 1000 * torch.tensor(case["t"])
        return velocity(net, first, t, caption, lq_latent, sigma), outputs(name)[f"{tag}.velocity"]
    steps = case.get("steps", 4)
    step_noise = [draw(seed + 3 + k, shape) for k in range(steps - 1)]
    image = decode(net, lq_latent, caption, sigma, steps=steps, noise=first, step_noise=step_noise)
    return image, outputs(name)[f"{tag}.image"]


@pytest.mark.parametrize(("name", "tag"), CASES)
def test_golden(networks, name, tag):
    out, expected = run(networks(name), name, tag)
    assert (out - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(("name", "tag"), CASES)
def test_bfloat16_stays_close_to_float32(networks, name, tag):
    """At least 45 dB: peak is the largest velocity, or the image's range of 2."""
    out, expected = run(networks(name, torch.bfloat16), name, tag)
    peak = 2.0 if tag.endswith("_steps") else expected.abs().max()
    assert out.dtype == torch.float32
    assert 10 * torch.log10(peak**2 / (out - expected).square().mean()) >= 45
