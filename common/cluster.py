"""Batches of work over the workers of a Dask cluster, by the rules of worker processes on one machine.

Which worker gets which task is decided here, a task for each of its threads, so that none gets any before it
was found fit, be it late or started anew. A task whose worker is lost runs again elsewhere, so tasks must be
safe to repeat; the result counts once. How a worker runs them is in cluster_worker.
"""

import hashlib
import logging
import pickle
import platform
import queue
import secrets
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, Future
from distributed.versions import VersionMismatchWarning

from common import cluster_worker
from common.cli import InputError, say
from common.cluster_needs import HERE, ByValue, find_needs, same_python, zip_of_code
from common.cluster_worker import Needs

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_SECONDS = 10
CHECK_SECONDS = 60  # in which the workers that are there at the start must say what they are
LONELY_SECONDS = 60  # to wait for a worker when there is none
LOOK_SECONDS = 1.0  # between two looks at who is there
RESULT_SECONDS = 10
TRIES = 4  # so many workers may be lost over one task before it is taken for the cause
WINDOW = 4  # results a thread that may wait for an earlier one


@contextmanager
def connect(
    address: str, packages: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]
) -> Iterator["Cluster"]:
    """Yield the cluster of a Dask scheduler, found fit as `open_workers` says."""
    for logger in ("distributed", "distributed.client"):
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
        cluster = Cluster(client, address, find_needs(packages, reads, writes))
        cluster.wait_until_known()
        yield cluster
    finally:
        with suppress(OSError):
            client.close(timeout=1)


_prepare = ByValue(cluster_worker.prepare)
_call = ByValue(cluster_worker.call)
_tell = ByValue(cluster_worker.tell)
_END = object()


@dataclass(slots=True, eq=False)
class _Task:
    payload: bytes
    tries: int = 0
    is_done: bool = False
    result: Any = None


@dataclass(slots=True, eq=False)
class _Worker:
    address: str
    threads: int
    name: str  # as the user knows it
    is_fit: bool = False
    problem: str = ""
    # Under way, by key: the future, and the task or what is to be found out.
    work: dict[str, tuple["Future[Any]", _Task | str]] = field(default_factory=dict)


class Cluster:
    """The workers of a scheduler that are fit for our tasks."""

    def __init__(self, client: Client, address: str, needs: Needs) -> None:
        self.client = client
        self.address = address
        self.code = zip_of_code()
        self.name = f"open_images_{hashlib.sha256(self.code).hexdigest()[:16]}"
        self.topic = f"{self.name}-{secrets.token_hex(8)}"  # of this run alone
        self.needs = needs
        self.workers: dict[str, _Worker] = {}
        # What came back: of which worker and key, or what a task has to say.
        self.finished: queue.SimpleQueue[tuple[_Worker, str] | bytes] = queue.SimpleQueue()
        self.listener: Callable[[bytes], None] = lambda message: None
        self.again: deque[_Task] = deque()  # tasks whose worker was lost
        self.is_starting = True
        self.looked = 0.0
        self.lonely_since = time.monotonic()

    def map(
        self, function: Callable[[Item], Result], tasks: Iterable[Item | None], *, ordered: bool = True
    ) -> Iterator[Result]:
        """Yield `function(task)` for each task, in the order of the tasks or, if not `ordered`, as they end.

        A task that is None says that there is none for the moment; in a second the next is asked for.
        """
        source = iter(tasks)
        begun: deque[_Task] = deque()  # and not yielded
        more = True
        try:
            while True:
                while worker := self._free_worker():
                    if not self.again:
                        item = next(source, _END) if more and len(begun) < self._room() else None
                        more = more and item is not _END
                        if item is None or item is _END:
                            break
                        begun.append(_Task(pickle.dumps((function, item))))
                        self.again.append(begun[-1])
                    self._submit(worker, self.again.popleft())
                first = 1 if ordered else len(begun)
                if done := next((task for task in islice(begun, first) if task.is_done), None):
                    begun.remove(done)
                    yield done.result
                elif begun or more:
                    self._wait()
                else:
                    return
        finally:
            self._drop()

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Have `listener` called, within `map`, with what tasks say by cluster_task.note."""
        self.listener = listener
        self.client.subscribe_topic(self.topic, lambda event: self.finished.put(event[1]))

    def tell(self, message: bytes) -> None:
        """Pass a message on to all tasks, for those that listen by cluster_task.listen."""
        at_work = [worker.address for worker in self.workers.values() if worker.work]

        def send() -> None:
            with suppress(OSError):  # a worker that is lost has no task to tell
                self.client.run(_tell, self.name, self.topic, message, workers=at_work, on_error="ignore")

        threading.Thread(target=send, daemon=True).start()  # one that hangs holds up no other

    def threads(self) -> int:
        """Return how many tasks can run at the same time."""
        return sum(worker.threads for worker in self.workers.values() if worker.is_fit)

    def _free_worker(self) -> _Worker | None:
        """Return the worker with the largest share of its threads free."""
        free = [
            worker for worker in self.workers.values() if worker.is_fit and len(worker.work) < worker.threads
        ]
        return min(free, key=lambda worker: len(worker.work) / worker.threads, default=None)

    def _room(self) -> int:
        return WINDOW * self.threads()

    # --- what is sent, and what comes back

    def _submit(self, worker: _Worker, task: _Task | str) -> None:
        """Have a worker run a task, or say which Python it has (by name, not by value: code differs with
        the version), or make ready and say what it lacks."""
        if isinstance(task, _Task):
            call: tuple[Any, ...] = (_call, self.name, self.topic, task.payload)
        elif task == "python":
            call = (platform.python_version,)
        else:
            call = (_prepare, self.name, self.code, tuple(self.needs))
        future = self.client.submit(*call, workers=[worker.address], pure=False)
        key = str(future.key)
        worker.work[key] = future, task
        future.add_done_callback(lambda _: self.finished.put((worker, key)))

    def _wait(self) -> None:
        """Wait until something comes back, or for a second."""
        self._look()
        with suppress(queue.Empty):
            found = self.finished.get(timeout=LOOK_SECONDS)
            if isinstance(found, bytes):
                self.listener(found)
            elif found[1] in found[0].work:
                self._settle(*found)

    def _settle(self, worker: _Worker, key: str) -> None:
        future, task = worker.work[key]
        if future.status == "cancelled":
            raise self._lost()
        try:
            answer = future.result(timeout=RESULT_SECONDS)
        except TimeoutError:  # it was lost with the result
            self._lose(worker)
            return
        del worker.work[key]
        future.release()
        if isinstance(task, _Task):
            self._take_answer(worker, task, *answer)
        elif task == "python" and not same_python(answer):
            self._refuse(worker, f"Python {answer}, {HERE} as here was expected")
        elif task == "python":
            self._submit(worker, "fitness")
        elif answer:
            self._refuse(worker, answer)
        else:
            worker.is_fit = True

    def _take_answer(self, worker: _Worker, task: _Task, kind: str, data: bytes) -> None:
        """Keep the result of a task, raise its error, or have it run again."""
        if kind == "done":
            task.result = pickle.loads(data)  # noqa: S301  # from our own code
            task.is_done = True
            task.payload = b""
        elif kind == "error":
            error, text = pickle.loads(data)  # noqa: S301
            if isinstance(error, OSError):
                error.strerror = f"{error.strerror}, says worker {worker.name}"
            error.add_note(f"worker {worker.name}:\n{text}")
            raise error
        else:
            if kind == "died":
                say(f"worker {worker.name}: the process of a task was killed (exit code {data.decode()})")
            else:
                self._lose(worker)
            self._run_again(task, worker)

    def _run_again(self, task: _Task, worker: _Worker) -> None:
        task.tries += 1
        if task.tries == TRIES:
            raise InputError(
                f"{TRIES} times in turn the worker of the same task was lost, the last one {worker.name} "
                "(out of memory?); run the same command again to go on"
            )
        self.again.append(task)

    def _drop(self) -> None:
        """Give up all tasks: their processes are killed."""
        self.again.clear()
        for worker in self.workers.values():
            for key, (future, task) in list(worker.work.items()):
                if isinstance(task, _Task):
                    del worker.work[key]
                    future.release()

    # --- who is there

    def wait_until_known(self) -> None:
        """Wait until every worker that is there is known to be fit; InputError names one that is not."""
        until = time.monotonic() + CHECK_SECONDS
        while not self.workers or any(worker.work for worker in self.workers.values()):
            self._wait()
            if time.monotonic() > until and (silent := [w for w in self.workers.values() if w.work]):
                self._refuse(silent[0], f"no answer for {CHECK_SECONDS} seconds")
                break
        self.is_starting = False
        if unfit := [worker for worker in self.workers.values() if worker.problem]:
            others = f" ({len(unfit)} workers of {len(self.workers)} are not fit)" if len(unfit) > 1 else ""
            raise InputError(f"worker {unfit[0].name}: {unfit[0].problem}{others}")

    def _look(self) -> None:
        """Note who came and who went."""
        if self.client.status != "running":
            raise self._lost()
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        try:
            there = self.client.nthreads()
            new = sorted(there.keys() - self.workers.keys())
            names = self._names() if new else {}
        except OSError:
            raise self._lost() from None
        for address in self.workers.keys() - there.keys():
            if self.workers[address].is_fit:
                say(f"worker {self.workers[address].name} is gone, its work goes to others")
            self._lose(self.workers[address])
        for address in new:
            self.workers[address] = _Worker(address, there[address], names.get(address, address))
            self._submit(self.workers[address], "python")
        if any(not worker.problem for worker in self.workers.values()):
            self.lonely_since = now
        elif now - self.lonely_since > LONELY_SECONDS:
            raise InputError(
                f"the Dask scheduler {self.address} had no fit worker for {LONELY_SECONDS} seconds"
            )

    def _names(self) -> dict[str, str]:
        """Return what the user calls each worker, and where it is."""
        # Not client.scheduler_info: that may return what another request of the client has just asked for.
        assert self.client.scheduler
        found = self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"]
        names = {address: str(worker["name"]) for address, worker in found.items()}
        return {
            address: name if name == address else f"{name} ({address})" for address, name in names.items()
        }

    def _lose(self, worker: _Worker) -> None:
        """Forget a worker, and run its tasks elsewhere; when it is there again, it is asked anew."""
        self.workers.pop(worker.address, None)
        for future, task in worker.work.values():
            future.release()
            if isinstance(task, _Task):
                self._run_again(task, worker)
        worker.work.clear()

    def _refuse(self, worker: _Worker, problem: str) -> None:
        worker.problem = problem
        if not self.is_starting:
            say(f"worker {worker.name} gets no work: {problem}")

    def _lost(self) -> InputError:
        return InputError(
            f"the connection to the Dask scheduler {self.address} was lost; "
            "run the same command again to go on"
        )
