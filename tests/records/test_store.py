"""Step 7 with its files on an object store: the records are, byte for byte, those of local folders."""

import hashlib
import json
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image

from common.files import store_lock
from common.files.json_files import json_writer
from common.files.storage import list_objects, parse_path, put_objects
from common.files.whole_files import read_small
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster
from tests.test_process_images import photo, point

IDS = [f"{number:02d}" for number in range(20)]


@pytest.fixture
def places(bucket, tmp_path):
    """Return a local and a remote folder with the same resized photos, datapoints and class list."""
    photos = {f"{image_id}.jpg": photo(number) for number, image_id in enumerate(IDS)}
    (tmp_path / "classes.txt").write_text("/m/01yrx\n")
    (tmp_path / "resized").mkdir()
    for name, data in photos.items():
        (tmp_path / "resized" / name).write_bytes(data)
    put_objects(parse_path(f"{bucket}/resized"), photos)
    for place in (tmp_path, bucket):
        with json_writer(f"{place}/points.json") as write:
            for image_id in [*IDS, "missing"]:
                with Image.open(
                    tmp_path / "resized" / f"{image_id if image_id in IDS else IDS[0]}.jpg"
                ) as image:
                    write(point(image_id, width=image.width, height=image.height))
        with json_writer(f"{place}/plain.json") as write:
            for image_id in [*IDS, "missing"]:
                write(point(image_id))
    return tmp_path, bucket


def flags(place, tmp_path, *more: object, points: str = "points") -> list[str]:
    every = [
        "--points_path", f"{place}/{points}.json", "--record_save_path", f"{place}/out/train.tfrecord",
        "--saved_images_directory", f"{place}/resized", "--trainable_classes_path", tmp_path / "classes.txt",
        "--workers", 1, *more,
    ]  # fmt: skip
    return [str(each) for each in every]


def written(place) -> dict[str, bytes]:
    folder = parse_path(f"{place}/out")
    names = (
        list_objects(folder, "") if str(place).startswith("s3") else [path.name for path in folder.iterdir()]
    )
    return {name: read_small(folder / name) or b"" for name in names}


@pytest.mark.parametrize(
    ("points", "more"),
    [
        ("points", ("--num_shards", 3, "--verify")),
        ("plain", ("--compression", "gzip", "--eval_record_save_path", "EVAL", "--eval_fraction", "0.3")),
    ],
    ids=["shards", "evaluation"],
)
def test_the_same_records_come_out_as_on_local_folders(script, places, more, points):
    here, there = places
    outcomes = []
    for place in places:
        given = [f"{place}/out/eval.tfrecord" if flag == "EVAL" else flag for flag in more]
        outcomes.append(script("record_maker", *flags(place, here, *given, points=points)))
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    assert outcomes[0].counts["missing"] == 1
    assert len(written(there)) == 4
    assert written(there) == written(here)


def test_what_is_missing_is_made_and_what_is_old_removed(script, places, object_store):
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
        "train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002", "train.tfrecord.manifest.json",
    ]  # fmt: skip


def test_a_damaged_object_is_found_by_name(script, places):
    here, there = places
    assert script("record_maker", *flags(there, here)).code == 0
    data = bytearray(written(there)["train.tfrecord"])
    data[5000] ^= 1
    put_objects(parse_path(f"{there}/out"), {"train.tfrecord": bytes(data)})
    outcome = script("record_maker", *flags(there, here, "--verify"))
    assert outcome.code == 1
    assert f"{there}/out/train.tfrecord: record 1: " in outcome.err


def test_report_and_preview_go_there_too(script, places):
    here, there = places
    outcome = script(
        "record_maker",
        *flags(there, here, "--report_path", f"{there}/report.html", "--preview_path", f"{there}/p.jpg"),
    )
    assert outcome.code == 0, outcome.err
    assert (read_small(parse_path(f"{there}/report.html")) or b"").startswith(b"<!")
    assert (read_small(parse_path(f"{there}/p.jpg")) or b"").startswith(b"\xff\xd8")


def test_a_shard_that_cannot_be_put_ends_the_run_and_the_next_makes_it(script, places, object_store):
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


def test_killed_while_it_puts_a_shard_the_next_run_goes_on(script, places, object_store, monkeypatch):
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

    monkeypatch.setattr(store_lock, "BEAT", 0.1)
    monkeypatch.setattr(store_lock, "PATIENCE", 0.5)
    for place in places:
        assert script("record_maker", *flags(place, here, "--num_shards", 3)).code == 0
    assert written(there) == written(here)


def test_a_second_run_on_the_same_records_is_refused(script, places, monkeypatch):
    here, there = places
    monkeypatch.setattr(store_lock, "BEAT", 0.1)
    with store_lock.store_lock(parse_path(f"{there}/out"), "train.tfrecord", "busy"):
        outcome = script("record_maker", *flags(there, here))
    assert outcome.code == 1
    assert outcome.err.endswith(f"{there}/out/train.tfrecord: another run is writing these records\n")


@pytest.mark.system  # for its seconds
def test_the_workers_of_a_cluster_use_the_store_themselves(script, places, tmp_path):
    here, there = places
    with cluster(tmp_path / "cluster", workers=1) as found:
        more = ("--num_shards", 3, "--verify", "--dask_scheduler", found.address)
        outcome = script("record_maker", *flags(there, here, *more))
        assert outcome.code == 0, outcome.err
    assert script("record_maker", *flags(here, here, "--num_shards", 3)).code == 0
    assert written(there) == written(here)
