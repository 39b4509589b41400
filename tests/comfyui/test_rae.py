"""PiD RAE Encode in the real ComfyUI: a picture through DINOv2 or SigLIP 2 to pixels, by nodes, workflow, command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import comfy_env
from pid_core.images.framing import plan_framing, prepare_image
from pid_core.rae.facts import RAE
from support.failures import fails, refused
from support.graphs import link
from support.tiny import save_tiny, tiny_state_dict
from support.tiny_gemma import save_encoder as save_gemma
from support.tiny_rae import reference, save_encoder, tiny_statistics

FAMILIES = tuple(RAE)
SEED = 5


def photo() -> np.ndarray:
    """Wider than high, and smooth."""
    rows, cols = np.mgrid[0:48, 0:72] / 72
    return (255 * np.stack([rows, cols, 1 - cols * rows], -1)).astype(np.uint8)


def put(comfy, family: str) -> tuple[str, str]:
    """Names of a small checkpoint and its encoder in the server's folders."""
    model = comfy.models / "diffusion_models" / f"rae_{family}.safetensors"
    encoder = comfy.models / "clip_vision" / f"tiny_{family}" / "model.safetensors"
    if not encoder.exists():
        save_tiny(model, family, caption=3, patch_depth=2, pixel_depth=1)
        save_encoder(encoder, family)
    return model.name, encoder.relative_to(comfy.models / "clip_vision").as_posix()


def graph_for(comfy, family: str, **encode) -> dict:
    model, encoder = put(comfy, family)
    decode = {"model": link("model"), "latent": link("encode"), "framing": link("prepare", 1)}
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": comfy.upload(photo())}},
        "prepare": {
            "class_type": "PiDKitPrepareImage",
            "inputs": {"image": link("load"), "target": "2K", "family": family, "fit": "pad"},
        },
        "encode": {
            "class_type": "PiDKitRAEEncode",
            "inputs": {"image": link("prepare"), "encoder": encoder, "dtype": "float32"} | encode,
        },
        "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": model, "dtype": "float32"}},
        "decode": {
            "class_type": "PiDKitDecode",
            "inputs": decode | {"degrade_sigma": 0.0, "steps": 1, "seed": SEED},
        },
        "png": {"class_type": "SaveImage", "inputs": {"images": link("decode"), "filename_prefix": "rae"}},
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_from_picture_to_pixels_as_the_command_line_does(comfy, family, tmp_path):
    shown = []
    graph = graph_for(comfy, family)
    done = comfy.queue(graph, on_event=lambda kind, data: shown.append(str(data)) if kind == "text" else None)
    (image,) = comfy.images(done, "png")
    assert image.shape == (1365, 2048, 3) and image.std() > 5
    assert any("72 x 48 picture (1.5 : 1)" in line and "to a square of" in line for line in shown)
    assert any(RAE[family].shown in line and "float32" in line and "squeezed" not in line for line in shown)

    Image.fromarray(photo()).save(tmp_path / "photo.png")
    model, encoder = put(comfy, family)
    command = [
        sys.executable,
        "-m",
        "pid_core",
        "upscale",
        str(tmp_path / "photo.png"),
        "-o",
        str(tmp_path / "out.png"),
    ]
    command += ["--model", str(comfy.models / "diffusion_models" / model), "--device", "cpu"]
    command += ["--vae", str((comfy.models / "clip_vision" / encoder).parent)]
    command += ["--steps", "1", "--seed", str(SEED)]
    run = subprocess.run(command, cwd=comfy_env.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert np.abs(found - image).max() <= 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {family: save_encoder(folder / f"{family}.safetensors", family) for family in FAMILIES}


@pytest.fixture
def encoded(comfyui, files, monkeypatch):
    """encoded(family, image, **inputs): the node's LATENT and its lines, its files in one of ComfyUI's folders."""
    import folder_paths

    folder = str(next(iter(files.values())).parent)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", ([folder], {".safetensors", ".pt"}))
    lines = []
    module = sys.modules[comfyui.nodes.PiDKitRAEEncode.__module__]
    monkeypatch.setattr(module, "show_on_node", lambda node, *texts: lines.extend(texts))

    def run(family, image, **inputs):
        lines.clear()
        values = {"encoder": f"{family}.safetensors", "dtype": "float32"} | inputs
        with torch.inference_mode():
            return comfyui.nodes.PiDKitRAEEncode.execute(image, **values).args[0], list(lines)

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_the_latent_is_the_references_and_says_its_family(comfyui, encoded, family):
    tags = comfyui.module("nodes.comfy.latent_tags")
    image = torch.rand(2, 60, 90, 3, generator=torch.Generator().manual_seed(2))
    framing = plan_framing(60, 90, family)
    prepared = prepare_image(image, framing)
    latent, lines = encoded(family, prepared)
    assert (latent["samples"] - reference(family, prepared)).abs().max() < 1e-5
    assert tags.read_tag(latent, tags.FAMILY) == family
    assert lines == [f"{RAE[family].shown}, float32"]
    half, lines = encoded(family, prepared, dtype="bfloat16")
    assert 0 < (half["samples"] - latent["samples"]).abs().mean() < 0.05 and "bfloat16" in lines[0]


def test_another_shape_is_squeezed_and_said(encoded):
    image = torch.rand(1, 60, 90, 3, generator=torch.Generator().manual_seed(2))
    latent, lines = encoded("siglip", image)
    assert (latent["samples"] - reference("siglip", image)).abs().max() < 1e-5
    assert lines[1:] == ["90 x 60 is squeezed to a square, its aspect lost: put PiD Prepare Image before this"]
    _, lines = encoded("siglip", image[:, :, :60])
    assert lines[1:] == ["60 x 60, not the 256 x 256 of siglip: put PiD Prepare Image before this"]


def test_the_encoder_is_comfyuis_to_move_and_to_free(comfyui, encoded, monkeypatch):
    loaded = []
    load = comfyui.management.load_model_gpu
    monkeypatch.setattr(comfyui.management, "load_model_gpu", lambda model: loaded.append(model) or load(model))
    encoded("siglip", torch.rand(1, 8, 8, 3))
    (patcher,) = loaded
    assert patcher.model.facts.family == "siglip" and patcher.model_size() > 4 * 1152**2


def test_statistics_of_another_place(encoded, files, tmp_path):
    image = torch.rand(1, 16, 16, 3)
    other = {key: 2 * value for key, value in tiny_statistics().items()}
    torch.save(other, files["dinov2"].with_name("other.pt"))
    usual, _ = encoded("dinov2", image)
    chosen, _ = encoded("dinov2", image, statistics="other.pt")
    assert (usual["samples"] - chosen["samples"]).abs().mean() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_prepare_image_says_who_encodes(comfyui, family):
    node = comfyui.nodes.PiDKitPrepareImage
    prepared, _, latent = node.execute(torch.rand(1, 8, 9, 3), "2K", family, "pad").args
    assert prepared.shape == (1, RAE[family].row.square, RAE[family].row.square, 3)
    assert latent.message == f"{family} pictures are encoded by PiD RAE Encode: connect image there"


def test_what_is_not_there_is_refused_before_the_run(comfy):
    assert refused(comfy, graph_for(comfy, "siglip", encoder="gone.safetensors"), "encode") == {
        "encoder": "no such file: gone.safetensors; put it into models/clip_vision and press R, or choose another "
        "encoder"
    }


def test_the_statistics_licence_is_asked_for_before_the_run(comfyui, monkeypatch, tmp_path):
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", ([str(tmp_path)], {".safetensors", ".pt"}))
    check = comfyui.nodes.PiDKitRAEEncode.validate_inputs
    line = check(encoder="fetch: dinov2_with_registers_base.safetensors", accept_licence=False)
    assert "rae_dinov2_stat.pt" in line and "switch accept_licence on in this node" in line
    assert check(encoder="fetch: dinov2_with_registers_base.safetensors", accept_licence=True) is True
    assert check(encoder="fetch: siglip2_so400m_patch14_224.safetensors", accept_licence=False) is True


def test_another_familys_encoder_or_checkpoint_is_one_line(comfy):
    graph = graph_for(comfy, "dinov2")
    graph["encode"]["inputs"]["encoder"] = put(comfy, "siglip")[1]
    fails(comfy, graph, "siglip", "dinov2", node="decode")
    graph = graph_for(comfy, "siglip")
    wrong = comfy.models / "clip_vision" / "wrong.safetensors"
    save_tiny(wrong, "rgb")
    graph["encode"]["inputs"]["encoder"] = wrong.name
    fails(comfy, graph, "wrong.safetensors: it is no encoder that PiD has latents of", node="encode")


@pytest.fixture
def models(comfy):
    """Small files of the real names, in ComfyUI's folders; they are gone afterwards."""
    paths = []

    def put_all(graph: dict) -> None:
        names = [str(value).removeprefix("fetch: ") for node in graph.values() for value in node["inputs"].values()]
        for name in names:
            if name.endswith(".pth"):
                family = "dinov2" if "dinov2" in name else "siglip"
                path = comfy.models / "diffusion_models" / name
                torch.save(tiny_state_dict(family, patch_depth=2, pixel_depth=1), path)
            elif name.startswith("gemma"):
                path = save_gemma(comfy.models / "text_encoders" / name)
            elif name.endswith(".pt"):
                path = comfy.models / "clip_vision" / name
                torch.save(tiny_statistics(), path)
            elif name.endswith(".safetensors"):
                family = "dinov2" if "dinov2" in name else "siglip"
                path = save_encoder(comfy.models / "clip_vision" / name, family)
            else:
                continue
            paths.append(path)

    yield put_all
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_workflow_runs_on_small_stand_ins(comfy, models, family):
    path = comfy_env.ROOT / "example_workflows" / "api" / f"pid_with_{family}_to_2k.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    models(graph)
    for node in graph.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = comfy.upload(photo())
        elif "steps" in node["inputs"]:
            node["inputs"]["steps"] = 1
    (image,) = comfy.images(comfy.queue(graph))
    assert image.shape == (1365, 2048, 3) and image.std() > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_list_of_strengths_and_windows_as_for_other_families(comfyui, family):
    patcher, _ = comfyui.load(family, changes={"patch_depth": 2, "pixel_depth": 1})
    cells = 1024 // (16 * RAE[family].row.sr_scale)
    generator = torch.Generator().manual_seed(4)
    latent = torch.randn(2, RAE[family].row.channels, cells, cells, generator=generator)
    windows = {"window_mode": "manual", "window_size": 768, "window_overlap": 128}
    listed = comfyui.decode(patcher, latent, sigma_list=[0.0, 0.4], steps=1, **windows)
    plain = comfyui.decode(patcher, latent, steps=1, **windows)
    whole = comfyui.decode(patcher, latent, steps=1, window_mode="off")
    assert listed.shape == (2, 1024, 1024, 3)
    assert torch.equal(listed[0], plain[0]) and not torch.equal(listed[1], plain[1])
    other = (plain - whole.flip(0)).abs().mean()
    assert 0 < (plain - whole).abs().mean() < other / 1.5


@pytest.mark.parametrize("family", FAMILIES)
def test_tuner_and_sweep_as_for_other_families(comfy, family):
    """A strength that the tuner hands on draws what the sweep shows for it."""
    graph = graph_for(comfy, family)
    tuner = {"image": link("load"), "default_sigma": 0.0, "sigmas": {"__value__": [0.4]}, "pictures": ""}
    graph["tuner"] = {"class_type": "PiDKitSigmaTuner", "inputs": tuner | {"latent": link("encode")}}
    graph["decode"]["inputs"] |= {"sigma_list": link("tuner")}
    del graph["decode"]["inputs"]["framing"]
    sweep = {"model": link("model"), "latent": link("encode"), "picture": 1, "sigmas": "0.4", "seeds": str(SEED)}
    graph["sweep"] = {"class_type": "PiDKitSigmaSweep", "inputs": sweep | {"steps": 1}}
    graph["swept"] = {"class_type": "SaveImage", "inputs": {"images": link("sweep"), "filename_prefix": "rae"}}
    done = comfy.queue(graph)
    (tuned,), (swept,) = comfy.images(done, "png"), comfy.images(done, "swept")
    assert tuned.shape == (2048, 2048, 3) and np.array_equal(tuned, swept)
    (tile,) = done.outputs["sweep"]["pidkit_tiles"]
    assert tile["sigma"] == 0.4
