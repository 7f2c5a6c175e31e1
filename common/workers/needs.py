"""What a worker of a cluster must have, as this machine has it: packages, files, and our code."""

import io
import os
import pickle
import platform
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import cloudpickle

from common.files.storage import is_remote, packages_for
from common.files.whole_files import LOCK_NAME
from common.workers import worker as cluster_worker
from common.workers.worker import PROBE_BYTES, Needs

HERE = platform.python_version()


class ByValue:
    """A function that travels with its code: by name a worker would look for it in modules of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        cloudpickle.register_pickle_by_value(cluster_worker)
        self.data = cloudpickle.dumps(function)
        cloudpickle.unregister_pickle_by_value(cluster_worker)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self.data,)

    def __call__(self) -> None:
        raise NotImplementedError  # here it is only handed on


def same_python(found: str) -> bool:
    """Tell whether a version of Python differs from this one in its last number at most."""
    return found.split(".")[:2] == HERE.split(".")[:2]


def find_needs(packages: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]) -> Needs:
    """Return what workers need: these packages as they are here, these files and folders."""
    return Needs(
        versions(packages) | {package: "" for place in (*reads, *writes) for package in packages_for(place)},
        {str(path.absolute()): head(path) for place in (*reads, *writes) for path in probe(place)},
        [str(folder.absolute()) for folder in writes if not is_remote(folder)],
    )


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages; one that is not here under this name is nobody's need."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def probe(place: Path) -> list[Path]:
    """Return a file by which to know a place: itself, or of a folder its lock or any file it has."""
    if is_remote(place):
        return []
    if place.is_file():
        return [place]
    lock = place / LOCK_NAME
    if lock.exists():
        return [lock]
    with os.scandir(place) as entries:
        return [Path(entry.path) for entry in islice((each for each in entries if each.is_file()), 1)]


def head(path: Path) -> bytes:
    """Return the first bytes of a file."""
    with open(path, "rb") as stream:
        return stream.read(PROBE_BYTES)


def zip_of_code() -> bytes:
    """Return our modules as a zip whose bytes depend on nothing but theirs."""
    folder = Path(__file__).parents[1]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.py")):
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder.parent).as_posix()), path.read_bytes())
    return stream.getvalue()
