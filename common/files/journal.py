"""Lines that a killed run leaves to the next: appended to a file, or put as an object every few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Self

from common.files.places import folder_of


def read_journal(path: Path) -> list[Path]:
    """Return the file that holds the complete lines of a journal; an empty list where it is missing."""
    folder = folder_of(path.parent)
    if not folder.status(path.name):
        return []
    folder.drop_cut_line(path.name)
    return [path]


class Journal:
    """A journal to add lines to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.stream = folder_of(self.path.parent).append(self.path.name)
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def add(self, text: str) -> None:
        """Add complete lines."""
        if text and self.stream:
            self.stream.write(text.encode(errors="backslashreplace"))

    def drop(self) -> None:
        """Remove the journal with all that was added."""
        self.close()
        folder_of(self.path.parent).remove(self.path.name)

    def close(self) -> None:
        if self.stream:
            self.stream.close()
