"""What is seen while PiD runs: the bar moves within a step, the time left is told, Cancel acts within a step."""

import importlib
import itertools
import re
from types import SimpleNamespace

import pytest
import torch

from pid_core.latents.rgb import to_rgb_latent

LATENT = torch.randn(1, 16, 2, 3, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def seen(comfyui, monkeypatch):
    """What reaches the browser, with a clock of our own: every part of the work takes a second.

    bar: fractions. texts: (node id, first line, all). parts: how many parts there were.
    """
    progress = comfyui.module("nodes.comfy.progress")
    record = SimpleNamespace(bar=[], texts=[], parts=0, now=0.0, progress=progress)
    utils = importlib.import_module("comfy.utils")
    monkeypatch.setattr(
        utils.ProgressBar,
        "update_absolute",
        lambda self, value, total=None, *preview: record.bar.append(value / (total or self.total)),
    )

    def say(node, *lines):
        if node is not None:
            record.texts.append((node, lines[0], ";\n".join(lines)))

    for name in ("node_text", "progress", "window_handler"):
        monkeypatch.setattr(comfyui.module(f"nodes.comfy.{name}"), "send_text", say)
    monkeypatch.setattr(progress, "clock", lambda: record.now)
    monkeypatch.setattr(progress, "_rates", {})
    record.on_part = lambda: None

    def counted(on_part, device):
        def told(fraction):
            record.now += 1
            record.parts += 1
            record.on_part()
            on_part(fraction)

        return told

    monkeypatch.setattr(progress, "when_done", counted)
    return record


def pid_decode(comfyui, patcher, latent, node_id="5", **inputs):
    return comfyui.decode(patcher, latent, node_id=node_id, **{"steps": 1} | inputs)


@pytest.mark.parametrize("mode", ["off", "auto", "manual"])
def test_pid_decode_moves_within_its_only_step(comfyui, seen, mode):
    patcher, _ = comfyui.load("rgb", changes={"window_min": 32, "window_max": 64})
    latent = {"samples": to_rgb_latent(torch.rand(1, 24, 24, 3))}
    pid_decode(comfyui, patcher, latent, window_mode=mode, window_size=64, window_overlap=16)
    assert seen.bar == sorted(seen.bar) and seen.bar[-1] == 1
    inside = [value for value in seen.bar if 0 < value < 1]
    assert len(inside) >= 5 and inside[0] < 0.3
    left = [line for node, line, _ in seen.texts if "left" in line]
    assert left and all(node == "5" for node, *_ in seen.texts)
    assert left[0].startswith("about ") and left[0].endswith(" left")
    assert "left" not in seen.texts[-1][2]


def test_several_images_are_one_bar(comfyui, seen):
    patcher, _ = comfyui.load("rgb")
    latent = {"samples": to_rgb_latent(torch.rand(3, 16, 16, 3))}
    pid_decode(comfyui, patcher, latent, sigma_list=[0.0, 0.2, 0.4], steps=2, node_id="6")
    assert seen.bar == sorted(seen.bar) and seen.bar[-1] == 1
    assert len([value for value in seen.bar if value < 1 / 6]) >= 2


def test_the_time_left_is_right_where_work_is_even(comfyui, seen):
    """The clock goes by parts, the estimate by the cost model: halfway through it is right to a fifth."""
    patcher, _ = comfyui.load("flux")
    left = []
    say = seen.progress.send_text
    seen.progress.send_text = lambda node, *lines: left.append((seen.parts, lines[0]))
    try:
        pid_decode(comfyui, patcher, {"samples": LATENT.repeat(1, 1, 4, 4)}, steps=4, latent_format="flux")
    finally:
        seen.progress.send_text = say
    parts, line = min(left, key=lambda entry: abs(entry[0] - seen.parts / 2))
    (told,) = re.findall(r"about (\d+) s left", line)
    assert abs(int(told) - (seen.parts - parts)) <= seen.parts / 5


def test_seconds_are_said_only_once_they_were_measured(comfyui, seen):
    patcher, _ = comfyui.load("rgb")
    latent = {"samples": to_rgb_latent(torch.rand(1, 16, 16, 3))}
    pid_decode(comfyui, patcher, latent)
    plan = [line for _, line, _ in seen.texts if "in one frame" in line]
    assert plan[0] == "64 x 64 in one frame, less than 0.1 GB"
    assert plan[-1].startswith("64 x 64 in one frame, less than 0.1 GB, ") and plan[-1].endswith(" s")
    before = len(seen.texts)
    pid_decode(comfyui, patcher, latent, seed=1)
    assert next(line for _, line, _ in seen.texts[before:] if "in one frame" in line) == plan[-1]


def test_a_ksampler_graph_has_the_bar(comfyui, seen):
    patcher, _ = comfyui.load()
    comfyui.sample(patcher, *comfyui.conditioning(patcher, LATENT), steps=2)
    assert len([value for value in seen.bar if 0 < value < 0.5]) > 3
    assert seen.bar == sorted(seen.bar) and seen.bar[-1] == 1
    assert not seen.texts  # no node of ours to write on


def test_context_window_tells_the_time_on_its_own_node(comfyui, seen):
    patcher, _ = comfyui.load()
    handlers = comfyui.module("nodes.comfy.window_handler")
    settings = handlers.WindowSettings(64, 32, auto=False)
    model, _ = handlers.add_windows(patcher, settings, (), "17")
    comfyui.sample(model, *comfyui.conditioning(patcher, LATENT.repeat(1, 1, 2, 2)), steps=2, cfg=2.0)
    assert {node for node, *_ in seen.texts} == {"17"}
    assert any("left" in line for _, line, _ in seen.texts)
    assert "windows of 64 x 64" in seen.texts[-1][1] and seen.texts[-1][1].endswith(" s")
    assert seen.bar == sorted(seen.bar) and seen.bar[-1] == 1


def test_cores_own_model_moves_by_windows(comfyui, core_pid, seen, monkeypatch):
    patcher = core_pid("flux", "v1")
    text = [[torch.randn(1, 12, 24), {}]]
    made = comfyui.nodes.PiDKitConditioning.execute(
        {"samples": LATENT.repeat(1, 1, 2, 2)}, "flux", 0.0, "keep", 0, positive=text, model=patcher
    ).args
    handlers = comfyui.module("nodes.comfy.window_handler")
    model, _ = handlers.add_windows(patcher, handlers.WindowSettings(64, 32, auto=False), (), "17")
    monkeypatch.setattr(seen.progress, "clock", itertools.count().__next__)
    comfyui.sample(model, *made, steps=2)
    assert seen.bar == sorted(seen.bar) and seen.bar[-1] == 1


def test_cancel_acts_within_a_step(comfyui, seen):
    """A step of one window: nothing but the blocks can notice. The node no longer says how long it takes."""
    patcher, _ = comfyui.load("rgb")
    latent = {"samples": to_rgb_latent(torch.rand(1, 16, 16, 3))}

    def stop_at_the_fifth():
        if seen.parts == 5:
            comfyui.management.interrupt_current_processing()

    seen.on_part = stop_at_the_fifth
    with pytest.raises(comfyui.management.InterruptProcessingException):
        pid_decode(comfyui, patcher, latent)
    assert seen.parts == 5
    assert "left" not in seen.texts[-1][2]
    comfyui.management.interrupt_current_processing(False)
    assert seen.progress.current_run() is None


def test_messages_are_few(comfyui, seen, monkeypatch):
    """Parts of a hundredth of a second: the browser is told a few times a second."""
    patcher, _ = comfyui.load()
    monkeypatch.setattr(seen.progress, "clock", lambda: seen.now / 100)
    pid_decode(comfyui, patcher, {"samples": LATENT.repeat(1, 1, 4, 4)}, steps=4, latent_format="flux")
    seconds = seen.parts / 100
    assert len(seen.bar) <= 4 * seconds + 4 + 3 and len(seen.texts) <= seconds + 4
