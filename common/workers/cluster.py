"""Batches of work over the workers of a Dask cluster, by the rules of worker processes on one machine.

Which worker gets which task is decided here, a task for each of its threads. A task whose worker is lost runs
again elsewhere, so tasks must be safe to repeat; the result counts once. cluster_members finds out which
workers are fit, cluster_worker is how they run a task.
"""

import logging
import pickle
import platform
import secrets
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.versions import VersionMismatchWarning

from common.cli import InputError, say
from common.workers import worker as cluster_worker
from common.workers.members import Members, Task, Worker, one_line
from common.workers.needs import HERE, ByValue, find_needs, same_python
from common.workers.window import Item, Result, Workers

CONNECT_SECONDS = 10
TRIES = 4  # so many workers may be lost over one task before it is taken for the cause
WINDOW = 4  # results a thread that may wait for an earlier one

_call = ByValue(cluster_worker.call)
_tell = ByValue(cluster_worker.tell)
_END = object()


@contextmanager
def connect(
    address: str, packages: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]
) -> Iterator["Cluster"]:
    """Yield the cluster of a Dask scheduler, found fit as `open_workers` says."""
    for logger in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what matters we say, in one line
    warnings.simplefilter("ignore", VersionMismatchWarning)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{address}: no Dask scheduler answers there ({error})") from None
    try:
        found = client.run_on_scheduler(platform.python_version)
        if not same_python(found):
            raise InputError(f"the Dask scheduler {address} has Python {found}, {HERE} as here was expected")
        workers = Members(client, address, find_needs(packages, reads, writes))
        workers.wait_until_known()
        cluster = Cluster(workers)
        yield cluster
        for thread in cluster.telling:
            thread.join(1)
    finally:
        with suppress(OSError):
            client.close(timeout=1)


class Cluster(Workers):
    """The fit workers of a scheduler, to map tasks over."""

    on_this_machine = False
    batch_factor = 8  # a transfer takes 10 ms

    def __init__(self, workers: Members) -> None:
        self.workers = workers
        self.topic = f"{workers.code_name}-{secrets.token_hex(8)}"  # of this run alone
        self.listener: Callable[[bytes], None] = lambda message: None
        self.telling: list[threading.Thread] = []
        self.again: deque[Task] = deque()  # tasks whose worker was lost

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

        A task that is None says that there is none for the moment; in a second the next is asked for.
        """
        source = iter(tasks)
        begun: deque[Task] = deque()  # and not yielded
        more = True
        try:
            while True:
                while worker := self.workers.free():
                    if not self.again:
                        has_room = len(begun) < WINDOW * self.workers.threads()
                        item = next(source, _END) if more and has_room else None
                        more = more and item is not _END
                        if item is None or item is _END:
                            break
                        begun.append(Task(pickle.dumps((function, item))))
                        self.again.append(begun[-1])
                    task = self.again.popleft()
                    self.workers.submit(worker, task, _call, self.workers.code_name, self.topic, task.payload)
                first = 1 if ordered else len(begun)
                if done := next((task for task in islice(begun, first) if task.is_done), None):
                    begun.remove(done)
                    yield done.result
                elif begun or more:
                    self._wait()
                else:
                    return
        finally:
            self.again.clear()
            self.workers.drop_tasks()

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Have `listener` called, within `map`, with what tasks say by cluster_task.note."""
        self.listener = listener
        finished = self.workers.finished
        self.workers.client.subscribe_topic(self.topic, lambda event: finished.put(event[1]))

    def tell(self, message: bytes) -> None:
        """Pass a message on to all tasks, for those that listen by cluster_task.listen."""
        client, name = self.workers.client, self.workers.code_name
        at_work = [worker.address for worker in self.workers.by_address.values() if worker.work]

        def send() -> None:
            with suppress(OSError):  # a worker that is lost has no task to tell
                client.run(_tell, name, self.topic, message, workers=at_work, on_error="ignore")

        thread = threading.Thread(target=send, daemon=True)  # a worker that hangs holds up no other
        thread.start()
        self.telling = [each for each in self.telling if each.is_alive()] + [thread]

    @property
    def slots(self) -> int:
        """The number of tasks that can run at the same time."""
        return self.workers.threads()

    def _wait(self) -> None:
        """Wait for an answer and take it, and see to the tasks of workers that were lost."""
        found = self.workers.wait()
        if isinstance(found, bytes):
            self.listener(found)
        elif found:
            self._take(*found)
        lost, self.workers.lost = self.workers.lost, []
        for worker, task in lost:
            self._run_again(task, worker)

    def _take(self, worker: Worker, task: Task, answer: Any) -> None:
        """Keep the result of a task, raise its error, or have it run again."""
        if isinstance(answer, Exception):
            say(f"worker {worker.name}: {one_line(answer)}")
            self._run_again(task, worker)
            return
        kind, data = answer
        if kind == "done":
            task.result = pickle.loads(data)  # noqa: S301  # from our own code
            task.is_done = True
            task.payload = b""
        elif kind == "error":
            error, text = pickle.loads(data)  # noqa: S301
            if isinstance(error, OSError):
                error.strerror = f"{error.strerror or error}, says worker {worker.name}"
            error.add_note(f"worker {worker.name}:\n{text}")
            raise error
        else:
            if kind == "died":
                say(f"worker {worker.name}: the process of a task was killed (exit code {data.decode()})")
            else:  # unprepared or unwanted: it is another by now, or about to leave
                self.workers.lose(worker)
            self._run_again(task, worker)

    def _run_again(self, task: Task, worker: Worker) -> None:
        task.tries += 1
        if task.tries == TRIES:
            raise InputError(
                f"{TRIES} times in turn the worker of the same task was lost, the last one {worker.name} "
                "(out of memory?); run the same command again to go on"
            )
        self.again.append(task)
