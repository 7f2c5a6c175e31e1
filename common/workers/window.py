"""One interface to workers, and the bounded window of tasks that are under way."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

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

    @property
    @abstractmethod
    def slots(self) -> int:
        """The number of tasks that can run at the same time."""

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
        begun: deque[Future[Any]] = deque()  # not yielded, in the order of their tasks
        try:
            with self.running(function, spawn=spawn, most=most) as (submit, limit):
                yield from _run_window(submit, limit, tasks, begun, ordered=ordered)
        finally:
            # Not before local processes are stopped: the executor of Python 3.11 fails on a cancelled future.
            for future in begun:
                future.cancel()


def _run_window(
    submit: Submit,
    limit: Callable[[], int],
    tasks: Iterable[Item | None],
    begun: deque[Future[Any]],
    *,
    ordered: bool,
) -> Generator[Any, None, None]:
    """Yield the results of tasks, of which `begun` holds those that are not yielded yet."""
    source = iter(tasks)
    finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    running = 0
    has_more = True
    while True:
        while has_more and running < (most := limit()) and len(begun) < WINDOW * most:
            task = next(source, _END)
            has_more = task is not _END
            if task is None or task is _END:
                break
            begun.append(submit(cast(Item, task)))
            begun[-1].add_done_callback(finished.put)
            running += 1
        if ordered and begun and begun[0].done():
            # Taken out last: whatever is left here when we are interrupted is cancelled.
            result = begun[0].result()
            begun.popleft()
            yield result
            continue
        if not begun and not has_more:
            return
        try:
            future = finished.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        running -= 1
        if not ordered:
            result = future.result()
            begun.remove(future)
            yield result
