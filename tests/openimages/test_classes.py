"""Numbers, image ids and class lists, in files that anyone may have written."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.files.csv_files import parse_number
from common.openimages.classes import class_texts, read_classes
from common.openimages.ids import is_image_id


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_round_trips(value):
    assert parse_number(repr(value)) == value
    assert parse_number(value) == value


@given(st.text("0123456789.eE+-_ nanif٣", max_size=8))
@example("1_0")
@example("1e400")
@example(" 1")
@example("٣")
@example("0x1")
def test_a_text_is_a_number_if_it_is_a_finite_ascii_decimal(text):
    """Compared with Python's float, without what that accepts beyond plain finite decimals."""
    try:
        expected = float(text) if set(text) <= set("0123456789.eE+-") else math.nan
    except ValueError:
        expected = math.nan
    assert parse_number(text) == (expected if math.isfinite(expected) else None)


@pytest.mark.parametrize("value", [True, None, [], {}, math.nan, math.inf, 10**400])
def test_other_values_are_no_numbers(value):
    assert parse_number(value) is None


IDS = ["000a1249af2bc5f0", "a", "A-b_c.d", "0" * 128]
NO_IDS = ["", ".hidden", "..", "a/b", "a\\b", "a b", "a\n", "é", "a\0", "0" * 129, "-rf", None, 5]


@pytest.mark.parametrize(("text", "fits"), [(i, True) for i in IDS] + [(i, False) for i in NO_IDS])
def test_an_image_id_is_safe_as_a_file_name(text, fits):
    assert is_image_id(text) is fits


@given(st.lists(st.from_regex(r"/[mgt]/[0-9a-z_]{1,8}", fullmatch=True), min_size=1, unique=True))
def test_any_class_list_round_trips_in_order(tmp_path_factory, classes):
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    path.write_bytes("\ufeff\r\n\n".encode() + "\r\n".join(classes).encode())
    assert read_classes(path) == classes


def test_shared_names_are_followed_by_the_mid():
    texts = class_texts(["/m/1", "/m/2", "/m/3"], ["Bench", "Cat", "Bench"], "name")
    assert texts == {"/m/1": "Bench (/m/1)", "/m/2": "Cat", "/m/3": "Bench (/m/3)"}
