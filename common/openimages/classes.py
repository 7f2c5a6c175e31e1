"""Class lists, class descriptions and the class hierarchy.

Classes are keyed by MID (such as /m/01yrx), never by name: several classes can share a name. The class id in
TensorFlow's label map and records is the position in the list of trainable classes, from 1; 0 is background.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.csv_files import check_separator, read_csv
from common.files.whole_files import open_input, read_lines

HEAD_ITEMS = 10  # of a file, to tell by its content what it is
ROOT = "/m/0bl9f"  # of the hierarchy
_MID = re.compile(r"/[a-z]+/[0-9A-Za-z_]+")


def read_classes(path: str | Path) -> list[str]:
    """Return the MIDs of a class list, one a line; `path` may be the folder that holds it.

    Blank lines are skipped. A duplicate class, a line that is no MID or an empty list is an error.
    """
    path = class_list_file(path)
    lines: dict[str, int] = {}
    for line, mid in _class_list(path):
        if mid in lines:
            raise InputError(f"{path}:{line}: duplicate class {mid}, first in line {lines[mid]}")
        lines[mid] = line
    if not lines:
        raise InputError(f"{path}: no classes in it, one MID a line was expected")
    return list(lines)


def class_ids(classes: Sequence[str]) -> dict[str, int]:
    """Return the id of each class: its position in the list of trainable classes, from 1."""
    return {mid: number for number, mid in enumerate(classes, start=1)}


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Return the name of each MID, unchanged; `path` may be the folder that holds the file."""
    path = descriptions_file(path)
    names: dict[str, str] = {}
    for line, mid, name in _descriptions(path):
        if names.setdefault(mid, name) != name:
            raise InputError(f"{path}:{line}: {mid} is named {name!r}, but {names[mid]!r} above")
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
            f"{classes_path}: {', '.join(missing)}; give the class-descriptions.csv of the same release"
        )
    return [names[mid] for mid in classes]


def class_texts(classes: Sequence[str], names: Sequence[str], kind: str) -> dict[str, str]:
    """Return what records and label map call each MID: the MID or, if `kind` is name, the name of the class.

    A name that several of the classes share is followed by the MID.
    """
    if kind == "mid":
        return dict(zip(classes, classes, strict=True))
    number = Counter(names)
    return {
        mid: f"{name} ({mid})" if number[name] > 1 else name for mid, name in zip(classes, names, strict=True)
    }


def read_ancestors(path: str | Path) -> dict[str, set[str]]:
    """Return the ancestors of each class of the official hierarchy JSON (V4 and later), without the root.

    As in the official expansion only `Subcategory` is followed, not `Part`. A class can have several parents
    and reach an ancestor in two ways; each ancestor counts once.
    """
    with open_input(path) as stream:
        try:
            tree = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({error}), the class hierarchy was expected") from None
    ancestors: dict[str, set[str]] = {}
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]  # nodes, each with its ancestors
    while waiting:
        node, above = waiting.pop()
        if not isinstance(node, dict) or not isinstance(node.get("LabelName"), str):
            raise InputError(f"{path}: {json.dumps(node)[:80]}, an object with LabelName was expected")
        mid, children = node["LabelName"], node.get("Subcategory", [])
        if not isinstance(children, list):
            raise InputError(f"{path}: Subcategory of {mid} is not an array")
        ancestors.setdefault(mid, set()).update(above)
        below = above if mid == ROOT else above | {mid}
        waiting.extend((child, below) for child in children)
    ancestors.pop(ROOT, None)
    return ancestors


def descendants(ancestors: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the descendants of each class, given the ancestors of each."""
    below: dict[str, set[str]] = {}
    for mid, above in ancestors.items():
        for ancestor in above:
            below.setdefault(ancestor, set()).add(mid)
    return below


def class_list_file(path: str | Path) -> Path:
    """Return the class list at `path`, or the one in that folder; none or several are an error."""
    return _find_file(Path(path), "a class list (one MID a line)", _class_list)


def descriptions_file(path: str | Path) -> Path:
    """Return the class descriptions at `path`, or those in that folder; none or several are an error."""
    return _find_file(Path(path), "class descriptions (CSV: MID, name)", _descriptions)


def _class_list(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and MID of each class of a list."""
    for line, text in read_lines(path):
        if mid := text.strip():
            _check_mid(mid, f"{path}:{line}")
            yield line, mid


def _descriptions(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, MID and name of each class of a file of descriptions.

    The first row is a header, whatever is in it, unless something in it looks like a MID.
    """
    is_first = True
    for line, row in read_csv(path, needs_last_line_end=False):
        check_separator(path, line, row)
        if len(row) != 2:
            raise InputError(f"{path}:{line}: {len(row)} fields, two were expected: MID, name")
        if not is_first or "/" in row[0] or _MID.fullmatch(row[1]):
            _check_mid(row[0], f"{path}:{line}")
            yield line, row[0], row[1]
        is_first = False


def _find_file(path: Path, kind: str, read: Callable[[Path], Iterator[Any]]) -> Path:
    """Return `path` or, if it is a folder, the one file in it whose beginning `read` can read."""
    if not path.is_dir():
        return path
    found = []
    for file in sorted(path.iterdir()):
        with suppress(InputError):
            if file.is_file() and list(islice(read(file), HEAD_ITEMS)):
                found.append(file)
    if not found:
        raise InputError(f"{path}: no file in this folder is {kind}")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{path}: {len(found)} files in this folder are {kind}, give one of them: {names}")
    return found[0]


def _check_mid(text: str, where: str) -> None:
    if not _MID.fullmatch(text):
        raise InputError(f"{where}: {text[:80]!r}, a class MID such as /m/01yrx was expected")
