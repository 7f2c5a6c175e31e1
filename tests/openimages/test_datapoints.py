"""The schema of datapoints and index entries, for files that anyone may have written."""

import importlib
import json
import shutil
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli import InputError
from common.openimages.datapoints import ATTRIBUTES, read_datapoints, read_index, read_raw_datapoints
from tests.conftest import ROOT
from tests.support.step3 import CAT, INDEX_V3, V4, A, B, box, entry, table
from tests.support.step7 import photo, read_back

BOX = {"label": "/m/01yrx", "x0": 0.1, "x1": 0.2, "y0": 0.3, "y1": 0.4}
POINT = {"id": "000000000000000a", "annotations": [BOX]}


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in BOX.items() if name != key}


BAD_POINTS = {
    "no object": ([], "2: Expected `object`, got `array`: []"),
    "no id": ({"annotations": []}, "2: Object missing required field `id`: {'annotations': []}"),
    "id with a path": (POINT | {"id": "../a"}, "- at `$.id`: '../a'"),
    "id with a line end": (POINT | {"id": "a\n"}, "- at `$.id`: 'a\\n'"),
    "no annotations": ({"id": "a"}, "2: Object missing required field `annotations`"),
    "annotations an object": (
        POINT | {"annotations": {}},
        "Expected `array`, got `object` - at `$.annotations`: {}",
    ),
    "box a string": (
        POINT | {"annotations": ["x"]},
        "Expected `object`, got `str` - at `$.annotations[0]`: 'x'",
    ),
    "second box without label": (
        POINT | {"annotations": [BOX, without("label")]},
        "field `label` - at `$.annotations[1]`",
    ),
    "no x1": (POINT | {"annotations": [without("x1")]}, "field `x1` - at `$.annotations[0]`"),
    "y0 a boolean": (
        POINT | {"annotations": [BOX | {"y0": True}]},
        "got `bool` - at `$.annotations[0].y0`: True",
    ),
    "y1 in pixels": (
        POINT | {"annotations": [BOX | {"y1": 240}]},
        "Expected `float` <= 1.0 - at `$.annotations[0].y1`: 240",
    ),
    "left of the image": (
        POINT | {"annotations": [BOX | {"x0": -0.1}]},
        "Expected `float` >= 0.0 - at `$.annotations[0].x0`: -0.1",
    ),
    "no number": (POINT | {"annotations": [BOX | {"x0": "nan"}]}, "- at `$.annotations[0].x0`: 'nan'"),
    "no width": (
        POINT | {"annotations": [BOX | {"x1": 0.1}]},
        "Expected x0 < x1 and y0 < y1 - at `$.annotations[0]`: {",
    ),
    "upside down": (
        POINT | {"annotations": [BOX | {"y1": 0.2}]},
        "Expected x0 < x1 and y0 < y1 - at `$.annotations[0]`: {",
    ),
    "attribute of another value": (
        POINT | {"annotations": [BOX | {"inside": 2}]},
        "Expected `int` <= 1 - at `$.annotations[0].inside`: 2",
    ),
    "attribute a boolean": (
        POINT | {"annotations": [BOX | {"inside": True}]},
        "got `bool` - at `$.annotations[0].inside`: True",
    ),
    "labels an object": (
        POINT | {"image_labels": {}},
        "Expected `array`, got `object` - at `$.image_labels`: {}",
    ),
    "label without confidence": (
        POINT | {"image_labels": [{"label": "/m/1"}]},
        "field `confidence` - at `$.image_labels[0]`",
    ),
    "no width in pixels": (POINT | {"width": 0}, "Expected `int` >= 1 - at `$.width`: 0"),
}


@pytest.mark.parametrize("read", [read_datapoints, read_raw_datapoints])
@pytest.mark.parametrize(("point", "message"), BAD_POINTS.values(), ids=BAD_POINTS)
def test_a_bad_datapoint_is_an_error_at_its_line(tmp_path, point, message, read):
    path = tmp_path / "points.json"
    path.write_text("[" + json.dumps(POINT) + ",\n" + json.dumps(point) + "\n]\n")
    with pytest.raises(InputError) as error:
        list(read(path))
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


def test_raw_datapoints_keep_unknown_keys_and_have_coordinates_as_floats(tmp_path):
    path = tmp_path / "points.json"
    path.write_text(
        json.dumps([POINT | {"mine": 1, "annotations": [BOX | {"x0": 0, "x1": "1.0", "tag": "t"}]}])
    )
    [(line, point)] = read_raw_datapoints(path)
    assert line == 1
    assert point == POINT | {"mine": 1, "annotations": [BOX | {"x0": 0.0, "x1": 1.0, "tag": "t"}]}
    assert type(point["annotations"][0]["x0"]) is float


@pytest.mark.parametrize("read", [read_datapoints, read_raw_datapoints])
def test_a_file_without_datapoints_is_an_error(tmp_path, read):
    (tmp_path / "points.json").write_text("[]")
    with pytest.raises(InputError, match="no images in it"):
        list(read(tmp_path / "points.json"))


ATTRIBUTE = st.sampled_from([-1, 0, 1, 1.0, "0", "1", "-1", "1.0"])
SIDES = st.tuples(st.sampled_from([0, 0.0, "0", 0.125]), st.sampled_from([1, 1.0, "1.0", 0.1 + 0.2]))
BOXES = st.tuples(SIDES, SIDES, st.dictionaries(st.sampled_from([*ATTRIBUTES]), ATTRIBUTE)).map(
    lambda of: {
        "label": "/m/1", "x0": of[0][0], "x1": of[0][1], "y0": of[1][0], "y1": of[1][1], "mine": [1], **of[2]
    }
)  # fmt: skip
LABELS = st.sampled_from([0, 1, 0.5, "1", "0.25"]).map(lambda value: {"label": "/m/1", "confidence": value})
POINTS = st.fixed_dictionaries(
    {"id": st.just("a"), "annotations": st.lists(BOXES, max_size=3)},
    optional={
        "image_labels": st.lists(LABELS, max_size=2),
        "subset": st.sampled_from(["train", None]),
        "width": st.sampled_from([256, None]),
    },
)


@given(st.lists(POINTS, min_size=1, max_size=4))
def test_step_7_reads_the_same_from_lines_and_from_any_other_layout(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("points")
    (folder / "lines").write_text("[\n" + ",\n".join(map(json.dumps, points)) + "\n]\n")
    (folder / "indented").write_text(json.dumps(points, indent=1))
    of_lines = list(read_datapoints(folder / "lines"))
    assert of_lines == list(read_datapoints(folder / "indented"))
    for point, taken in zip(points, of_lines, strict=True):
        stated = [box.get("inside", -1) for box in point["annotations"]]
        assert [box.inside for box in taken.annotations] == [int(float(value)) for value in stated]
        assert [box.x1 for box in taken.annotations] == [float(box["x1"]) for box in point["annotations"]]


BAD_ENTRIES = {
    "size no number": ({"size": "large"}, "got `str` - at `$.size`: 'large'"),
    "size below zero": ({"size": -1}, "Expected `int` >= 0 - at `$.size`: -1"),
    "subset a number": ({"subset": 1}, "got `int` - at `$.subset`: 1"),
    "rotation no number": ({"rotation": "left"}, "got `str` - at `$.rotation`: 'left'"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_bad_index_entry_is_an_error_at_its_line(tmp_path, change, message):
    path = tmp_path / "images.json"
    path.write_text("[\n" + json.dumps({"id": "a", "url": "http://x/"} | change) + "\n]\n")
    with pytest.raises(InputError) as error:
        list(read_index(path))
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


def test_numbers_of_the_index_can_be_strings(tmp_path):
    path = tmp_path / "images.json"
    path.write_text(
        '{"id": "a", "size": "141489", "rotation": "90.0", "mine": [1]}\n{"id": "b", "size": 7.0}\n'
    )
    (first_line, first), (second_line, second) = read_index(path)
    assert (first_line, first.size, first.rotation, first.url) == (1, 141489, 90.0, None)
    assert (second_line, second.size) == (2, 7)


# --- the recipe for a new attribute, in CONTRIBUTING.md -----------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Yield the folder of a copy of the project, whose modules are imported instead of ours meanwhile."""
    scripts = ("process_metadata", "process_images", "record_maker")
    for name in scripts:
        shutil.copy(ROOT / f"{name}.py", tmp_path)
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))

    def take_out():
        names = [name for name in sys.modules if name.partition(".")[0] in ("common", *scripts)]
        return {name: sys.modules.pop(name) for name in names}

    ours = take_out()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    take_out()
    sys.modules |= ours


def test_a_new_attribute_of_a_box_is_one_line(project):
    """With one line more the column IsWild is read, boxes are dropped by it, and records have it."""
    schema = project / "common/openimages/datapoints.py"
    lines = schema.read_text().splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if line.startswith("    inside: "))
    lines.insert(place + 1, '    wild: Annotated[Attribute, "IsWild"] = -1  # lives in the wild\n')
    schema.write_text("".join(lines))

    rows = [box(image, more=f",0,0,0,0,0,{wild}") for image in (A, B) for wild in (0, 1, -1)]
    (project / "boxes.csv").write_text(table(f"{V4},IsWild", *rows))
    (project / "images.csv").write_text(table(INDEX_V3, entry(A), entry(B)))
    (project / "classes.txt").write_text(f"{CAT}\n")
    (project / "photos").mkdir()
    for image in (A, B):
        (project / f"photos/{image}.jpg").write_bytes(photo())
    for name, flags in (
        ("process_metadata", "--annotations_input_path boxes.csv --image_index_input_path images.csv --exclude wild "
         "--trainable_classes_path classes.txt --point_output_path points.json --image_index_output_path index.json"),
        ("process_images", "--image_directory photos --image_saving_directory resized --workers 1 "
         "--datapoints_input_path points.json --datapoints_output_path resized.json"),
        ("record_maker", "--points_path resized.json --saved_images_directory resized --workers 1 "
         "--trainable_classes_path classes.txt --record_save_path records"),
    ):  # fmt: skip
        module = importlib.import_module(name)
        assert module.__file__ == str(project / f"{name}.py")
        module.main(flags.split())
    records = read_back(project / "records")
    assert [record["image/source_id"] for record in records] == [[A.encode()], [B.encode()]]
    assert [record["image/object/wild"] for record in records] == [[0, -1]] * 2  # 1 was excluded
