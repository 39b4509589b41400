"""Measured figures get where they are read, and nowhere else."""

import pytest

from benchmarks.written import write_between

PAGE = "# Measured\n\n<!-- seams -->\n\n| old |\n\n<!-- /seams -->\n\nAfter.\n"


def test_only_what_stands_between_is_replaced(tmp_path):
    page = tmp_path / "RESULTS.md"
    page.write_text(PAGE, encoding="utf-8")
    write_between(page, "seams", "| new |\n")
    assert page.read_text(encoding="utf-8") == PAGE.replace("old", "new")


@pytest.mark.parametrize("text", ["no marks", PAGE + PAGE, "<!-- /seams -->\n<!-- seams -->\n", "<!-- seams -->\n"])
def test_a_page_without_the_marks_stays(tmp_path, text):
    page = tmp_path / "RESULTS.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"RESULTS\.md does not have <!-- seams --> and <!-- /seams --> once each"):
        write_between(page, "seams", "| new |")
    assert page.read_text(encoding="utf-8") == text
