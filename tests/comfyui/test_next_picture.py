"""PiD Next Picture: a folder, one picture with every run, none lost and none twice."""

from __future__ import annotations

import json
import os
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from comfy_server import PromptError
from support.graphs import link

PALE = 40  # the first channel of the first picture; each further one is this much brighter


@pytest.fixture
def folder(comfy, empty_input, request):
    """A folder in the input folder, of the test's name."""
    path = empty_input / request.node.originalname
    path.mkdir()
    return path


def fill(folder, *names, size=(12, 10)):
    for i, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i * PALE, 0, 0)).save(path)


def graph(path, /, **inputs) -> dict:
    """PiD Next Picture and SaveImage."""
    given = {"folder": path.name, "output_folder": f"out/{path.name}", "skip_done": True} | inputs
    return {
        "next": {"class_type": "PiDKitNextPicture", "inputs": given},
        "save": {"class_type": "SaveImage", "inputs": {"images": link("next"), "filename_prefix": link("next", 1)}},
    }


def run(comfy, prompt) -> dict:
    """What the node told in a run, and under "saved" the files that were saved."""
    done = comfy.queue(prompt)
    (told,) = done.outputs["next"]["pidkit_next"]
    return told | {"saved": [image["filename"] for image in done.outputs.get("save", {}).get("images", [])]}


def results(comfy, folder) -> list[str]:
    root = comfy.output / "out" / folder.name
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))


def test_five_pictures_one_of_them_bad(comfy, folder):
    fill(folder, "a.png", "b.jpg", "d.png", "e.webp")
    (folder / "c.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either", encoding="utf-8")
    prompt, texts = graph(folder), []
    told = [run(comfy, prompt) for _ in range(4)]
    assert [one["saved"] for one in told] == [["a_00001_.png"], ["b_00001_.png"], ["d_00001_.png"], ["e_00001_.png"]]
    assert [one["position"] for one in told] == ["1 of 5", "2 of 5", "4 of 5", "5 of 5"]
    bad = "c.png is no picture that can be read"
    assert [one["skipped"] for one in told] == [[], [], [bad], [bad]]
    saved = np.asarray(Image.open(comfy.output / "out" / folder.name / "d_00001_.png"))
    assert saved.shape == (10, 12, 3) and (saved[..., 0] == 3 * PALE).all()

    done = comfy.queue(prompt, on_event=lambda kind, data: texts.append(data["text"]) if kind == "text" else None)
    assert "save" not in done.outputs
    assert texts[-1] == f"nothing left: 4 of 5 done, 1 skipped;\nskipped: {bad}"
    fill(folder, "c.png")  # it was repaired
    assert run(comfy, prompt)["saved"] == ["c_00001_.png"]


def test_a_queue_of_runs_hands_each_another(comfy, folder):
    """Also those that save nothing where the node looks: three pictures and five runs, posted at once."""
    fill(folder, "a.png", "b.png", "c.png")
    prompt = graph(folder)
    prompt["save"]["inputs"]["filename_prefix"] = f"elsewhere/{folder.name}"
    ids = []
    for _ in range(4):
        body = json.dumps({"prompt": prompt}).encode()
        with urllib.request.urlopen(f"http://{comfy.address}/prompt", body) as answer:
            ids.append(json.load(answer)["prompt_id"])
    last = comfy.queue(prompt)
    told = [comfy.get(f"/history/{i}")[i]["outputs"]["next"]["pidkit_next"][0] for i in (*ids, last.prompt_id)]
    names = [one.get("filename_prefix", one.get("nothing_left")) for one in told]
    prefixes = [f"out/{folder.name}/{name}" for name in "abc"]
    assert names == [*prefixes, "nothing left: 0 of 3 done", prefixes[0]]


def test_what_is_done_is_read_from_the_results(comfy, folder):
    """As after a restart: the server knows nothing of runs with this output folder."""
    fill(folder, "a.png", "b.png", "c.png", "d.png")
    there = comfy.output / "out" / folder.name
    there.mkdir(parents=True)
    for name in ("a_00001_.png", "c.jpg"):  # by SaveImage, and by a saver that adds no number
        Image.new("RGB", (4, 4)).save(there / name)
    cut = (there / "a_00001_.png").read_bytes()[:-20]
    (there / "b_00001_.png").write_bytes(cut)  # ComfyUI was killed, or the disk full
    assert run(comfy, graph(folder))["saved"] == ["b_00002_.png"]
    assert run(comfy, graph(folder))["saved"] == ["d_00001_.png"]
    (there / "a_00001_.png").unlink()  # to make it again
    assert run(comfy, graph(folder))["saved"] == ["a_00001_.png"]
    assert run(comfy, graph(folder, skip_done=False))["filename_prefix"].endswith("/a")


def test_a_run_that_failed_is_told_and_comes_again_last(comfy, folder):
    fill(folder, "b.png", "c.png")
    fill(folder, "a.png", size=(1, 1))
    prompt = graph(folder) | {
        "pack": {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("next"), "odd_size": "crop"}},
        "keep": {"class_type": "SaveLatent", "inputs": {"samples": link("pack"), "filename_prefix": "fails"}},
    }
    with pytest.raises(PromptError, match="1 x 1") as failed:
        comfy.queue(prompt)
    told = [run(comfy, prompt) for _ in range(3)]
    assert [one["saved"][:1] for one in told] == [["b_00001_.png"], ["c_00001_.png"], []]
    line = f"a: {failed.value.message.strip()}"
    assert [one["failed"] for one in told] == [[line]] * 3
    assert told[-1]["nothing_left"] == "nothing left: 2 of 3 done, 1 failed; run again to try what failed"
    fill(folder, "a.png")
    assert run(comfy, prompt)["saved"][0].startswith("a_0000")  # the first one may have been saved before the error
    assert run(comfy, prompt)["nothing_left"] == "nothing left: 3 of 3 done"


def test_an_interrupted_run_gets_its_picture_again(comfy, folder):
    fill(folder, "a.png", "b.png")
    prompt = graph(folder)
    stopped = graph(folder) | {"work": {"class_type": "TestEndless", "inputs": {"image": link("next")}}}
    stopped["save"]["inputs"]["images"] = link("work")

    def interrupt(kind, data):
        if kind == "executing" and data["node"] == "work":
            comfy.post("/interrupt", {})

    with pytest.raises(PromptError, match="interrupted"):
        comfy.queue(stopped, on_event=interrupt)
    assert [run(comfy, prompt)["saved"] for _ in range(2)] == [["a_00001_.png"], ["b_00001_.png"]]


def test_odd_names_stay_apart(comfy, folder):
    """One result for each, whatever the names: equal but for the ending, placeholders, ways out, numbers, no UTF-8."""
    names = ["cat.jpg", "Cat.png", "cat_00001_.png", "50%.png", "%year%.png", "a..b.png", "猫 é.png", "[x]*.png"]
    fill(folder, *names, "-.png", f"{'long' * 60}.png", "below/cat.png")
    os.rename(folder / "-.png", os.fsencode(folder) + b"/caf\xe9.png")
    fill(folder, ".hidden.png", "below/.deeper/x.png")
    for _ in range(11):
        assert run(comfy, graph(folder, pattern="**/*"))["saved"]
    assert run(comfy, graph(folder, pattern="**/*"))["nothing_left"] == "nothing left: 11 of 11 done"
    found = results(comfy, folder)
    assert len(found) == 11
    plain = ["cat.jpg_00001_.png", "Cat.png_00001_.png", "cat_00001__00001_.png", "below/cat_00001_.png"]
    assert {*plain, "猫 é_00001_.png"} <= {*found}
    assert not [name for name in found if "*" in name]  # which Windows takes in no name


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({"folder": "none there"}, "there is no folder"),
        ({"folder": "empty"}, "there is no picture"),
        ({"pattern": "*.gif"}, "whose name fits *.gif"),
        ({"folder": "../user"}, "leads out of ComfyUI's input folder"),
        ({"folder": "a/../../output"}, "leads out of ComfyUI's input folder"),
        ({"folder": "../input [output]"}, "leads out of ComfyUI's output folder"),
        ({"output_folder": "../input"}, "leads out of ComfyUI's output folder"),
        ({"output_folder": "%date%"}, "without %"),
        ({"output_folder": "图" * 100}, "at most 200 bytes"),
        ({"pattern": "../*"}, "leads out of the folder"),
        ({"pattern": "/etc/*"}, "leads out of the folder"),
        ({"folder": "same [output]", "output_folder": "same"}, "the folder of the pictures itself"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_run(comfy, folder, inputs, line):
    fill(folder, "a.png")
    fill(comfy.output / "same", "a.png")
    (comfy.input / "empty").mkdir()
    with pytest.raises(PromptError) as refused:
        comfy.queue(graph(folder, **inputs))
    text = refused.value.details["node_errors"]["next"]["errors"][0]["details"]
    assert line in text and text.isprintable() and len(text) < 400


def test_any_folder_where_only_this_machine_asks(comfyui, comfy, folder, tmp_path, monkeypatch):
    """Behind --listen only ComfyUI's own folders, and what is linked into them."""
    fill(tmp_path, "a.png")
    assert run(comfy, graph(folder, folder=f'"{tmp_path}"'))["saved"] == ["a_00001_.png"]
    folders = comfyui.module("nodes.shared.folders")
    monkeypatch.setattr(folders.folder_paths, "get_input_directory", lambda: str(folder))
    (folder / "linked").symlink_to(tmp_path)
    for listen, is_open in (("127.0.0.1,::1", True), ("localhost", True), ("0.0.0.0,::", False), ("10.0.0.7", False)):
        monkeypatch.setattr(folders.args, "listen", listen)
        assert folders.source_folder("linked") == folder / "linked"
        assert folders.source_folder(str(folder)) == folder
        if is_open:
            assert folders.source_folder(str(tmp_path)) == tmp_path
        else:
            with pytest.raises(ValueError, match="answers the network"):
                folders.source_folder(str(tmp_path))


def test_a_node_that_is_asked_twice_in_a_run_gives_the_same(comfyui, tmp_path, monkeypatch):
    """ComfyUI throws results away when memory is short, and asks again: image and name would be of two pictures."""
    walks, folder = comfyui.module("nodes.shared.walks"), comfyui.module("pid_core.batch.folder")
    fill(tmp_path, "a.png", "b.png")
    monkeypatch.setattr(walks, "get_progress_state", lambda: SimpleNamespace(prompt_id="one"))
    entries = folder.entries_in(tmp_path)
    step = [walks.next_step(node, tmp_path, tmp_path / "out", entries, True).index for node in "1121"]
    assert step == [0, 0, 1, 0]


def test_what_a_picture_holds_reaches_the_graph(comfy, folder):
    """Upright, and with its transparency: as everywhere in the pack."""
    picture = Image.new("RGBA", (12, 10), (200, 100, 50, 255))
    picture.putpixel((0, 0), (200, 100, 50, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(folder / "a.png", exif=exif)
    prompt = graph(folder, folder=link("name"))
    run(comfy, prompt | {"name": {"class_type": "PrimitiveString", "inputs": {"value": folder.name}}})
    saved = Image.open(comfy.output / "out" / folder.name / "a_00001_.png")
    assert saved.size == (10, 12) and saved.mode == "RGBA"
    assert saved.getpixel((9, 0))[3] == 0 and saved.getpixel((0, 0)) == (200, 100, 50, 255)
