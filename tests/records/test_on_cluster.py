"""Step 7 on a Dask cluster, and steps 5 and 7 there with files on an object store."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import step5_store, step7_store
from tests.support.dask_cluster import cluster, disturbed, wait_until
from tests.support.step5 import BAD, GOOD, IDS, contents, point, small_photo
from tests.support.step7 import mask_of
from tests.support.step7_store import places

__all__ = ["places"]

RECORDS = 1200


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, object_store):
    """A cluster whose workers are started in the environment of the object store."""
    with cluster(tmp_path_factory.mktemp("cluster"), workers=2) as found:
        yield found


def test_steps_5_and_7_work_on_an_object_store(two_workers, script, places, bucket, tmp_path):
    here, there = places
    flags = ["--dask_scheduler", two_workers.address]
    made = script("record_maker", *step7_store.flags(there, here, "--num_shards", 3, *flags))
    assert made.code == 0, made.err
    assert made.out == script("record_maker", *step7_store.flags(here, here, "--num_shards", 3)).out
    assert step7_store.written(there) == step7_store.written(here)

    alone, remote = tmp_path / "five", f"{bucket}/five"
    for place in (alone, remote):
        step5_store.fill(place, {**GOOD, **BAD}, IDS)
    made = script("process_images", *step5_store.flags(remote, *flags))
    assert made.code == 0, made.err
    assert made.out == script("process_images", *step5_store.flags(alone)).out
    assert step5_store.contents(remote) == step5_store.contents(alone)


@pytest.fixture
def many(tmp_path):
    """Return a folder with a class list, and with datapoints and images for many records; one box has a mask."""
    (tmp_path / "classes.txt").write_text("/m/01yrx\n")
    (tmp_path / "photos").mkdir()
    points = [point(f"{number:04}", width=200, height=150) for number in range(RECORDS)]
    points[7]["annotations"][0]["mask"] = mask_of((200, 150), (50, 40, 90, 100))  # so that all boxes have one
    (tmp_path / "points.json").write_text(json.dumps(points))
    (tmp_path / "photos" / "0000.jpg").write_bytes(small_photo())
    for number in range(1, RECORDS):
        os.link(tmp_path / "photos" / "0000.jpg", tmp_path / "photos" / f"{number:04}.jpg")
    return tmp_path


def half_written(worker: int) -> list[str]:
    """Return the files of records that a process has opened under a temporary name."""
    opened = [os.readlink(each.path) for each in os.scandir(f"/proc/{worker}/fd")]
    return [path for path in opened if re.fullmatch(r"\..*t\.tfrecord-.*\.part", Path(path).name)]


def test_with_a_worker_killed_while_it_writes_a_file_records_are_those_of_one_machine(
    two_workers, script, many, monkeypatch
):
    """Runs last: it leaves the cluster with one worker."""
    writers: list[subprocess.Popen[str]] = []

    def kill_a_writer() -> None:
        while not writers:
            two_workers.signal_workers(signal.SIGCONT)
            wait_until(lambda: bool(list((many / "clustered").rglob(".*t.tfrecord-*.part"))))
            two_workers.signal_workers(
                signal.SIGSTOP
            )  # lest the file be complete before its writer is killed
            writers.extend(each for each in two_workers.workers if half_written(two_workers.process_of(each)))
        two_workers.kill(writers[0])
        two_workers.workers.remove(writers[0])
        two_workers.signal_workers(signal.SIGCONT)

    def make_records(name: str, *flags: object):
        (many / name).mkdir()
        monkeypatch.chdir(many / name)  # relative paths mean nothing to a worker
        return script(
            "record_maker", "--points_path", many / "points.json", "--saved_images_directory", many / "photos",
            "--trainable_classes_path", many / "classes.txt", "--record_save_path", "out/t.tfrecord",
            "--eval_record_save_path", "out/e.tfrecord", "--eval_fraction", 0.3, "--num_shards", 4,
            "--verify", "--workers", 1, *flags,
        )  # fmt: skip

    alone = make_records("alone")
    with disturbed(two_workers, kill_a_writer):
        clustered = make_records("clustered", "--dask_scheduler", two_workers.address)
    assert (clustered.code, clustered.out) == (0, alone.out), clustered.err
    assert contents(many / "clustered") == contents(many / "alone")
    assert len(contents(many / "clustered")) == 11  # four files and a manifest, twice, and the counts
