"""Lines that a killed run leaves to the next: appended to a file, or to an object store as small objects.

On disk a journal is one file, written line by line; a kill costs at most the line it cut. No object can be
appended to, so there the lines of SECONDS at a time are put as `NAME-00000001` and so on, whole; a kill costs
the last of them. The next run makes one object of them.
"""

import re
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from common.files import drop_cut_line, open_output
from common.storage import is_remote, list_objects, put_bytes, read_pieces, remove

SECONDS = 30.0


def read_journal(path: Path) -> Path | None:
    """Return the file that holds the whole lines of a journal, None where there is none."""
    if not is_remote(path):
        if not path.exists():
            return None
        drop_cut_line(path)
        return path
    names = _part_names(path)
    if not names:
        return None
    whole = _part(path, 0)
    if names != [whole.name]:
        # Killed before the parts are gone, they come twice, in the same order: the last word is the same.
        with open_output(whole) as stream:
            for name in names:
                stream.writelines(read_pieces(path.parent / name))
        for name in names:
            if name != whole.name:
                remove(path.parent / name)
    return whole


def remove_journal(path: Path) -> None:
    """Remove a journal; there need be none."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    for name in _part_names(path):
        remove(path.parent / name)


class Journal:
    """A journal to add lines to; `read_journal` came before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = 0
        self.pending = b""
        self.put_at = time.monotonic()

    def __enter__(self) -> Self:
        if not is_remote(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = open(self.path, "ab", buffering=0)
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


def _part_names(path: Path) -> list[str]:
    """Return the names of a journal's objects, in the order they were put."""
    part = re.compile(re.escape(path.name) + r"-[0-9]{8}")
    return [name for name in list_objects(path.parent, f"{path.name}-") if part.fullmatch(name)]
