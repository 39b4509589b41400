"""PiD Upscale in the real ComfyUI, from an empty models folder and a local hub: a picture in, a larger one out."""

import io
import json
import urllib.request

import numpy as np
import pytest
from PIL import Image

from comfy_server import PromptError
from pid_core.hub.catalogue import get_file
from pid_core.hub.model_sets import TEXT_ENCODERS, get_set
from support.failures import refused
from support.graphs import link
from support.tiny import save_tiny, save_vae
from support.tiny_gemma import save_encoder

SET = "FLUX v1.5"
FILES = {
    "model": get_file(get_set(SET).checkpoint),
    "vae": get_file(get_set(SET).vae),
    "clip": get_file(TEXT_ENCODERS[0]),
}


def picture(height: int = 21, width: int = 34, channels: int = 3, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def graph_for(comfy, image: np.ndarray | None = None, **inputs) -> dict:
    """LoadImage, PiD Upscale, SaveImage."""
    values = {"model_set": "bundled", "target": "factor", "factor": 4.0, "strength": "faithful", "seed": 5} | inputs
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": comfy.upload(picture() if image is None else image)}},
        "upscale": {"class_type": "PiDKitUpscale", "inputs": {"image": link("load")} | values},
        "png": {"class_type": "SaveImage", "inputs": {"images": link("upscale"), "filename_prefix": "test"}},
    }


class Seen:
    """What the front end is told while a prompt runs. ran: nodes that ran, by the last part of their id."""

    def __init__(self):
        self.texts: list[dict] = []
        self.ran: list[str] = []
        self.progress: list[dict] = []

    def __call__(self, kind: str, data: dict) -> None:
        if kind == "text":
            self.texts.append(data)
        elif kind == "executing" and data["node"]:
            self.ran.append(data["node"].rpartition(".")[2])
            assert "." not in data.get("display_node", "")
        elif kind == "progress_state":
            self.progress += [node for node in data["nodes"].values() if node["max"] > 1]


def clean(comfy) -> None:
    for file in FILES.values():
        for path in (comfy.models / file.folder).glob(f"*{file.name}*"):
            path.unlink()
    (comfy.folder / "user" / "__pidkit" / "licences.json").unlink(missing_ok=True)
    for caption in (comfy.folder / "user" / "__pidkit" / "captions").glob("*"):
        caption.unlink()
    comfy.hub.requests.clear()
    comfy.hub.errors.clear()
    comfy.hub.sent.clear()


@pytest.fixture(scope="module")
def stand_ins(comfy, comfyui, tmp_path_factory):
    """Small files under the real names on the hub."""
    folder = tmp_path_factory.mktemp("hub")
    paths = {
        "model": save_tiny(folder / "pid", "flux", "v1.5"),
        "vae": save_vae(folder / "vae"),
        "clip": save_encoder(folder / "gemma"),
    }
    for key, file in FILES.items():
        comfy.hub.files[file.repo, file.path] = paths[key].read_bytes()
    comfy.get("/pidkit_tests/any_files", on="yes")
    yield
    for file in FILES.values():
        del comfy.hub.files[file.repo, file.path]
    comfy.get("/pidkit_tests/any_files", on="no")


@pytest.fixture
def hub(comfy, stand_ins):
    """The hub with small files under the real names; nothing fetched, no licence accepted, no caption kept."""
    clean(comfy)
    yield comfy.hub
    clean(comfy)


def left_behind(comfy) -> list[str]:
    return [path.name for file in FILES.values() for path in (comfy.models / file.folder).glob(f"*{file.name}*")]


def test_the_bundled_model_needs_nothing(comfy, hub):
    seen = Seen()
    done = comfy.queue(graph_for(comfy), on_event=seen)
    assert [image.shape for image in comfy.images(done)] == [(84, 136, 3)]
    assert hub.requests == []
    last = seen.texts[-1]
    assert last["node"] == "upscale"
    for words in ("34 x 21 picture", "136 x 84", "strength 0 (faithful)"):
        assert words in last["text"], last["text"]


def test_the_bundled_model_says_when_strength_only_makes_it_paler(comfy, hub):
    texts, clean_picture = {}, np.full((32, 40, 3), 120, np.uint8)
    for strength in ("repair", "auto"):
        seen = Seen()
        comfy.queue(graph_for(comfy, clean_picture, strength=strength), on_event=seen)
        texts[strength] = seen.texts[-1]["text"]
    assert "more than 0 only makes this picture paler" in texts["repair"]
    assert "paler" not in texts["auto"]


def test_the_licences_stop_it_once_and_name_all_three(comfy, hub):
    graph = graph_for(comfy, model_set=SET)
    (line,) = set(refused(comfy, graph, "upscale").values())
    assert "\n" not in line
    for file in FILES.values():
        assert file.name in line and file.repo in line
    assert "NSCLv1" in line and "Gemma terms of use" in line
    assert line.endswith("switch accept_licence on in this node and run again")
    # where the switch comes by a link it is asked in the run, before whatever makes the picture
    seen = Seen()
    graph |= {"no": {"class_type": "PrimitiveBoolean", "inputs": {"value": False}}}
    graph["upscale"]["inputs"]["accept_licence"] = ["no", 0]
    with pytest.raises(PromptError) as failed:
        comfy.queue(graph, on_event=seen)
    assert failed.value.message.strip() == line
    assert hub.requests == [] and left_behind(comfy) == []
    assert set(seen.ran) == {"no", "upscale"}


def test_from_an_empty_models_folder_to_a_picture(comfy, hub):
    first, again, stronger = Seen(), Seen(), Seen()
    graph = graph_for(comfy, model_set=SET, accept_licence=True, text="a red fox")
    done = comfy.queue(graph, on_event=first)
    image = comfy.images(done)[0]
    assert image.shape == (84, 136, 3) and image.std() > 5
    assert sorted(left_behind(comfy)) == sorted(file.name for file in FILES.values())
    assert len(hub.for_bytes()) == 3
    assert {"model", "vae", "clip", "prepare", "decode"} <= set(first.ran)
    # everything is seen on the node that the user has
    assert {text["node"] for text in first.texts} == {"upscale"}
    assert {node["display_node_id"] for node in first.progress} == {"upscale"}
    for number, file in enumerate(FILES.values(), 1):
        assert any(f"fetching {file.name} ({number} of 3)" in text["text"] for text in first.texts)
    sizes = {len(hub.files[file.repo, file.path]) for file in FILES.values()}
    assert sizes <= {node["max"] for node in first.progress if node["value"] == node["max"]}

    hub.requests.clear()
    graph["upscale"]["inputs"] |= {"strength": "repair", "accept_licence": False}
    other = comfy.images(comfy.queue(graph, on_event=stronger))[0]
    comfy.queue(graph_for(comfy, picture(30, 20), model_set=SET, text="a red fox"), on_event=again)
    assert hub.requests == []
    assert not {"model", "vae", "clip"} & {*again.ran, *stronger.ran}
    assert "decode" in stronger.ran and not np.array_equal(other, image)
    assert "strength 0.3 (repair)" in stronger.texts[-1]["text"]


def test_what_the_hub_refuses_is_one_line_on_the_node(comfy, hub):
    file = FILES["vae"]
    hub.sent[file.repo, file.path] = hub.files[file.repo, file.path][:-4] + b"spot"
    with pytest.raises(PromptError, match="came damaged and was thrown away") as failed:
        comfy.queue(graph_for(comfy, model_set=SET, accept_licence=True))
    assert failed.value.node_type == "PiDKitUpscale" and file.name in failed.value.message
    assert file.name not in left_behind(comfy)
    hub.sent.clear()
    hub.errors[file.repo, file.path] = (503, None)
    with pytest.raises(PromptError, match="the hub answered 503") as failed:
        comfy.queue(graph_for(comfy, model_set=SET))
    assert failed.value.node_type == "PiDKitUpscale" and "\n" not in failed.value.message.strip()


def test_an_error_within_is_on_the_node(comfy, hub):
    file, other = FILES["model"], FILES["vae"]
    good = hub.files[file.repo, file.path]
    hub.files[file.repo, file.path] = hub.files[other.repo, other.path]
    try:
        with pytest.raises(PromptError, match="this is no PiD checkpoint") as failed:
            comfy.queue(graph_for(comfy, model_set=SET, accept_licence=True))
    finally:
        hub.files[file.repo, file.path] = good
    assert failed.value.node_id == "upscale" and failed.value.node_type == "PiDKitUpscale"
    assert "\n" not in failed.value.message.strip()


@pytest.mark.parametrize(
    ("size", "factor", "wanted"), [((37, 53), 2.0, (74, 106)), ((1, 1), 4.0, (4, 4)), ((3, 150), 3.3, (10, 495))]
)
def test_any_size_comes_out_as_asked(comfy, size, factor, wanted):
    done = comfy.queue(graph_for(comfy, picture(*size), factor=factor))
    assert comfy.images(done)[0].shape[:2] == wanted


def batch_of(comfy, *images: np.ndarray) -> dict:
    """Nodes that make one batch of pictures, the last one named "batch"."""
    nodes = {
        f"load{i}": {"class_type": "LoadImage", "inputs": {"image": comfy.upload(image)}}
        for i, image in enumerate(images)
    }
    nodes["batch"] = {"class_type": "ImageBatch", "inputs": {"image1": link("load0"), "image2": link("load1")}}
    return nodes


def test_each_picture_of_a_batch_is_decoded_as_if_alone(comfy):
    clear = np.full((32, 32, 3), 120, np.uint8)
    clear[8:24, 8:24] = 200
    noisy = (clear + np.random.default_rng(1).normal(0, 25, clear.shape)).clip(0, 255).astype(np.uint8)
    alone = [comfy.images(comfy.queue(graph_for(comfy, image, strength="auto")))[0] for image in (clear, noisy)]
    graph = graph_for(comfy, strength="auto") | batch_of(comfy, clear, noisy)
    graph["upscale"]["inputs"]["image"] = link("batch")
    seen = Seen()
    together = comfy.images(comfy.queue(graph, on_event=seen))
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert "strength 0, 0.2 (auto)" in seen.texts[-1]["text"]


def test_transparency_is_kept(comfy):
    image = picture(16, 24, 4)
    image[..., 3] = 255
    image[:, :12, 3] = 0
    graph = graph_for(comfy)
    graph["load"]["inputs"]["image"] = comfy.upload(Image.fromarray(image))
    graph["join"] = {
        "class_type": "JoinImageWithAlpha",
        "inputs": {"image": link("load"), "alpha": link("load", 1)},
    }
    graph["upscale"]["inputs"]["image"] = link("join")
    done = comfy.queue(graph)
    out = np.asarray(Image.open(io.BytesIO(comfy.image_files(done)[0])))
    assert out.shape == (64, 96, 4)
    assert out[:, :40, 3].max() < 10 and out[:, 56:, 3].min() > 245


def test_a_size_that_cannot_be_is_one_line(comfy):
    with pytest.raises(PromptError, match="at most 16384") as failed:
        comfy.queue(graph_for(comfy, picture(8, 1100), factor=16.0))
    assert failed.value.node_type == "PiDKitUpscale" and "\n" not in failed.value.message.strip()


def test_freeing_the_memory_lets_go_of_the_models(comfy, hub):
    first, after = Seen(), Seen()
    graph = graph_for(comfy, model_set=SET, accept_licence=True)
    comfy.queue(graph, on_event=first)
    wanted = json.dumps({"unload_models": True, "free_memory": True}).encode()
    request = urllib.request.Request(f"http://{comfy.address}/free", wanted, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()
    for _ in range(2):  # ComfyUI may do it only after the next prompt
        comfy.queue(graph, on_event=after)
    assert {"model", "vae"} <= set(first.ran) & set(after.ran)


def test_the_licence_record_names_what_was_accepted(comfy, hub):
    comfy.queue(graph_for(comfy, model_set=SET, accept_licence=True))
    record = json.loads((comfy.folder / "user" / "__pidkit" / "licences.json").read_text(encoding="utf-8"))
    assert set(record) == {"NSCLv1", "Gemma"}
