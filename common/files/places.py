"""Places: paths on disk and addresses on object stores, and the folder that works at each.

A place is a `Path`, or for an address a `UPath` (universal_pathlib, over fsspec), which joins and prints like
one and is typed as one. `folder_of(place)` returns the folder that works there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast

from common.cli import InputError
from common.files.folders import STORES, Folder, Status

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def folder_of(path: Path) -> Folder:
    """Return the folder at `path`, which may be missing."""
    if not is_remote(path):
        return Folder(path)
    from common.files.store import StoreFolder

    return StoreFolder(path)


def is_remote(path: str | Path) -> bool:
    """Report whether a place is on an object store."""
    return not isinstance(path, str | Path)


def parse_path(text: str | Path) -> Path:
    """Return the place that `text` names, a path or an address; InputError where the scheme is not known."""
    if not isinstance(text, str):
        return text
    match = _ADDRESS.match(text)
    if not match:
        return Path(text)
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
    # A cached listing would hide what other processes have put since.
    return cast(Path, UPath(f"{scheme}://{rest.strip('/')}", use_listings_cache=False))


def is_folder(path: Path) -> bool:
    """Report whether a place is a folder; on a store, whether any object is in it."""
    if not is_remote(path):
        return path.is_dir()
    from common.files.store import store_errors

    with store_errors(path):
        return path.is_dir()


def is_same_place(one: Path, other: Path) -> bool:
    """Report whether two places are one folder or file, by whatever path."""
    if is_remote(one) or is_remote(other):
        return one == other
    return one.exists() and other.exists() and os.path.samefile(one, other)


# --- one file by its path --------------------------------------------------------------------------------


def status(path: Path) -> Status | None:
    """Return size and version of a file, None where it is missing."""
    return folder_of(path.parent).status(path.name)


def read_small(path: Path) -> bytes | None:
    """Return the bytes of a file, None where it is missing."""
    return folder_of(path.parent).read(path.name)


def replace_file(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file as `Folder.write` does."""
    folder_of(path.parent).write(path.name, data, sync=sync)
