"""Name that records/ still imports from here."""

from contextlib import AbstractContextManager
from pathlib import Path

from common.files.folders import folder_of


def store_lock(folder: Path, name: str, busy: str) -> AbstractContextManager[None]:
    return folder_of(folder).lock(f".{name}.lock", busy)
