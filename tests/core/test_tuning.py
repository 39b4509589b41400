"""Values stay with their pictures."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pid_core.images.per_picture import match_values, parse_ids, parse_numbers, parse_sigmas, picture_id

IDS = st.lists(st.sampled_from([f"{n:016x}" for n in range(12)]), min_size=1, max_size=12, unique=True)


def test_pictures_are_told_apart_by_what_they_show():
    image = torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[2, 1, 0] = 1 - other[2, 1, 0]
    assert picture_id(image) == picture_id(image.clone()) == picture_id(image + 1e-5)
    assert len({picture_id(image), picture_id(other), picture_id(image.movedim(0, 1)), picture_id(image[:5])}) == 4
    assert parse_ids([picture_id(image)]) == [picture_id(image)]


@pytest.mark.parametrize("text", ["0.1, 0.5", "[0.1, 0.5]", "0.1 0.5", "0.1;0.5,", [0.1, 0.5], (0.1, 0.5)])
def test_numbers_in_every_form(text):
    assert parse_sigmas(text) == [0.1, 0.5]


def test_no_numbers():
    assert parse_numbers("") == parse_numbers(" [] ") == parse_numbers([]) == []
    assert parse_numbers(0.3) == [0.3]


@pytest.mark.parametrize("text", ["a", "0.1, b", "nan", [None], [[0.1]], "0.1.2"])
def test_what_is_no_number(text):
    with pytest.raises(ValueError, match="sigmas must be numbers"):
        parse_sigmas(text)


def test_sigmas_out_of_range():
    with pytest.raises(ValueError, match=r"between 0 and 1 each, got 1\.5"):
        parse_sigmas("0.2, 1.5")


def test_ids_in_every_form():
    ids = ["0123456789abcdef", "fedcba9876543210"]
    assert parse_ids(ids) == parse_ids(str(ids)) == parse_ids(" ".join(ids)) == ids
    assert parse_ids("") == parse_ids([]) == []


@given(IDS, st.data())
def test_every_picture_keeps_its_value(ids, data):
    values = data.draw(st.lists(st.floats(0, 1), min_size=len(ids), max_size=len(ids)))
    batch = data.draw(IDS)
    found = match_values(values, ids, batch, 0.125)
    assert found == [dict(zip(ids, values, strict=True)).get(picture, 0.125) for picture in batch]


def test_equal_pictures_keep_their_order():
    a, b = "a" * 16, "b" * 16
    assert match_values([0.1, 0.2, 0.3], [a, b, a], [a, a, b, a], 0.9) == [0.1, 0.3, 0.2, 0.9]


def test_without_ids_values_go_by_position_or_not_at_all():
    assert match_values([0.1, 0.2], [], ["a", "b"], 0.9) == [0.1, 0.2]
    assert match_values([], [], ["a", "b"], 0.9) == [0.9, 0.9]
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"{count} values, the batch holds 2 images"):
            match_values([0.1] * count, [], ["a", "b"], 0.9)
    with pytest.raises(ValueError, match="1 values for 2 pictures"):
        match_values([0.1], ["a" * 16, "b" * 16], ["a" * 16], 0.9)
