"""A Dask cluster started by the command lines of scheduler and workers."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.machines import Machine

PATIENCE = 60  # seconds, on a busy machine
BARE = "--no-nanny"  # starts a worker in half the time
CALM = {
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "1h",  # no complaints about a busy machine
    "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def lines_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process, the nearest first."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, []))
    for each in found:
        found += children.get(each, [])
    return found


def command_line(pid: int) -> bytes:
    """Return the command line of a process, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def spawned(pid: int) -> list[int]:
    """Return the descendants that do the work, without the resource trackers of multiprocessing."""
    return [child for child in descendants(pid) if b"spawn_main" in command_line(child)]


class Cluster:
    """A scheduler, on this machine by default, and its workers."""

    def __init__(self, folder: Path, host: str, python: str, **environment: str) -> None:
        self.folder = folder
        self.python = python  # of the scheduler
        self.host = host
        self.environment = environment
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.running: list[subprocess.Popen[str]] = []
        self.workers: list[subprocess.Popen[str]] = []  # or their nannies
        self.scheduler = self.start_scheduler()

    def start(self, name: str, command: list[str], ready: str, **environment: str) -> subprocess.Popen[str]:
        """Start a process of the cluster and wait until its log reports that it is ready."""
        log = self.folder / f"{name}.log"
        with open(log, "w") as stream:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=stream, stderr=stream, text=True,
                env={**os.environ, **CALM, **self.environment, **environment},
            )  # fmt: skip
        self.running.append(process)
        wait_until(lambda: bool(re.search(ready, log.read_text())) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def start_scheduler(self) -> subprocess.Popen[str]:
        command = [self.python, "-m", "dask", "scheduler", "--host", self.host]
        flags = ["--port", str(self.port), "--no-dashboard", "--no-show"]
        return self.start("scheduler", [*command, *flags], "Scheduler at:")

    def add_worker(
        self,
        name: str,
        *flags: str,
        python: str = sys.executable,
        machine: "Machine | None" = None,
        inside: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start a worker, under its nanny unless `flags` hold BARE, and wait until it is registered.

        `inside` is a prefix for its command, if it has no `machine`.
        """
        address, host = (machine.ours, machine.address) if machine else ("127.0.0.1", "127.0.0.1")
        command = [
            *(machine.inside if machine else inside), python, "-m", "dask", "worker", f"tcp://{address}:{self.port}",
            "--no-dashboard", "--host", host,
            "--nthreads", "1", "--name", name, "--local-directory", str(self.folder / name), *flags,
        ]  # fmt: skip
        self.workers.append(self.start(name, command, "Starting established connection", **environment))
        return self.workers[-1]

    def process_of(self, worker: subprocess.Popen[str]) -> int:
        """Return the process that runs a worker's tasks: its own or the one below its nanny."""
        (pid,) = spawned(worker.pid) or [worker.pid]
        return pid

    def signal_workers(self, number: int) -> None:
        """Send a signal to all processes that run tasks."""
        for worker in self.workers:
            os.kill(self.process_of(worker), number)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill -9 a process of the cluster and its worker process, as a power failure would."""
        for pid in [process.pid, *spawned(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        self.running.remove(process)

    def remove_workers(self) -> None:
        """Kill all workers and wait until the scheduler knows that they are gone."""
        for worker in self.workers:
            if worker in self.running:
                self.kill(worker)
        self.workers.clear()
        log = self.folder / "scheduler.log"

        def is_empty() -> bool:
            lines = log.read_text() if self.scheduler in self.running else ""
            return lines.count(" Register worker ") == lines.count(" Remove worker ")

        wait_until(is_empty)

    def stop(self) -> None:
        for process in list(self.running):
            self.kill(process)


@contextmanager
def cluster(
    folder: Path,
    workers: int = 0,
    host: str = "127.0.0.1",
    python: str = sys.executable,
    **environment: str,
) -> Iterator[Cluster]:
    """Yield a running cluster with workers without nannies; it keeps its files in the folder."""
    folder.mkdir(exist_ok=True)
    found = Cluster(folder, host, python, **environment)
    try:
        for number in range(workers):
            found.add_worker(f"worker{number}", BARE)
        yield found
    finally:
        found.stop()


@contextmanager
def disturbed(found: Cluster, disturb: Callable[[], None]) -> Iterator[None]:
    """Call `disturb` in a thread meanwhile, and end the cluster if that fails or the body then takes too long."""
    over = threading.Event()

    def call() -> None:
        try:
            disturb()
            assert over.wait(PATIENCE), "the run does not end"
        except BaseException:
            found.stop()
            raise

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            yield
        finally:
            over.set()
    future.result()
