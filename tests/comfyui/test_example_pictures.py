"""A prompt that names an example picture finds it, in an input folder that was empty; no other prompt is touched."""

import numpy as np
import pytest
from PIL import Image

from comfy_server import PromptError
from make_workflows import FOLDER
from support.graphs import image_graph

NAME = "pidkit_photo.png"


def photo() -> np.ndarray:
    return np.asarray(Image.open(FOLDER / NAME).convert("RGB"))


def test_the_picture_comes_with_the_prompt(comfy, empty_input):
    (image,) = comfy.images(comfy.queue(image_graph(NAME)))
    assert np.array_equal(image, photo())
    assert [path.name for path in empty_input.iterdir()] == [NAME]
    assert NAME in comfy.object_info("LoadImage")["input"]["required"]["image"][0]


def test_the_users_file_of_that_name_is_used_and_kept(comfy, empty_input):
    own = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    comfy.upload(own, NAME)
    (image,) = comfy.images(comfy.queue(image_graph(NAME)))
    assert np.array_equal(image, own)


def test_another_prompt_brings_none(comfy, empty_input):
    name = comfy.upload(np.zeros((8, 8, 3), np.uint8), "photo.png")
    comfy.queue(image_graph(name))
    assert [path.name for path in empty_input.iterdir()] == [name]


def test_an_input_folder_that_takes_no_file_is_one_line_in_the_log(comfy, empty_input):
    (empty_input / NAME).symlink_to("nowhere")  # also for root, to whom no folder is read-only
    before = len(comfy.log())
    with pytest.raises(PromptError, match=f"Invalid image file: {NAME}"):
        comfy.queue(image_graph(NAME))
    said = comfy.log()[before:]
    (line,) = [line for line in said.splitlines() if "PiD: " in line]
    assert NAME in line and "input folder" in line and "File exists" in line
    assert "Traceback" not in said


@pytest.mark.parametrize("prompt", [None, [], NAME, {"1": None}, {"1": {"inputs": [1]}}, {"1": {"inputs": {"a": 1}}}])
def test_what_is_no_prompt_is_left_to_comfyui(comfyui, prompt):
    handler = comfyui.module("nodes.shared.example_pictures").bring_those_of_prompt
    for data in (prompt, {"prompt": prompt}):
        assert handler(data) is data
