"""Batches over real worker processes: order, bounds, and what is left when someone dies."""

import os
import signal
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path

import pytest

from common.cli import InputError
from common.workers.batches import batches, map_batches
from tests.conftest import ROOT


def square(number: int) -> int:
    return number * number


def kill_self(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise InputError(f"item {number}")


def test_batches_have_the_size_and_the_last_one_the_rest():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(map_batches(square, range(50), workers)) == [n * n for n in range(50)]


@pytest.mark.parametrize("workers", [1, 2])
def test_endless_tasks_are_taken_only_as_needed(workers):
    taken = []
    tasks = (taken.append(n) or n for n in count())
    assert list(islice(map_batches(square, tasks, workers), 10)) == [n * n for n in range(10)]
    assert len(taken) <= 10 + 2 * workers + 1


def test_an_error_in_a_worker_is_the_callers():
    with pytest.raises(InputError, match="item 0"):
        list(map_batches(fail, range(5), 2))


def test_a_killed_worker_is_one_line():
    with pytest.raises(InputError, match="a worker process was killed"):
        list(map_batches(kill_self, range(10), 2))


def test_workers_end_when_the_parent_is_killed(tmp_path):
    """Each worker writes its process id and then waits for ever; after kill -9 of the parent none is left."""
    (tmp_path / "wait_job.py").write_text(
        "import os, signal\n"
        "def job(path):\n"
        "    with open(path, 'w') as stream: stream.write(str(os.getpid()))\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
    )
    code = (
        "import sys; from wait_job import job; from common.workers.batches import map_batches\n"
        f"list(map_batches(job, [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}], 2))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert [parent.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        workers = [int((tmp_path / name).read_text()) for name in "ab"]
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
        parent.kill()
        parent.stdout.read()  # ends when the last process that holds the pipe has ended
    assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize("seconds", [[0, 60], [60, 60]], ids=["the last task", "two tasks"])
def test_an_interruption_does_not_wait_for_the_tasks_under_way(tmp_path, seconds):
    (tmp_path / "sleep_job.py").write_text(
        "import time\ndef job(seconds):\n    print('begun', flush=True)\n    time.sleep(seconds)\n"
    )
    code = f"from sleep_job import job; from common.workers.batches import map_batches\nlist(map_batches(job, {seconds}, 2))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as parent:
        assert [parent.stdout.readline() for _ in seconds] == ["begun\n"] * 2
        time.sleep(0.5)  # the short task is done, and its result taken
        parent.send_signal(signal.SIGINT)
        _, err = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in err


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
