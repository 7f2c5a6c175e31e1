"""Step 4 by the workers of a Dask cluster: the same photos, politeness over all of them, and killed workers."""

import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import ROOT
from tests.support.dask_cluster import PATIENCE, cluster, wait_until
from tests.support.downloads import arguments, folder, good, photos, server
from tests.support.downloads import write_index as write_entries
from tests.support.fault_server import Exchange, fault_server, photo
from tests.support.faults import DEADLINE, FAULTS, GOOD, SETTINGS, write_index
from tests.support.step5 import contents

__all__ = ["folder", "server"]


@pytest.fixture(scope="module")
def three_workers(tmp_path_factory):
    """A cluster of three workers."""
    with cluster(tmp_path_factory.mktemp("cluster"), workers=3) as found:
        yield found


def test_every_fault_has_the_reason_that_it_has_on_one_machine(three_workers, script, tmp_path):
    outcomes = []
    with fault_server() as faults, fault_server() as busy:
        apart = ("429", "503", "busy_then_good", "busy_by_date", "unavailable_then_good")
        routes = [*GOOD, *FAULTS]
        urls = {
            route.replace("_", "-"): f"{(busy if route in apart else faults).base}/{route}/{route}"
            for route in routes
        } | {f"fine{number}": f"{faults.base}/good/fine{number}" for number in range(30)}
        write_index(tmp_path / "index.json", urls)
        for name, more in (("alone", []), ("clustered", ["--dask_scheduler", three_workers.address])):
            faults.asked.clear()
            busy.asked.clear()
            outcomes.append(
                script(
                    "download_images", "--images_path", tmp_path / "index.json",
                    "--images_output_directory", tmp_path / name, "--deadline", DEADLINE, *SETTINGS, *more,
                )
            )  # fmt: skip
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[1].out == outcomes[0].out
    made = [contents(tmp_path / name) for name in ("clustered", "alone")]
    refused = [each.pop(".download_refused").splitlines() for each in made]  # in the order of their coming
    assert sorted(refused[0]) == sorted(refused[1])
    assert made[0] == made[1]


class Slow:
    """A route that takes its time, and knows how many requests it had at the same time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, e: Exchange) -> None:
        self.count(1)
        time.sleep(0.01)
        self.count(-1)  # once the answer has gone the client may ask again, before we know
        e.answer(e.photo)

    def count(self, change: int) -> None:
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)


@pytest.mark.parametrize("most", [2, 6])
def test_connections_to_a_host_are_a_total(three_workers, script, server, folder, most):
    slow = server.routes["good"] = Slow()
    write_entries(folder, good(server, 80))
    flags = ["--max_per_host", most, "--threads", 30, "--dask_scheduler", three_workers.address]
    outcome = script("download_images", *arguments(folder, *flags))
    assert (outcome.code, outcome.counts["downloaded"]) == (0, 80), outcome.err
    assert most / 2 < slow.most <= most


def test_threads_are_a_total(three_workers, script, server, folder):
    slow = server.routes["good"] = Slow()
    write_entries(folder, good(server, 80))
    flags = ["--max_per_host", 30, "--threads", 2, "--dask_scheduler", three_workers.address]
    outcome = script("download_images", *arguments(folder, *flags))
    assert (outcome.code, outcome.counts["downloaded"]) == (0, 80), outcome.err
    assert slow.most <= 2


def test_a_host_that_wants_a_longer_pause_is_left_by_all(three_workers, script, server, folder):
    with fault_server() as other:
        entries = [{"id": f"l{n}", "url": f"{server.base}/429_long/l{n}"} for n in range(90)]
        write_entries(folder, [*entries, *good(other, 5)])
        flags = ["--max_per_host", 3, "--dask_scheduler", three_workers.address]
        outcome = script("download_images", *arguments(folder, *flags))
    assert (outcome.counts["downloaded"], outcome.counts["rate_limited"]) == (5, 90)
    assert server.asked.total() <= 12  # of 90: some before the word went round


def test_photos_are_shrunk_as_on_one_machine(three_workers, script, server, folder):
    write_entries(folder, good(server, 30))
    flags = ["--max_side", 20]
    alone = folder.with_name("alone")
    outcomes = [
        script("download_images", *arguments(folder, *flags, "--dask_scheduler", three_workers.address)),
        script("download_images", *arguments(alone, *flags)),
    ]
    assert outcomes[0].code == 0, outcomes[0].err
    assert outcomes[0].out == outcomes[1].out
    assert contents(folder) == contents(alone)


def test_with_a_worker_and_then_the_run_killed_nothing_is_lost_or_half_written(
    three_workers, script, server, folder
):
    """Runs last: it leaves the cluster with two workers."""
    is_over = threading.Event()

    def slow(e: Exchange) -> None:
        if e.number == 1 and int(e.path.rpartition("/p")[2]) >= 120:
            is_over.wait(PATIENCE)  # so that the run is not at its end when it is killed
        time.sleep(0.02)
        e.answer(e.photo)

    server.routes["good"] = slow
    write_entries(folder, [*good(server, 160), {"id": "x", "url": f"{server.base}/404/x"}])
    flags = arguments(folder, "--threads", 6, "--dask_scheduler", three_workers.address)
    command = [sys.executable, "download_images.py", *map(str, flags)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_until(lambda: len(photos(folder)) > 30)
        three_workers.kill(three_workers.workers[0])
        after = len(photos(folder))
        wait_until(lambda: len(photos(folder)) > after + 30)
        run.kill()
    is_over.set()
    assert len(photos(folder)) < 160
    again = script("download_images", *flags)
    assert again.code == 0, again.err
    assert (again.counts["images"], again.counts["failed"], again.counts["gone"]) == (161, 1, 1)
    assert photos(folder) == {f"p{n}": photo(f"p{n}") for n in range(160)}
    left = {path.name for path in folder.iterdir() if path.suffix != ".jpg"}
    assert left == {"download_failures.csv", "download_counts.json", ".download_refused"}
