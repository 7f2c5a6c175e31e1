"""Lines that a killed run leaves to the next: appended to a file, or put as an object every few minutes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from common.files.folders import folder_of, remove


def read_journal(path: Path) -> list[Path]:
    """Return the file that holds the complete lines of a journal; an empty list where it is missing."""
    folder = folder_of(path.parent)
    if not folder.status(path.name):
        return []
    folder.drop_cut_line(path.name)
    return [path]


def remove_journal(path: Path) -> None:
    """Remove a journal; it may be missing."""
    remove(path)


def replace_journal(path: Path, pieces: Iterable[bytes]) -> None:
    """Replace a journal by these lines; they may come from the one that they replace."""
    with folder_of(path.parent).complete(path.name, locked=False) as part, open(part, "wb") as stream:
        stream.writelines(pieces)


class Journal:
    """A journal to add lines to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.stream = folder_of(self.path.parent).append(self.path.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, text: str) -> None:
        """Add complete lines."""
        if text and self.stream:
            self.stream.write(text.encode(errors="backslashreplace"))

    def drop(self) -> None:
        """Remove the journal with all that was added."""
        self.close()
        remove(self.path)

    def close(self) -> None:
        if self.stream:
            self.stream.close()
