"""Help pages name latent families by hand: in every language they are those that the core knows, with its numbers."""

import re
from pathlib import Path

import pytest

from pid_core.hub.catalogue import FILES
from pid_core.latents.early_stop import generators
from pid_core.latents.families import families, families_with

DOCS = Path(__file__).parents[2] / "js" / "docs"
LANGUAGES = ("en", "zh")
BULLET = re.compile(r"^- \*\*(.+?)\*\*(?:（.*?）| \(.*?\))?[:：](.*)$", re.MULTILINE)


def page(node: str, language: str) -> str:
    return (DOCS / node / f"{language}.md").read_text(encoding="utf-8")


def bullets(text: str, mark: str) -> dict[str, set[int]]:
    """Name in bold -> the numbers behind it, of the bullets whose text holds one of the words in `mark`."""
    found = {}
    for names, rest in BULLET.findall(text):
        if re.search(mark, rest):
            numbers = set(map(int, re.findall(r"\d+", rest)))
            found |= {name: numbers for name in re.split(", |、", names)}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_family_is_listed_with_its_channels_and_cell(language):
    expected = {row.name: {row.channels, row.down * row.sr_scale} | ({row.sr_scale} - {4}) for row in families()}
    assert bullets(page("PiDKitConditioning", language), r"channels, \d|通道，\d") == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_recommended_stop_is_listed(language):
    listed = bullets(page("PiDKitEarlyStop", language), "of .* steps|步中的第|few-step|少步模型")
    expected = {name: set() if row.stop == row.steps else {row.stop, row.steps} for name, row in generators().items()}
    assert listed == expected


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", ["PiDKitConditioning", "PiDKitLoader", "PiDKitSaveLatent"])
def test_families_that_look_alike_are_named(node, language):
    assert all(row.name in page(node, language) for row in families_with(16))


@pytest.mark.parametrize("language", LANGUAGES)
def test_latent_from_noisy_names_its_choices(language):
    choices = [row.name for row in families() if row.generators]
    text = page("PiDKitLatentFromNoisy", language)
    assert ", ".join(choices) in text or "、".join(choices) in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_vae_is_on_the_page_of_downloads(language):
    text = page("PiDKitDownload", language).replace("<wbr>", "")
    assert [file.name for file in FILES if file.folder == "vae" and file.name not in text] == []
