"""Needs of a run on a cluster: packages, files, folders and our code, to be checked in each worker.

`list_workers` runs in the scheduler and `prepare` in each worker. Both travel by value, so they use the
standard library alone.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from common.files.folders import LOCK_NAME
from common.files.places import folder_of

PROBE_BYTES = 256  # of a file that workers must see


class Needs(NamedTuple):
    """Packages, files, folders and code that a worker must have before it gets tasks."""

    versions: Mapping[str, str]  # of packages, "" for any
    files: Mapping[str, bytes]  # by path, their first bytes
    folders: Sequence[str]  # to write into
    code: Mapping[str, bytes]  # the modules of our package, by path
    resource: str  # name of the Dask resource that a worker offers when it is ready


def find_needs(packages: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]) -> Needs:
    """Return the needs of a run: these packages as they are here, these folders, our code."""
    folders = [folder_of(place) for place in (*reads, *writes)]
    mounts = [mount for folder in folders for mount in folder.mounts]
    versions = {package: "" for folder in folders for package in folder.packages}
    for package in packages:
        with suppress(PackageNotFoundError):  # not installed here either
            versions[package] = version(package)
    here = Path(__file__).parents[1]
    return Needs(
        versions,
        dict(chain.from_iterable(map(_probe, mounts))),
        [str(mount.absolute()) for place in writes for mount in folder_of(place).mounts],
        {str(path.relative_to(here.parent)): path.read_bytes() for path in here.rglob("*.py")},
        f"open_images_{secrets.token_hex(8)}",
    )


def _probe(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and first bytes of a file by which to know a folder, if it has any: its lock or another."""
    lock = folder / LOCK_NAME
    with os.scandir(folder) as entries:
        others = (Path(entry.path) for entry in entries if entry.is_file())
        files = [lock] if lock.exists() else list(islice(others, 1))
    for file in files:
        with open(file, "rb") as stream:
            yield str(file.absolute()), stream.read(PROBE_BYTES)


# --- in the scheduler, and in a worker -----------------------------------------------------------


def list_workers(resource: str, dask_scheduler: Any) -> dict[str, tuple[str, str, int, bool]]:
    """Return by address the name, Python and threads of each worker, and whether it offers the resource."""
    found = {}
    for each in dask_scheduler.workers.values():
        name = each.address if each.name == each.address else f"{each.name} ({each.address})"
        python = each.versions["host"]["python"]
        found[each.address] = name, python, each.nthreads, resource in each.resources
    return found


async def prepare(needs: tuple[Any, ...], dask_worker: Any) -> str:
    """Make a worker ready for the tasks of a run. Return what it lacks, "" if nothing."""
    versions, files, folders, code, resource = needs
    problem = await asyncio.to_thread(find_problem, versions, files, folders)
    problem = problem or load_code(code, os.path.join(dask_worker.local_directory, "open-images"))
    if problem:
        return problem
    await dask_worker.set_resources(**{resource: 1})
    # Tasks that no worker could take are tried again only when a worker starts to run: make it seem so.
    running = dask_worker.status
    dask_worker.status = type(running).paused
    dask_worker.status = running
    return ""


def find_problem(versions: Mapping[str, str], files: Mapping[str, bytes], folders: Sequence[str]) -> str:
    """Return the first need that is not met, "" if none."""
    for package, expected in versions.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            return f"{package} is not installed, {expected or 'any version'} was expected"
        if expected and found != expected:
            return f"{package} {found}, {expected} as here was expected"
    try:
        for path, first in files.items():
            with open(path, "rb") as stream:
                if stream.read(len(first)) != first:
                    return f"{path}: another file there: the folder must be one that all machines share"
        for folder in folders:
            path = os.path.join(folder, f".{secrets.token_hex(8)}.part")
            with open(path, "xb"):
                os.unlink(path)
    except OSError as error:
        return f"{path}: {error.strerror} there: the folder must be one that all machines share"
    return ""


def load_code(code: Mapping[str, bytes], folder: str) -> str:
    """Import our package as it is in `code`. Return what is wrong, "" if nothing.

    A process keeps the modules that it has once imported, so it serves one version of them.
    """
    loaded = sys.modules.get("common")
    if loaded is not None:
        same = getattr(loaded, "code", None) == code
        return "" if same else "another version of our code is loaded there: restart the workers"
    for name, content in code.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(content)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    package: Any = importlib.import_module("common")
    package.code = code
    return ""
