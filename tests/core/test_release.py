"""What a release says of itself: one version, a changelog with it, and what ComfyUI's registry asks for."""

import re

import pytest
from PIL import Image

import release_notes
from archive_links import PICTURES
from pid_core.version import OLDEST, pack_version

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib


@pytest.fixture(scope="module")
def pyproject(root):
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def changelog(root):
    return (root / "CHANGELOG.md").read_text("utf-8")


def test_the_version_is_of_three_numbers_and_is_what_the_pack_says(pyproject, root):
    version = pyproject["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert pack_version() == version == release_notes.version((root / "pyproject.toml").read_text("utf-8"))


def test_no_other_file_says_the_version(pyproject, root):
    line = re.compile(rf"(version|VERSION|__version__)\s*[:=]\s*[\"']{re.escape(pyproject['project']['version'])}[\"']")
    places = [path for folder in ("pid_core", "nodes", "js", "scripts") for path in (root / folder).rglob("*.[pj][ys]")]
    assert not [path.name for path in places if line.search(path.read_text("utf-8"))]


def test_the_changelog_has_the_version(changelog, pyproject):
    version = pyproject["project"]["version"]
    assert "- **PiD" in release_notes.section(changelog, version) or version != "0.1.0"
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert re.search(rf"^\[{re.escape(version)}\]: https://", changelog, re.MULTILINE)


def test_the_changelog_keeps_its_form(changelog):
    headings = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", changelog, re.MULTILINE)) <= kinds
    assert "keepachangelog" not in release_notes.section(changelog, headings[-1][1:].partition("]")[0])


def test_a_version_without_words_is_not_released(changelog):
    with pytest.raises(ValueError, match=r"says nothing under ## \[9.9.9\]"):
        release_notes.section(changelog, "9.9.9")
    with pytest.raises(ValueError, match=r"says nothing under ## \[1.0.0\]"):
        release_notes.section("## [1.0.0] - 2030-01-01\n\n## [0.9.0] - 2029-01-01\n\nwords\n", "1.0.0")


def test_the_registry_can_read_the_project(pyproject):
    project, comfy = pyproject["project"], pyproject["tool"]["comfy"]
    assert re.fullmatch(r"[a-z]+(?:[-_.]?[a-z0-9]+)*", project["name"]) and "comfy" not in project["name"]
    assert len(project["name"]) < 100
    assert project["requires-python"] == ">=" + ".".join(map(str, OLDEST["python"]))
    assert {f"Environment :: GPU :: {name}" for name in ("NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal")} <= set(
        project["classifiers"]
    )
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert comfy["PublisherId"] and comfy["DisplayName"] == "PiDKit"


@pytest.mark.parametrize(("name", "shape", "widest"), [("Icon", 1, 400), ("Banner", 21 / 9, 1400)])
def test_icon_and_banner_are_as_the_registry_takes_them(pyproject, root, name, shape, widest):
    """docs.comfy.org: an icon is square and at most 400 x 400, a banner 21:9; SVG, PNG, JPG or GIF."""
    url = pyproject["tool"]["comfy"][name]
    assert url.startswith(PICTURES)
    path = root / url.removeprefix(PICTURES)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width / picture.height == pytest.approx(shape, abs=0.01)
        assert picture.width <= widest
    assert path.stat().st_size < 200_000
