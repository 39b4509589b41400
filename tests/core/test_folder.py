"""A folder worked through: which results count as whose, and what is no picture of it."""

import pytest
from PIL import Image

from pid_core.batch.folder import entries_in, finished


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)


@pytest.mark.parametrize(
    ("result", "whose"),
    [
        ("cat_00001_.png", {"cat"}),  # ComfyUI's
        ("cat_1_00001_.png", {"cat_1"}),
        ("ComfyUI_00001__00001_.png", {"ComfyUI_00001_"}),
        ("ComfyUI_00001_.png", {"ComfyUI"}),
        ("cat.webp", {"cat"}),  # others'
        ("cat_1.png", {"cat_1"}),
        ("cat_0002.jpg", {"cat"}),
        ("below/dog_00012_.png", {"below/dog"}),
        ("dog_00001_.png", set()),
        ("cat_large.png", set()),
        ("cat_00001_/x.png", set()),
    ],
)
def test_whose_a_result_is(tmp_path, result, whose):
    put(tmp_path, result)
    assert finished(tmp_path, ["cat", "cat_1", "ComfyUI", "ComfyUI_00001_", "below/dog"]) == whose


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_file_that_was_cut_off_is_no_result(tmp_path, ending):
    file = tmp_path / f"cat_00001_.{ending}"
    put(tmp_path, file.name)
    assert finished(tmp_path, ["cat"]) == {"cat"}
    file.write_bytes(file.read_bytes()[:-12])
    assert finished(tmp_path, ["cat"]) == set()
    file.write_bytes(b"")
    assert finished(tmp_path, ["cat"]) == set()


def test_results_and_links_within_the_folder_add_no_pictures(tmp_path):
    put(tmp_path, "a.png", "below/b.png", "large/a_00001_.png", ".trash/c.png")
    (tmp_path / "below/round").symlink_to(tmp_path)
    names = [entry.name for entry in entries_in(tmp_path, "**/**/*", tmp_path / "large")]
    assert sorted(names) == ["a", "below/b"]
    assert [entry.name for entry in entries_in(tmp_path, "below")] == ["below/b"]
    with pytest.raises(ValueError, match="where results go"):
        entries_in(tmp_path / "large", "*", tmp_path)


def test_no_list_of_a_folder_leads_out_of_it(tmp_path):
    put(tmp_path, "in/a.png", "b.png")
    (tmp_path / "in/list.csv").write_text(f"image\n../b.png\n{tmp_path}/b.png\na.png\n", encoding="utf-8")
    assert [entry.name for entry in entries_in(tmp_path / "in", "list.csv")] == ["a"]
