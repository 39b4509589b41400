"""Text from outside in messages: one line that everything can take."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pid_core.printable import LONGEST, printable

ANY = st.text(st.characters(exclude_categories=[]))  # with halves of characters, control characters, all of it


@given(ANY)
def test_any_text_becomes_one_short_line_that_can_be_written_anywhere(text):
    shown = printable(text)
    assert len(shown) <= LONGEST and len(shown.splitlines()) <= 1 and (shown.isprintable() or not shown)
    shown.encode("utf-8")
    json.dumps(shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("café.safetensors", "café.safetensors"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\udce9"),
        ("two\nlines\x1b[31m", "two\\nlines\\x1b[31m"),
        ("x" * 10**6, "x" * 77 + "..."),
        (7, "7"),
    ],
)
def test_what_it_looks_like(value, shown):
    assert printable(value) == shown


def test_a_value_that_cannot_be_shown():
    class Broken:
        def __str__(self):
            raise RuntimeError

    assert printable(Broken()) == "<Broken>"
