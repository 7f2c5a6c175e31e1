"""Worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from common.cli import InputError
from common.workers.window import POLL_SECONDS, Item, Result, Workers, run_window


class Processes(Workers):
    """Spawned processes, started by each `map` and ended with it, or with this process."""

    on_this_machine = True
    batch_factor = 1

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def slots(self) -> int:
        return self.number

    def map(
        self,
        function: Callable[[Item], Result],
        tasks: Iterable[Item | None],
        *,
        ordered: bool = True,
        spawn: bool = False,
        most: int | None = None,
    ) -> Generator[Result, None, None]:
        number = max(1, min(self.number, most or self.number))
        if number == 1 and not spawn:
            for task in tasks:
                if task is None:
                    time.sleep(POLL_SECONDS)
                else:
                    yield function(task)
            return
        pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _start_process)
        is_done = False
        try:
            yield from run_window(
                lambda task: pool.submit(function, task),
                tasks,
                lambda: 2 * number,
                ordered=ordered,
            )
            is_done = True
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed (out of memory?); run the same command again to resume, "
                "with fewer workers if memory is short"
            ) from None
        finally:
            if not is_done:  # what still runs is not wanted any more
                for process in list((getattr(pool, "_processes", None) or {}).values()):
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


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
