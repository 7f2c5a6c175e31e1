"""Tasks over real worker processes: order, bounds, and what is left when someone dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import pytest

from common.cli import InputError
from common.workers.pool import Processes, batches
from tests.conftest import ROOT
from tests.support.tasks import fail, first_sleeps, kill_self, large, process_id, square

JOBS = r"""
import os, signal, sys, time
from common.workers.pool import Processes
def wait(path):
    with open(path, 'w') as stream:
        stream.write(str(os.getpid()))
    os.write(1, b'ready\n')
    signal.pause()
def sleep(seconds):
    os.write(1, b'begun\n')
    time.sleep(seconds)
"""


def test_batches_have_the_size_and_the_last_one_the_rest():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(Processes(workers).map(square, range(50))) == [n * n for n in range(50)]


def test_unordered_results_come_as_they_end():
    assert list(Processes(2).map(first_sleeps, range(4), ordered=False)) == [1, 2, 3, 0]


def test_a_slow_first_task_does_not_stop_the_others():
    """All that may be begun are asked for before the first result comes."""
    taken = []
    tasks = (taken.append(n) or n for n in range(100))
    with closing(Processes(2).map(first_sleeps, tasks)) as results:
        assert next(results) == 0
        assert len(taken) > 8


@pytest.mark.parametrize("workers", [1, 2])
def test_endless_tasks_are_taken_only_as_needed(workers):
    taken = []
    tasks = (taken.append(n) or n for n in count())
    assert list(islice(Processes(workers).map(square, tasks), 10)) == [n * n for n in range(10)]
    assert len(taken) <= 10 + 6 * workers


@pytest.mark.parametrize(("workers", "ordered"), [(1, True), (2, True), (2, False)])
def test_none_is_no_task_and_the_next_is_asked_for(workers, ordered):
    """The third task is there only when two results have come, and a while after."""
    found: list[int] = []

    def tasks():
        yield from (1, 2)
        while len(found) < 2:
            yield None
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            yield None
        yield 3

    for result in Processes(workers).map(square, tasks(), ordered=ordered):
        found.append(result)
    assert sorted(found) == [1, 4, 9]


def test_one_worker_is_this_process_unless_it_is_to_be_spawned():
    assert list(Processes(1).map(process_id, [0])) == [os.getpid()]
    assert list(Processes(3).map(process_id, [0], most=1)) == [os.getpid()]
    assert list(Processes(1).map(process_id, [0], spawn=True)) != [os.getpid()]


def test_no_more_processes_than_asked_for_are_started():
    assert len(set(Processes(3).map(process_id, [0.2] * 6, most=2))) == 2


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_in_a_worker_is_the_callers(ordered):
    with pytest.raises(InputError, match="item 0"):
        list(Processes(2).map(fail, [0], ordered=ordered))


def test_no_task_is_cancelled_before_the_processes_have_stopped(monkeypatch):
    """The thread of Python 3.11's executor fails, with a traceback, on a cancelled task of a stopped process."""
    shutdown, cancel, events = ProcessPoolExecutor.shutdown, Future.cancel, []

    def noted(self, *arguments, **options):
        shutdown(self, *arguments, **options)
        events.append("stopped")

    monkeypatch.setattr(ProcessPoolExecutor, "shutdown", noted)

    def noted_here(self):
        if threading.current_thread() is threading.main_thread():  # not by the executor itself
            events.append("cancelled")
        return cancel(self)

    monkeypatch.setattr(Future, "cancel", noted_here)
    with pytest.raises(InputError, match="item 0"):
        list(Processes(2).map(fail, range(100)))
    assert events[0] == "stopped"


def test_a_killed_worker_is_one_line():
    with pytest.raises(InputError, match="a worker process was killed"):
        list(Processes(2).map(kill_self, range(10)))


def test_closing_ends_what_still_runs():
    with closing(Processes(2).map(process_id, [0, 60, 60], ordered=False)) as results:
        next(results)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10  # a second, on a busy machine


def test_workers_end_when_the_parent_is_killed(tmp_path):
    """Each worker writes its process id and then waits for ever; after kill -9 of the parent none is left."""
    with start(
        tmp_path, f"list(Processes(2).map(wait, [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]))"
    ) as parent:
        assert [parent.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        workers = [int((tmp_path / name).read_text()) for name in "ab"]
        assert all(alive(pid) for pid in workers)
        parent.kill()
        parent.stdout.read()  # ends when the last process that holds the pipe has ended
    assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize("seconds", [[0, 60], [60, 60]], ids=["the last task", "two tasks"])
def test_an_interruption_does_not_wait_for_the_tasks_under_way(tmp_path, seconds):
    with start(tmp_path, f"list(Processes(2).map(sleep, {seconds}))") as parent:
        assert [parent.stdout.readline() for _ in seconds] == ["begun\n"] * 2
        time.sleep(0.5)  # the short task is done, and its result taken
        parent.send_signal(signal.SIGINT)
        _, err = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in err


def start(folder: Path, code: str) -> subprocess.Popen[str]:
    """Start a process that runs code with the functions of JOBS."""
    (folder / "jobs.py").write_text(JOBS)
    return subprocess.Popen(
        [sys.executable, "-c", f"from jobs import *; {code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_early_end_amid_large_results_does_not_hang():
    """A process that is ended while it writes a result leaves half of it in the pipe."""
    for _ in range(3):
        results = Processes(2).map(large, range(9))
        next(results)
        results.close()
