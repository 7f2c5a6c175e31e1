"""Worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any

from common.cli import InputError
from common.workers.window import Submit, Workers


class Processes(Workers):
    """Spawned processes, started by each `map` and ended with it, or with this process."""

    on_this_machine = True
    batch_factor = 1
    slots = 0

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
