"""Step 4 with its folder and index on an object store: what comes is what comes into a local folder."""

import json
import signal
import subprocess
import sys
import threading

import pytest

from common.files.json_files import json_writer
from common.files.places import folder_of, parse_path, read_small, replace_file
from common.files.whole_files import locked_folder
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster
from tests.support.fault_server import fault_server, photo
from tests.support.shrink_images import PHOTOS

SMALL = ("--max_side", 200)


@pytest.fixture(autouse=True)
def _few_listings(monkeypatch):
    """List only the first letters that the ids here have; tests/files/test_folders.py holds all 62."""
    monkeypatch.setattr("common.files.store.FIRST_LETTERS", "ABGJPTWcdglnpstx")


@pytest.fixture
def server():
    with fault_server() as running:
        running.routes["p"] = lambda e: e.answer(PHOTOS[e.path.rpartition("/")[2]])
        yield running


@pytest.fixture
def places(tmp_path, bucket):
    return tmp_path, bucket


def write_index(place, urls: dict[str, str]) -> None:
    with json_writer(f"{place}/index.json") as write:
        for image_id, url in urls.items():
            write({"id": image_id, "url": url})


def flags(place, *more: object) -> list[str]:
    every = [
        "--images_path", f"{place}/index.json", "--images_output_directory", f"{place}/photos",
        "--backoff", 0.05, "--retries", 2, "--processes", 1, *more,
    ]  # fmt: skip
    return [str(each) for each in every]


def contents(place) -> dict[str, bytes]:
    """Return what is in the folder of photos, but for journals."""
    folder = parse_path(f"{place}/photos")
    names = (
        folder_of(folder).list("")
        if str(place).startswith("s3")
        else [path.name for path in folder.iterdir()]
    )
    return {name: read_small(folder / name) or b"" for name in names if not name.startswith(".")}


def urls_of(server, number: int) -> dict[str, str]:
    return {f"p{n}": f"{server.base}/good/p{n}" for n in range(number)} | {"x": f"{server.base}/404/x"}


def test_the_same_photos_come_and_are_not_fetched_again(script, server, places):
    for place in places:
        write_index(place, urls_of(server, 12))
    outcomes = [script("download_images", *flags(place)) for place in places]
    errors = [outcome.messages.partition("; see ")[0] for outcome in outcomes]
    failed = f"1 of 13 images failed, 1 of them with gone, such as x: original: 404 Not Found ({server.base}/404/x); "
    assert errors == [f"{failed}--retry_failed requests these again"] * 2
    assert outcomes[0].out == outcomes[1].out
    here, there = map(contents, places)
    assert here == there
    assert len(there) == 14  # with the list of failures and the counts
    asked = server.asked.total()
    again = script("download_images", *flags(places[1]))
    assert (again.counts["already_there"], again.counts["gone"]) == (12, 1)
    assert server.asked.total() == asked  # neither photos nor what is gone
    assert script("download_images", *flags(places[1], "--retry_failed")).counts == again.counts
    assert server.asked.total() == asked + 1
    assert contents(places[1]) == there


def test_photos_shrunk_as_they_come_are_the_same_and_step_5_finds_them_finished(script, server, places):
    for place in places:
        write_index(place, {image_id: f"{server.base}/p/{image_id}" for image_id in PHOTOS})
        with json_writer(f"{place}/points.json") as write:
            for image_id in PHOTOS:
                write({"id": image_id, "annotations": []})
    outcomes = [script("download_images", *flags(place, *SMALL)) for place in places]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    assert outcomes[0].counts["resized"] > 0
    here, there = map(contents, places)
    assert here == there
    for place in places:
        outcome = script(
            "process_images", *SMALL, "--image_directory", f"{place}/photos", "--workers", 1,
            "--datapoints_input_path", f"{place}/points.json", "--datapoints_output_path", f"{place}/out.json",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert outcome.counts["already_there"] == outcomes[0].counts["downloaded"]


def test_photos_on_the_store_are_shrunk_where_they_lie(script, server, places):
    for place in places:
        write_index(place, {image_id: f"{server.base}/p/{image_id}" for image_id in PHOTOS})
        assert script("download_images", *flags(place)).code == 0
        outcome = script("download_images", *flags(place, *SMALL))
        assert outcome.code == 0, outcome.err
    here, there = map(contents, places)
    assert here == there


def test_a_dry_run_puts_no_photo(script, server, places):
    write_index(places[1], urls_of(server, 5))
    outcome = script("download_images", *flags(places[1], "--dry_run"))
    assert (outcome.code, outcome.counts["to_download"]) == (0, 6)
    assert contents(places[1]) == {}


def test_a_put_that_fails_ends_the_run_in_one_line_and_the_next_goes_on(script, server, places, object_store):
    place = places[1]
    write_index(place, urls_of(server, 5))
    object_store.refuses = lambda method, path: method == "PUT" and path.endswith("/p3.jpg")
    outcome = script("download_images", *flags(place))
    assert outcome.code == 1
    assert outcome.err.startswith(f"download_images.py: {place}/photos/p3.jpg: ")
    assert outcome.err.count("\n") == 1
    object_store.refuses = lambda method, path: False
    assert script("download_images", *flags(place)).code == 0
    assert {name: data for name, data in contents(place).items() if name.endswith(".jpg")} == {
        f"p{n}.jpg": photo(f"p{n}") for n in range(5)
    }


def test_killed_in_the_middle_the_next_run_goes_on(script, server, places, object_store):
    place = places[1]
    write_index(place, urls_of(server, 24))
    came, killed = threading.Event(), threading.Event()

    def hang(method: str, path: str) -> bool:
        if method == "PUT" and path.endswith("/p19.jpg"):
            came.set()
            killed.wait(60)
            return True
        return False

    object_store.refuses = hang
    command = [sys.executable, str(ROOT / "download_images.py"), *flags(place, "--threads", 2)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert came.wait(60)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    object_store.refuses = lambda method, path: False
    killed.set()
    before = {name for name in contents(place) if name.endswith(".jpg")}
    assert "p19.jpg" not in before
    assert len(before) > 10
    server.asked.clear()

    refused = script("download_images", *flags(place))
    assert refused.code == 1
    assert refused.err.endswith(f"; if it was killed, remove {place}/photos/.lock\n")
    parse_path(f"{place}/photos/.lock").unlink()
    outcome = script("download_images", *flags(place))
    assert outcome.code == 0, outcome.err
    assert not {f"/good/{name.removesuffix('.jpg')}" for name in before} & set(server.asked)
    found = contents(place)
    assert json.loads(found.pop("download_counts.json"))["stages"][0]["lost"] == {"gone": 1}
    assert found == {f"p{n}.jpg": photo(f"p{n}") for n in range(24)} | {
        "download_failures.csv": b"id,reason,detail,url\nx,gone,original: 404 Not Found,"
        + f"{server.base}/404/x\n".encode()
    }


def test_what_a_server_refused_is_known_to_the_next_run_though_this_one_was_interrupted(
    script, server, places, object_store
):
    place = places[1]
    write_index(place, {"x": f"{server.base}/404/x"} | urls_of(server, 3))
    object_store.refuses = lambda method, path: method == "PUT" and path.endswith("/p2.jpg")
    assert script("download_images", *flags(place, "--threads", 1)).code == 1
    object_store.refuses = lambda method, path: False
    assert script("download_images", *flags(place)).code == 0
    assert server.asked["/404/x"] == 1


def test_a_second_run_is_refused_while_the_first_lives(script, server, places):
    place = places[1]
    write_index(place, urls_of(server, 3))
    with locked_folder(f"{place}/photos"):
        outcome = script("download_images", *flags(place))
    assert outcome.code == 1
    assert f"{place}/photos: another run is working in this folder (" in outcome.err
    replace_file(parse_path(f"{place}/photos/other.txt"), b"")
    assert list(contents(place)) == ["other.txt"]


@pytest.mark.system  # for its seconds
@pytest.mark.parametrize("more", [(), SMALL], ids=["as they come", "shrunk"])
def test_the_workers_of_a_cluster_put_what_they_fetch(script, server, places, tmp_path, more):
    for place in places:
        write_index(place, {image_id: f"{server.base}/p/{image_id}" for image_id in PHOTOS})
    with cluster(tmp_path / "cluster", workers=1) as found:
        outcomes = [
            script("download_images", *flags(place, *more, *flag))
            for place, flag in zip(places, ((), ("--dask_scheduler", found.address)), strict=True)
        ]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    here, there = map(contents, places)
    assert here == there
