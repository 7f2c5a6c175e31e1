"""Datapoints: an image and its boxes, as steps 3 and 5 write them and steps 5 and 7 read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.csv_files import parse_number
from common.files.json_files import read_json
from common.openimages.ids import is_image_id


def read_datapoints(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield each datapoint of a file that step 3 or step 5 wrote, its numbers as floats.

    `id` and, of each annotation, `label`, `x0`, `x1`, `y0`, `y1` are required; unknown keys are kept.
    A repeated id is not looked for. A file without datapoints is an error.
    """
    for line, point in read_elements(path):
        yield check_datapoint(point, f"{path}:{line}")


def read_elements(path: str | Path, kind: type | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the line and value of each element of a file of datapoints, as `read_json` does, unchecked."""
    found = False
    for element in read_json(path, kind):
        found = True
        yield element
    if not found:
        raise InputError(f"{path}: no datapoints in it")


def check_datapoint(point: Any, where: str) -> dict[str, Any]:
    """Return a datapoint, its coordinates made floats; an error says `where` it stands and what is wrong."""
    if not isinstance(point, dict):
        raise InputError(f"{where}: {_kind(point)}, an object with id and annotations was expected")
    if not is_image_id(point.get("id")):
        raise InputError(
            f"{where}: id {point.get('id')!r:.80}, an image id of A-Z a-z 0-9 . _ - was expected"
        )
    annotations = point.get("annotations")
    if not isinstance(annotations, list):
        raise InputError(
            f"{where}: annotations of {point['id']} are {_kind(annotations)}, an array was expected"
        )
    for number, box in enumerate(annotations):
        _check_box(box, where, number, point["id"])
    _check_labels(point.get("image_labels", []), f"{where}: image_labels of {point['id']}")
    return point


def _check_box(box: Any, where: str, number: int, image_id: str) -> None:
    has_label = isinstance(box, dict) and isinstance(box.get("label"), str)
    if has_label:
        x0, x1, y0, y1 = box.get("x0"), box.get("x1"), box.get("y0"), box.get("y1")
        if type(x0) is type(x1) is type(y0) is type(y1) is float and 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1:
            return  # nearly all of some 15 million
    where = f"{where}: annotation {number} of {image_id}"
    if not has_label:
        raise InputError(f"{where}: an object with a label was expected")
    for key in ("x0", "x1", "y0", "y1"):
        value = parse_number(box.get(key))
        if value is None or not 0 <= value <= 1:
            raise InputError(f"{where}: {key} is {box.get(key)!r:.80}, a number from 0 to 1 was expected")
        box[key] = value
    if box["x0"] >= box["x1"] or box["y0"] >= box["y1"]:
        raise InputError(f"{where}: x0 < x1 and y0 < y1 were expected")


def _check_labels(labels: Any, where: str) -> None:
    if not isinstance(labels, list):
        raise InputError(f"{where}: {_kind(labels)}, an array was expected")
    for label in labels:
        if not isinstance(label, dict) or not isinstance(label.get("label"), str):
            raise InputError(f"{where}: an object with a label was expected")
        value = parse_number(label.get("confidence"))
        if value is None or not 0 <= value <= 1:
            raise InputError(f"{where}: confidence {label.get('confidence')!r:.80}, 0 to 1 was expected")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", type(None): "missing"}
    return names.get(type(value), "a number or boolean")
