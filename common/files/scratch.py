"""Files of a run that no one else touches: locked while in use, gone afterwards; for objects, in TMPDIR.

TensorFlow and Pillow write to files, and objects cannot be sought in: so what becomes an object is written
here first, and what was one is copied here. What a killed run leaves is overwritten by the next.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from common.cli import InputError
from common.files.storage import is_remote, parse_path, read_pieces

# In the processes of a cluster the part of a file has the writer's name: one that was given up for dead may
# still be writing what another writes again.
WRITER = os.environ.get("OPEN_IMAGES_WRITER", "")


def open_locked(path: Path, busy: str) -> int:
    """Return a descriptor of `path`, created, locked and emptied; InputError(busy) when it is taken."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and lock another run may have finished and renamed the file away.
            if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                return descriptor
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(busy) from None


def scratch_path(path: Path) -> Path:
    """Return where on this machine a scratch file for `path` is: there, or for an object in TMPDIR."""
    if not is_remote(path):
        return path
    folder = Path(tempfile.gettempdir()) / f"open-images-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: not ours, another TMPDIR is needed")
    return folder / f"{hashlib.sha256(f'{WRITER} {path}'.encode()).hexdigest()[:32]}.part"


@contextmanager
def open_scratch(path: Path, busy: str) -> Iterator[Path]:
    """Yield the scratch path for an object, locked; it is gone afterwards."""
    with scratch_file(path, busy):
        yield scratch_path(path)


@contextmanager
def scratch_file(path: str | Path, busy: str) -> Iterator[BinaryIO]:
    """Yield the file at `scratch_path(path)`, ours alone, gone afterwards; InputError(busy) for a second run.

    For an object only other runs on this machine are refused.
    """
    path = scratch_path(parse_path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = open_locked(path, busy)
    try:
        with open(path, "r+b") as stream:
            yield stream
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a local file with the bytes of `path`: itself, or of an object a copy, gone afterwards."""
    if is_remote(path):
        with open_scratch(path, busy=f"{path}: another run is reading this file") as scratch:
            with open(scratch, "wb") as stream:
                stream.writelines(read_pieces(path))
            yield scratch
    else:
        yield path


@contextmanager
def open_copy(path: Path) -> Iterator[BinaryIO]:
    """Yield a copy of an object as a file without a name, which ends with us, be it by kill -9."""
    with tempfile.TemporaryFile() as copy:
        copy.writelines(read_pieces(path))
        copy.seek(0)
        yield cast(BinaryIO, copy)
