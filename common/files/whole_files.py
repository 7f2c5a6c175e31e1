"""Files in and out: whole or not at all, streamed, one line of error where a file is wrong.

Every reader yields `(line number, item)`, so that whoever finds an item wrong can name its place.
"""

import gzip
import os
import socket
import time
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from common.cli import InputError
from common.files.scratch import WRITER, open_copy, open_locked, open_scratch
from common.files.storage import is_folder, is_remote, parse_path, put_bytes, put_file, read_objects
from common.files.store_lock import store_lock

CHUNK = 1 << 20  # bytes read at a time
LOCK_NAME = ".lock"  # in a folder that a run holds alone
MAX_ITEM = 1 << 26  # characters; a line or field larger than this is a damaged file

# --- writing -------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    The temporary name is fixed and locked while in use: a second run on the same output is refused,
    and what a killed run left there is overwritten by the next. A symlink is written through. An object of
    a store is written in the folder for temporary files and then put.
    """
    path = parse_path(path)
    if is_remote(path):
        with open_scratch(path, busy=f"{path}: another run is writing this file") as part:
            yield part
            put_file(part, path)
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: not a regular file, a file to write was expected")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: a file stands where its folder is to be") from None
    part = part_path(target)
    lock = open_locked(part, busy=f"{path}: another run is writing this file")
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


@contextmanager
def locked_folder(directory: str | Path) -> Iterator[Path]:
    """Make `directory` where it is missing and hold it alone; a second run on it is refused."""
    folder = parse_path(directory)
    busy = f"{directory}: another run is working in this folder"
    if is_remote(folder):
        with store_lock(folder, "folder", busy):
            yield folder
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{directory}: not a folder, a folder to write into was expected")
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK_NAME
    descriptor = open_locked(lock, busy)
    try:
        # By this a worker of a cluster knows the folder.
        os.write(descriptor, f"{socket.gethostname()} {os.getpid()} {time.time_ns()}\n".encode())
        yield folder
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def part_path(path: Path) -> Path:
    """Return where the file `path` is written before it is whole."""
    return path.with_name(f".{WRITER}{path.name}.part")


def replace_file(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write the small file `path` whole, in a folder that is locked already; `sync` where nobody has a copy.

    A third of the system calls of `atomic_path`, for photos by the thousand.
    """
    if is_remote(path):
        put_bytes(path, data)
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    part = part_path(target)
    try:
        with open(part, "wb") as stream:
            stream.write(data)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise


def sweep_parts(folder: Path, suffix: str) -> None:
    """Remove from a locked folder the half-written files of killed runs whose names end in `suffix`."""
    if is_remote(folder):
        return  # there is no half an object
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(f"{suffix}.part"):
                os.unlink(entry)


@contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary stream that becomes the whole file `path`; compressed when it ends in `.gz`."""
    with atomic_path(path) as part, open(part, "wb") as raw:
        if str(path).endswith(".gz"):
            # No name and no time stamp inside: the same data give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())


# --- reading -------------------------------------------------------------------------------------


@contextmanager
def open_input(path: str | Path) -> Iterator[BinaryIO]:
    """Yield the bytes of the file `path`, unpacked when it ends in `.gz`."""
    place = parse_path(path)
    if is_folder(place):
        raise InputError(f"{path}: a folder, a file was expected")
    try:
        with ExitStack() as stack:
            stream: Any = stack.enter_context(open_copy(place) if is_remote(place) else place.open("rb"))
            if str(path).endswith(".gz"):
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
            yield stream
    except FileNotFoundError as error:
        if str(error.filename) != str(place):
            raise
        raise InputError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error})") from None


def check_rereadable(path: str | Path) -> None:
    """Refuse a local input that can be read only once, such as a pipe; a folder or a missing file passes."""
    place = parse_path(path)
    if not is_remote(place) and place.exists() and not (place.is_file() or place.is_dir()):
        raise InputError(f"{path}: not a regular file, and it is read more than once: a file was expected")


def read_small(path: Path) -> bytes | None:
    """Return the bytes of a small file, None where there is none."""
    if is_remote(path):
        return next(read_objects(path.parent, [path.name]))
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def text_chunks(path: str | Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file in pieces, without its byte-order mark and line ends as they are."""
    decoder = getincrementaldecoder("utf-8-sig")()
    line = 1
    with open_input(path) as stream:
        while True:
            chunk = stream.read(CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                raise InputError(f"{path}:{line}: not UTF-8 text") from None
            line += text.count("\n")
            if text:
                yield text
            if not chunk:
                return


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a text file with its number, line end included; only LF ends a line."""
    rest, number = "", 0
    for text in text_chunks(path):
        lines = (rest + text).split("\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield number, line + "\n"
        if len(rest) > MAX_ITEM:
            raise InputError(f"{path}:{number + 1}: a line of over {MAX_ITEM} characters")
    if rest:
        yield number + 1, rest
