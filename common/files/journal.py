"""Lines that a killed run leaves to the next: appended to a file, or to an object store as small objects.

On disk a journal is one file, written line by line; a kill costs at most the line it cut. No object can be
appended to, so there the lines of SECONDS at a time are put as `NAME-00000001` and so on, whole; a kill costs
the last of them. The next run makes one object of them, `NAME-00000000`.
"""

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from common.files.storage import is_remote, list_objects, put_bytes, read_pieces, remove
from common.files.whole_files import CHUNK, open_output

SECONDS = 30.0


def drop_cut_line(journal: Path) -> None:
    """Cut off what follows the last line end: the half line of a killed run."""
    with open(journal, "r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - CHUNK)
            stream.seek(start)
            last = stream.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        stream.truncate(end)


def read_journal(path: Path) -> list[Path]:
    """Return the files that hold the whole lines of a journal, in order: none, one, or objects."""
    if is_remote(path):
        part = re.compile(re.escape(path.name) + r"-[0-9]{8}")
        names = list_objects(path.parent, f"{path.name}-")
        return [path.parent / name for name in names if part.fullmatch(name)]
    if not path.exists():
        return []
    drop_cut_line(path)
    return [path]


def remove_journal(path: Path) -> None:
    """Remove a journal; there need be none."""
    for file in read_journal(path) if is_remote(path) else [path]:
        remove(file)


def replace_journal(path: Path, pieces: Iterable[bytes]) -> None:
    """Make a journal of whole lines anew; they may come from the one that it replaces."""
    whole = _part(path, 0) if is_remote(path) else path
    before = read_journal(path)
    with open_output(whole) as stream:
        stream.writelines(pieces)
    # Killed before the parts are gone, some lines come twice, in the same order: the last word is the same.
    for file in before:
        if file != whole:
            remove(file)


class Journal:
    """A journal to add lines to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = 0
        self.pending = b""
        self.put_at = time.monotonic()

    def __enter__(self) -> Self:
        if not is_remote(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = open(self.path, "ab", buffering=0)
        elif (parts := read_journal(self.path)) not in ([], [_part(self.path, 0)]):
            replace_journal(self.path, (piece for part in parts for piece in read_pieces(part)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if is_remote(self.path):
            self._put()
        else:
            self.stream.close()

    def add(self, text: str) -> None:
        """Add whole lines."""
        lines = text.encode(errors="backslashreplace")
        if not lines:
            return
        if not is_remote(self.path):
            self.stream.write(lines)
            return
        self.pending += lines
        if time.monotonic() - self.put_at > SECONDS:
            self._put()

    def drop(self) -> None:
        """Remove the journal with all that was added."""
        self.pending = b""
        remove_journal(self.path)

    def _put(self) -> None:
        if self.pending:
            self.parts += 1
            put_bytes(_part(self.path, self.parts), self.pending)
        self.pending = b""
        self.put_at = time.monotonic()


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number:08d}")
