"""Where files are: in folders, or on an object store by an address such as s3://bucket/folder.

A place is a Path, or for an address a UPath (universal_pathlib, over fsspec), which joins and prints as one
and is passed for one. Folders keep what a file system offers: whole_files renames, locks, appends there.
Of an object store only this is asked: an object is put whole or not at all; it is fetched, listed by the
beginning of its name with size and version, and removed; what was put is listed from then on. Nothing opens
an object for writing: an exception inside `with fs.open(address, "wb")` publishes the half that was written.
"""

import errno
import hashlib
import os
import re
import stat
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from common.cli import InputError

# The stores whose objects appear whole when their one request ends, and the package that speaks to each.
STORES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
AT_ONCE = 16  # objects under way in one process: a photo takes 2 ms of us, and many times that of waiting
LISTINGS = 4  # at once: each holds a sixteenth of a folder of hexadecimal names, 1.2 kB an object
PIECE = 1 << 24  # bytes of a large object at a time
FIRST_LETTERS = string.ascii_letters + string.digits
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Status(NamedTuple):
    """What tells whether a file is still the same."""

    size: int  # bytes
    version: int  # time in ns, or for an object a number made from its ETag


def parse_path(text: str | Path) -> Path:
    """Return the place that `text` names, a path or an address; InputError where the scheme is not known."""
    match = _ADDRESS.match(text) if isinstance(text, str) else None
    if not match:
        return cast(Path, text) if is_remote(text) else Path(text)
    text = str(text)
    scheme, rest = match[1].lower(), text[match.end() :]
    if scheme in ("file", "local"):
        return Path(rest)
    if scheme not in STORES or not rest.strip("/"):
        raise InputError(
            f"{text}: a path, or an address that begins with {', '.join(f'{name}://' for name in STORES)} "
            "was expected"
        )
    try:
        import fsspec
        from upath import UPath

        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        needs = f"{scheme}:// needs {STORES[scheme]} and the packages of requirements-cluster.txt"
        raise InputError(f"{text}: {needs}: {error}") from None
    # A listing kept from before would hide what other processes have put since.
    return cast(Path, UPath(f"{scheme}://{rest.strip('/')}", use_listings_cache=False))


def is_remote(path: str | Path) -> bool:
    """Tell whether a place is on an object store."""
    return not isinstance(path, str | Path)


def packages_for(path: Path) -> tuple[str, ...]:
    """Return the packages that a place on an object store needs."""
    return (STORES[cast(Any, path).protocol], "universal_pathlib") if is_remote(path) else ()


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise what a store's client raises as an OSError that names the address, for one line to the user."""
    try:
        yield
    except (OSError, *_client_errors()) as error:  # type: ignore[misc]
        kinds = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
        number = next((code for kind, code in kinds.items() if isinstance(error, kind)), errno.EIO)
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(number, text, str(path)) from error


def _client_errors() -> tuple[type[Exception], ...]:
    """Return what the loaded clients raise that is no OSError."""
    names = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
        ("google.auth.exceptions", "GoogleAuthError"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


# --- what is there ---------------------------------------------------------------------------------------


def is_folder(path: Path) -> bool:
    """Tell whether a place is a folder; on a store that is the beginning of the name of some object."""
    if not is_remote(path):
        return os.path.isdir(path)
    with store_errors(path):
        return bool(_store(path).isdir(_key(path)))


def is_same_place(one: Path, other: Path) -> bool:
    """Tell whether two places are one folder or file, by whatever path."""
    if is_remote(one) or is_remote(other):
        return one == other
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def status(path: Path) -> Status | None:
    """Return size and version of a file, None where there is none."""
    if is_remote(path):
        with store_errors(path):
            try:
                found = _store(path).info(_key(path))
            except FileNotFoundError:
                return None
        return _status(found) if found["type"] == "file" else None
    return _local_status(path)


def statuses(folder: Path) -> Callable[[str], Status | None]:
    """Return a function from the name of a photo in the folder to its status.

    Each local file is looked at when it is asked for. Of a store all is listed once, at the first question: a
    thousand names a request instead of one. They take 200 bytes each.
    """
    if not is_remote(folder):
        return lambda name: _local_status(f"{folder}/{name}")
    listing: dict[str, int] = {}
    listed = False

    def find(name: str) -> Status | None:
        nonlocal listed
        if not listed:
            # Size and version in one number, to save room.
            listing.update((each, found.version << 48 | found.size) for each, found in list_photos(folder))
            listed = True
        number = listing.get(name)
        return None if number is None else Status(number & ((1 << 48) - 1), number >> 48)

    return find


def _local_status(path: str | Path) -> Status | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Status(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def files_named(path: Path) -> dict[str, Status]:
    """Return name and status of each file beside `path` whose name begins as its name does."""
    if is_remote(path):
        return list_objects(path.parent, path.name)
    found = {
        name: status(path.with_name(name)) for name in os.listdir(path.parent) if name.startswith(path.name)
    }
    return {name: there for name, there in found.items() if there}


def names_in(folder: Path) -> Iterator[str]:
    """Yield the names of what is in a folder, of objects those that begin as an image id does."""
    if is_remote(folder):
        for name, _ in list_photos(folder):
            yield name
    elif folder.exists():
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name


def list_photos(folder: Path) -> Iterator[tuple[str, Status]]:
    """Yield name and status of each object in a folder of a store whose name begins as an image id does."""
    with ThreadPoolExecutor(LISTINGS, "listing") as pool:
        for start in range(0, len(FIRST_LETTERS), LISTINGS):
            some = FIRST_LETTERS[start : start + LISTINGS]
            for found in pool.map(list_objects, [folder] * len(some), some):
                yield from found.items()


def list_objects(folder: Path, prefix: str) -> dict[str, Status]:
    """Return name and status of each object in a folder of a store whose name begins so, ordered by name."""
    with store_errors(folder):
        found = _store(folder).find(_key(folder), prefix=prefix, detail=True)
    start = len(_key(folder)) + 1
    names = {key[start:]: info for key, info in found.items() if key.startswith(f"{_key(folder)}/{prefix}")}
    return {name: _status(info) for name, info in sorted(names.items()) if "/" not in name}


def _status(info: dict[str, Any]) -> Status:
    """Return the status that a store's entry says: ETags change with the bytes, times stand in for them."""
    mark = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime") if info.get(key)), "")
    version = int.from_bytes(hashlib.blake2b(str(mark).strip('"').encode(), digest_size=7).digest())
    return Status(info["size"], version)


# --- to and fro ------------------------------------------------------------------------------------------


def put_bytes(path: Path, data: bytes) -> None:
    """Make `data` the object `path`, whole or not at all."""
    with store_errors(path):
        _store(path).pipe_file(_key(path), data)


def put_file(local: Path, path: Path) -> None:
    """Make the bytes of a local file the object `path`, whole or not at all."""
    with store_errors(path):
        _store(path).put_file(str(local), _key(path))


def put_objects(folder: Path, objects: dict[str, bytes]) -> None:
    """Put objects of these names and bytes into a folder, some at once; each whole or not at all."""
    with store_errors(folder):
        _store(folder).pipe({_key(folder / name): data for name, data in objects.items()}, batch_size=AT_ONCE)


def read_objects(folder: Path, names: Sequence[str]) -> Iterator[bytes | None]:
    """Yield the bytes of each object of a folder, None where there is none; some come at once."""
    for start in range(0, len(names), AT_ONCE):
        keys = [_key(folder / name) for name in names[start : start + AT_ONCE]]
        with store_errors(folder):
            found = _store(folder).cat_ranges(keys, 0, 1 << 40, on_error="return")
        for key, data in zip(keys, found, strict=True):
            if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                with store_errors(folder):
                    data = _store(folder).cat_file(key)  # an empty object has no range; else it says why not
            yield None if isinstance(data, FileNotFoundError) else data


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield the bytes of an object, a large piece at a time."""
    with store_errors(path), _store(path).open(_key(path), "rb") as stream:
        while data := stream.read(PIECE):
            yield data


def remove(path: Path) -> None:
    """Remove a file or an object; it may be gone already."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    with store_errors(path):
        try:
            _store(path).rm_file(_key(path))
        except FileNotFoundError:
            return


def _store(path: Path) -> Any:
    """Return the fsspec file system of a place on a store."""
    return cast(Any, path).fs


def _key(path: Path) -> str:
    """Return what a store calls a place: bucket/folder/name."""
    return str(cast(Any, path).path).rstrip("/")
