"""The folder on an object store, on fsspec: complete objects, listings, and a lock that is an object.

Nothing opens an object for writing: an exception inside `with fs.open(address, "wb")` would publish the half
that was written. Large objects go to a temporary file first; it has no name, so that a kill leaves nothing.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import string
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from common.files.folders import STORES, Folder, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 16  # objects in transfer in one process: an image takes 2 ms of CPU, and many times that of waiting
LISTINGS = 4  # at once: each holds a sixteenth of a folder of hexadecimal names, 1.2 kB an object
PIECE = 1 << 24  # bytes of a large object at a time
PUT_SECONDS = 180.0  # between puts of a list that grows
CLIENT_ERRORS = ("botocore.exceptions", "aiohttp.client_exceptions", "google.auth.exceptions")
FIRST_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase  # in the order of names


class StoreFolder(Folder):
    """A folder on an object store; methods as in `Folder`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.store = cast(Any, path).fs
        self.packages = (STORES[cast(Any, path).protocol], "universal_pathlib")
        self.mounts = []

    def key(self, name: str) -> str:
        """Return what the store calls a file: bucket/folder/name."""
        return f"{cast(Any, self.path).path.rstrip('/')}/{name}"

    def status(self, name: str) -> Status | None:
        with store_errors(self.path / name):
            try:
                found = self.store.info(self.key(name))
            except FileNotFoundError:
                return None
        return _status(found) if found["type"] == "file" else None

    def statuses(self) -> Callable[[str], Status | None]:
        import numpy as np

        kind = np.dtype([("size", "u8"), ("version", "u8"), ("changed_at", "f8")])

        @cache
        def listing() -> tuple[NDArray[Any], NDArray[Any]]:  # ordered by name; 50 bytes an object
            names, rows = [np.empty(0, "S1")], [np.empty(0, kind)]
            for found in self._listings():
                names.append(np.array([each.encode() for each in found], "S"))
                rows.append(np.array(list(found.values()), kind))
            return np.concatenate(names), np.concatenate(rows)

        def find(name: str) -> Status | None:
            names, rows = listing()
            index = bisect_left(names, name.encode())
            found_it = index < len(names) and names[index] == name.encode()
            return Status(*rows[index].tolist()) if found_it else None

        return find

    def files(self, without: str) -> Iterator[tuple[str, Status | None]]:
        for found in self._listings():
            yield from found.items()

    def _listings(self) -> Iterator[dict[str, Status]]:
        """Yield the objects whose names begin with a letter or digit, by first letter."""
        with ThreadPoolExecutor(LISTINGS, "listing") as pool:
            for start in range(0, len(FIRST_LETTERS), LISTINGS):
                yield from pool.map(self.list, FIRST_LETTERS[start : start + LISTINGS])

    def list(self, prefix: str) -> dict[str, Status]:
        with store_errors(self.path):
            found = self.store.find(self.key("").rstrip("/"), prefix=prefix, detail=True)
        start = len(self.key(""))
        names = {key[start:]: info for key, info in found.items() if key.startswith(self.key(prefix))}
        return {name: _status(info) for name, info in sorted(names.items()) if "/" not in name}

    def read(self, name: str) -> bytes | None:
        return next(self.read_many([name]))

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        iterator = iter(names)
        while keys := [self.key(name) for name in islice(iterator, AT_ONCE)]:
            with store_errors(self.path):
                found = self.store.cat_ranges(keys, 0, 1 << 40, on_error="return")
            for key, data in zip(keys, found, strict=True):
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    with store_errors(self.path):
                        data = self.store.cat_file(key)  # an empty object has no range; others raise again
                yield None if isinstance(data, FileNotFoundError) else data

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as copy:
            with store_errors(self.path / name), self.store.open(self.key(name), "rb") as stream:
                shutil.copyfileobj(stream, copy, PIECE)
            copy.seek(0)
            yield cast(BinaryIO, copy)

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        with self.open(name) as copy:
            yield _path_of(copy)

    def write(self, name: str, data: bytes, *, sync: bool = False) -> None:
        with store_errors(self.path / name):
            self.store.pipe_file(self.key(name), data)

    def write_many(self, files: Iterable[tuple[str, bytes]], *, sync: bool = False) -> None:
        iterator = iter(files)
        while some := {self.key(name): data for name, data in islice(iterator, AT_ONCE)}:
            with store_errors(self.path):
                self.store.pipe(some, batch_size=AT_ONCE)

    @contextmanager
    def complete(self, name: str, *, locked: bool = True) -> Iterator[Path]:
        busy = f"{self.path / name}: another run is writing this file"
        lock = self.lock(f".{name}.lock", busy) if locked else nullcontext()
        with lock, tempfile.TemporaryFile() as part:
            yield _path_of(part)
            self.put(name, part)

    def put(self, name: str, file: IO[bytes]) -> None:
        with store_errors(self.path / name):
            self.store.put_file(str(_path_of(file)), self.key(name))

    def append(self, name: str) -> IO[bytes]:
        return cast(IO[bytes], _GrowingObject(self, name))

    def remove(self, name: str) -> None:
        with store_errors(self.path / name):
            try:
                self.store.rm_file(self.key(name))
            except FileNotFoundError:
                return

    def drop_cut_line(self, name: str) -> None:
        """Do nothing: an object is complete."""

    def sweep(self, names: str) -> None:
        """Do nothing: an object is complete."""

    def create(self, name: str, data: bytes) -> bool:
        if self.read(name) is not None:  # not every store refuses to replace an object
            return False
        try:
            with store_errors(self.path / name):
                self.store.pipe_file(self.key(name), data, mode="create")
        except OSError:
            if self.read(name) is None:
                raise
            return False
        return True

    lock = Folder.lock_by_owner


class _GrowingObject:
    """Lines added to an object, which is put again every PUT_SECONDS and when this is closed."""

    def __init__(self, folder: StoreFolder, name: str) -> None:
        self.folder, self.name = folder, name
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  # until close
        if folder.status(name):
            with folder.open(name) as stream:
                shutil.copyfileobj(stream, self.file, PIECE)
        self.has_new, self.put_at = False, time.monotonic()

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.has_new = True
        if time.monotonic() - self.put_at > PUT_SECONDS:
            self.put()

    def put(self) -> None:
        if self.has_new:
            self.file.flush()
            self.folder.put(self.name, self.file)
        self.has_new, self.put_at = False, time.monotonic()

    def close(self) -> None:
        if not self.file.closed:
            self.put()
            self.file.close()


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn any error of a store's client into an OSError that names the address, for one line to the user."""
    try:
        yield
    except Exception as error:
        if not any(base is OSError or base.__module__ in CLIENT_ERRORS for base in type(error).__mro__):
            raise
        kinds = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
        number = next((code for kind, code in kinds.items() if isinstance(error, kind)), errno.EIO)
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(number, text, str(path)) from error


def _path_of(file: IO[bytes] | BinaryIO) -> Path:
    """Return a path to an open file without a name."""
    return Path(f"/dev/fd/{file.fileno()}")


def _status(info: dict[str, Any]) -> Status:
    """Return the status in a store's entry. The ETag changes with the bytes; without one the time counts."""
    changed = info.get("LastModified") or info["mtime"]  # s3fs, gcsfs
    mark = info.get("ETag") or info.get("etag") or changed
    version = int.from_bytes(hashlib.blake2b(str(mark).strip('"').encode(), digest_size=7).digest())
    return Status(info["size"], version, changed.timestamp())
