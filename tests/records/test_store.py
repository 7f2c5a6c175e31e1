"""Step 7 with its files on an object store: the same bytes as in local folders."""

import hashlib
import json
import signal
import subprocess
import sys
import threading

import pytest

from common.files.places import folder_of, parse_path, read_small
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster
from tests.support.step7_store import flags, written
from tests.support.step7_store import places as places


@pytest.fixture(autouse=True)
def _few_listings(monkeypatch):
    """List only the first letters that the ids here have; tests/files/test_folders.py holds all 62."""
    monkeypatch.setattr("common.files.store.FIRST_LETTERS", "0m")


@pytest.mark.parametrize(
    ("points", "more"),
    [
        ("points", ("--num_shards", 3, "--verify")),
        ("plain", ("--compression", "gzip", "--eval_record_save_path", "EVAL", "--eval_fraction", "0.3")),
    ],
    ids=["shards", "evaluation"],
)
def test_the_records_equal_those_of_local_folders(script, places, more, points):
    here, there = places
    outcomes = []
    for place in places:
        given = [f"{place}/out/eval.tfrecord" if flag == "EVAL" else flag for flag in more]
        outcomes.append(script("record_maker", *flags(place, here, *given, points=points)))
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    assert outcomes[0].counts["missing"] == 1
    assert len(written(there)) == 5
    assert written(there) == written(here)


def test_missing_shards_are_written_and_older_ones_removed(script, places, object_store):
    here, there = places
    assert script("record_maker", *flags(there, here, "--num_shards", 3)).code == 0
    before = written(there)
    lost = parse_path(f"{there}/out/train.tfrecord-00001-of-00003")
    lost.unlink()
    object_store.requests.clear()
    assert script("record_maker", *flags(there, here, "--num_shards", 3)).code == 0
    assert written(there) == before
    assert [path for method, path in object_store.requests if method == "PUT" and "-of-" in path] == [
        str(lost).removeprefix("s3:/")
    ]
    assert script("record_maker", *flags(there, here, "--num_shards", 2)).code == 0
    assert sorted(written(there)) == [
        "train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002",
        "train.tfrecord.counts.json", "train.tfrecord.manifest.json",
    ]  # fmt: skip


def test_a_damaged_object_is_found_by_name(script, places):
    here, there = places
    assert script("record_maker", *flags(there, here)).code == 0
    data = bytearray(written(there)["train.tfrecord"])
    data[5000] ^= 1
    folder_of(parse_path(f"{there}/out")).write_many([("train.tfrecord", bytes(data))])
    outcome = script("record_maker", *flags(there, here, "--verify"))
    assert outcome.code == 1
    assert f"{there}/out/train.tfrecord: record 1: " in outcome.err


def test_report_and_preview_can_be_on_the_store(script, places):
    here, there = places
    outcome = script(
        "record_maker",
        *flags(there, here, "--report_path", f"{there}/report.html", "--preview_path", f"{there}/p.jpg"),
    )
    assert outcome.code == 0, outcome.err
    assert (read_small(parse_path(f"{there}/report.html")) or b"").startswith(b"<!")
    assert (read_small(parse_path(f"{there}/p.jpg")) or b"").startswith(b"\xff\xd8")


def test_a_shard_that_cannot_be_put_ends_the_run_and_the_next_run_writes_it(script, places, object_store):
    here, there = places
    object_store.refuses = lambda method, path: method == "PUT" and path.endswith("-00002-of-00003")
    outcome = script("record_maker", *flags(there, here, "--num_shards", 3))
    assert outcome.code == 1
    assert outcome.err.startswith(f"record_maker.py: {there}/out/train.tfrecord-00002-of-00003: ")
    assert len([name for name in written(there) if "-of-" in name]) == 2
    object_store.refuses = lambda method, path: False
    for place in places:
        assert script("record_maker", *flags(place, here, "--num_shards", 3)).code == 0
    assert written(there) == written(here)


def test_after_a_kill_while_a_shard_is_put_the_next_run_resumes(script, places, object_store):
    here, there = places
    came, killed = threading.Event(), threading.Event()

    def hang(method: str, path: str) -> bool:
        if method == "PUT" and path.endswith("-00001-of-00003"):
            came.set()
            killed.wait(60)
            return True
        return False

    object_store.refuses = hang
    command = [sys.executable, str(ROOT / "record_maker.py"), *flags(there, here, "--num_shards", 3)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert came.wait(60)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    object_store.refuses = lambda method, path: False
    killed.set()
    assert [name for name in written(there) if "-of-" in name] == ["train.tfrecord-00000-of-00003"]
    manifest = json.loads(written(there)["train.tfrecord.manifest.json"])
    whole = written(there)["train.tfrecord-00000-of-00003"]
    assert [shard["sha256"] for shard in manifest["shards"]] == [hashlib.sha256(whole).hexdigest()]
    for name in list(written(there)):
        if name.endswith(".lock"):
            parse_path(f"{there}/out/{name}").unlink()
    for place in places:
        assert script("record_maker", *flags(place, here, "--num_shards", 3)).code == 0
    assert written(there) == written(here)


def test_a_second_run_on_the_same_records_is_refused(script, places):
    here, there = places
    with folder_of(parse_path(f"{there}/out")).lock(".train.tfrecord.lock", "busy"):
        outcome = script("record_maker", *flags(there, here))
    assert outcome.code == 1
    assert f"{there}/out/train.tfrecord: another run is writing these records (" in outcome.err


@pytest.mark.system  # for its seconds
def test_the_workers_of_a_cluster_use_the_store_themselves(script, places, tmp_path):
    here, there = places
    with cluster(tmp_path / "cluster", workers=1) as found:
        more = ("--num_shards", 3, "--verify", "--dask_scheduler", found.address)
        outcome = script("record_maker", *flags(there, here, *more))
        assert outcome.code == 0, outcome.err
    assert script("record_maker", *flags(here, here, "--num_shards", 3)).code == 0
    assert written(there) == written(here)
