"""Tasks on the workers of a Dask cluster.

Dask decides which worker runs a task, and runs it again when that worker is lost. Before, each worker is
checked and made ready: it then offers a Dask resource that the tasks of this run ask for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import pickle
import platform
import queue
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
from distributed import CancelledError, Client, Future, KilledWorker
from distributed.versions import VersionMismatchWarning

from common.cli import InputError, say
from common.workers import needs as needs_module
from common.workers.needs import Needs, find_needs, list_members, prepare
from common.workers.window import Item, Result, Workers, run_window

CONNECT_SECONDS = 10
CHECK_SECONDS = 60  # in which a worker must have answered whether it can be used
LONELY_SECONDS = 60  # to wait for a worker when none can be used
LOOK_SECONDS = 1.0  # between two looks at who is there

cloudpickle.register_pickle_by_value(needs_module)


@contextmanager
def connect(
    address: str, packages: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]
) -> Iterator[Cluster]:
    """Yield the cluster of a Dask scheduler; its workers were checked as `open_workers` says."""
    for logger in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # what matters we say, in one line
    warnings.simplefilter("ignore", VersionMismatchWarning)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{address}: no Dask scheduler answers there ({error})") from None
    try:
        if problem := python_problem(client.run_on_scheduler(platform.python_version)):
            raise InputError(f"the Dask scheduler {address} has {problem}")
        cluster = Cluster(client, address, find_needs(packages, reads, writes))
        cluster.wait_until_checked()
        yield cluster
    finally:
        with suppress(OSError):
            client.close(timeout=1)


class Member(NamedTuple):
    """A worker as its scheduler knows it."""

    address: str
    name: str
    threads: int
    python: str
    resources: Sequence[str]

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


class Cluster(Workers):
    """The workers of a scheduler, those that come late or are restarted included."""

    on_this_machine = False
    batch_factor = 8  # a transfer takes 10 ms

    def __init__(self, client: Client, address: str, needs: Needs) -> None:
        self.client = client
        self.address = address
        self.needs = needs
        self.members: dict[str, Member] = {}  # by address, as all below
        self.ready: set[str] = set()
        self.problems: dict[str, str] = {}  # of members that are not usable
        self.checks: dict[str, float] = {}  # under way, since when
        self.answers: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()  # of checks: "" or a problem
        self.is_starting = True
        self.looked = 0.0
        self.lonely_since = time.monotonic()

    @property
    def slots(self) -> int:
        return len(self.ready)

    def map(
        self,
        function: Callable[[Item], Result],
        tasks: Iterable[Item | None],
        *,
        ordered: bool = True,
        spawn: bool = False,
        most: int | None = None,
    ) -> Generator[Result, None, None]:
        call = _make_call()
        loop: Any = self.client.loop

        async def fetch(future: Future[Result]) -> Result:
            result: Result = await future  # waits again if a worker is lost together with the result
            return result

        def submit(task: Item) -> concurrent.futures.Future[Result]:
            payload = pickle.dumps((function, task))
            future = self.client.submit(call, payload, resources={self.needs.resource: 1}, pure=False)
            return asyncio.run_coroutine_threadsafe(fetch(future), loop.asyncio_loop)

        try:
            yield from run_window(submit, tasks, self.look, ordered=ordered)
        except KilledWorker as error:
            raise InputError(
                f"{error.allowed_failures + 1} workers were lost while they ran the same task, the last one "
                f"{error.last_worker.name} (out of memory?); run the same command again to resume"
            ) from None
        except (CancelledError, OSError) as error:
            if isinstance(error, CancelledError) or self.client.status != "running":
                raise self._lost() from None
            raise

    def wait_until_checked(self) -> None:
        """Wait for the first worker and for the checks of all; InputError names one that are not usable."""
        while not self.members or self.checks:
            self.look()
            begun_before = time.monotonic() - CHECK_SECONDS
            if silent := [address for address, since in self.checks.items() if since < begun_before]:
                self.problems |= dict.fromkeys(silent, f"no answer for {CHECK_SECONDS} seconds")
                break
            time.sleep(0.02)
        self.is_starting = False
        if self.problems:
            address, problem = next(iter(self.problems.items()))
            number, total = len(self.problems), len(self.members)
            others = f" ({number} workers of {total} are not usable)" if number > 1 else ""
            raise InputError(f"worker {self.members[address]}: {problem}{others}")

    def look(self) -> int:
        """Take the answers of checks and note who came and who went. Return the number of ready workers."""
        while not self.answers.empty():
            self._take_answer(*self.answers.get())
        if self.client.status != "running":
            raise self._lost()
        now = time.monotonic()
        if now < self.looked + LOOK_SECONDS:
            return len(self.ready)
        self.looked = now
        try:
            found = [Member(*fields) for fields in self.client.run_on_scheduler(list_members)]
        except (CancelledError, OSError):
            raise self._lost() from None
        now_ready = {each.address for each in found if self.needs.resource in each.resources}
        for address in self.ready - now_ready:  # also of one restarted at the same address
            say(f"worker {self.members[address]} is gone, its tasks go to others")
        self.ready &= now_ready
        self.members = {each.address: each for each in found}
        for known in (self.checks, self.problems):
            for address in known.keys() - self.members.keys():
                known.pop(address)
        for member in found:
            if member.address not in self.ready | self.checks.keys() | self.problems.keys():
                self._check(member)
        if self.ready or self.checks:
            self.lonely_since = now
        elif now > self.lonely_since + LONELY_SECONDS:
            raise InputError(
                f"the Dask scheduler {self.address} had no usable worker for {LONELY_SECONDS} seconds"
            )
        return len(self.ready)

    def _check(self, member: Member) -> None:
        """Begin to check a worker, in a thread of its own: one that hangs holds up no other."""
        self.checks[member.address] = time.monotonic()

        def ask() -> None:
            problem = python_problem(member.python)
            if member.threads > 1:
                problem = (
                    f"{member.threads} threads, 1 was expected: dask worker --nthreads 1 --nworkers auto"
                )
            if not problem:
                try:
                    problem = self.client.run(prepare, *self.needs, workers=[member.address])[member.address]
                except Exception as error:  # noqa: BLE001  # whatever it is, this worker gets no tasks
                    problem = " ".join(f"{type(error).__name__}: {error}".split())
            self.answers.put((member.address, problem))

        threading.Thread(target=ask, daemon=True).start()

    def _take_answer(self, address: str, problem: str) -> None:
        if self.checks.pop(address, None) is None:  # it is gone
            return
        if not problem:
            self.ready.add(address)
            return
        self.problems[address] = problem
        if not self.is_starting:
            say(f"worker {self.members[address]} gets no tasks: {problem}")

    def _lost(self) -> InputError:
        return InputError(
            f"the connection to the Dask scheduler {self.address} was lost; "
            "run the same command again to resume"
        )


def python_problem(found: str) -> str:
    """Return how another Python differs from this one by more than its last number, "" if it does not."""
    here = platform.python_version()
    if found.split(".")[:2] == here.split(".")[:2]:
        return ""
    return f"Python {'.'.join(found.split('.')[:3])}, {here} as here was expected"


def _make_call() -> Callable[[bytes], Any]:
    """Return the function that runs a task in a worker.

    A nested function travels with its code, one of a module by its name. The scheduler unpickles both but has
    no modules of ours; so the task travels as bytes.
    """

    def call(payload: bytes) -> Any:
        from distributed import get_worker

        function, task = pickle.loads(payload)  # noqa: S301  # from our own client
        try:
            return function(task)
        except OSError as error:
            text = f"{error.strerror or error}, on worker {get_worker().name}"
            raise OSError(error.errno, text, error.filename) from error

    return call
