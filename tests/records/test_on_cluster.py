"""Step 7 on a Dask cluster, and steps 5 and 7 there with files on an object store."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from tests.support import step5_store, step7_store
from tests.support.dask_cluster import cluster
from tests.support.step5 import BAD, GOOD, IDS, contents, point, small_photo
from tests.support.step7 import mask_of
from tests.support.step7_store import places

__all__ = ["places"]

RECORDS = 3000


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, object_store):
    """A cluster whose workers are started in the environment of the object store."""
    with cluster(tmp_path_factory.mktemp("cluster"), workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return a folder with a class list, and with datapoints and images for 3000 records; one box has a mask."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "classes.txt").write_text("/m/01yrx\n")
    (folder / "photos").mkdir()
    points = [point(f"{number:04}", width=200, height=150) for number in range(RECORDS)]
    points[7]["annotations"][0]["mask"] = mask_of((200, 150), (50, 40, 90, 100))  # so that all boxes have one
    (folder / "points.json").write_text(json.dumps(points))
    (folder / "photos" / "0000.jpg").write_bytes(small_photo())
    for number in range(1, RECORDS):
        os.link(folder / "photos" / "0000.jpg", folder / "photos" / f"{number:04}.jpg")
    return folder


def make_records(script, folder: Path, into: Path, *flags: object):
    return script(
        "record_maker", "--points_path", folder / "points.json", "--saved_images_directory", folder / "photos",
        "--trainable_classes_path", folder / "classes.txt", "--record_save_path", into / "t.tfrecord",
        "--num_shards", 4, "--workers", 1, *flags,
    )  # fmt: skip


def test_records_are_those_of_one_machine(two_workers, script, many, tmp_path, monkeypatch):
    flags = ["--eval_record_save_path", "out/e.tfrecord", "--eval_fraction", 0.3, "--verify"]
    outcomes = []
    for name, more in (("alone", []), ("clustered", ["--dask_scheduler", two_workers.address])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)  # relative paths mean nothing to a worker
        outcomes.append(make_records(script, many, Path("out"), *flags, *more))
    assert outcomes[1].code == 0, outcomes[1].err
    assert outcomes[1].out == outcomes[0].out
    assert contents(tmp_path / "clustered") == contents(tmp_path / "alone")
    assert len(contents(tmp_path / "clustered")) == 11  # four files and a manifest, twice, and the counts


def test_a_worker_killed_while_it_writes_a_file_costs_nothing(script, many, tmp_path):
    alone = make_records(script, many, tmp_path / "alone")
    killed: list[str] = []
    over = threading.Event()
    with cluster(tmp_path / "cluster", workers=2) as found:

        def kill_one() -> None:
            while not killed and not over.wait(0.002):
                if list((tmp_path / "disturbed").glob(".*t.tfrecord-*.part")):
                    found.signal_workers(signal.SIGSTOP)  # lest they end before they are killed
                    killed.extend(path.name for path in (tmp_path / "disturbed").glob(".*.part"))
                    if not killed:
                        found.signal_workers(signal.SIGCONT)
            found.kill(found.workers[0])
            found.kill(found.workers[1])
            found.add_worker("another")

        killer = threading.Thread(target=kill_one)
        killer.start()
        outcome = make_records(script, many, tmp_path / "disturbed", "--dask_scheduler", found.address)
        over.set()
        killer.join()
    assert killed, "no file was half-written when the workers were killed"
    assert (outcome.code, outcome.out) == (0, alone.out), outcome.err
    assert contents(tmp_path / "disturbed") == contents(tmp_path / "alone")


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
