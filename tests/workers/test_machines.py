"""Several machines, one of which is cut off in the middle: the others' work goes on, and nothing is lost."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from common.files.failures import read_failures
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster, wait_until
from tests.support.fault_server import Exchange, fault_server, photo
from tests.support.machines import machines
from tests.support.step5_cluster import (
    MANY,
    assert_like_undisturbed,
    many,
    start,
    undisturbed,
    wait_until_done,
)

pytestmark = pytest.mark.system
__all__ = ["many", "undisturbed"]

PHOTOS = 60  # of each host
SERVER = """
import sys, time
from tests.support.fault_server import FaultServer
server = FaultServer(host=sys.argv[1])
server.routes["slow"] = lambda e: (time.sleep(0.2), e.answer(e.photo))
print(server.base, flush=True)
server.serve_forever()
"""


@contextmanager
def photo_host(machine):
    """Yield the address of a server of photos that runs on a machine."""
    command = [*machine.inside, sys.executable, "-c", SERVER, machine.address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def test_the_photos_of_a_host_that_is_cut_off_come_with_the_next_run(script, tmp_path):
    folder = tmp_path / "photos"
    with machines(2) as (steady, lost), photo_host(steady) as one, photo_host(lost) as other:
        ids = {
            f"{name}{number:02}": base
            for number in range(PHOTOS)
            for name, base in (("a", one), ("b", other))
        }
        entries = [{"id": image_id, "url": f"{base}/slow/{image_id}"} for image_id, base in ids.items()]
        (tmp_path / "index.json").write_text(json.dumps(entries))
        flags = (
            "--images_path", tmp_path / "index.json", "--images_output_directory", folder, "--threads", 16,
            "--deadline", 2, "--retries", 1, "--backoff", 0.1,
        )  # fmt: skip

        def unplug_in_the_middle() -> None:
            while len(list(folder.glob("[!.]*.jpg"))) < PHOTOS // 2:
                time.sleep(0.01)
            lost.unplug()

        thread = threading.Thread(target=unplug_in_the_middle)
        thread.start()
        first = script("download_images", *flags)
        thread.join()
        assert first.code == 0, first.err
        assert first.counts["downloaded"] + first.counts["failed"] == first.counts["images"] == 2 * PHOTOS
        there = {path.stem: path.read_bytes() for path in folder.glob("*.jpg")}
        assert there == {image_id: photo(image_id) for image_id in there}
        assert {image_id for image_id in ids if image_id[0] == "a"} < set(there)
        reasons = {failure.id: failure.reason for failure in read_failures(folder / "download_failures.csv")}
        assert set(reasons) == set(ids) - set(there)
        assert len(reasons) > PHOTOS // 3
        assert set(reasons.values()) <= {"timeout", "connection"}

        lost.plug_in()
        second = script("download_images", *flags)
    assert (second.code, second.counts["already_there"]) == (0, len(there))
    assert {path.stem: path.read_bytes() for path in folder.glob("*.jpg")} == {
        name: photo(name) for name in ids
    }


@contextmanager
def two_workers(folder):
    """Yield a cluster with a worker on each of two machines, and the machine whose cable is to be pulled."""
    quick = "12s"  # the least that Dask takes, half a minute unless said otherwise
    with (
        machines(2) as (steady, lost),
        cluster(folder, host="0.0.0.0", DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=quick) as found,
    ):
        for name, machine in (("steady", steady), ("lost", lost)):
            found.add_worker(name, machine=machine)
        yield found, lost


def test_the_work_of_a_worker_that_is_cut_off_goes_to_the_others(many, undisturbed, tmp_path):
    with two_workers(tmp_path / "cluster") as (found, lost):
        run = start(many, found.address)
        wait_until_done(many, run, MANY // 8)
        lost.unplug()
        out, error = run.communicate(timeout=120)
    assert run.returncode == 0, error
    assert f"images={MANY} " in out
    assert_like_undisturbed(many, undisturbed)


def slow(e: Exchange) -> None:
    time.sleep(0.1)
    e.answer(e.photo)


def test_the_downloads_of_a_worker_that_is_cut_off_go_to_the_others(tmp_path):
    folder = tmp_path / "photos"
    ids = [f"p{number:03}" for number in range(400)]
    with two_workers(tmp_path / "cluster") as (found, lost), fault_server(host=lost.ours) as server:
        server.routes["slow"] = slow
        entries = [{"id": image_id, "url": f"{server.base}/slow/{image_id}"} for image_id in ids]
        (tmp_path / "index.json").write_text(json.dumps(entries))
        command = [
            sys.executable, "download_images.py", "--images_path", tmp_path / "index.json",
            "--images_output_directory", folder, "--threads", 8, "--dask_scheduler", found.address,
        ]  # fmt: skip
        run = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: len(list(folder.glob("[!.]*.jpg"))) > 100 or run.poll() is not None)
        lost.unplug()
        out, error = run.communicate(timeout=120)
    assert run.returncode == 0, error
    assert out.startswith("images=400 downloaded=400 already_there=0 failed=0 ")
    assert {path.stem: path.read_bytes() for path in folder.glob("*.jpg")} == {
        name: photo(name) for name in ids
    }
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.jpg" for name in ids),
        "download_counts.json",
        "download_failures.csv",
        ".download_refused",
    }
