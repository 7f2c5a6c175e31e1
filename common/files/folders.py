"""A folder on disk, and the interface of every folder, so that no other module asks which kind it has.

store.py has the folder on an object store; places.py tells which kind is at a path or an address.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from common.cli import InputError, say

# Stores whose objects appear complete when their one request ends, and the package that speaks to each.
STORES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
LOCK_NAME = ".lock"  # in a folder that one run holds
CHUNK = 1 << 20  # bytes read at a time
AHEAD = 64  # files asked for at a time
NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # of some NFS and Lustre mounts

_said: set[str] = set()  # what a run says once


class Status(NamedTuple):
    """Size and version of a file: while both are the same, so is the file."""

    size: int  # bytes
    version: int  # modification time in ns, or a hash of an object's ETag
    changed_at: float  # seconds since 1970, on a store by its clock


class Folder:
    """A folder on disk, and what every folder offers; names are those of files directly in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packages: tuple[str, ...] = ()  # needed on every machine that works here
        self.mounts = [path]  # must exist on every machine that works here

    def status(self, name: str) -> Status | None:
        """Return size and version of a file, None where it is missing."""
        try:
            found = os.stat(f"{self.path}/{name}")
        except OSError:
            return None
        return (
            Status(found.st_size, found.st_mtime_ns, found.st_mtime) if stat.S_ISREG(found.st_mode) else None
        )

    def statuses(self) -> Callable[[str], Status | None]:
        """Return `status`, for many files whose names begin with a letter or digit.

        A store lists all of them at the first call, a thousand names a request, and keeps that listing.
        """
        return self.status

    def files(self, without: str) -> Iterator[tuple[str, Status | None]]:
        """Yield each file whose name begins with a letter or digit, with its status where the listing has it.

        On disk also those in sub-folders, as `sub-folder/name`, except in sub-folders that hold a file named
        `without`. Nothing if the folder is missing.
        """
        left = [""] if self.path.exists() else []
        for inside in left:
            with os.scandir(self.path / inside) as entries:
                for entry in entries:
                    name = f"{inside}{entry.name}"
                    if not entry.name[0].isalnum():
                        continue
                    if not entry.is_dir(follow_symlinks=False):
                        yield name, None
                    elif os.access(entry, os.R_OK | os.X_OK) and not (Path(entry) / without).exists():
                        left.append(f"{name}/")

    def list(self, prefix: str) -> dict[str, Status]:
        """Return name and status of each file whose name begins with `prefix`, ordered by name."""
        names = sorted(name for name in os.listdir(self.path) if name.startswith(prefix))
        return {name: found for name in names if (found := self.status(name))}

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where it is missing."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | OSError | None]:
        """Yield the bytes of each file, None where it is missing, or on disk the error of reading it.

        Disks and stores serve many requests at a time: files are requested before they are needed.
        """
        iterator = iter(names)
        while some := list(islice(iterator, AHEAD)):
            for name in some:
                path = f"{self.path}/{name}"
                with suppress(OSError, AttributeError), open(path, "rb", buffering=0) as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)  # macOS lacks it
            for name in some:
                try:
                    data: bytes | OSError | None = self.read(name)
                except OSError as error:
                    data = error
                yield data

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Return a file as a stream that can be sought in; FileNotFoundError where it is missing."""
        return open(self.path / name, "rb")

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path, valid in this process alone, with the bytes of a file."""
        return nullcontext(self.path / name)

    def write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Write a file that no other run writes, completely or not at all.

        With `sync` the disk has the new bytes before the old ones are removed.
        """
        try:
            with self.complete(name, locked=False) as part, open(part, "wb") as stream:
                stream.write(data)
                if sync:
                    stream.flush()
                    os.fsync(stream.fileno())
        except OSError as error:
            error.filename = error.filename or str(self.path / name)
            raise

    def write_many(self, files: Iterable[tuple[str, bytes]], *, sync: bool = False) -> None:
        """Write files, name and bytes of each, as `write` does; a store puts several at a time."""
        for name, data in files:
            self.write(name, data, sync=sync)

    @contextmanager
    def complete(self, name: str, *, locked: bool = True) -> Iterator[Path]:
        """Yield a temporary path, valid in this process alone; if the block succeeds, it becomes the file.

        If `locked`, the folder is made and a second run on the same file is refused. On disk the temporary
        name is then always the same, so that the next run overwrites what a killed run left. Otherwise no
        other process writes there: a worker that counts as lost may still be writing what another worker
        writes again.
        """
        path = self.path / name
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        if locked and target.exists() and not target.is_file():
            raise InputError(f"{path}: not a regular file, a file to write was expected")
        busy = f"{path}: another run is writing this file"
        with Folder(target.parent).lock(f".{target.name}.lock", busy) if locked else nullcontext():
            ours = "" if locked else f".{socket.gethostname()}-{os.getpid()}"
            part = target.with_name(f".{target.name}{ours}.part")
            try:
                yield part
                os.replace(part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def append(self, name: str) -> IO[bytes]:
        """Return a stream that adds to a file, which may be missing; close it to have all on a store."""
        self.path.mkdir(parents=True, exist_ok=True)
        return open(self.path / name, "ab", buffering=0)

    def drop_cut_line(self, name: str) -> None:
        """Cut off what follows a file's last line end: the half line of a killed run; a store has none."""
        with open(self.path / name, "r+b") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - CHUNK)
            stream.seek(start)
            stream.truncate(start + stream.read().rfind(b"\n") + 1)

    def remove(self, name: str) -> None:
        """Remove a file; it may be missing."""
        (self.path / name).unlink(missing_ok=True)

    def sweep(self, names: str) -> None:
        """Remove half-written files of killed runs whose names match a pattern; a store has none."""
        part = re.compile(rf"\.{names}(\..+-[0-9]+)?\.part")
        with os.scandir(self.path) as entries:
            for entry in entries:
                if part.fullmatch(entry.name):
                    Path(entry.path).unlink(missing_ok=True)  # a worker of a killed run may complete it now

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless it exists, even if several try at once; report whether it was written."""
        try:
            with open(self.path / name, "xb") as stream:
                stream.write(data)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def lock(self, name: str, busy: str) -> Iterator[None]:
        """Make the folder and hold a lock of this name; InputError(busy) where another run does."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{self.path}: not a folder, a folder to write into was expected") from None
        path = self.path / name
        while True:
            with open(path, "ab", buffering=0) as file, ExitStack() as stack:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise InputError(busy) from None
                except OSError as error:
                    if error.errno not in NO_FLOCK:
                        if not file.tell():
                            path.unlink(missing_ok=True)
                        raise OSError(error.errno, error.strerror, str(path)) from None
                    if not _said:
                        locks = f"files such as {name}.owner are the locks"
                        say(f"{self.path}: no flock here ({error.strerror}): {locks}")
                        _said.add("no flock")
                    stack.enter_context(self.lock_by_owner(f"{name}.owner", busy))
                # Between open and lock another run may have finished and removed the file.
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    stack.callback(path.unlink, missing_ok=True)
                    file.truncate(0)
                    file.write(owner())  # by which a worker of a cluster knows the folder
                    yield
                    return

    @contextmanager
    def lock_by_owner(self, name: str, busy: str) -> Iterator[None]:
        """Hold a lock that is a file which only one run can create; a killed run leaves it."""
        ours = owner()
        if not self.create(name, ours):
            by = (self.read(name) or b"").decode(errors="replace")
            raise InputError(f"{busy} ({by}); if it was killed, remove {self.path / name}")
        try:
            yield
        finally:
            with suppress(OSError):  # if a store does not answer, the next run says what to remove
                if self.read(name) == ours:
                    self.remove(name)


def owner() -> bytes:
    """Return the line that a lock holds: host, process and time."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return f"{socket.gethostname()}, process {os.getpid()}, since {now}".encode()
