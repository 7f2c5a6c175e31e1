"""What is true of Open Images: its class lists, descriptions, ids, columns and datapoints.

Classes are keyed by MID (such as /m/01yrx), never by name: names are shared by several classes.
The class id of TensorFlow's label map and records is the position in the list of trainable
classes, from 1; 0 is the background.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.json_files import read_json
from common.files.whole_files import read_csv, read_lines

SPLITS = ("train", "validation", "test")
DESCRIPTION_HEADER = ["LabelName", "DisplayName"]  # from V6 on
_MID = re.compile(r"/[a-z]+/[0-9A-Za-z_]+")
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


# --- classes -------------------------------------------------------------------------------------


def read_classes(path: str | Path) -> list[str]:
    """Return the MIDs of a class list, one a line; `path` may be the folder that holds it.

    Blank lines are passed over; a repeated class, a line that is no MID or an empty list is an error.
    """
    path = class_list_file(path)
    lines: dict[str, int] = {}
    for line, text in read_lines(path):
        mid = text.strip().removeprefix("\ufeff")
        if not mid:
            continue
        if not _MID.fullmatch(mid):
            raise InputError(f"{path}:{line}: {mid[:80]!r}, a class MID such as /m/01yrx was expected")
        if mid in lines:
            raise InputError(f"{path}:{line}: {mid} stands in line {lines[mid]} already")
        lines[mid] = line
    if not lines:
        raise InputError(f"{path}: no classes in it, one MID a line was expected")
    return list(lines)


def class_ids(classes: Sequence[str]) -> dict[str, int]:
    """Return the id of each class: its position in the list of trainable classes, from 1."""
    return {mid: number for number, mid in enumerate(classes, start=1)}


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Return the display name of each MID, as it is written; `path` may be the folder that holds the file."""
    path = descriptions_file(path)
    names: dict[str, str] = {}
    for line, row in read_csv(path, needs_last_line_end=False):
        if len(row) != 2:
            raise InputError(f"{path}:{line}: {len(row)} fields, two were expected: MID, name")
        if row == DESCRIPTION_HEADER and not names:
            continue
        mid, name = row
        if not _MID.fullmatch(mid):
            raise InputError(f"{path}:{line}: {mid[:80]!r}, a class MID such as /m/01yrx was expected")
        if names.setdefault(mid, name) != name:
            raise InputError(f"{path}:{line}: {mid} is {name!r} here and {names[mid]!r} before")
    if not names:
        raise InputError(f"{path}: no class descriptions in it")
    return names


def describe(classes: Sequence[str], classes_path: str | Path, descriptions_path: str | Path) -> list[str]:
    """Return the names of `classes`, in order; a class without a description is an error."""
    names = read_descriptions(descriptions_path)
    missing = [mid for mid in classes if mid not in names]
    if missing:
        raise InputError(
            f"{descriptions_path}: no description of {len(missing)} of the {len(classes)} classes in "
            f"{classes_path}: {', '.join(missing)}{_better_descriptions(missing, Path(descriptions_path))}"
        )
    return [names[mid] for mid in classes]


def class_texts(classes: Sequence[str], names: Sequence[str], kind: str) -> dict[str, str]:
    """Return what records and label map call each MID: itself, or for `kind` name the name of the class.

    Where several of the classes share a name, the MID follows it.
    """
    if kind == "mid":
        return dict(zip(classes, classes, strict=True))
    shared = {name for name, times in Counter(names).items() if times > 1}
    return {
        mid: f"{name} ({mid})" if name in shared else name for mid, name in zip(classes, names, strict=True)
    }


def _better_descriptions(missing: Sequence[str], path: Path) -> str:
    """Return a hint at the nearby descriptions file that knows most of the missing classes, if any does."""
    folder = path if path.is_dir() else path.parent
    known: dict[Path, int] = {}
    for file in sorted([*folder.glob("*.csv"), *folder.glob("*/*.csv")]):
        if file.is_file() and not (path.is_file() and file.samefile(path)) and _is_descriptions(file):
            try:
                names = read_descriptions(file)
            except InputError:
                continue  # not the file that was asked for: its faults are no one's concern here
            known[file] = sum(mid in names for mid in missing)
    best = max(known, key=lambda file: known[file], default=None)
    if best is None or not known[best]:
        return "; the class-descriptions.csv of the same release is what is needed"
    return f"; {best} has {known[best]} of them"


def class_list_file(path: str | Path) -> Path:
    """Return the class list that `path` names: itself, or the one in that folder; InputError if not one."""
    return _class_file(Path(path), "a class list (one MID a line)", _is_class_list)


def descriptions_file(path: str | Path) -> Path:
    """Return the class descriptions that `path` names: itself, or those in that folder; errors likewise."""
    return _class_file(Path(path), "class descriptions (two CSV columns: MID, name)", _is_descriptions)


def _class_file(path: Path, what: str, fits: Any) -> Path:
    """Return `path`, or the one file in the folder `path` whose content fits."""
    if not path.is_dir():
        return path
    found = [file for file in sorted(path.iterdir()) if file.is_file() and fits(file)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{path}: {len(found)} files in this folder are {what}, name one: {names}")
    raise InputError(f"{path}: no file in this folder is {what}")


def _is_class_list(path: Path) -> bool:
    return _head_fits(path, lambda line: _MID.fullmatch(line) is not None)


def _is_descriptions(path: Path) -> bool:
    def fits(line: str) -> bool:
        mid, comma, _ = line.partition(",")
        return line == ",".join(DESCRIPTION_HEADER) or (comma == "," and _MID.fullmatch(mid) is not None)

    return _head_fits(path, fits)


def _head_fits(path: Path, fits: Any) -> bool:
    """Tell whether the first lines with text in a file all fit, and there is one."""
    seen = 0
    try:
        for _, line in read_lines(path):
            text = line.strip().removeprefix("\ufeff")
            if text and not fits(text):
                return False
            seen += bool(text)
            if seen == 10:
                break
    except InputError:
        return False  # binary, or no text of ours
    return seen > 0


# --- images and boxes ----------------------------------------------------------------------------


def is_image_id(text: Any) -> bool:
    """Tell whether `text` may be used in a file name; official ids are 16 hexadecimal digits."""
    return isinstance(text, str) and IMAGE_ID.fullmatch(text) is not None


def image_file_name(image_id: str, image_format: str = "jpeg") -> str:
    """Return the name of an image's file, here and on the mirror; `image_format` is jpeg or png."""
    return image_id + {"jpeg": ".jpg", "png": ".png"}[image_format]


def parse_number(text: Any) -> float | None:
    """Return a finite decimal number, None for anything else (`nan`, `1_0`, `1e400`, other digits)."""
    kind = type(text)
    if kind is str:
        if not _NUMBER.fullmatch(text):
            return None
    elif kind is not float and kind is not int:
        return None
    try:
        value = float(text)
    except OverflowError:  # a JSON integer of over 308 digits
        return None
    return value if math.isfinite(value) else None


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
