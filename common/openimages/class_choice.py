"""Choosing classes by name or MID among the trainable ones."""

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

from common.cli import InputError
from common.files.whole_files import read_lines
from common.openimages.classes import read_descriptions

NEAREST = 5  # names offered in place of one that is not known


def asked_classes(classes: str | None, classes_path: str | Path | None) -> list[tuple[str, str]]:
    """Return what `--classes` (comma-separated, as CSV) or `--classes_path` (one a line) asks for.

    Each class comes after where it stands.
    """
    if classes is not None:
        try:
            rows = csv.reader([classes], strict=True, skipinitialspace=True)
            asked = [("--classes", text) for text in next(rows, [])]
        except csv.Error as error:
            raise InputError(f"--classes: {error}, names separated by commas were expected") from None
    else:
        assert classes_path is not None
        asked = [(f"{classes_path}:{line}", text) for line, text in read_lines(classes_path)]
    asked = [(where, text.strip()) for where, text in asked if text.strip()]
    if not asked:
        raise InputError(f"{classes_path or '--classes'}: no class in it, names or MIDs were expected")
    return asked


def choose_classes(
    asked: Sequence[tuple[str, str]], trainable: Sequence[str], descriptions: str | Path | None
) -> list[str]:
    """Return the trainable classes that `asked_classes` says, in the order of the trainable list.

    Names are compared exactly after folding case. A name that is unknown, that several MIDs share, or
    that is not trainable is an error that says where it stands, with the candidates.
    """
    names = read_descriptions(descriptions) if descriptions is not None else {}
    by_name: dict[str, list[str]] = {}
    for mid, name in names.items():
        by_name.setdefault(name.strip().casefold(), []).append(mid)
    wanted = set()
    for where, text in asked:
        if not names and not text.startswith("/"):
            raise InputError(f"{where}: --class_description_path is needed to know classes by their names")
        try:
            wanted.add(_choose(text, set(trainable), names, by_name))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return [mid for mid in trainable if mid in wanted]


def _choose(text: str, trainable: set[str], names: dict[str, str], by_name: dict[str, list[str]]) -> str:
    if text.startswith("/"):
        if text not in trainable:
            known = f" ({names[text]})" if text in names else ""
            raise InputError(f"class {text}{known} is not among the {len(trainable)} trainable classes")
        return text
    mids = by_name.get(text.casefold(), [])
    fit = [mid for mid in mids if mid in trainable]
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise InputError(f"class {text!r} is {len(fit)} classes, name one by its MID: {', '.join(fit)}")
    trainable_names = {name.casefold(): name for mid, name in names.items() if mid in trainable}
    near = difflib.get_close_matches(text.casefold(), trainable_names, NEAREST, cutoff=0.5)
    hint = f"; near it are {', '.join(trainable_names[name] for name in near)}" if near else ""
    why = f"is not trainable ({', '.join(mids)})" if mids else "is not known"
    raise InputError(f"class {text!r} {why}{hint}")
