"""Step 5 with its folders and files on an object store: what comes out is what comes out on local folders."""

import signal
import subprocess
import sys
import threading

import pytest

from common.files.places import folder_of, parse_path, replace_file
from common.files.whole_files import locked_folder
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster
from tests.support.step5 import BAD, GOOD, IDS, photo
from tests.support.step5_store import JPEG, contents, fill, flags


@pytest.fixture(autouse=True)
def _few_listings(monkeypatch):
    """List only the first letters that the ids here have; tests/files/test_folders.py holds all 62."""
    monkeypatch.setattr("common.files.store.FIRST_LETTERS", "01234abcdefgh")


@pytest.fixture
def place(bucket):
    return f"{bucket}/data set"


@pytest.mark.parametrize(
    ("into", "more"), [("small", ("--fit", "pad", "--quality", 70)), (None, ())], ids=["apart", "in place"]
)
def test_the_same_comes_out_as_on_local_folders_and_is_looked_up_in_one_listing(
    script, place, tmp_path, object_store, into, more
):
    here = tmp_path / "here"
    for where in (here, place):
        fill(where, {**GOOD, **BAD}, IDS)
    outcomes = [script("process_images", *flags(where, *more, into=into)) for where in (here, place)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    assert contents(place) == contents(here)
    object_store.requests.clear()
    again = [script("process_images", *flags(where, *more, into=into)) for where in (here, place)]
    asked = {path.rpartition("/")[2] for _, path in object_store.requests}
    assert not asked & {f"{image_id}{JPEG}" for image_id in GOOD}
    assert again[0].out == again[1].out
    assert again[1].counts["already_there"] == len(GOOD)
    assert again[1].counts["failed"] == outcomes[1].counts["failed"]
    assert contents(place) == contents(here)
    replace_file(parse_path(f"{place}/photos/f1{JPEG}"), photo(77))  # another photo under an old name
    third = script("process_images", *flags(place, *more, into=into))
    assert (third.counts["already_there"], third.counts["resized"]) == (len(GOOD) - 1, 1)


@pytest.mark.parametrize("remote", ["photos", "small"])
def test_one_folder_may_be_local_and_the_other_on_a_store(script, place, tmp_path, remote):
    here = tmp_path / "here"
    for where in (here, place):
        fill(where, {**GOOD, **BAD}, IDS)
    folders = {"photos": here / "photos", "small": here / "small"} | {remote: f"{place}/{remote}"}
    outcome = script(
        "process_images", "--image_directory", folders["photos"], "--image_saving_directory", folders["small"],
        "--datapoints_input_path", here / "points.json.gz", "--datapoints_output_path", f"{place}/out.json.gz",
        "--workers", 1,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert script("process_images", *flags(tmp_path / "here", into="wanted")).code == 0
    wanted = {name[7:]: data for name, data in contents(here).items() if name.startswith("wanted/")}
    got = contents(here if remote == "photos" else place)
    assert {name[6:]: data for name, data in got.items() if name.startswith("small/")} == wanted


def test_other_settings_need_overwrite_there_too(script, place):
    fill(place, {"f1": GOOD["f1"]}, ["f1"])
    assert script("process_images", *flags(place)).code == 0
    outcome = script("process_images", *flags(place, "--max_side", 128))
    assert outcome.code == 1
    assert outcome.err.endswith("made with max_side 256, not 128; --overwrite makes them again\n")
    outcome = script("process_images", *flags(place, "--max_side", 128, "--overwrite"))
    assert outcome.counts["resized"] == 1


def test_a_put_that_fails_ends_the_run_in_one_line_and_the_next_goes_on(
    script, place, tmp_path, object_store
):
    ids = ["f1", "d6", "a2"]
    photos = {image_id: {**GOOD, **BAD}[image_id] for image_id in ids}
    for where in (tmp_path / "here", place):
        fill(where, photos, ids)
    object_store.refuses = lambda method, path: method == "PUT" and path.endswith(f"/small/a2{JPEG}")
    outcome = script("process_images", *flags(place))
    assert outcome.code == 1
    assert outcome.err.startswith(f"process_images.py: {place}/small: ")
    assert outcome.err.count("\n") == 1
    assert "out.json.gz" not in contents(place)
    object_store.refuses = lambda method, path: method == "PUT" and path.endswith("out.json.gz")
    outcome = script("process_images", *flags(place))
    assert outcome.code == 1
    assert outcome.messages.startswith(f"process_images.py: {place}/out.json.gz: ")
    object_store.refuses = lambda method, path: False
    assert script("process_images", *flags(place)).code == 0
    assert script("process_images", *flags(tmp_path / "here")).code == 0
    assert contents(place) == contents(tmp_path / "here")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--image_directory", "no such folder, one with images was expected"),
        ("--datapoints_input_path", "no such file"),
    ],
)
def test_what_is_not_there_is_one_line(script, place, flag, said):
    fill(place, GOOD, list(GOOD))
    outcome = script("process_images", *flags(place, flag, f"{place}/nothing"))
    assert outcome.code == 1
    assert outcome.err == f"process_images.py: {place}/nothing: {said}\n"


def test_killed_in_the_middle_the_next_run_goes_on(script, place, tmp_path, object_store):
    ids = [f"{number:02x}" for number in range(48)]
    photos = {image_id: photo(number % 7) for number, image_id in enumerate(ids)}
    for where in (tmp_path / "here", place):
        fill(where, photos, ids)
    came, killed = threading.Event(), threading.Event()

    def hang(method: str, path: str) -> bool:
        """Hold up the last photo for good."""
        if (method, path[-13:]) == ("PUT", f"/small/{ids[-1]}{JPEG}"):
            came.set()
            killed.wait(60)
            return True
        return False

    object_store.refuses = hang
    command = [sys.executable, str(ROOT / "process_images.py"), *flags(place)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert came.wait(60)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    object_store.refuses = lambda method, path: False
    killed.set()
    made = [name for name in folder_of(parse_path(f"{place}/small")).list("") if name.endswith(JPEG)]
    assert 32 <= len(made) < len(ids)
    assert "out.json.gz" not in contents(place)

    for lock in ("small/.lock", ".out.json.gz.lock"):
        refused = script("process_images", *flags(place))
        assert refused.code == 1
        assert refused.err.endswith(f"; if it was killed, remove {place}/{lock}\n")
        parse_path(f"{place}/{lock}").unlink()
    outcome = script("process_images", *flags(place))
    assert outcome.code == 0, outcome.err
    assert script("process_images", *flags(tmp_path / "here")).code == 0
    assert contents(place) == contents(tmp_path / "here")


def test_a_second_run_is_refused_while_the_first_lives(script, place):
    fill(place, GOOD, list(GOOD))
    with locked_folder(f"{place}/small"):
        outcome = script("process_images", *flags(place))
    assert outcome.code == 1
    assert f"process_images.py: {place}/small: another run is working in this folder (" in outcome.err
    assert "out.json.gz" not in contents(place)


@pytest.mark.system  # for its seconds
def test_the_workers_of_a_cluster_use_the_store_themselves(script, place, tmp_path):
    for where in (tmp_path / "here", place):
        fill(where, {**GOOD, **BAD}, IDS)
    with cluster(tmp_path / "cluster", workers=1) as found:
        outcome = script("process_images", *flags(place, "--dask_scheduler", found.address))
        assert outcome.code == 0, outcome.err
    assert script("process_images", *flags(tmp_path / "here")).code == 0
    assert contents(place) == contents(tmp_path / "here")
