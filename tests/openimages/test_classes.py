"""What the steps take for a number, an image id, a class list and a datapoint, whoever wrote the file."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.cli import InputError
from common.files.csv_files import parse_number
from common.openimages.classes import class_texts, read_classes
from common.openimages.datapoints import read_datapoints
from common.openimages.ids import is_image_id
from common.records.types import ATTRIBUTES, read_points

BOX = {"label": "/m/01yrx", "x0": 0.1, "x1": 0.2, "y0": 0.3, "y1": 0.4}
POINT = {"id": "000000000000000a", "annotations": [BOX]}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_comes_back(value):
    assert parse_number(repr(value)) == value
    assert parse_number(value) == value


@given(st.text("0123456789.eE+-_ nanif٣", max_size=8))
@example("1_0")
@example("1e400")
@example(" 1")
@example("٣")
@example("0x1")
def test_a_text_is_a_number_where_it_is_a_finite_ascii_decimal(text):
    """Python's float is the measure, less what it takes beyond plain finite decimals."""
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
def test_any_class_list_comes_back_in_order(tmp_path_factory, classes):
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    path.write_bytes("\ufeff\r\n\n".encode() + "\r\n".join(classes).encode())
    assert read_classes(path) == classes


def test_names_that_classes_share_are_told_apart_by_their_mid():
    texts = class_texts(["/m/1", "/m/2", "/m/3"], ["Bench", "Cat", "Bench"], "name")
    assert texts == {"/m/1": "Bench (/m/1)", "/m/2": "Cat", "/m/3": "Bench (/m/3)"}


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in BOX.items() if name != key}


BAD_POINTS = {
    "no object": ([], "2: an array, an object with id and annotations was expected"),
    "no id": ({"annotations": []}, "2: id None"),
    "id with a path": (POINT | {"id": "../a"}, "2: id '../a'"),
    "no annotations": ({"id": "a"}, "2: annotations of a are missing, an array was expected"),
    "annotations an object": (POINT | {"annotations": {}}, "are an object, an array was expected"),
    "box a string": (POINT | {"annotations": ["x"]}, "annotation 0 of 000000000000000a: an object with"),
    "second box without label": (POINT | {"annotations": [BOX, without("label")]}, "annotation 1 of"),
    "no x1": (POINT | {"annotations": [without("x1")]}, "x1 is None, a number from 0 to 1"),
    "y0 a boolean": (POINT | {"annotations": [BOX | {"y0": True}]}, "y0 is True, a number"),
    "y1 in pixels": (POINT | {"annotations": [BOX | {"y1": 240}]}, "y1 is 240, a number from 0 to 1"),
    "left of the image": (POINT | {"annotations": [BOX | {"x0": -0.1}]}, "x0 is -0.1, a number from 0 to 1"),
    "no width": (POINT | {"annotations": [BOX | {"x1": 0.1}]}, "x0 < x1 and y0 < y1 were expected"),
    "upside down": (POINT | {"annotations": [BOX | {"y1": 0.2}]}, "x0 < x1 and y0 < y1 were expected"),
    "labels an object": (POINT | {"image_labels": {}}, "image_labels of 000000000000000a: an object"),
    "label without confidence": (POINT | {"image_labels": [{"label": "/m/1"}]}, "confidence None"),
}


@pytest.mark.parametrize("read", [read_datapoints, read_points])
@pytest.mark.parametrize(("point", "message"), BAD_POINTS.values(), ids=BAD_POINTS)
def test_a_bad_datapoint_is_an_error_at_its_line(tmp_path, point, message, read):
    path = tmp_path / "points.json"
    path.write_text("[" + json.dumps(POINT) + ",\n" + json.dumps(point) + "\n]\n")
    with pytest.raises(InputError) as error:
        list(read(path))
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


def test_datapoints_keep_what_is_not_known_and_have_numbers_as_floats(tmp_path):
    path = tmp_path / "points.json"
    path.write_text(
        json.dumps([POINT | {"mine": 1, "annotations": [BOX | {"x0": 0, "x1": "1.0", "tag": "t"}]}])
    )
    [point] = read_datapoints(path)
    assert point == POINT | {"mine": 1, "annotations": [BOX | {"x0": 0.0, "x1": 1.0, "tag": "t"}]}
    assert type(point["annotations"][0]["x0"]) is float


@pytest.mark.parametrize("read", [read_datapoints, read_points])
def test_a_file_without_datapoints_is_an_error(tmp_path, read):
    (tmp_path / "points.json").write_text("[]")
    with pytest.raises(InputError, match="no datapoints in it"):
        list(read(tmp_path / "points.json"))


ATTRIBUTE = st.sampled_from([-1, 0, 1, 2, 1.0, True, None, "0", "1", "-1", "x"])
SIDES = st.tuples(st.sampled_from([0, 0.0, "0", 0.125]), st.sampled_from([1, 1.0, "1.0", 0.1 + 0.2]))
BOXES = st.tuples(SIDES, SIDES, st.dictionaries(st.sampled_from(ATTRIBUTES), ATTRIBUTE)).map(
    lambda of: {
        "label": "/m/1", "x0": of[0][0], "x1": of[0][1], "y0": of[1][0], "y1": of[1][1], "mine": [1], **of[2]
    }
)  # fmt: skip
LABELS = st.sampled_from([0, 1, 0.5, "1", "0.25"]).map(lambda value: {"label": "/m/1", "confidence": value})
POINTS = st.fixed_dictionaries(
    {"id": st.just("a"), "annotations": st.lists(BOXES, max_size=3)},
    optional={
        "image_labels": st.lists(LABELS, max_size=2),
        "subset": st.sampled_from(["train", None, 1]),
        "width": st.sampled_from([256, None]),
    },
)


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_step_7_reads_the_same_of_lines_and_of_any_other_layout(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("points")
    (folder / "lines").write_text("[\n" + ",\n".join(map(json.dumps, points)) + "\n]\n")
    (folder / "indented").write_text(json.dumps(points, indent=1))
    of_lines = list(read_points(folder / "lines"))
    assert of_lines == list(read_points(folder / "indented"))
    for point, taken in zip(points, of_lines, strict=True):
        stated = [box.get("inside", -1) for box in point["annotations"]]
        known = {"0": 0, "1": 1, 0: 0, 1: 1}
        expected = [-1 if type(value) in (bool, float) else known.get(value, -1) for value in stated]
        assert [box.inside for box in taken.annotations] == expected
        assert [box.x1 for box in taken.annotations] == [float(box["x1"]) for box in point["annotations"]]
