"""Values that reach a node by a link are looked at in one place: by type, shape, range, count and choice."""

import numpy as np
import pytest
import torch

from comfy_server import PromptError
from support.failures import fails
from support.graphs import decode_graph, link, pid_decode_graph, put_latent
from support.tiny import save_tiny

GREY = torch.linspace(0, 1, 8 * 6).view(1, 8, 6, 1)


def run(comfyui, name, **inputs):
    with torch.inference_mode():
        return getattr(comfyui.nodes, name).execute(**inputs).args


def image_inputs(comfyui):
    """(node, input, the other inputs) of every image that goes into a node."""
    image = torch.rand(1, 8, 6, 3)
    framed = {"target": "factor", "family": "rgb", "fit": "pad", "factor": 4.0}
    _, framing, _ = run(comfyui, "PiDKitPrepareImage", image=image, **framed)
    return {
        ("PiDKitRGBLatent", "image"): {"odd_size": "pad"},
        ("PiDKitPrepareImage", "image"): framed,
        ("PiDKitColourHold", "image"): {"reference": image, "colour_hold": "mean_deviation", "fidelity": 0.5},
        ("PiDKitColourHold", "reference"): {"image": image, "colour_hold": "mean_deviation", "fidelity": 0.5},
        ("PiDKitSigmaTuner", "image"): {"default_sigma": [0.0], "sigmas": [""], "pictures": [""]},
        ("PiDKitFinishImage", "image"): {"framing": framing},
        ("PiDKitHold", "reference"): {"model": comfyui.load("rgb")[0], "strength": 1.0},
        ("PiDKitDecode", "reference"): {},
        ("PiDKitDecode", "start_image"): {},
    }


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_is_a_picture_for_every_input(comfyui, channels):
    """One node took it, four refused it, and two channels ended in an error of torch's."""
    grey = torch.cat([GREY, torch.full_like(GREY, 0.5)], -1)[..., :channels]
    for (name, which), others in image_inputs(comfyui).items():
        if name == "PiDKitDecode":
            patcher, _ = comfyui.load("rgb")
            others = {"model": patcher, "degrade_sigma": 0.0, "steps": 2, "seed": 0, "colour_hold": "mean_deviation"}
            others |= {"start_at": 2, "hold": 0.5}
            others["latent"] = {"samples": torch.zeros(1, 12, 4, 3)}
        value = grey
        if name == "PiDKitFinishImage":
            value = grey.repeat(1, 4, 4, 1)
        listed = name == "PiDKitSigmaTuner"
        out = run(comfyui, name, **others, **{which: [value] if listed else value})
        if name == "PiDKitPrepareImage":
            assert out[0].shape == (1, 8, 6, 3) and out[1].source.shape[-1] == (4 if channels == 2 else 3)


def test_whole_numbers_are_read_by_their_white(comfyui):
    levels = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3)
    packed = run(comfyui, "PiDKitRGBLatent", image=levels, odd_size="pad")[0]["samples"]
    assert torch.equal(packed, run(comfyui, "PiDKitRGBLatent", image=levels / 255, odd_size="pad")[0]["samples"])
    with pytest.raises(ValueError, match="image holds int64 numbers, whose white is not known"):
        run(comfyui, "PiDKitRGBLatent", image=levels.long(), odd_size="pad")


@pytest.mark.parametrize("which", ["image", "reference"])
def test_nan_in_any_picture_is_said(comfyui, which):
    """PiD Colour Hold looked at the reference and not at the image."""
    pictures = {"image": torch.rand(1, 8, 8, 3), "reference": torch.rand(1, 8, 8, 3)}
    pictures[which][0, 2, 3, 1] = float("nan")
    with pytest.raises(ValueError, match=f"^{which} holds NaN or infinite values"):
        run(comfyui, "PiDKitColourHold", **pictures, colour_hold="mean_deviation", fidelity=0.0)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("latent_noise", "some", "latent_noise is 'some', which is not in its list: choose one of add, scale, keep"),
        ("window_mode", "maybe", "window_mode is 'maybe', which is not in its list: choose one of auto, off, manual"),
        ("window_mode", 3, "window_mode must be a choice from its list, but is 3"),
        ("colour_hold", None, None),
        ("steps", 1.5, "steps must be a whole number, but is 1.5"),
        ("steps", 9, "steps is 9, but must be from 0 to 4"),
        ("seed", 2**64, "seed is 18446744073709551616, but must be from 0 to 2^64 - 1"),
        ("degrade_sigma", float("nan"), "degrade_sigma must be a finite number, but is nan"),
        ("degrade_sigma", "a\nb", r"degrade_sigma must be a number, but is 'a\nb'"),
        ("sigma_list", [], "sigma_list is empty: give one number, or one per image"),
        ("sigma_list", [0.1, "x"], "sigma_list must be numbers, one per image, but is 'x'"),
        (
            "latent",
            torch.zeros(1, 16, 1, 1),
            "latent must be a latent, but is a tensor of shape [1, 16, 1, 1], float32",
        ),
        ("model", "pid", "model must be a model, from PiD Loader, but is 'pid'"),
        ("positive", [], "positive is empty, it holds no text: connect a text encoder"),
        (
            "positive",
            [torch.zeros(2)],
            "positive must be a text from a text encoder, but is a tensor of shape [2], float32",
        ),
        ("reference", torch.zeros(1, 8, 8, 7), "reference has 7 channels, its shape is [1, 8, 8, 7]: an image has 3"),
        ("framing", 3, "framing must be the framing from PiD Prepare Image, but is 3"),
        ("clip", torch.zeros(1), "clip must be a text encoder, from Load CLIP, but is a tensor of shape [1], float32"),
    ],
)
def test_a_linked_value_that_does_not_fit_is_one_line(comfyui, name, value, line):
    patcher, _ = comfyui.load()
    inputs = {"model": patcher, "latent": {"samples": torch.randn(1, 16, 1, 1)}, "degrade_sigma": 0.0, "steps": 1}
    if line is None:  # nothing, for what may be left out: as if it was not connected
        assert run(comfyui, "PiDKitDecode", **inputs | {"seed": 0, name: value})[0].shape == (1, 32, 32, 3)
        return
    with pytest.raises(ValueError) as caught:
        run(comfyui, "PiDKitDecode", **inputs | {"seed": 0, name: value})
    assert str(caught.value) == line


def test_what_is_missing_is_named(comfyui):
    with pytest.raises(ValueError, match="latent is missing: connect it"):
        run(comfyui, "PiDKitLatentFromNoisy", latent_format="flux")
    with pytest.raises(ValueError, match="image is empty: what is connected gave nothing"):
        run(comfyui, "PiDKitSigmaTuner", image=[], default_sigma=[0.0], sigmas=[""], pictures=[""])


def test_huge_but_finite_values_are_no_nan(comfyui):
    finite = comfyui.module("pid_core.model.guard").all_finite
    assert finite(torch.full((3,), 3e38)) and finite(torch.tensor([3e38, 3e38, -3e38, -3e38]))
    assert not finite(torch.tensor([3e38, 3e38, float("inf")])) and not finite(torch.tensor([float("nan"), 3e38]))


@pytest.fixture(scope="module")
def graph(comfy):
    save_tiny(comfy.models / "diffusion_models" / "inputs.safetensors", "flux", caption=3)
    latent = put_latent(comfy, "inputs", torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(1)))
    return lambda **inputs: decode_graph("inputs.safetensors", latent, **inputs)


def between(graph: dict, kind: str, **inputs) -> dict:
    """A node of ComfyUI's between PiD Latent Conditioning's positive and the sampler."""
    graph["between"] = {"class_type": kind, "inputs": {"conditioning": link("pid")} | inputs}
    graph["sampler"]["inputs"]["positive"] = link("between")
    return graph


def test_a_step_without_a_conditioning_is_no_grey_picture(comfy, graph):
    fails(
        comfy,
        between(graph(), "ConditioningSetTimestepRange", start=0.0, end=0.3),
        "at step 3 of 4 no positive conditioning acts",
        "grey",
        "ConditioningSetTimestepRange",
    )
    comfy.queue(between(graph(), "ConditioningSetTimestepRange", start=0.0, end=1.0))
    area = {"width": 64, "height": 64, "x": 0, "y": 0}
    fails(
        comfy, between(graph(), "ConditioningSetArea", strength=1.0, **area), "Conditioning (Set Area)", "take it off"
    )
    strength = between(graph(), "ConditioningSetAreaStrength", strength=0.0)
    fails(comfy, strength, "at step 1 of 4", "strength above 0")


def test_comfyuis_own_context_windows_at_their_default(comfy, graph):
    made = graph()
    known = comfy.object_info("ContextWindowsManual")["input"]["required"]
    windows = {name: entry[1].get("default", "") for name, entry in known.items() if name != "model"}
    windows |= {"context_length": 32, "context_overlap": 0, "dim": 2, "context_schedule": "standard_static"}
    windows |= {"fuse_method": "pyramid"}
    made["windows"] = {"class_type": "ContextWindowsManual", "inputs": windows | {"model": link("model")}}
    made["sampler"]["inputs"]["model"] = link("windows")
    if windows.get("causal_window_fix"):
        fails(comfy, made, "switch causal_window_fix off there", "Context Window (PiD)")
        made["windows"]["inputs"]["causal_window_fix"] = False
    comfy.queue(made)


def test_pid_latent_from_noisy_without_pid_early_stop(comfy, graph):
    """Bypassed, it has no sigma to give: what comes is a finished latent."""
    made = graph()
    made["noisy"] = {
        "class_type": "PiDKitLatentFromNoisy",
        "inputs": {"latent": link("latent"), "latent_format": "flux"},
    }
    made["pid"]["inputs"]["latent"] = link("noisy")
    ours, plain = (comfy.images(comfy.queue(g), "png")[0] for g in (made, graph()))
    assert np.array_equal(ours, plain)


def test_texts_go_to_the_client_whose_prompt_it_is(comfyui, monkeypatch):
    from types import SimpleNamespace

    node_text, sent = comfyui.module("nodes.comfy.node_text"), []
    dynprompt = SimpleNamespace(get_parent_node_id=lambda _: None, get_display_node_id=lambda node: node)
    monkeypatch.setattr(node_text, "get_progress_state", lambda: SimpleNamespace(prompt_id="p", dynprompt=dynprompt))
    server = SimpleNamespace(client_id="mine")
    server.send_progress_text = server.send_sync = lambda *args: sent.append(args)
    monkeypatch.setattr(node_text.PromptServer, "instance", server, raising=False)
    node_text.send_text("5", "a line")
    node_text.send_text("7:5", "in a subgraph")
    server.client_id = None
    node_text.send_text("5", "another")
    node_text.send_text("7:5", "another")
    assert sent == [("a line", "5", "mine"), ("pidkit_text", {"nodeId": "7:5", "text": "in a subgraph"}, "mine")]


def test_an_image_that_fails_leaves_the_others_on_the_node(comfy, monkeypatch):
    """Through the server: the message names it, and the node shows what is finished."""
    latent = torch.randn(3, 16, 1, 1, generator=torch.Generator().manual_seed(1))
    latent[2] *= 1e37  # the network gives NaN for it
    save_tiny(comfy.models / "diffusion_models" / "inputs_each.safetensors", "flux", caption=3)
    graph = pid_decode_graph("inputs_each.safetensors", put_latent(comfy, "inputs_each", latent), steps=1)
    events = []
    with pytest.raises(PromptError, match="image 3 of 3: .*The 2 finished images are kept, shown on the node"):
        comfy.queue(graph, on_event=lambda kind, data: events.append((kind, data)))
    (shown,) = [data["output"]["images"] for kind, data in events if kind == "executed" and data["node"] == "decode"]
    assert len(shown) == 2 and all(comfy.view(one)[:4] == b"\x89PNG" for one in shown)


@pytest.mark.parametrize(
    ("node", "others"),
    [
        ("PiDKitSaveLatent", {"latent_format": "auto", "degrade_sigma": 0.0, "filename_prefix": "latents/PiD"}),
        ("PiDKitLatentFromNoisy", {"latent_format": "flux"}),
        ("PiDKitConditioning", {"degrade_sigma": 0.0}),
        (
            "PiDKitSigmaTuner",
            {"image": [torch.zeros(1, 8, 8, 3)], "default_sigma": [0], "sigmas": [""], "pictures": [""]},
        ),
    ],
)
def test_a_latent_of_several_streams_is_no_image(comfyui, node, others):
    import comfy.nested_tensor

    streams = comfy.nested_tensor.NestedTensor([torch.zeros(1, 16, 2, 2), torch.zeros(1, 8, 4)])
    latent = {"samples": streams}
    with pytest.raises(ValueError, match="the latent holds several streams"):
        run(comfyui, node, latent=[latent] if node == "PiDKitSigmaTuner" else latent, **others)
