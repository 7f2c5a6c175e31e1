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
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import CancelledError, Client, KilledWorker
from distributed.versions import VersionMismatchWarning

from common.cli import InputError, say
from common.workers import needs as needs_module
from common.workers.needs import Needs, find_needs, list_workers, prepare
from common.workers.pool import Submit, Workers

CONNECT_SECONDS = 10
CHECK_SECONDS = 60  # in which a worker must have answered whether it is usable
LONELY_SECONDS = 60  # to wait for a worker when none is usable
LOOK_SECONDS = 1.0  # between two checks of the list of workers

cloudpickle.register_pickle_by_value(needs_module)


@contextmanager
def connect(
    address: str, packages: Sequence[str], reads: Sequence[Path], writes: Sequence[Path]
) -> Iterator[Cluster]:
    """Yield the cluster of a Dask scheduler; its workers were checked as `open_workers` says."""
    for logger in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # we report what matters, in one line
    warnings.simplefilter("ignore", VersionMismatchWarning)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{address}: no Dask scheduler answers there ({error})") from None
    try:
        if problem := _python_problem(client.run_on_scheduler(platform.python_version)):
            raise InputError(f"the Dask scheduler {address} has {problem}")
        cluster = Cluster(client, address, find_needs(packages, reads, writes))
        cluster.wait_until_checked()
        yield cluster
    finally:
        with suppress(OSError):
            client.close(timeout=1)


class Cluster(Workers):
    """The workers of a scheduler, including those that come late or are restarted."""

    on_this_machine = False
    batch_factor = 8  # a transfer takes 10 ms

    def __init__(self, client: Client, address: str, needs: Needs) -> None:
        self.client = client
        self.loop: asyncio.AbstractEventLoop = client.loop.asyncio_loop  # type: ignore[union-attr]
        self.address = address
        self.needs = needs
        self.names: dict[str, str] = {}  # by address
        self.checks: dict[str, concurrent.futures.Future[str]] = {}  # what each lacks, "" if ready
        self.is_started = False
        self.looked = 0.0
        self.lonely_since = time.monotonic()

    @property
    def slots(self) -> int:  # type: ignore[override]
        return len(self._ready())

    def _ready(self) -> list[str]:
        return [address for address, check in self.checks.items() if check.done() and not check.result()]

    @contextmanager
    def running(
        self, function: Callable[[Any], Any], *, spawn: bool, most: int | None
    ) -> Iterator[tuple[Submit, Callable[[], int]]]:
        # The scheduler, which has none of our modules, unpickles this function and its argument: nested, the
        # function travels with its code, and the task travels as bytes.
        def run_task(payload: bytes) -> Any:
            from distributed import get_worker

            function, task = pickle.loads(payload)  # noqa: S301  # from our own client
            try:
                return function(task)
            except OSError as error:
                text = f"{error.strerror or error}, on worker {get_worker().name}"
                raise OSError(error.errno, text, error.filename) from error

        async def run(payload: bytes) -> Any:
            # If a result is lost together with its worker, this waits for another.
            return await self.client.submit(run_task, payload, resources={self.needs.resource: 1}, pure=False)

        def submit(task: Any) -> concurrent.futures.Future[Any]:
            return asyncio.run_coroutine_threadsafe(run(pickle.dumps((function, task))), self.loop)

        try:
            yield submit, self.look
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
        """Wait for the first worker and for the checks of all; InputError names one that is not usable."""
        while not self.checks or not all(check.done() for check in self.checks.values()):
            self.look()
            time.sleep(0.02)
        self.is_started = True
        problems = {address: problem for address, check in self.checks.items() if (problem := check.result())}
        for address, problem in problems.items():
            several = f" ({len(problems)} workers of {len(self.checks)} are not usable)" * (len(problems) > 1)
            raise InputError(f"worker {self.names[address]}: {problem}{several}")

    def look(self) -> int:
        """Check once a second which workers came or went. Return the number of ready workers."""
        if self.client.status != "running":
            raise self._lost()
        now = time.monotonic()
        if now > self.looked + LOOK_SECONDS:
            self.looked = now
            self._list_workers()
        if self.slots or not all(check.done() for check in self.checks.values()):
            self.lonely_since = now
        elif now > self.lonely_since + LONELY_SECONDS:
            raise InputError(
                f"the Dask scheduler {self.address} had no usable worker for {LONELY_SECONDS} seconds"
            )
        return self.slots

    def _list_workers(self) -> None:
        """Begin to check workers that are new, and forget those that are gone."""
        ready = self._ready()
        try:
            found = self.client.run_on_scheduler(list_workers, self.needs.resource)
        except (CancelledError, OSError):
            raise self._lost() from None
        for address in ready:
            if address not in found or not found[address][-1]:  # or restarted at the same address
                say(f"worker {self.names[address]} is gone, its tasks go to others")
                del self.checks[address]
        self.names = {address: name for address, (name, *_) in found.items()}
        self.checks = {address: check for address, check in self.checks.items() if address in found}
        for address in found.keys() - self.checks.keys():
            name, python, threads, _ = found[address]
            check = self._check(address, name, python, threads)
            self.checks[address] = asyncio.run_coroutine_threadsafe(check, self.loop)

    async def _check(self, address: str, name: str, python: str, threads: int) -> str:
        """Make a worker ready. Return what it lacks, "" if nothing."""
        problem = _python_problem(python)
        if threads > 1:
            problem = f"{threads} threads, 1 was expected: start it with --nworkers -1 --nthreads 1"
        try:
            if not problem:
                answer = self.client.run(prepare, tuple(self.needs), workers=[address])
                problem = (await asyncio.wait_for(answer, CHECK_SECONDS))[address]
        except TimeoutError:
            problem = f"no answer for {CHECK_SECONDS} seconds"
        except Exception as error:  # noqa: BLE001  # whatever it is, this worker gets no tasks
            problem = " ".join(f"{type(error).__name__}: {error}".split())
        if problem and self.is_started:
            say(f"worker {name} gets no tasks: {problem}")
        return problem

    def _lost(self) -> InputError:
        return InputError(
            f"the connection to the Dask scheduler {self.address} was lost; "
            "run the same command again to resume"
        )


def _python_problem(found: str) -> str:
    """Return how another Python differs from this one by more than its last number, "" if it does not."""
    here = platform.python_version()
    if found.split(".")[:2] == here.split(".")[:2]:
        return ""
    return f"Python {'.'.join(found.split('.')[:3])}, {here} as here was expected"
