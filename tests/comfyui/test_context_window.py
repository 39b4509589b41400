"""Context Window (PiD) through the HTTP API: the same graph with and without it differs only by the fuse."""

import sys
import urllib.request
from types import SimpleNamespace

import pytest
import torch

from comfy_server import PromptError
from pid_core import LATENT_FAMILIES, load_network
from pid_core.windows.plan import plan_windows
from support import inside
from support.failures import fails
from support.graphs import decode_graph, link, pid_decode_graph, put_latent, saved_pixels
from support.tiny import put_tiny, save_tiny

SEED = 5
# family, version, latent, window size and overlap in pixels
CASES = {
    "flux": ("flux", "v1", (16, 3, 4), 64, 32),
    "flux2_15": ("flux2", "v1.5", (128, 2, 3), 128, 64),
    "rgb": ("rgb", "v1", (12, 9, 12), 40, 16),
}


def model_for(comfy, case: str):
    family, version, *_ = CASES[case]
    return put_tiny(comfy, f"windows_{case}", family, version)


def raw_latent(case: str, batch: int = 1) -> torch.Tensor:
    return torch.randn((batch, *CASES[case][2]), generator=torch.Generator().manual_seed(1))


def by_core(path, latent, case: str, *, sigma=0.0, fuse="pyramid"):
    """The same decode by windows without ComfyUI, [B, 3, H, W]."""
    family, _, _, size, overlap = CASES[case]
    net = load_network(path)
    lq = LATENT_FAMILIES[family].normalise(latent)
    pixels = net.config.output_size(*lq.shape[-2:])
    plan = plan_windows(*pixels, size, overlap, align=net.config.latent_cell)
    assert plan.count > 1
    return inside.by_core(net, lq, sigma, seed=SEED, windows=plan, fuse=fuse)


def windows(comfy, case: str = "flux", batch: int = 1, *, sampler=None, conditioning=None, **settings) -> dict:
    """decode_graph with the node between the loader and the sampler."""
    path, name = model_for(comfy, case), f"windows_{case}_{batch}"
    graph = decode_graph(
        path.name,
        put_latent(comfy, name, raw_latent(case, batch)),
        conditioning=conditioning,
        sampler={"model": link("windows")} | (sampler or {}),
    )
    _, _, _, size, overlap = CASES[case]
    inputs = {"model": link("model"), "mode": "manual", "size": size, "overlap": overlap, "fuse": "pyramid"}
    return graph | {"windows": {"class_type": "PiDKitContextWindow", "inputs": inputs | settings}}


def ending(node: str) -> dict:
    """An output node, so that the graph runs."""
    return {"class_type": "PreviewAny", "inputs": {"source": link(node)}}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_core_s_windows(comfy, case):
    pixels = saved_pixels(comfy, comfy.queue(windows(comfy, case)))
    expected = by_core(model_for(comfy, case), raw_latent(case), case)
    assert torch.allclose(pixels.clamp(-1, 1), expected, atol=1e-4)


@pytest.mark.parametrize("fuse", ["linear", "flat"])
def test_the_fuse_is_the_one_asked_for(comfy, fuse):
    pixels = saved_pixels(comfy, comfy.queue(windows(comfy, fuse=fuse)))
    expected = by_core(model_for(comfy, "flux"), raw_latent("flux"), "flux", fuse=fuse)
    assert torch.allclose(pixels.clamp(-1, 1), expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["manual", "auto"])
def test_a_canvas_of_one_window_changes_no_bit(comfy, mode):
    graph = windows(comfy, mode=mode, size=128)
    with_node = saved_pixels(comfy, comfy.queue(graph))
    graph["sampler"]["inputs"]["model"] = link("model")
    assert torch.equal(with_node, saved_pixels(comfy, comfy.queue(graph)))


def test_noisy_batch_with_guidance(comfy):
    """negative is the positive once more, so cfg changes nothing; both run in windows."""
    graph = windows(comfy, batch=2, sampler={"cfg": 3.0}, conditioning={"degrade_sigma": 0.4, "latent_noise": "keep"})
    pixels = saved_pixels(comfy, comfy.queue(graph))
    expected = by_core(model_for(comfy, "flux"), raw_latent("flux", 2), "flux", sigma=0.4)
    assert expected.shape[0] == 2
    assert torch.allclose(pixels.clamp(-1, 1), expected, atol=5e-4)


def test_custom_samplers_equal_ksampler(comfy):
    graph = windows(comfy)
    run = {k: graph["sampler"]["inputs"][k] for k in ("model", "positive", "negative", "latent_image", "cfg")}
    guider = {k: run[k] for k in ("model", "positive", "negative", "cfg")}
    both = {"sampler": link("lcm"), "sigmas": link("sigmas")}
    graph |= {
        "sigmas": {"class_type": "PiDKitSigmas", "inputs": {"steps": 4}},
        "lcm": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "lcm"}},
        "custom": {"class_type": "SamplerCustom", "inputs": {**run, **both, "add_noise": True, "noise_seed": SEED}},
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": SEED}},
        "guider": {"class_type": "CFGGuider", "inputs": guider},
        "advanced": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {**both, "noise": link("noise"), "guider": link("guider"), "latent_image": run["latent_image"]},
        },
    }
    for name in ("custom", "advanced"):
        inputs = {"samples": link(name), "filename_prefix": "pixels"}
        graph[f"save_{name}"] = {"class_type": "SaveLatent", "inputs": inputs}
    done = comfy.queue(graph)
    for name in ("custom", "advanced"):
        assert torch.equal(saved_pixels(comfy, done), saved_pixels(comfy, done, f"save_{name}"))


def test_pid_decode_runs_in_windows(comfy):
    path = model_for(comfy, "flux")
    graph = pid_decode_graph(path.name, put_latent(comfy, "windows_decode", raw_latent("flux")), seed=SEED)
    (decoder,) = [key for key, node in graph.items() if node["class_type"] == "PiDKitDecode"]
    extra = windows(comfy)["windows"]
    extra["inputs"]["model"], graph[decoder]["inputs"]["model"] = graph[decoder]["inputs"]["model"], link("windows")
    (picture,) = comfy.images(comfy.queue(graph | {"windows": extra}))
    expected = (by_core(path, raw_latent("flux"), "flux")[0].permute(1, 2, 0) + 1) / 2 * 255
    assert (torch.from_numpy(picture.copy()).float() - expected).abs().max() <= 1.01


def test_progress_and_the_plan_on_the_node(comfy):
    events = []
    graph = windows(comfy, size=72, overlap=20, sampler={"seed": 11})
    comfy.queue(graph, on_event=lambda kind, data: events.append((kind, data)))
    *_, text = (data["text"] for kind, data in events if kind == "text" and data["node"] == "windows")
    assert text.startswith("128 x 96 in 6 windows of 64 x 64, less than 0.1 GB")
    assert "size 72 rounded down to 64 px" in text and "overlap 20 rounded up to 32 px" in text
    assert text.endswith("details: 3 across, 2 down, overlap at least 32 px, 6 at a time")
    ticks = [(data["value"], data["max"]) for kind, data in events if kind == "progress"]
    assert ticks[-1] == (1000, 1000) and (4, 4) in ticks


def test_the_canvas_shows_the_plan_before_sampling(comfy):
    shown = []
    graph = windows(comfy, canvas=link("pid", 2), sampler={"seed": 12})
    graph = {k: graph[k] for k in ("latent", "model", "pid", "windows")} | {"end": ending("windows")}
    comfy.queue(graph, on_event=lambda kind, data: shown.append(data) if kind == "text" else None)
    assert any(
        data["node"] == "windows" and data["text"].startswith("128 x 96 in 6 windows of 64 x 64") for data in shown
    )


def test_interrupt_between_windows_and_the_next_run_works(comfy):
    ticks = []

    def stop(kind, data):
        if kind == "progress" and not ticks:
            ticks.append(data)
            request = urllib.request.Request(f"http://{comfy.address}/interrupt", method="POST")
            urllib.request.urlopen(request, timeout=20).close()

    with pytest.raises(PromptError, match="interrupted"):
        comfy.queue(windows(comfy, batch=4, sampler={"steps": 400, "seed": 77}), on_event=stop)
    assert ticks[0]["value"] < ticks[0]["max"]
    pixels = saved_pixels(comfy, comfy.queue(windows(comfy, "rgb")))
    assert torch.isfinite(pixels).all()


def test_a_regional_caption_reaches_its_windows(comfy):
    """Windows at 32 and 64 px lie at least half in the rectangle; what only the first one covers stays as it was."""
    graph = windows(comfy, sampler={"steps": 1})
    plain = saved_pixels(comfy, comfy.queue(graph))
    graph["other"] = {
        "class_type": "ConditioningConcat",
        "inputs": {"conditioning_to": link("pid"), "conditioning_from": link("pid")},
    }
    graph["region"] = {
        "class_type": "PiDKitRegionalCaption",
        "inputs": {"conditioning": link("other"), "x": 64, "y": 0, "width": 64, "height": 96},
    }
    graph["windows"]["inputs"]["regions"] = link("region")
    texts = []
    done = comfy.queue(graph, on_event=lambda kind, data: texts.append(data["text"]) if kind == "text" else None)
    pixels = saved_pixels(comfy, done)
    assert "regional caption 1: 4 of 6 windows" in texts[-1]
    assert torch.allclose(pixels[..., :32], plain[..., :32], atol=1e-4)
    assert (pixels[..., 32:] - plain[..., 32:]).abs().mean() > 1e-3


def core_windows(model: str, output: int = 0) -> dict:
    inputs = {
        "model": link(model, output),
        "context_length": 64,
        "context_overlap": 16,
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "dim": 2,
        "freenoise": False,
        "cond_retain_index_list": "",
        "split_conds_to_windows": False,
        "latent_retain_index_list": "",
        "causal_window_fix": True,
    }
    return {"class_type": "ContextWindowsManual", "inputs": inputs}


def test_a_second_context_handler(comfy):
    before = windows(comfy, model=link("other"))
    before["other"] = core_windows("model")
    fails(comfy, before, "already has context windows", "IndexListContextHandler", node="windows")
    twice = windows(comfy, model=link("first"))
    twice["first"] = windows(comfy)["windows"]
    fails(comfy, twice, "already has context windows", "WindowHandler", node="windows")
    after = windows(comfy, sampler={"model": link("other")})
    after["other"] = core_windows("windows")
    fails(comfy, after, "comes after Context Window (PiD)", "remove one", node="sampler")


def test_sizes_that_cannot_be(comfy):
    fails(
        comfy,
        windows(comfy, size=64, overlap=64),
        "overlap 64 must be smaller than size 64: lower overlap or raise size",
        node="windows",
    )
    fails(comfy, windows(comfy, size=64, overlap=48), "overlap 64, size 64", node="windows")
    fails(comfy, windows(comfy, size=24, overlap=8), "window size 24 is too small", "32 px", node="windows")
    fails(comfy, windows(comfy, overlap=-8), "-8", node="windows")


def test_a_model_that_cannot_run_in_windows(comfy):
    save_tiny(comfy.models / "diffusion_models" / "windows_t2i.safetensors", "pixeldit", caption=3)
    graph = windows(comfy)
    graph["model"]["inputs"]["model_name"] = "windows_t2i.safetensors"
    fails(comfy, {k: graph[k] for k in ("model", "windows")} | {"end": ending("windows")}, "PixelDiT", node="windows")


def test_the_plain_graph_says_what_one_large_frame_takes(comfyui, monkeypatch):
    """A large photo in the first workflow: hours in one frame, and nothing said so."""
    patcher, _ = comfyui.load("rgb", changes={"window_min": 64, "window_max": 128})
    node, said = comfyui.nodes.PiDKitConditioning, []
    monkeypatch.setattr(sys.modules[node.__module__], "show_on_node", lambda _, *lines: said.append(lines))

    def run(side, *kinds):
        nodes = {str(i): {"class_type": kind, "inputs": {}} for i, kind in enumerate(kinds)}
        graph = SimpleNamespace(get_node=nodes.get, all_node_ids=lambda: set(nodes))
        monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="1", dynprompt=graph), raising=False)
        node.execute({"samples": torch.randn(1, 12, side, side)}, "auto", 0.0, "add", 0, model=patcher)
        return said[-1]

    line = run(128, "PiDKitConditioning", "KSampler")[-1]
    assert "times the work of windows, and takes" in line and "GB: put Context Window (PiD)" in line
    assert len(run(128, "PiDKitConditioning", "PiDKitContextWindow", "KSampler")) == 1
    assert len(run(16, "PiDKitConditioning", "KSampler")) == 1
