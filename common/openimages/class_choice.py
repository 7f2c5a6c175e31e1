"""Choice of some of the trainable classes, by name or MID."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

from common.cli import InputError, say
from common.files.whole_files import read_lines
from common.openimages.classes import read_descriptions
from common.openimages.hierarchy import read_ancestors

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
    mids: dict[str, list[str]] = {}  # by name
    for mid, name in names.items():
        mids.setdefault(name.strip().casefold(), []).append(mid)
    renamed = {name: [mid] for name, mid in _other_names(names).items() if name not in mids}
    known = dict.fromkeys(trainable)
    wanted = set()
    for where, text in asked:
        if not names and not text.startswith("/"):
            raise InputError(f"{where}: class {text!r} is a name: names need --class_description_path")
        key = text.casefold()
        try:
            mid = _choose(text, known, names, mids.get(key) or renamed.get(key, []))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if key in renamed:
            say(f"{where}: {text!r} is named {names[mid]!r} in {descriptions} ({mid})")
        wanted.add(mid)
    if not ancestors:
        _hint_at_subclasses(wanted, trainable, descriptions or trainable_path, descriptions)
    return [mid for mid in trainable if not wanted.isdisjoint({mid, *ancestors.get(mid, ())})]


def _other_names(names: dict[str, str]) -> dict[str, str]:
    """Return the MID of each name, folded, that a class has in other releases."""
    return {name.casefold(): mid for mid in RENAMED if mid in names for name in RENAMED[mid]}


def _hint_at_subclasses(
    chosen: set[str], trainable: Sequence[str], class_files: str | Path, descriptions: str | Path | None
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
        names = read_descriptions(descriptions) if descriptions is not None else {}
        shown = ", ".join(names.get(mid, mid) for mid in left[:SHOWN])
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        say(f"{hierarchy}: boxes of {shown}{more} are background; this --hierarchy_path takes subclasses too")


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
    by_name = {name: mid for name, mid in _other_names(names).items() if mid in trainable}
    by_name |= {names[mid].casefold(): mid for mid in trainable if mid in names}
    similar = difflib.get_close_matches(text.casefold(), by_name, SUGGESTIONS, cutoff=0.5)
    offered = dict.fromkeys(names[by_name[name]] for name in similar)
    hint = f"; similar names: {', '.join(offered)}" if similar else ""
    reason = f"is not trainable ({', '.join(mids)})" if mids else "is unknown"
    raise InputError(f"class {text!r} {reason}{hint}")
