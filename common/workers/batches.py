"""One way to map batches of work over worker processes, of this machine or of a cluster."""

import argparse
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.cli import InputError

if TYPE_CHECKING:
    from common.workers.cluster import Cluster

    Workers = int | Cluster  # so many processes, or those of a cluster

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    workers: int,
    scheduler: str | None,
    packages: Sequence[str],
    reads: Sequence[Path],
    writes: Sequence[Path],
) -> "Iterator[Workers]":
    """Yield what map_batches works on: `workers` processes here or, where there is a scheduler, its cluster.

    The workers of a cluster must have these packages as they are here, see the files and folders `reads`, and
    be able to write into the folders `writes`; InputError names the first that does not.
    """
    if scheduler is None:
        yield workers
        return
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError("--dask_scheduler needs Dask: pip install -r requirements-cluster.txt") from None
    from common.workers.cluster import connect

    with connect(scheduler, packages, reads, writes) as cluster:
        yield cluster


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items, the last one of what is left."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def map_batches(
    function: Callable[[Item], Result], tasks: Iterable[Item], workers: "Workers"
) -> Iterator[Result]:
    """Yield `function(task)` for each task, in the order of the tasks, from spawned processes or a cluster.

    Few tasks a worker are under way, so memory does not grow with the number of tasks.
    `function`, of a module in common, and the tasks must pickle, and on a cluster be safe to repeat and name
    files by full paths. When the caller stops, or dies, the workers end with it.
    """
    if not isinstance(workers, int):
        yield from workers.map(function, tasks)
        return
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * workers:
                yield _first_result(waiting)
        while waiting:
            yield _first_result(waiting)
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed (out of memory?); run the same command again to go on, "
            "with fewer workers where memory is short"
        ) from None
    finally:
        for future in waiting:
            future.cancel()
        if waiting:  # stopped early: what still runs is not wanted any more
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _first_result(waiting: "deque[Future[Result]]") -> Result:
    """Wait for the first and take it out: not before it is done, as an interruption ends what still runs."""
    result = waiting[0].result()
    waiting.popleft()
    return result


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, be it by kill -9."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
