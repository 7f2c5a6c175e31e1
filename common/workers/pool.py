"""Workers: their interface, the processes of this machine, and the bounded window of tasks under way."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

from common.cli import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Submit = Callable[[Any], "Future[Any]"]
Running = AbstractContextManager[tuple[Submit, Callable[[], int]]]

WINDOW = 3  # times as many tasks as are under way may be begun: results wait for a slow earlier one
POLL_SECONDS = 0.2  # until a source that had no task is asked again
_END = object()


class Workers(ABC):
    """Processes that run tasks, on this machine or on a cluster."""

    on_this_machine: bool  # so they see its files, and each process costs its start
    batch_factor: int  # how many times as much work as a local process a task should hold
    slots: int  # tasks that can run at the same time

    @abstractmethod
    def running(self, function: Callable[[Any], Any], *, spawn: bool, most: int | None) -> Running:
        """Yield two functions: submit a task, returning its future; return how many may be unfinished."""

    def map(
        self,
        function: Callable[[Item], Result],
        tasks: Iterable[Item | None],
        *,
        ordered: bool = True,
        spawn: bool = False,
        most: int | None = None,
    ) -> Generator[Result, None, None]:
        """Yield `function(task)` for each task, in the order of the tasks or, if not `ordered`, as they end.

        A task that is None means that there is none for the moment; the next is asked for soon after. A
        bounded number of tasks is under way, so memory does not grow with their number. An exception of a
        task is raised here. Closing the generator, or an error, ends all work.

        `function`, of a module in common, and the tasks must pickle and be safe to repeat; on a cluster they
        must name files by full paths. On this machine no more than `most` processes are started, and a
        single one is the calling process itself unless `spawn`.
        """
        source = iter(tasks)
        begun: deque[Future[Any]] = deque()  # not yielded, in the order of their tasks
        ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        running = 0
        has_more = True
        try:
            with self.running(function, spawn=spawn, most=most) as (submit, limit):
                while True:
                    while has_more and running < (allowed := limit()) and len(begun) < WINDOW * allowed:
                        task = next(source, _END)
                        has_more = task is not _END
                        if task is None or task is _END:
                            break
                        begun.append(submit(task))
                        begun[-1].add_done_callback(ended.put)
                        running += 1
                    if not begun and not has_more:
                        return
                    if ordered and begun and begun[0].done():
                        future = begun[0]
                    else:
                        try:
                            future = ended.get(timeout=POLL_SECONDS)
                        except queue.Empty:
                            continue
                        running -= 1
                        if ordered:
                            continue
                    # Taken out after its result: whatever is left here when we are interrupted is cancelled.
                    result = future.result()
                    begun.remove(future)
                    yield result
        finally:
            # Not before local processes are stopped: the executor of Python 3.11 fails on a cancelled future.
            for future in begun:
                future.cancel()


# --- processes of this machine ---------------------------------------------------------------------------


class Processes(Workers):
    """Spawned processes, started by each `map` and ended with it, or with this process."""

    on_this_machine = True
    batch_factor = 1

    def __init__(self, slots: int) -> None:
        self.slots = slots

    @contextmanager
    def running(
        self, function: Callable[[Any], Any], *, spawn: bool, most: int | None
    ) -> Iterator[tuple[Submit, Callable[[], int]]]:
        number = max(1, min(self.slots, most or self.slots))
        if number == 1 and not spawn:
            yield lambda task: _run_here(function, task), lambda: 1
            return
        pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _start_process)
        is_done = False
        try:
            yield lambda task: pool.submit(function, task), lambda: 2 * number
            is_done = True
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed (out of memory?); run the same command again to resume, "
                "with fewer workers if memory is short"
            ) from None
        finally:
            if not is_done:  # what still runs is no longer needed
                if not pool._broken:
                    # These end the pool's threads that read half a result, or write a task that nobody reads.
                    # A broken pool does so itself, at this moment.
                    pool._result_queue._writer.close()  # type: ignore[attr-defined]
                    pool._call_queue._reader.close()  # type: ignore[attr-defined]
                for process in list((getattr(pool, "_processes", None) or {}).values()):
                    process.terminate()
            with suppress(RuntimeError):  # interrupted before the pool's thread was started
                pool.shutdown(wait=True, cancel_futures=True)


def _run_here(function: Callable[[Any], Any], task: Any) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(function(task))
    except Exception as error:  # noqa: BLE001  # raised when its turn comes
        future.set_exception(error)
    return future


def _start_process() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, be it by kill -9."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def usable_cores() -> int:
    """Return how many cores this process may use: a container often has fewer than its machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last one holds the rest."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
