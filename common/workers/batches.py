"""Workers for scripts: the flag of the scheduler, how to open them, and batches of items."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from common.cli import InputError
from common.workers.processes import Processes
from common.workers.window import Item, Workers


def usable_cores() -> int:
    """Return how many cores this process may use: a container often has fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add_scheduler_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dask_scheduler", metavar="ADDRESS",
        help="work on the Dask cluster of this scheduler, as tcp://10.0.0.1:8786 (default: on this machine)",
    )  # fmt: skip


@contextmanager
def open_workers(
    processes: int,
    scheduler: str | None,
    packages: Sequence[str],
    reads: Sequence[Path],
    writes: Sequence[Path],
) -> Iterator[Workers]:
    """Yield `processes` workers of this machine or, if a scheduler is given, those of its cluster.

    The workers of a cluster must have these packages as they are here, see the files and folders `reads`, and
    be able to write into the folders `writes`. InputError names the first that does not.
    """
    if scheduler is None:
        yield Processes(processes)
        return
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError("--dask_scheduler needs Dask: pip install -r requirements-cluster.txt") from None
    from common.workers.cluster import connect

    with connect(scheduler, packages, reads, writes) as cluster:
        yield cluster


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last one holds the rest."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
