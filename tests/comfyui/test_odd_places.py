"""A second ComfyUI: in a folder whose path is long and in several scripts, with the first one's models."""

import json
import shutil
import threading
from pathlib import Path

import pytest

import comfy_env
from comfy_server import ComfyServer, PromptError, temporary_folder
from pid_core.hub.catalogue import get_file
from support.graphs import decode_graph, put_latent
from support.tiny import save_tiny

PID = get_file("pid_sdxl_1024_to_4096_4step_bf16.safetensors")
PACK = (
    "pid_core",
    "pid_bridges",
    "nodes",
    "js",
    "locales",
    "example_workflows",
    "subgraphs",
    "__init__.py",
    "pyproject.toml",
)
ODD = f"Bilder für Größe 图片 [a] 100% 'x' #1/{'lang ' * 20}x/{'é' * 60}"


@pytest.fixture(scope="module")
def place():
    """A base folder with a copy of the pack in it; the whole path has about 250 letters."""
    with temporary_folder() as folder:
        base = Path(folder, ODD)
        pack = base / "custom_nodes" / "ComfyUI PiDKit 图"
        pack.mkdir(parents=True)
        for name in PACK:
            source = comfy_env.ROOT / name
            if source.is_dir():
                shutil.copytree(source, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, pack / name)
        assert 240 < len(str(pack)) < 300
        yield pack


@pytest.fixture(scope="module")
def second(comfy, place):
    comfyui, _ = comfy_env.find_comfyui()
    base = place.parents[1]
    config = base / "extra_model_paths.yaml"
    folders = {"base_path": str(comfy.models), "is_default": True, "diffusion_models": "diffusion_models"}
    config.write_text(json.dumps({"shared": folders}), encoding="utf-8")
    arguments = ("--base-directory", str(base), "--extra-model-paths-config", str(config))
    env = {"HF_ENDPOINT": comfy.hub.endpoint, "NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
    with ComfyServer(
        comfyui, comfy_env.python(), base / "läuft", pack=place.name, arguments=arguments, env=env
    ) as server:
        yield server


def tree(folder: Path) -> dict[str, tuple]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_an_example_runs_there_and_writes_nothing_into_the_pack(place, second):
    """It may be read-only, and its updates want it unchanged."""
    before = tree(place)
    graph = json.loads((place / "example_workflows" / "api" / "pid_upscale_demo.json").read_text(encoding="utf-8"))
    (save,) = (node for node in graph.values() if node["class_type"] == "SaveImage")
    save["inputs"]["filename_prefix"] = "aus 图/Größe [a] é"
    second.queue(graph)
    assert (second.output / "aus 图" / "Größe [a] é_00001_.png").is_file()
    assert tree(place) == before


@pytest.fixture
def hub(comfy, tmp_path):
    """Nothing is fetched, and no licence accepted by either."""
    path = comfy.models / "diffusion_models" / PID.name
    record = comfy.folder / "user" / "__pidkit" / "licences.json"

    def clean():
        for file in (path, record):
            file.unlink(missing_ok=True)
        comfy.hub.requests.clear()

    clean()
    comfy.hub.files[PID.repo, PID.path] = save_tiny(tmp_path / "pid", "sdxl", caption=3, seed=12).read_bytes()
    yield comfy.hub
    comfy.hub.stalled = None
    clean()


def test_two_with_one_models_folder_fetch_a_file_once(comfy, second, hub):
    import torch

    def graph(server, seed, accept):
        latent = put_latent(server, "shared", torch.zeros(1, 4, 2, 2))
        made = decode_graph(f"fetch: {PID.name}", latent, sampler={"seed": seed})
        made["model"]["inputs"]["accept_licence"] = accept
        return made

    def listed(server):
        return PID.name in server.object_info("UNETLoader")["input"]["required"]["unet_name"][0]

    hub.stalled = threading.Event()
    half, failed = threading.Event(), []

    def watch(kind, data):
        if kind == "progress" and data["node"] == "model" and data["value"]:
            half.set()

    def first():
        try:
            comfy.queue(graph(comfy, 1, True), on_event=watch, timeout=120)
        except Exception as error:
            failed.append(error)

    fetching = threading.Thread(target=first)
    fetching.start()
    try:
        assert half.wait(60), comfy.log_tail()
        assert not listed(comfy) and not listed(second)  # half a file is none
        with pytest.raises(PromptError, match="non-commercial use only"):  # what the first one's user has accepted
            second.queue(graph(second, 1, False))
        with pytest.raises(PromptError, match="is being fetched already, by another process"):
            second.queue(graph(second, 1, True))
    finally:
        hub.stalled.set()
        fetching.join(120)
    assert not failed
    fetched = len(hub.for_bytes())
    second.queue(graph(second, 2, True), timeout=120)
    assert listed(second) and len(hub.for_bytes()) == fetched
