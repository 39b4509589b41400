"""The example workflows: both formats from one description, no node missing, and every one runs on small stand-ins."""

from __future__ import annotations

import importlib
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import make_workflows
from comfy_server import PromptError
from make_workflows import FOLDER
from pid_core import NANO_PATH
from pid_core.checkpoints.reading import read_checkpoint
from pid_core.hub.catalogue import get_file
from support.inside import load
from support.tiny import save_tiny, tiny_state_dict
from support.tiny_gemma import save_encoder
from workflow_graphs import GEMMA
from workflow_models import GENERATORS, model_entry

ALL = sorted(path.stem for path in FOLDER.glob("*.json") if not path.name.endswith(".app.json"))
APPS = sorted(path.stem for path in FOLDER.glob("*.app.json"))
# What stands in: the generator's kind, the width of its text, and of its pooled text.
STAND_INS = {
    "pid_with_flux_to_4k": ("flux", 16, 8),
    "pid_with_flux_early_stop": ("flux", 16, 8),
    "pid_with_flux2_klein_to_4k": ("flux2", 16, 8),
    "pid_with_z_image_turbo_to_4k": ("zimage", 16, 8),
    "pid_with_sd3_to_4k": ("sd3", 16, 8),
    "pid_with_sdxl_to_4k": ("sdxl", 16, 1280),
    "pid_with_qwen_image_to_4k": ("qwenimage", 16, 8),
    "pid_with_cfg_undistilled_flux": (None, 0, 0),
    "pid_with_pixeldit_text_to_image": (None, 0, 0),
}
STRENGTHS = {
    "pid_folder_auto_strength": ["strength 0 (auto)", "strength 0.1 (auto)"],
    "pid_folder_to_4k": ["strength 0 (faithful)"],
}
FETCH = ("PiDKitLoader", "PiDKitDownload", "PiDKitRAEEncode")
SMALL = {"width": 64, "height": 64}  # a generator's picture; PiD's is 256 x 256


def api(name: str) -> dict:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def ui(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


OF_A_FOLDER = [name for name in ALL if "PiDKitNextPicture" in json.dumps(api(name))]
NEEDS_MODELS = [name for name in ALL if "fetch: " in json.dumps(api(name))]


def test_files_are_what_the_descriptions_make(comfy):
    for path, text in make_workflows.files(comfy.object_info()).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make workflows`"


@pytest.mark.parametrize("name", ALL)
def test_both_formats_have_a_note_and_a_picture(comfy, name):
    known = comfy.object_info()
    graph, drawn = api(name), ui(name)
    assert {node["class_type"] for node in graph.values()} <= known.keys()
    notes = [n for n in drawn["nodes"] if n["type"] in ("Note", "MarkdownNote")]
    assert notes and notes[0]["widgets_values"][0]
    nodes = {str(n["id"]): n for n in drawn["nodes"] if n not in notes}
    assert {key: n["type"] for key, n in nodes.items()} == {key: node["class_type"] for key, node in graph.items()}
    wires = {
        (str(target), nodes[str(target)]["inputs"][slot]["name"], str(source), out)
        for _, source, out, target, slot, _ in drawn["links"]
    }
    assert wires == {
        (key, name, *value)
        for key, node in graph.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }
    with Image.open(FOLDER / f"{name}.jpg") as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 256


def test_template_browser_shows_every_workflow_once(comfy):
    (names,) = comfy.get("/workflow_templates").values()  # of our pack, the only one
    assert sorted(names) == sorted(ALL + APPS)


@pytest.mark.parametrize("name", APPS)
def test_an_app_is_its_workflow_opened_in_app_mode(name):
    app, plain = ui(name), ui(name.removesuffix(".app"))
    assert app["extra"].pop("linearMode") is True
    assert app == plain
    nodes = {node["id"]: node for node in plain["nodes"]}
    assert all(number in nodes for number, *_ in plain["extra"]["linearData"]["inputs"])
    assert all(len(more["description"]) <= 30 for *_, more in plain["extra"]["linearData"]["inputs"])  # longer are cut
    assert all(nodes[number]["type"] == "SaveImage" for number in plain["extra"]["linearData"]["outputs"])
    assert (FOLDER / f"{name}.jpg").read_bytes() == (FOLDER / f"{name.removesuffix('.app')}.jpg").read_bytes()


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_the_note_names_every_file_and_nvidias_licence(name):
    (note,) = (n["widgets_values"][0] for n in ui(name)["nodes"] if n["type"] == "MarkdownNote")
    files = {v.removeprefix("fetch: ") for node in api(name).values() for v in node["inputs"].values() if is_model(v)}
    assert files
    for file in files:
        assert file in note, file
    assert "NSCLv1" in note and "non-commercial" in note


def is_model(value) -> bool:
    return isinstance(value, str) and value.endswith((".safetensors", ".pth", ".pt"))


@pytest.mark.parametrize("name", sorted({*ALL} - {*NEEDS_MODELS}))
def test_the_bundled_model_runs_as_many_steps_as_it_is_best_at(name):
    best = read_checkpoint(NANO_PATH).config.steps
    inputs = [(node["class_type"], node["inputs"]["steps"]) for node in api(name).values() if "steps" in node["inputs"]]
    for class_type, steps in inputs:
        assert steps == (best if class_type == "KSampler" else 0), class_type  # 0: the node asks the checkpoint


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_all_it_lacks_on_a_new_machine_is_model_files(comfy, empty_input, name):
    graph = api(name)
    with pytest.raises(PromptError) as caught:
        comfy.queue(graph)
    report = caught.value.details.get("node_errors")
    if report is None:  # nothing that ComfyUI looks for beforehand; it stops at the first file that PiD fetches
        assert caught.value.node_type in FETCH, caught.value
        return
    by_hand = {path.rpartition("/")[2] for _, _, path in GENERATORS}
    for node_id, entry in report.items():
        for error in entry["errors"]:
            name = graph[node_id]["inputs"][error["extra_info"]["input_name"]]
            if error["type"] == "custom_validation_failed":  # ours: what PiD fetches, after a licence
                assert entry["class_type"] in FETCH, error
                assert "if you accept it, switch accept_licence on in this node" in error["details"], error
            else:
                assert error["type"] == "value_not_in_list" and name in by_hand, error


@pytest.mark.parametrize("name", ALL)
def test_loaders_tell_managers_where_their_files_lie(comfy, name):
    """As ComfyUI's own front end reads it, and the managers: per file and per node."""
    known = comfy.object_info()
    for node in ui(name)["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        ours = node["type"].startswith("PiDKit")
        assert node["properties"]["cnr_id"] == ("pidkit" if ours else "comfy-core")
        assert ours == known[node["type"]]["python_module"].startswith("custom_nodes.")
        named = [str(v).removeprefix("fetch: ") for v in node["widgets_values"] if is_model(v)]
        models = node["properties"].get("models", [])
        assert [model["name"] for model in models] == named
        for model in models:
            assert model == model_entry(model["name"])
            assert model["directory"] in ("checkpoints", "clip_vision", "diffusion_models", "text_encoders", "vae")
            assert model["url"].startswith("https://huggingface.co/") and "/resolve/main/" in model["url"]


@pytest.fixture
def models(comfy, tmp_path):
    """Puts small files of the real names into ComfyUI's folders; they are gone afterwards."""
    put = []

    def folder(name, file):
        put.append(comfy.models / name / file)
        return put[-1]

    def add(graph: dict) -> None:
        for node in graph.values():
            inputs = node["inputs"]
            if node["class_type"] == "PiDKitLoader":
                save_pid(folder("diffusion_models", inputs["model_name"].removeprefix("fetch: ")))
            elif node["class_type"] == "PiDKitDownload":
                save_encoder(folder("text_encoders", inputs["file"]))
            elif node["class_type"] == "UNETLoader":
                save_flux(folder("diffusion_models", inputs["unet_name"]))

    yield add
    for path in put:
        path.unlink(missing_ok=True)


def save_pid(path) -> None:
    file = get_file(path.name)
    version = file.version or "v1"
    if path.suffix == ".pth":
        torch.save(tiny_state_dict(file.family, version), path)
    else:
        prefix = "core." if file.family == "pixeldit" else "net."
        save_tiny(path, file.family, version, prefix=prefix, metadata=False)


def save_flux(path) -> None:
    """A FLUX.1 of two blocks, which ComfyUI's own loader takes for what it is."""
    load()
    module = importlib.import_module("comfy.ldm.flux.model")
    sizes = {
        "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 16, "hidden_size": 128,
        "mlp_ratio": 4.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 1, "axes_dim": [16, 56, 56],
        "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
    }  # fmt: skip
    sizes = {k: v for k, v in sizes.items() if k in module.FluxParams.__dataclass_fields__}  # v0.25.0 has fewer
    flux = module.Flux(**sizes, operations=importlib.import_module("comfy.ops").manual_cast, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.randn(v.shape, generator=generator) for k, v in flux.state_dict().items()}
    save_file({k: v / v[0].numel() ** 0.5 if v.ndim > 1 else 0.1 * v for k, v in state.items()}, path)


def with_stand_ins(graph: dict, name: str, comfy) -> dict:
    kind, width, pooled = STAND_INS[name]
    graph = dict(graph)
    for key, node in list(graph.items()):
        inputs, class_type = node["inputs"], node["class_type"]
        if class_type in ("UNETLoader", "CheckpointLoaderSimple") and kind != "flux":
            graph[key] = {"class_type": "TestGenerator", "inputs": {"kind": kind}}
        elif class_type == "CLIPTextEncode":
            graph[key] = {"class_type": "TestText", "inputs": {"width": width, "pooled": pooled, "seed": int(key)}}
        elif class_type == "VAEEncode":
            graph[key] = {"class_type": "TestEncode", "inputs": {"pixels": inputs["pixels"]}}
        elif (
            class_type in ("DualCLIPLoader", "VAELoader")
            or (class_type == "CLIPLoader" and inputs["type"] != "pixeldit")
            or (class_type == "PiDKitDownload" and inputs["file"] != GEMMA)
        ):
            del graph[key]
        elif class_type == "LoadImage":
            inputs["image"] = comfy.upload(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
        elif "steps" in inputs and inputs["steps"] > 20 and name != "pid_with_flux_early_stop":
            inputs["steps"] = 4
        if "width" in inputs and "height" in inputs:
            inputs |= SMALL
    return graph


@pytest.mark.parametrize("name", sorted({*ALL} - {*NEEDS_MODELS} - {*OF_A_FOLDER}))
def test_runs_with_what_comes_with_the_pack(comfy, empty_input, name):
    graph = api(name)
    pictures = [node for node in graph.values() if node["class_type"] == "LoadImage"]
    assert pictures
    for node in graph.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 1  # test_demo.py runs all four
    done = comfy.queue(graph)
    (result,) = (key for key, node in graph.items() if node["inputs"].get("filename_prefix") == f"PiDKit/{name}")
    images = comfy.images(done, result)
    assert len(images) == len(pictures)
    for image in images:
        assert image.shape == (576, 768, 3) and image.std() > 1


@pytest.mark.parametrize("name", OF_A_FOLDER)
def test_runs_over_the_example_folder(comfy, empty_input, name):
    """A run for each of its pictures, which come with the workflow, and one that says there are no more."""
    graph, texts, saved = api(name), [], []
    keys = {node["class_type"]: key for key, node in graph.items()}
    graph[keys["PiDKitUpscale"]]["inputs"] |= {"target": "factor", "factor": 1.0}  # 4K takes minutes
    for _ in range(4):
        done = comfy.queue(graph, on_event=lambda kind, data: texts.append(data["text"]) if kind == "text" else None)
        files = done.outputs.get(keys["SaveImage"], {}).get("images", [])
        saved += [(file["subfolder"], file["filename"]) for file in files]
    names = ("photo", "photo_blurred", "photo_noisy")
    assert saved == [(f"PiDKit/{name}", f"pidkit_{one}_00001_.png") for one in names]
    assert texts[-1] == "nothing left: 3 of 3 done"
    strengths = [re.search(r"strength [^;\n]+", text)[0] for text in texts if "strength" in text]
    assert list(dict.fromkeys(strengths)) == STRENGTHS[name]


@pytest.mark.parametrize("name", STAND_INS)  # others in test_upscale_picture.py and test_rae.py
def test_runs_on_small_stand_ins(comfy, models, name):
    graph = with_stand_ins(api(name), name, comfy)
    models(graph)
    counts = {}

    def watch(kind, data):
        if kind == "progress":
            counts[data["node"]] = data["max"]

    done = comfy.queue(graph, on_event=watch)
    (image,) = comfy.images(done)
    side = 64 if name == "pid_with_pixeldit_text_to_image" else 256
    assert image.shape == (side, side, 3) and image.std() > 1
    if name == "pid_with_flux_early_stop":
        (sampler,) = (key for key, node in graph.items() if node["class_type"] == "SamplerCustom")
        assert counts[sampler] == 24  # of 28


def test_the_pack_can_fetch_what_its_loaders_name():
    assert get_file(GEMMA).folder == "text_encoders"
    for name in NEEDS_MODELS:
        inputs = {node["class_type"]: node["inputs"] for node in api(name).values()}
        assert get_file(inputs["PiDKitLoader"]["model_name"].removeprefix("fetch: ")).listed, name
