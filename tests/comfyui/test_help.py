"""Every node explains itself, in English and Chinese: tooltips, help page, names of nodes, inputs and options."""

import json
import re

import pytest

from locales import english, inputs_of, locale_file, our_nodes, text_of

LANGUAGES = ("en", "zh")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# vue-i18n, which shows these words, reads these characters as syntax.
SYNTAX = re.compile(r"[{}@|]")


@pytest.fixture(scope="module")
def nodes(comfy) -> dict:
    found = our_nodes(comfy.object_info())
    assert found
    return found


def leaves(words: dict, path: str = "") -> dict[str, str]:
    """Path -> text of everything in a nested dict."""
    found = {}
    for key, value in words.items():
        found |= leaves(value, f"{path}/{key}") if isinstance(value, dict) else {f"{path}/{key}": value}
    return found


def test_every_input_and_output_has_a_tooltip(nodes):
    for name, node in nodes.items():
        assert not node["display_name"].startswith("PiDKit")
        assert node["description"], name
        for key, entry in inputs_of(node).items():
            assert entry[1].get("tooltip"), f"{name}.{key}"
        assert len(node["output_tooltips"]) == len(node["output"])
        assert all(node["output_tooltips"]), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_that_lists_its_inputs(nodes, root, language):
    words = json.loads(locale_file(language).read_text(encoding="utf-8"))
    missing = []
    for name, node in nodes.items():
        page = root / "js" / "docs" / name / f"{language}.md"
        if not page.exists():
            missing.append(f"{page} does not exist")
            continue
        text = page.read_text(encoding="utf-8")
        title = node["display_name"] if language == "en" else words[name]["display_name"]
        if not text.startswith(f"# {title}\n"):
            missing.append(f"{page} does not begin with '# {title}'")
        for key in inputs_of(node):
            # a translated page shows the name on the node beside the one in the graph's file
            first = key if language == "en" else f"{key}（{words[name]['inputs'][key]['name']}）"
            if f"\n- **{first}**" not in text:
                missing.append(f"{page}: no line '- **{first}**'")
        # the panel is 310 pixels wide: the columns of a table lie outside it
        missing += [f"{page}: a table, '{line}'" for line in text.splitlines() if line.startswith("|")]
    assert not missing


def test_english_words_are_those_of_the_nodes(comfy):
    stored = locale_file("en").read_text(encoding="utf-8")
    assert stored == text_of(english(comfy.object_info())), "run `make locales`"


def test_chinese_words_are_complete(comfy):
    stored = leaves(json.loads(locale_file("zh").read_text(encoding="utf-8")))
    wanted = leaves(english(comfy.object_info()))
    assert sorted(wanted.keys() - stored.keys()) == []
    assert sorted(stored.keys() - wanted.keys()) == []
    for path, text in stored.items():
        if path.endswith(("/tooltip", "/description", "/display_name")):
            assert CHINESE.search(text), path


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_no_syntax_to_the_front_end(language):
    for path, text in leaves(json.loads(locale_file(language).read_text(encoding="utf-8"))).items():
        assert not SYNTAX.search(text), f"{path}: {text}"


def test_comfyui_serves_the_words(comfy):
    served = comfy.get("/i18n")
    for language in LANGUAGES:
        stored = json.loads(locale_file(language).read_text(encoding="utf-8"))
        assert stored.items() <= served[language]["nodeDefs"].items()


def test_the_bundled_model_is_listed_first(comfy):
    options = comfy.object_info("PiDKitLoader")["input"]["required"]["model_name"]
    names = options[0] if isinstance(options[0], list) else options[1]["options"]
    assert names[0] == "pid_nano (bundled)"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_help_page_has_a_picture(root, language):
    docs = root / "js" / "docs"
    for page in docs.glob(f"*/{language}.md"):
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
        assert pictures, page
        for picture in pictures:
            # the front end looks for them from js/docs, not from the page's own folder
            assert (docs / picture).is_file(), f"{page}: {picture}"
