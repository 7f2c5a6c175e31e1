"""Step 4 with --max_side: byte for byte what downloading first and step 5 in place make, and no original on disk."""

import json
import re
from pathlib import Path
from shutil import copytree

import pytest

import download_images
from common.files.failures import read_failures
from tests.support.downloads import (
    Gate,
    arguments,
    children,
    no_file_above,
    start,
    umask,
    wait_gone,
    write_index,
)
from tests.support.fault_server import fault_server
from tests.support.shrink_images import BROKEN, GOOD, PHOTOS

SIDE = ("--max_side", 200)


@pytest.fixture(scope="module")
def running():
    with fault_server() as server:
        yield server


@pytest.fixture
def server(running):
    """Return the server of all tests, which remembers nothing of another and serves PHOTOS."""
    running.asked.clear()
    running.routes["p"] = lambda e: e.answer(PHOTOS[e.path.rpartition("/")[2]])
    return running


def write_inputs(folder: Path, server) -> None:
    """Write an index and datapoints of all of PHOTOS beside a folder."""
    write_index(folder, [{"id": name, "url": f"{server.base}/p/{name}"} for name in PHOTOS])
    box = {"label": "/m/01yrx", "x0": 0.25, "x1": 0.5, "y0": 0.125, "y1": 0.75}
    points = [{"id": name, "annotations": [box]} for name in PHOTOS]
    (folder.parent / "points.json").write_text(json.dumps(points))


@pytest.fixture
def folder(tmp_path, server):
    write_inputs(tmp_path / "photos", server)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def finished(running, tmp_path_factory):
    """Return two folders to copy: PHOTOS as they come, and shrunk to SIDE."""
    base = tmp_path_factory.mktemp("finished")
    running.routes["p"] = lambda e: e.answer(PHOTOS[e.path.rpartition("/")[2]])
    write_inputs(base / "photos", running)
    for name, flags in (("whole", ()), ("shrunk", SIDE)):
        download_images.main([*map(str, arguments(base / "photos", *flags))])
        (base / "photos").rename(base / name)
    assert photos(base / "whole") == PHOTOS
    assert photos(base / "shrunk").keys() == GOOD.keys()
    return base / "whole", base / "shrunk"


@pytest.fixture
def download(script):
    def call(folder: Path, *flags: object):
        return script("download_images", *arguments(folder, *flags))

    return call


@pytest.fixture
def process(script):
    """Return a function that runs step 5 on a folder, and gives its outcome and datapoints."""

    def call(folder: Path, *flags: object):
        out = folder.parent / f"{folder.name}.json"
        outcome = script(
            "process_images", "--image_directory", folder, "--datapoints_input_path", folder.parent / "points.json",
            "--datapoints_output_path", out, "--workers", 1, *flags,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return outcome, out.read_bytes()

    return call


def photos(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.jpg")}


def failures(folder: Path) -> dict[str, str]:
    return {failure.id: failure.reason for failure in read_failures(folder / "download_failures.csv")}


def journal(folder: Path) -> set[str]:
    """Return the lines of the journal of what is finished, without the time in them."""
    lines = (folder / ".process_finished").read_text().splitlines()
    assert len(set(lines)) == len(lines)
    return {re.sub(r" [0-9]{19} ", " TIME ", line) for line in lines}


def look(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all that is in a folder, with the times at which photos were written."""
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jpg")}
    return {path.name: (times.get(path.name, 0), path.read_bytes()) for path in folder.iterdir()}


FLAGS = {
    "nothing more": (),
    "quality, the shorter side, upright by EXIF, damaged ones kept": (
        "--quality", 60, "--fit", "shorter", "--exif_upright", "--keep_damaged"),
    "stretched and precise": ("--fit", "stretch", "--precise"),
    "too small ones left out": ("--min_side", 110),
}  # fmt: skip


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_it_equals_downloading_first_and_step_5_in_place(download, process, folder, finished, flags):
    """And the originals never touch the disk."""
    first = copytree(finished[0], folder.with_name("first"))
    processed, points = process(first, *SIDE, *flags)
    assert len(GOOD["large"]) > 30_000
    with no_file_above(30_000):
        outcome = download(folder, *SIDE, *flags)
    assert (outcome.code, len(outcome.messages.splitlines())) == (0, 1)
    for name in ("resized", "unchanged", "damaged_kept", "truncated", "damaged", "too_small", "failed"):
        assert outcome.counts[name] == processed.counts[name], name
    lost = {f.id: f.reason for f in read_failures(first / "process_failures.csv")}
    assert failures(folder) == lost
    assert photos(folder) == {name: data for name, data in photos(first).items() if name not in lost}
    assert (folder / "process_settings.json").read_bytes() == (first / "process_settings.json").read_bytes()
    assert journal(folder) == journal(first)
    assert (folder / "large.jpg").stat().st_mode & 0o777 == 0o666 & ~umask()
    # Step 5 has nothing left to do, and the same to say, in place and into another folder.
    before = look(folder)
    again, same_points = process(folder, *SIDE, *flags)
    assert same_points == points
    assert again.counts["already_there"] == outcome.counts["downloaded"]
    assert again.counts["missing"] == len(lost)
    assert again.counts["turned_by_exif"] == processed.counts["turned_by_exif"] == ("turned" not in lost)
    assert {name: look(folder)[name] for name in before} == before
    if not flags or "--min_side" not in flags:  # what was shrunk may be too small now
        elsewhere = folder.with_name("elsewhere")
        copied, same_points = process(folder, *SIDE, *flags, "--image_saving_directory", elsewhere)
        assert copied.counts["unchanged"] == outcome.counts["downloaded"]
        assert (photos(elsewhere), same_points) == (photos(folder), points)


def test_what_is_of_no_use_is_asked_for_once_and_nowhere_else(download, server, folder):
    """By the mirror first; the original is not asked, and neither is anyone by the next run."""
    entries = [{"id": name, "subset": "p", "url": f"{server.base}/good/{name}"} for name in PHOTOS]
    write_index(folder, entries)
    mirror = ("--mirror_url", server.base)
    server.routes["p"] = lambda e: e.answer(PHOTOS[Path(e.path).stem])
    first = download(folder, *mirror, *SIDE)
    assert failures(folder) == {name: reason for name, (_, reason) in BROKEN.items()}
    details = {failure.id: failure for failure in read_failures(folder / "download_failures.csv")}
    assert details["cut"].detail.startswith("mirror: Premature end of JPEG file")
    assert details["cut"].url == f"{server.base}/p/cut.jpg"
    assert server.asked.total() == len(PHOTOS)
    listed = look(folder)["download_failures.csv"][1]
    second = download(folder, *mirror, *SIDE)
    assert second.counts == first.counts | {
        "downloaded": 0, "already_there": len(GOOD), "resized": 0, "unchanged": 0, "bytes": 0,
    }  # fmt: skip
    assert look(folder)["download_failures.csv"][1] == listed
    assert server.asked.total() == len(PHOTOS)
    download(folder, *mirror, *SIDE, "--retry_failed")
    assert server.asked.total() == len(PHOTOS) + len(BROKEN)
    # As they come they are something else.
    assert download(folder, *mirror).counts["failed"] == 0


def test_what_lies_there_as_it_came_is_shrunk_where_it_lies(download, server, folder, finished):
    copytree(finished[0], folder)
    shrunk = finished[1]
    outcome = download(folder, *SIDE)
    assert (outcome.code, outcome.counts["already_there"], outcome.counts["downloaded"]) == (0, len(GOOD), 0)
    good = {name: data for name, data in photos(folder).items() if name in GOOD}
    assert (good, failures(folder), journal(folder)) == (photos(shrunk), failures(shrunk), journal(shrunk))
    # A broken photo is asked for again, since the disk may have broken it, and is not touched where that fails.
    assert server.asked == {f"/p/{name}": 1 for name in BROKEN}
    assert {name: photos(folder)[name] for name in BROKEN} == {name: PHOTOS[name] for name in BROKEN}


def test_a_photo_that_was_not_noted_is_not_fetched_again(download, process, server, folder, finished):
    """A kill between the photo and its line in the journal, and one inside the line."""
    shrunk = finished[1]
    copytree(shrunk, folder)
    lines = (folder / ".process_finished").read_text().splitlines(keepends=True)
    (folder / ".process_finished").write_text("".join(lines[2:]) + lines[0][:-4])
    outcome = download(folder, *SIDE)
    assert (outcome.counts["already_there"], server.asked.total()) == (len(GOOD), 0)
    assert (photos(folder), journal(folder)) == (photos(shrunk), journal(shrunk))
    assert process(folder, *SIDE)[0].counts["already_there"] == len(GOOD)


def test_other_settings_are_refused_in_one_line(download, folder, finished):
    copytree(finished[1], folder)
    before = look(folder)
    for more in (("--max_side", 100), (*SIDE, "--quality", 60), ("--max_side", 100, "--dry_run")):
        outcome = download(folder, *more)
        assert (outcome.code, len(outcome.messages.splitlines())) == (1, 1)
        assert outcome.err.startswith(
            f"download_images.py: {folder}/process_settings.json: the images in this "
        )
        assert outcome.err.endswith("--overwrite makes them again\n")
    assert look(folder) == before


def test_with_overwrite_all_are_fetched_anew_however_often_interrupted(download, server, folder, finished):
    """What was 100 pixels cannot become 200 from what is on disk: a run that ends early must not take it for that."""
    wanted = finished[1]
    download(folder, "--max_side", 100)
    small = photos(folder)
    plan = download(folder, *SIDE, "--overwrite", "--dry_run").counts
    assert (plan["already_there"], plan["to_download"]) == (0, len(GOOD) + len(BROKEN))
    server.asked.clear()
    serve = server.routes["p"]
    lame = ("large", "small", "grey")

    def limp(e) -> None:
        name = e.path.rpartition("/")[2]
        e.answer(b"", "500 Internal Server Error") if name in lame else serve(e)

    server.routes["p"] = limp
    first = download(folder, *SIDE, "--overwrite", "--retries", 0)
    assert (first.counts["downloaded"], first.counts["server_error"]) == (len(GOOD) - 3, 3)
    assert {name: photos(folder)[name] for name in lame} == {name: small[name] for name in lame}
    server.routes["p"] = serve
    second = download(folder, *SIDE)
    assert (second.code, second.counts["downloaded"], second.counts["already_there"]) == (0, 3, len(GOOD) - 3)
    assert (photos(folder), failures(folder)) == (photos(wanted), failures(wanted))
    third = download(folder, *SIDE)
    assert (third.counts["already_there"], third.counts["downloaded"]) == (len(GOOD), 0)


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(download, process, folder):
    with fault_server() as server:
        entries = [{"id": f"k{n}", "url": f"{server.base}/good/k{n}"} for n in range(120)]
        write_index(folder, entries)
        (folder.parent / "points.json").write_text(
            json.dumps([{"id": entry["id"], "annotations": []} for entry in entries])
        )
        whole = folder.with_name("whole")
        download(whole, "--max_side", 20)
        gate = Gate(server, 60)
        run = start(folder, "--max_side", 20, "--processes", 2, "--threads", 8)
        assert gate.reached.wait(30)
        workers = children(run.pid)
        run.kill()
        run.communicate()
        assert all(wait_gone(pid, 10) for pid in workers)
        killed = photos(folder)
        assert 30 <= len(killed) < 120
        gate.opened.set()
        server.asked.clear()
        outcome = download(folder, "--max_side", 20)
    assert (outcome.code, outcome.counts["already_there"]) == (0, len(killed))
    assert not [image_id for image_id in killed if f"/good/{image_id}" in server.asked]
    assert (photos(folder), journal(folder)) == (photos(whole), journal(whole))
    assert not list(folder.glob(".*.part"))
    assert process(folder, "--max_side", 20)[0].counts["already_there"] == 120


WRONG = {
    "--quality needs --max_side": ("--quality", 60),
    "--keep_damaged needs --max_side": ("--keep_damaged",),
    "--exif_upright needs --max_side": ("--exif_upright",),
    "argument --fit: invalid choice: 'pad'": (*SIDE, "--fit", "pad"),
    "argument --max_side: '0'": ("--max_side", 0),
}


@pytest.mark.parametrize(("message", "flags"), WRONG.items(), ids=WRONG)
def test_wrong_flags(download, folder, message, flags):
    outcome = download(folder, *flags)
    assert outcome.code == 2
    assert message in outcome.err
    assert not folder.exists()
