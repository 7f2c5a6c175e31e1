"""Which photos of a folder are finished: whole, made from the same original with the same settings.

Photos carry no settings, so their folder does, in `process_settings.json`. Beside it `.process_finished` has
a line for each finished photo: its original's size and time, and how it was turned. In place the original is
the photo itself. When all of a run is done, `.process_complete` says with which files: while they and the
photos are the same by size and time, the next run has nothing to do, and no need to read them to know it.
Of the datapoints, which step 3 writes anew in each run of the pipeline, the same bytes will do.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.cli import InputError
from common.files.journal import Journal, read_journal, remove_journal, replace_journal
from common.files.json_files import to_json
from common.files.storage import Status, is_remote, remove, status
from common.files.whole_files import open_output, read_lines, read_small

SETTINGS_NAME = "process_settings.json"
JOURNAL_NAME = ".process_finished"
COMPLETE_NAME = ".process_complete"
_STAMP = re.compile(r"([A-Za-z0-9._-]+) ([0-9]{1,19}) (-?[0-9]{1,20}) ([0-9]{1,3})")


def make_stamp(image_id: str, original: Status | None, turn: int) -> str:
    """Return what a photo is made from: its original's size and version, and its turn; "" without one."""
    return f"{image_id} {original.size} {original.version} {turn}" if original else ""


def has_other_settings(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> bool:
    """Tell whether these settings replace those of a folder; InputError where that was not asked for."""
    path = folder / SETTINGS_NAME
    before = _read_settings(path)
    if before is not None and before != settings and not overwrite:
        raise InputError(
            f"{path}: the photos in this folder were made with {_differences(before, settings)}; "
            "--overwrite makes them anew"
        )
    return before != settings


def replace_settings(folder: Path, settings: dict[str, Any], *, keep_stale: bool = False) -> None:
    """Give a folder its settings; no photo counts as finished any more.

    With `keep_stale` the journal goes on naming the photos made with the settings before, with stamps that
    read as 0 and that no photo has.
    """
    remove(folder / COMPLETE_NAME)
    journal = folder / JOURNAL_NAME
    if keep_stale:
        replace_journal(journal, (f"{image_id} 0 0 0\n".encode() for image_id, _ in read_finished(folder)))
    else:
        remove_journal(journal)
    with open_output(folder / SETTINGS_NAME) as stream:
        stream.write(json.dumps(settings, indent=2).encode() + b"\n")


def read_finished(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the images in a folder's journal, each with the rest of its stamp as one number: less room."""
    for journal in read_journal(folder / JOURNAL_NAME):
        for line, text in read_lines(journal):
            match = _STAMP.fullmatch(text.rstrip("\n"))
            if not match:
                raise InputError(
                    f"{journal}:{line}: {text.rstrip()[:80]!r}, id, size, time and turn were expected"
                )
            yield match[1], _number(match)


class FinishedImages:
    """The stamps of a locked folder's finished photos; other settings than the folder's are refused."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
        self.folder = folder
        self.journal = Journal(folder / JOURNAL_NAME)
        self.complete = folder / COMPLETE_NAME
        if has_other_settings(folder, settings, overwrite=overwrite):
            replace_settings(folder, settings)
        # id -> the rest of its stamp; None when it was taken
        self.known: dict[str, int | None] = dict(read_finished(folder))

    def __enter__(self) -> Self:
        self.journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)

    def take(self, image_id: str, stamp: str) -> bool | None:
        """Tell whether the photo with this stamp is finished; None where the image was asked for before."""
        before = self.known.get(image_id, 0)
        if before is None:
            return None
        self.known[image_id] = None  # the id alone is needed from here on
        match = _STAMP.fullmatch(stamp)
        return match is not None and before == _number(match)

    def add(self, stamps: list[str]) -> None:
        """Note finished photos, in one write."""
        self.journal.add("".join(f"{stamp}\n" for stamp in stamps))

    def counts_if_unchanged(
        self,
        files: Sequence[Path],
        original: Callable[[str], Status | None],
        photo: Callable[[str], Status | None],
    ) -> dict[str, int] | None:
        """Return the counts of the run that made these files, None where anything is not as it left it.

        `original` and `photo` look at an image's files. A million photos take seconds: two looks at each.
        """
        try:
            record = json.loads(read_small(self.complete) or b"")
        except ValueError:
            return None  # none, or what a careless hand left; the whole check follows
        if not isinstance(record, dict) or not _are_as_noted(files, record.get("files")):
            return None
        failed, counts = record.get("failed"), record.get("counts")
        if not isinstance(failed, dict) or not isinstance(counts, dict):
            return None
        if any(make_stamp(name, original(name), _turn(stamp)) != stamp for name, stamp in failed.items()):
            return None
        for name, number in self.known.items():
            found, made = original(name), photo(name)
            if not (found and made and made.size) or number is None:
                return None
            if number >> 9 != found.version << 64 | found.size:
                return None
        return dict(counts)

    def note_complete(self, files: Sequence[Path], counts: dict[str, int], failed: dict[str, str]) -> None:
        """Remember that all is done: with which files, counts, and stamps of the photos that failed."""
        record = {"files": _fingerprints(files), "counts": counts, "failed": failed}
        with open_output(self.complete) as stream:
            stream.write(to_json(record) + b"\n")


def _fingerprints(files: Sequence[Path]) -> dict[str, list[int | str]] | None:
    """Return size, time and hash of each file by its full path, None where one is not there."""
    found: dict[str, list[int | str]] = {}
    for path in files:
        there = status(path)
        if not there:
            return None
        found[_full_name(path)] = [*there, _digest(path)]
    return found


def _are_as_noted(files: Sequence[Path], noted: Any) -> bool:
    """Tell whether files have the fingerprints noted; one written anew is read, as step 3 runs each time."""
    for path in files:
        before = noted.get(_full_name(path)) if isinstance(noted, dict) else None
        there = status(path)
        if not (there and isinstance(before, list) and len(before) == 3 and before[0] == there.size):
            return False
        if before[1] != there.version and (not before[2] or before[2] != _digest(path)):
            return False
    return True


def _full_name(path: Path) -> str:
    return str(path if is_remote(path) else path.resolve())


def _digest(path: Path) -> str:
    """Return a hash of a file on disk, "" of another, whose version is enough."""
    if is_remote(path):
        return ""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _turn(stamp: str) -> int:
    match = _STAMP.fullmatch(stamp)
    return int(match[4]) if match else 0


def _number(match: re.Match[str]) -> int:
    return (int(match[3]) << 64 | int(match[2])) << 9 | int(match[4])


def _read_settings(path: Path) -> dict[str, Any] | None:
    data = read_small(path)
    if data is None:
        return None
    try:
        settings = json.loads(data)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of a folder of photos; remove it to make them anew")
    return settings


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return what differs, as `max_side 256, not 512`."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)}, not {after.get(name)}" for name in names)
