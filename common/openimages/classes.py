"""What is true of Open Images: its class lists, descriptions, ids, columns and datapoints.

Classes are keyed by MID (such as /m/01yrx), never by name: names are shared by several classes.
The class id of TensorFlow's label map and records is the position in the list of trainable
classes, from 1; 0 is the background.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.csv_files import read_csv
from common.files.whole_files import read_lines

DESCRIPTION_HEADER = ["LabelName", "DisplayName"]  # from V6 on
_MID = re.compile(r"/[a-z]+/[0-9A-Za-z_]+")


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
