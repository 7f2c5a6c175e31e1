"""The workers of a Dask cluster: who is there, who is fit for our tasks, and what is sent to them.

A worker is asked for its Python, by a function that every version knows by name, then made ready and asked
for what else it needs; until it is found fit it gets no task, be it late or started anew.
"""

import hashlib
import platform
import queue
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future

from common.cli import InputError, say
from common.workers import worker as cluster_worker
from common.workers.needs import HERE, ByValue, same_python, zip_of_code
from common.workers.worker import Needs

CHECK_SECONDS = 60  # in which a worker that work waits for must say what it is
LONELY_SECONDS = 60  # to wait for a worker when there is none
LOOK_SECONDS = 1.0  # between two looks at who is there
RESULT_SECONDS = 10

_prepare = ByValue(cluster_worker.prepare)


@dataclass(slots=True, eq=False)
class Task:
    """A pickled function and its argument; its result, when it is done."""

    payload: bytes
    tries: int = 0
    is_done: bool = False
    result: Any = None


@dataclass(slots=True, eq=False)
class Worker:
    """One worker, and what it is at."""

    address: str
    threads: int
    name: str  # as the user knows it
    is_fit: bool = False
    problem: str = ""
    since: float = field(default_factory=time.monotonic)
    # By key: the future, and the task or what is to be found out.
    work: dict[str, tuple["Future[Any]", Task | str]] = field(default_factory=dict)


Answer = tuple[Worker, Task, Any]


class Members:
    """All workers of a scheduler. Tasks whose worker is lost are in `lost`, with that worker."""

    def __init__(self, client: Client, address: str, needs: Needs) -> None:
        self.client = client
        self.address = address
        self.needs = needs
        self.code = zip_of_code()
        self.code_name = f"open_images_{hashlib.sha256(self.code).hexdigest()[:16]}"
        self.by_address: dict[str, Worker] = {}
        self.lost: list[tuple[Worker, Task]] = []
        # What came back: of which worker and key, or what a task has to say.
        self.finished: queue.SimpleQueue[tuple[Worker, str] | bytes] = queue.SimpleQueue()
        self.is_starting = True
        self.looked = 0.0
        self.lonely_since = time.monotonic()

    def threads(self) -> int:
        """Return how many tasks can run at the same time."""
        return sum(worker.threads for worker in self.by_address.values() if worker.is_fit)

    def free(self) -> Worker | None:
        """Return the fit worker with the largest share of its threads free, None where none has one."""
        workers = [each for each in self.by_address.values() if each.is_fit and len(each.work) < each.threads]
        return min(workers, key=lambda worker: len(worker.work) / worker.threads, default=None)

    def submit(self, worker: Worker, task: Task | str, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a worker call a function, for a task or to find something out."""
        future = self.client.submit(function, *arguments, workers=[worker.address], pure=False)
        key = str(future.key)
        worker.work[key] = future, task
        future.add_done_callback(lambda _: self.finished.put((worker, key)))

    def wait(self) -> Answer | bytes | None:
        """Wait for an answer to a task, or for what one has to say, a second at most.

        An answer that is an exception is no task's own: the worker could not run it.
        """
        self._look()
        try:
            found = self.finished.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return None
        if isinstance(found, bytes):
            return found
        worker, key = found
        if key not in worker.work:
            return None
        future, task = worker.work[key]
        try:
            answer = self._answer_of(future)
        except TimeoutError:  # it was lost with the worker that had it
            self._part_with(worker)
            return None
        del worker.work[key]
        future.release()
        if isinstance(task, Task):
            return worker, task, answer
        self._note(worker, task, answer)
        return None

    def _answer_of(self, future: "Future[Any]") -> Any:
        try:
            if future.status == "error":
                return future.exception(timeout=RESULT_SECONDS)
            return future.result(timeout=RESULT_SECONDS)
        except TimeoutError:
            raise
        except (CancelledError, OSError):
            raise self._scheduler_lost() from None

    def drop_tasks(self) -> None:
        """Give up all tasks: their processes are killed."""
        self.lost.clear()
        for worker in self.by_address.values():
            for key, (future, task) in list(worker.work.items()):
                if isinstance(task, Task):
                    del worker.work[key]
                    future.release()

    # --- who is there, and fit

    def wait_until_known(self) -> None:
        """Wait until every worker that is there is known to be fit; InputError names one that is not."""
        while not self.by_address or any(worker.work for worker in self.by_address.values()):
            self.wait()
            before = time.monotonic() - CHECK_SECONDS
            if silent := [each for each in self.by_address.values() if each.work and each.since < before]:
                silent[0].problem = f"no answer for {CHECK_SECONDS} seconds"
                break
        self.is_starting = False
        workers = self.by_address.values()
        if unfit := [worker for worker in workers if worker.problem]:
            others = f" ({len(unfit)} workers of {len(workers)} are not fit)" if len(unfit) > 1 else ""
            raise InputError(f"worker {unfit[0].name}: {unfit[0].problem}{others}")

    def _note(self, worker: Worker, question: str, answer: Any) -> None:
        """Note what a worker said to a question."""
        if isinstance(answer, Exception):
            worker.problem = one_line(answer)
        elif question == "fitness":
            worker.problem = answer
            worker.is_fit = not answer
        elif same_python(answer):
            self.submit(worker, "fitness", _prepare, self.code_name, self.code, tuple(self.needs))
        else:
            worker.problem = f"Python {answer}, {HERE} as here was expected"
        if worker.problem and not self.is_starting:
            say(f"worker {worker.name} gets no work: {worker.problem}")

    def _look(self) -> None:
        """Note who came and who went."""
        if self.client.status != "running":
            raise self._scheduler_lost()
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        try:
            there = self.client.nthreads()
            new = sorted(there.keys() - self.by_address.keys())
            names = self._names() if new else {}
        except OSError:
            raise self._scheduler_lost() from None
        for address in self.by_address.keys() - there.keys():
            self._part_with(self.by_address[address])
        for address in new:
            worker = self.by_address[address] = Worker(address, there[address], names.get(address, address))
            self.submit(worker, "python", platform.python_version)
        if any(not worker.problem for worker in self.by_address.values()):
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
        return {where: name if name == where else f"{name} ({where})" for where, name in names.items()}

    def _part_with(self, worker: Worker) -> None:
        """Lose a worker that is gone, and say so."""
        if worker.is_fit:
            say(f"worker {worker.name} is gone, its work goes to others")
        self.lose(worker)

    def lose(self, worker: Worker) -> None:
        """Forget a worker; when it is there again, it is asked anew."""
        self.by_address.pop(worker.address, None)
        for future, task in worker.work.values():
            future.release()
            if isinstance(task, Task):
                self.lost.append((worker, task))
        worker.work.clear()

    def _scheduler_lost(self) -> InputError:
        return InputError(
            f"the connection to the Dask scheduler {self.address} was lost; "
            "run the same command again to go on"
        )


def one_line(error: Exception) -> str:
    """Return an exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
