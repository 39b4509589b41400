"""Text from outside in messages: one line that everything can take."""

import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pid_core.errors import print_on_one_line
from pid_core.log import log
from pid_core.printable import LONGEST, printable, quoted

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


def test_a_value_of_any_kind():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert quoted("a\nb") == repr("a\nb") and quoted(["flux"]) == "['flux']"
    assert quoted(nested) == "<list>" and quoted(10**5000) == "<int>"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("caf\udce9 \x1b[31m\n" + "x" * 10**6),
        FileNotFoundError("no such file: caf\udce9\n"),
        OSError(2, "No such\nfile", "caf\udce9"),
        KeyError("a\nb\udce9"),
        RuntimeError("several\nlines"),
    ],
)
def test_errors_print_on_one_line_with_all_that_is_behind_them(error):
    try:
        try:
            raise ValueError("behind\udce9")
        except ValueError:
            raise error  # noqa: B904
    except Exception as caught:
        print_on_one_line(caught)
        assert type(caught) is type(error) and str(caught).isprintable() and len(str(caught)) < 2000
        "".join(traceback.format_exception(caught)).encode()
        if isinstance(error, OSError) and error.errno:
            assert error.errno == 2 and "No such\\nfile" in str(error)


def test_the_log_takes_anything(caplog):
    log.warning("a %s", "caf\udce9\nb")
    assert [record.getMessage() for record in caplog.records] == ["PiD: a caf\\udce9\\nb"]
