"""Names that records/ still imports from here."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from common.files.folders import folder_of, is_remote, open_locked, parse_path


def scratch_path(path: Path) -> Path:
    """Return where on this machine a scratch file for `path` is: there, or for an object in TMPDIR."""
    if not is_remote(path):
        return path
    folder = Path(tempfile.gettempdir()) / f"open-images-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder}: not ours, another TMPDIR is needed")
    return folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.part"


@contextmanager
def scratch_file(path: str | Path, busy: str) -> Iterator[BinaryIO]:
    """Yield the file at `scratch_path(path)`, gone afterwards; InputError(busy) for a second run."""
    path = scratch_path(parse_path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open_locked(path, busy)
    try:
        with open(path, "r+b") as stream:
            yield stream
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def local_copy(path: Path) -> AbstractContextManager[Path]:
    return folder_of(path.parent).local_copy(path.name)
