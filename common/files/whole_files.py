"""Files in and out as streams: complete or not at all, one line of error where a file is wrong.

Every reader yields `(line number, item)`, so that whoever finds an item wrong can name its place.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from common.cli import InputError
from common.files.folders import LOCK_NAME
from common.files.places import folder_of, is_folder, is_remote, parse_path

MAX_ITEM = 1 << 26  # bytes; a line or field larger than this is a damaged file
FOREIGN = {  # first bytes of files that are not UTF-8 text, and what to do about each
    rb"\x1f\x8b": "gzip data, text was expected: unpack it, or let its name end in .gz",
    rb"PK[\3\5]": "a zip file or a spreadsheet, text was expected: unpack it, or save it as CSV",
    rb"\xff\xfe|\xfe\xff|[^\0]\0|\0[^\0]": "UTF-16 text, UTF-8 was expected: save it as UTF-8",
}


@contextmanager
def locked_folder(directory: str | Path) -> Iterator[Path]:
    """Make `directory` where it is missing and hold it alone; a second run on it is refused."""
    place = parse_path(directory)
    with folder_of(place).lock(LOCK_NAME, f"{directory}: another run is working in this folder"):
        yield place


@contextmanager
def open_output(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary stream that becomes the file `path`; compressed when it ends in `.gz`."""
    place = parse_path(path)
    with folder_of(place.parent).complete(place.name) as part, open(part, "wb") as raw:
        if str(path).endswith(".gz"):
            # No name and no time stamp inside: the same data give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def open_input(path: str | Path) -> Iterator[BinaryIO]:
    """Yield the bytes of the text file `path`, unpacked when it ends in `.gz`, without a byte-order mark.

    A file whose first bytes are those of another kind is an error that names the kind.
    """
    place = parse_path(path)
    if is_folder(place):
        raise InputError(f"{path}: a folder, a file was expected")
    try:
        with ExitStack() as stack:
            stream: Any = stack.enter_context(folder_of(place.parent).open(place.name))
            if str(path).endswith(".gz"):
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
            for start, kind in FOREIGN.items():
                if re.match(start, stream.peek(3)):
                    raise InputError(f"{path}: {kind}")
            if stream.peek(3).startswith(BOM_UTF8):
                stream.read(len(BOM_UTF8))
            yield stream
    except FileNotFoundError as error:
        if str(error.filename) != str(place):
            raise
        raise InputError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error})") from None


def bytes_read(stream: BinaryIO) -> int:
    """Return how many bytes of its file, compressed ones in `.gz`, a stream of `open_input` has read."""
    return (stream.fileobj if isinstance(stream, gzip.GzipFile) else stream).tell()


def check_rereadable(path: str | Path) -> None:
    """Refuse a local input that can be read only once, such as a pipe; a folder or a missing file passes."""
    place = parse_path(path)
    if not is_remote(place) and place.exists() and not (place.is_file() or place.is_dir()):
        raise InputError(f"{path}: not a regular file, and it is read more than once: a file was expected")


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a text file with its number, line end included; only LF ends a line."""
    with open_input(path) as stream:
        for number, line in enumerate(iter(partial(stream.readline, MAX_ITEM + 1), b""), start=1):
            if len(line) > MAX_ITEM:
                raise InputError(f"{path}:{number}: a line of over {MAX_ITEM} bytes")
            try:
                text = line.decode()
            except UnicodeDecodeError:
                raise InputError(f"{path}:{number}: not UTF-8 text") from None
            yield number, text
