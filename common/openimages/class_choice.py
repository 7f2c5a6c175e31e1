"""Choice of some of the trainable classes, by name or MID."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

from common.cli import InputError
from common.files.whole_files import read_lines
from common.openimages.classes import read_descriptions

SUGGESTIONS = 5  # names offered in place of an unknown one


def asked_classes(classes: str | None, classes_path: str | Path | None) -> list[tuple[str, str]]:
    """Return what `--classes` (comma-separated, as CSV) or `--classes_path` (one a line) asks for.

    Each is a pair of the place, for messages, and the name or MID.
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
    """Return the trainable classes that are `asked` for, in the order of the trainable list.

    Names match whatever their case. A name that is unknown, not trainable, or shared by several trainable
    classes is an error that names its place and the candidates.
    """
    names = read_descriptions(descriptions) if descriptions is not None else {}
    mids: dict[str, list[str]] = {}  # by name
    for mid, name in names.items():
        mids.setdefault(name.strip().casefold(), []).append(mid)
    known = dict.fromkeys(trainable)
    wanted = set()
    for where, text in asked:
        if not names and not text.startswith("/"):
            raise InputError(f"{where}: class {text!r} is a name: names need --class_description_path")
        try:
            wanted.add(_choose(text, known, names, mids.get(text.casefold(), [])))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return [mid for mid in trainable if mid in wanted]


def _choose(text: str, trainable: dict[str, None], names: dict[str, str], mids: Sequence[str]) -> str:
    """Return the trainable class that is called `text`; `mids` are all classes of that name."""
    if text.startswith("/"):
        if text not in trainable:
            name = f" ({names[text]})" if text in names else ""
            raise InputError(f"class {text}{name} is not one of the {len(trainable)} trainable classes")
        return text
    found = [mid for mid in mids if mid in trainable]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{len(found)} classes are named {text!r}: give a MID ({' or '.join(found)})")
    trainable_names = {names[mid].casefold(): names[mid] for mid in trainable if mid in names}
    similar = difflib.get_close_matches(text.casefold(), trainable_names, SUGGESTIONS, cutoff=0.5)
    hint = f"; similar names: {', '.join(trainable_names[name] for name in similar)}" if similar else ""
    reason = f"is not trainable ({', '.join(mids)})" if mids else "is unknown"
    raise InputError(f"class {text!r} {reason}{hint}")
