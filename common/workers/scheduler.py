"""The choice of a script's workers: processes of this machine, or those of a Dask scheduler."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.cli import InputError
from common.workers.pool import Processes, Workers


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
