"""Choice of some of the trainable classes, by name or MID."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

from common.cli import InputError, say
from common.files.whole_files import read_lines
from common.openimages.classes import read_ancestors, read_descriptions

SUGGESTIONS = 5  # names offered in place of an unknown one
SHOWN = 10  # subclasses named in a hint
RENAMED = {  # classes whose names in V5 and V6, and in V7, differ
    "/m/015h_t": ("Human beard", "Beard"),
    "/m/018xm": ("Ball", "Ball (Object)"),
    "/m/01r546": ("Earrings", "Earring"),
    "/m/02vqfm": ("Coffee", "Coffee (drink)"),
    "/m/033cnk": ("Egg (Food)", "Egg"),
    "/m/09k_b": ("Lemon", "Lemon (plant)"),
    "/m/0cmf2": ("Airplane", "Fixed-wing aircraft"),
    "/m/0cyhj_": ("Orange", "Orange (fruit)"),
    "/m/0xzly": ("Maracas", "Maraca"),
}


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
    asked: Sequence[tuple[str, str]],
    trainable: Sequence[str],
    trainable_path: str | Path,
    descriptions: str | Path | None,
    ancestors: Mapping[str, Set[str]],
) -> list[str]:
    """Return the trainable classes `asked` for and their subclasses, in the order of the trainable list.

    Names match whatever their case. A class that V7 renamed is also found by its other name, unless that is
    the name of a class in the descriptions. A name that is unknown, not trainable, or shared by several
    trainable classes is an error that names its place and the candidates. Without ancestors, those of no
    --hierarchy_path, a hint names the subclasses that are left out.
    """
    names = read_descriptions(descriptions) if descriptions is not None else {}
    called: dict[str, list[str]] = {}  # MIDs by name
    for mid, name in names.items():
        called.setdefault(name.strip().casefold(), []).append(mid)
    for mid in RENAMED.keys() & names:
        for name in RENAMED[mid]:
            called.setdefault(name.casefold(), [mid])
    known = dict.fromkeys(trainable)
    wanted = set()
    for where, text in asked:
        is_name = not text.startswith("/")
        if is_name and not names:
            raise InputError(f"{where}: class {text!r} is a name: names need --class_description_path")
        mids = called.get(text.casefold(), []) if is_name else [text]
        found = [mid for mid in mids if mid in known]
        if len(found) != 1:
            raise InputError(f"{where}: {_problem(text, mids, found, known, names, called)}")
        mid = found[0]
        if is_name and names[mid].strip().casefold() != text.casefold():
            say(f"{where}: {text!r} is named {names[mid]!r} in {descriptions} ({mid})")
        wanted.add(mid)
    if not ancestors:
        _hint_at_subclasses(wanted, trainable, descriptions or trainable_path, names)
    return [mid for mid in trainable if not wanted.isdisjoint({mid, *ancestors.get(mid, ())})]


def _problem(
    text: str, mids: list[str], found: list[str], trainable: dict[str, None],
    names: dict[str, str], called: dict[str, list[str]],
) -> str:  # fmt: skip
    """Return why `text` is no choice of one class: of the classes called so, those `found` are trainable."""
    if found:
        return f"{len(found)} classes are named {text!r}: give a MID ({' or '.join(found)})"
    if text.startswith("/"):
        name = f" ({names[text]})" if text in names else ""
        return f"class {text}{name} is not one of the {len(trainable)} trainable classes"
    offered = {name: names[mid] for name, mids in called.items() for mid in mids if mid in trainable}
    similar = difflib.get_close_matches(text.casefold(), offered, SUGGESTIONS, cutoff=0.5)
    shown = ", ".join(dict.fromkeys(offered[name] for name in similar))
    reason = f"is not trainable ({', '.join(mids)})" if mids else "is unknown"
    return f"class {text!r} {reason}{'; similar names: ' if shown else ''}{shown}"


def _hint_at_subclasses(
    chosen: set[str], trainable: Sequence[str], class_files: str | Path, names: dict[str, str]
) -> None:
    """Name the trainable subclasses of the chosen classes that are not chosen themselves.

    The hierarchy is the one that get_dataset.sh puts beside the class files; without it nothing is said.
    """
    path = Path(class_files)
    hierarchy = (path if path.is_dir() else path.parent) / "hierarchy.json"
    ancestors: dict[str, set[str]] = {}
    with suppress(InputError):
        ancestors = read_ancestors(hierarchy)
    left = [mid for mid in trainable if mid not in chosen and ancestors.get(mid, set()) & chosen]
    if left:
        shown = ", ".join(names.get(mid, mid) for mid in left[:SHOWN])
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        say(f"{hierarchy}: boxes of {shown}{more} are background; this --hierarchy_path takes subclasses too")
