"""PiD Check in the real ComfyUI: what it takes for the source, what it says, what it gives on."""

import io
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pid_core.images.framing import finish_image
from pid_core.latents.rgb import to_rgb_latent


def picture(height=48, width=64, images=1):
    """Blobs of some cells, smooth: [B, H, W, 3]."""
    noise = torch.rand(images, 3, 6, 8, generator=torch.Generator().manual_seed(4))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0.05, 0.75).movedim(1, -1)


def enlarged(image):
    return F.interpolate(image.movedim(-1, 1), scale_factor=4, mode="bicubic").clamp(0, 1).movedim(1, -1)


@pytest.fixture
def check(comfyui, monkeypatch):
    """check(**inputs) -> image, heat, figures of each image, report, lines on the node."""

    def run(**inputs):
        shown = []
        module = sys.modules[comfyui.nodes.PiDKitCheck.__module__]
        monkeypatch.setattr(module, "show_on_node", lambda node, *lines: shown.extend(lines))
        with torch.inference_mode():
            image, heat, figures, report = comfyui.nodes.PiDKitCheck.execute(**inputs).args
        assert report == "\n".join(shown)
        return image, heat, figures["images"], report

    return run


def test_each_way_to_give_the_source_says_the_same(comfyui, check):
    source = picture(45, 63)
    framed = {"target": "factor", "family": "rgb", "fit": "pad", "factor": 4.0}
    with torch.inference_mode():
        prepared, framing, _ = comfyui.nodes.PiDKitPrepareImage.execute(image=source, **framed).args
        latent = comfyui.nodes.PiDKitRGBLatent.execute(source, "pad").args[0]
    result = finish_image(enlarged(prepared), framing.framing, source)

    class Vae:
        encode = None

        def decode(self, samples):
            return source

    others = {"latent": {"samples": torch.zeros(1, 16, 6, 8)}, "vae": Vae()}
    found = [
        check(image=result, **way)[2] for way in ({"source": source}, {"framing": framing}, {"latent": latent}, others)
    ]
    for figures in found[1:]:
        assert figures[0]["agreement"] == pytest.approx(found[0][0]["agreement"], abs=0.5)
    assert found[0][0]["agreement"] > 40 and found[0][0]["changed"] == 0


def test_each_image_of_a_batch_is_told_by_its_own_source(check):
    source = picture(images=2)
    source[1] = source[1].flip(0)
    result = enlarged(source)
    _, heat, figures, report = check(image=result, source=source)
    assert len(figures) == 2 and all(one["agreement"] > 40 for one in figures)
    assert [line[:8] for line in report.splitlines()] == ["image 1:", "image 2:"] and heat.shape == result.shape
    _, _, figures, _ = check(image=result, source=source[:1])
    assert figures[0]["agreement"] > 40 > figures[1]["agreement"] and figures[1]["changed"] > 0


def test_speckles_are_taken_out_on_request_only(check):
    source = picture()
    result = enlarged(source)
    worn = torch.cat([result, torch.full_like(result[..., :1], 0.5)], -1)
    worn[0, [40, 90], [50, 120], :3] = 1.0
    before = worn.clone()
    same, _, figures, _ = check(image=worn, source=source)
    assert torch.equal(same, before) and figures[0]["speckles_removed"] == 0
    assert figures[0]["speckles_per_megapixel"] == pytest.approx(2e6 / worn[0, ..., 0].numel())
    clean, _, figures, report = check(image=worn, source=source, remove_speckles=True)
    assert figures[0]["speckles_removed"] == 2 and "2 speckles removed" in report
    assert torch.equal(worn, before) and (clean - before).abs().amax(-1).count_nonzero() == 2
    assert (clean[..., :3] - result).abs().max() < 0.05


def test_borders_are_those_of_the_models_windows(comfyui, check):
    patcher, _ = comfyui.load("rgb")
    source = picture()
    result = enlarged(source)
    with torch.inference_mode():
        windowed = comfyui.nodes.PiDKitContextWindow.execute(patcher, "manual", 128, 32, "pyramid").args[0]
    figures, report = check(image=result, source=source, model=windowed)[2:]
    assert "windows of" in report and figures[0]["seam_step"] < 1
    torn = result.clone()
    torn[:, :, 112:] += 6 / 255  # where the first column of windows ends
    assert check(image=torn, source=source, model=windowed)[2][0]["seam_step"] > 3
    assert check(image=torn, source=source)[2][0]["seam_step"] is None


def test_figures_go_beside_the_workflow(comfyui):
    shared = {"workflow": {"nodes": []}}
    source = picture()
    node = comfyui.nodes.PiDKitCheck.PREPARE_CLASS_CLONE(None)
    node.hidden = type("Hidden", (), {"unique_id": None, "extra_pnginfo": shared})
    node.execute(image=enlarged(source), source=source)
    assert shared["workflow"] == {"nodes": []} and shared["pid_check"]["None"][0]["agreement"] > 40


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "there is nothing to compare with: connect the picture"),
        ({"latent": {"samples": torch.zeros(1, 16, 6, 8)}}, "latent has 16 channels and needs its VAE"),
        ({"source": torch.rand(1, 64, 48, 3)}, "the source is 48 x 64, the image 256 x 192: their shapes differ"),
        ({"source": torch.rand(3, 48, 64, 3)}, "the source holds 3 images, there are 1"),
        ({"source": torch.full((1, 48, 64, 3), float("nan"))}, "source holds NaN or infinite values"),
        ({"latent": {"samples": torch.full((1, 12, 24, 32), float("nan"))}}, "NaN"),
    ],
)
def test_what_cannot_be_compared_is_one_line(check, inputs, line):
    with pytest.raises(ValueError, match=line) as refused:
        check(image=enlarged(picture()), **inputs)
    assert "\n" not in str(refused.value)


def test_a_vae_of_another_family_is_one_line(check):
    class Vae:
        encode = None

        def decode(self, samples):
            return F.conv2d(samples, torch.zeros(8, 4, 3, 3))

    with pytest.raises(ValueError, match="vae cannot decode latent, of 16 channels: connect the VAE") as refused:
        check(image=enlarged(picture()), latent={"samples": torch.zeros(1, 16, 6, 8)}, vae=Vae())
    assert "\n" not in str(refused.value)


def test_a_latent_of_the_rgb_family_needs_no_vae(check):
    source = picture()
    assert check(image=enlarged(source), latent={"samples": to_rgb_latent(source)})[2][0]["agreement"] > 40


def test_the_workflow_shows_figures_and_saves_them_in_the_picture(comfy, root):
    graph = json.loads((root / "example_workflows/api/pid_upscale_and_check.json").read_text(encoding="utf-8"))
    keys = {node["class_type"]: key for key, node in graph.items()}
    check, texts = keys["PiDKitCheck"], []
    done = comfy.queue(
        graph,
        extra={"extra_pnginfo": {"workflow": {"version": 1}}},
        on_event=lambda kind, data: texts.append(data) if kind == "text" else None,
    )
    lines = next(entry["text"] for entry in texts if entry["node"] == check).splitlines()
    assert lines[0].startswith("after 4x reduction ") and "structure changed nowhere" in lines[-2]
    (heat,) = done.outputs[check]["images"]
    assert Image.open(io.BytesIO(comfy.view(heat))).size == (768, 576)
    saved = Image.open(io.BytesIO(comfy.image_files(done, keys["SaveImage"])[0]))
    (figures,) = json.loads(saved.info["pid_check"])[check]
    assert f"{figures['agreement']:.1f} dB" in lines[0] and figures["agreement"] > 40
    assert json.loads(saved.info["workflow"]) == {"version": 1}
