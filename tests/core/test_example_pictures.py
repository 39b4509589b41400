"""An example picture in ComfyUI's input folder: copied whole, once, and never over a file of the user's."""

import os

import pytest

from pid_core.machine.example_pictures import FOLDER, WHOLE_FOLDER, example_pictures, put_example_picture

NAME = "pidkit_photo.png"


def test_the_folder_has_only_the_picture_afterwards(tmp_path):
    put_example_picture(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]
    assert (tmp_path / NAME).read_bytes() == (FOLDER / NAME).read_bytes()


def test_a_file_of_that_name_stays(tmp_path):
    (tmp_path / NAME).write_bytes(b"the user's")
    put_example_picture(NAME, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"the user's"


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_comes_meanwhile_stays(tmp_path, monkeypatch, hard_links):
    link = os.link

    def meanwhile(part, target):
        target.write_bytes(b"the user's")
        if not hard_links:
            raise PermissionError(1, "Operation not permitted")
        link(part, target)

    monkeypatch.setattr(os, "link", meanwhile)
    put_example_picture(NAME, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"the user's"
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    put_example_picture(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]


def test_a_folder_that_takes_no_file(tmp_path):
    with pytest.raises(OSError):
        put_example_picture(NAME, tmp_path / "none")
    (tmp_path / NAME).mkdir()
    with pytest.raises(OSError):
        put_example_picture(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]


@pytest.mark.parametrize("name", ["photo.png", "../example_workflows/pidkit_photo.png", "upscale_demo.jpg", ""])
def test_only_our_own_pictures(tmp_path, name):
    assert name not in example_pictures()
    with pytest.raises(ValueError, match="no example picture"):
        put_example_picture(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_folder_of_all_comes_once_and_then_stays_as_it_is(tmp_path):
    put_example_picture(WHOLE_FOLDER, tmp_path)
    names = sorted(name for name in example_pictures() if name.startswith("pidkit_photo") and name != WHOLE_FOLDER)
    assert len(names) == 3
    assert sorted(path.name for path in (tmp_path / WHOLE_FOLDER).iterdir()) == names
    (tmp_path / WHOLE_FOLDER / names[0]).unlink()
    put_example_picture(WHOLE_FOLDER, tmp_path)
    assert sorted(path.name for path in (tmp_path / WHOLE_FOLDER).iterdir()) == names[1:]
    assert list(tmp_path.iterdir()) == [tmp_path / WHOLE_FOLDER]


def test_no_part_of_the_folder_is_left_where_it_cannot_be(tmp_path):
    (tmp_path / WHOLE_FOLDER).write_bytes(b"the user's")
    with pytest.raises(OSError):
        put_example_picture(WHOLE_FOLDER, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / WHOLE_FOLDER]
