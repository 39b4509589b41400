"""bench in the real ComfyUI: the command beside core's own network, and the node PiD Bench."""

import json
import subprocess
import sys

import pytest
import torch

import comfy_env
from pid_bridges.core_network import calls_of
from pid_core.bench.beside_core import measure_beside_core
from pid_core.bench.subject import Subject
from support.tiny import save_tiny
from support.tiny_vae import save_family_vae


@pytest.mark.parametrize(("family", "version"), [("flux", "v1"), ("flux2", "v1.5")])
def test_cores_network_with_our_weights_draws_the_same(comfyui, family, version):
    """As good as exact: both run in float32, with other orders of the same sums."""
    if version == "v1.5" and comfyui.load_core("flux", "v1.5") is None:
        pytest.skip("this ComfyUI has no PiD v1.5")
    net = comfyui.load(family, version)[1]
    row = measure_beside_core(Subject(net, torch.device("cpu"), "tiny"), calls_of, 128, 1)
    assert row.status == "measured" and row.values["difference"] < 1e-4 and row.values["ratio"] > 0


def test_a_network_that_core_does_not_have_is_said_to_be_one(comfyui):
    row = measure_beside_core(Subject(comfyui.load("rgb")[1], torch.device("cpu"), "nano"), calls_of, 128, 1)
    assert row.status == "not measured" and "ComfyUI core has no network of this kind" in row.text


def test_the_command_runs_cores_network_without_the_server(comfyui, tmp_path):
    """And draws a picture behind ComfyUI's VAE, in four windows."""
    model = save_tiny(tmp_path / "tiny_flux.safetensors", "flux", "v1", caption=3, window_min=64, window_max=256)
    vae = save_family_vae(tmp_path / "vae.safetensors", "flux")
    command = [sys.executable, "-m", "pid_core", "bench", "--model", str(model), "--quick", "--size", "256"]
    command += ["--device", "cpu", "-o", str(tmp_path), "--comfyui", str(comfy_env.find_comfyui()[0])]
    command += ["--vae", str(vae)]
    done = subprocess.run(command, cwd=comfy_env.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "pidkit_bench.json").read_text(encoding="utf-8"))
    (core,) = [row for row in report["rows"] if row["part"] == "core"]
    assert core["status"] == "measured" and core["values"]["difference"] < 1e-4, core
    (seams,) = [row for row in report["rows"] if row["part"] == "seams"]
    assert seams["status"] == "measured" and seams["values"]["windows"] == 4, seams
    assert str(comfy_env.ROOT) not in done.stdout.replace(str(tmp_path), "")


@pytest.fixture
def node(comfyui, monkeypatch):
    """node(**inputs) -> table, figures, lines on the node."""

    def run(**inputs):
        shown = []
        module = sys.modules[comfyui.nodes.PiDKitBench.__module__]
        monkeypatch.setattr(module, "show_on_node", lambda node, *lines: shown.append(lines))
        with torch.inference_mode():
            table, figures = comfyui.nodes.PiDKitBench.execute(**inputs).args
        return table, {row["part"]: row for row in json.loads(figures)["rows"]}, shown

    return run


def test_the_node_measures_a_model_and_leaves_it_as_it_was(comfyui, node):
    patcher, _ = comfyui.load("flux", "v1", changes={"window_min": 64, "window_max": 512})
    latent = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    before = comfyui.decode(patcher, latent).clone()
    table, rows, shown = node(model=patcher, size="512")
    assert list(rows) == ["header", "load", "steps", "precision", "core", "seams", "nan"]
    assert rows["steps"]["values"]["side"] == 512 and rows["core"]["values"]["difference"] < 1e-4
    assert "the command takes --vae" in rows["seams"]["text"] and table.startswith("| PiD bench |")
    assert shown[0][0].startswith("5 parts") and len(shown[-1]) == 7
    assert patcher.model.diffusion_model.run_device is None
    assert torch.equal(comfyui.decode(patcher, latent), before)


def test_the_node_stops_between_two_parts(comfyui, node, monkeypatch):
    patcher, _ = comfyui.load("flux", "v1", changes={"window_min": 64, "window_max": 512})
    comfyui.management.interrupt_current_processing()
    with pytest.raises(comfyui.management.InterruptProcessingException):
        node(model=patcher, size="512")
    assert patcher.model.diffusion_model.run_device is None


def test_a_model_of_another_kind_is_one_line(comfyui, core_pid, node):
    with pytest.raises(ValueError, match="connect PiD Loader") as refused:
        node(model=core_pid())
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="PixelDiT"):
        node(model=comfyui.load("pixeldit")[0])


def test_the_node_runs_alone_in_the_server(comfy):
    texts = []
    graph = {"bench": {"class_type": "PiDKitBench", "inputs": {"size": "512"}}}
    comfy.queue(graph, on_event=lambda kind, data: texts.append(data["text"]) if kind == "text" else None)
    assert "seams: " in texts[-1] and "worst window border" in texts[-1] and "NaN: none in" in texts[-1]
