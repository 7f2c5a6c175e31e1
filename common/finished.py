"""Which photos of a folder are finished: whole, made from the same original with the same settings.

Photos carry no settings, so their folder does, in `process_settings.json`. Beside it `.process_finished` has
a line for each finished photo: its original's size and time, and how it was turned. In place the original is
the photo itself. When all of a run is done, `.process_complete` says with which files: while they and the
photos are the same by size and time, the next run has nothing to do, and no need to read them to know it.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.cli import InputError
from common.files import drop_cut_line, open_output, read_lines
from common.json_files import to_json

SETTINGS_NAME = "process_settings.json"
JOURNAL_NAME = ".process_finished"
COMPLETE_NAME = ".process_complete"
_STAMP = re.compile(r"([A-Za-z0-9._-]+) ([0-9]{1,19}) (-?[0-9]{1,20}) ([0-9]{1,3})")


def make_stamp(image_id: str, path: str | Path, turn: int) -> str:
    """Return what a photo is made from: its original's size and time, and its turn; "" without one."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{image_id} {status.st_size} {status.st_mtime_ns} {turn}"


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
    (folder / COMPLETE_NAME).unlink(missing_ok=True)
    journal = folder / JOURNAL_NAME
    if keep_stale:
        with open_output(journal) as stream:
            stream.writelines(f"{image_id} 0 0 0\n".encode() for image_id, _ in read_finished(folder))
    else:
        journal.unlink(missing_ok=True)
    with open_output(folder / SETTINGS_NAME) as stream:
        stream.write(json.dumps(settings, indent=2).encode() + b"\n")


def read_finished(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the images in a folder's journal, each with the rest of its stamp as one number: less room."""
    journal = folder / JOURNAL_NAME
    if not journal.exists():
        return
    for line, text in read_lines(journal):
        match = _STAMP.fullmatch(text.rstrip("\n"))
        if match:
            yield match[1], _number(match)
        elif text.endswith("\n"):  # else the half line of a run that was killed
            raise InputError(f"{journal}:{line}: {text[:80]!r}, id, size, time and turn were expected")


class FinishedImages:
    """The stamps of a locked folder's finished photos; other settings than the folder's are refused."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
        self.folder = folder
        self.journal = folder / JOURNAL_NAME
        self.complete = folder / COMPLETE_NAME
        if has_other_settings(folder, settings, overwrite=overwrite):
            replace_settings(folder, settings)
        if self.journal.exists():
            drop_cut_line(self.journal)
        # id -> the rest of its stamp; None when it was taken
        self.known: dict[str, int | None] = dict(read_finished(folder))

    def __enter__(self) -> Self:
        self.stream = open(self.journal, "ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

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
        self.stream.write("".join(f"{stamp}\n" for stamp in stamps).encode())

    def counts_if_unchanged(
        self, files: Sequence[Path], original: Callable[[str], str], photo: Callable[[str], str]
    ) -> dict[str, int] | None:
        """Return the counts of the run that made these files, None where anything is not as it left it.

        `original` and `photo` give an image's paths. A million photos take seconds: two looks at each.
        """
        try:
            record = json.loads(self.complete.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return None  # what a careless hand left; the whole check follows
        if not isinstance(record, dict) or record.get("files") != _fingerprints(files):
            return None
        failed: dict[str, str] = record["failed"]
        if any(make_stamp(name, original(name), _turn(stamp)) != stamp for name, stamp in failed.items()):
            return None
        for name, number in self.known.items():
            try:
                status = os.stat(original(name))
                whole = number is not None and number >> 9 == status.st_mtime_ns << 64 | status.st_size
                if not whole or os.stat(photo(name)).st_size == 0:
                    return None
            except OSError:
                return None
        return dict(record["counts"])

    def note_complete(self, files: Sequence[Path], counts: dict[str, int], failed: dict[str, str]) -> None:
        """Remember that all is done: with which files, counts, and stamps of the photos that failed."""
        record = {"files": _fingerprints(files), "counts": counts, "failed": failed}
        with open_output(self.complete) as stream:
            stream.write(to_json(record) + b"\n")


def _fingerprints(files: Sequence[Path]) -> dict[str, list[int]] | None:
    """Return size and time of each file by its full path, None where one is not there."""
    found = {}
    for path in files:
        try:
            status = path.stat()
        except OSError:
            return None
        found[str(path.resolve())] = [status.st_size, status.st_mtime_ns]
    return found


def _turn(stamp: str) -> int:
    match = _STAMP.fullmatch(stamp)
    return int(match[4]) if match else 0


def _number(match: re.Match[str]) -> int:
    return (int(match[3]) << 64 | int(match[2])) << 9 | int(match[4])


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of a folder of photos; remove it to make them anew")
    return settings


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return what differs, as `max_side 256, not 512`."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)}, not {after.get(name)}" for name in names)
