"""Step 4 with --refetch: bad files that a list of failures names are replaced by good ones, and by nothing else."""

import json
import os

import pytest

from common.files.failures import read_failures
from tests.support.downloads import arguments, write_index
from tests.support.fault_server import fault_server
from tests.support.shrink_images import BROKEN, GOOD

LARGE, SMALL, PAGE = GOOD["large"], GOOD["small"], b"<html>Sign in</html>"
CUT, DAMAGED = (BROKEN[name][0] for name in ("cut", "damaged"))
IMAGES = {  # id: the file on disk (None: missing), what the mirror and the original's server give, the file at last
    "good": (LARGE, SMALL, SMALL, LARGE),
    "page": (PAGE, LARGE, SMALL, LARGE),
    "cut": (CUT, LARGE, SMALL, LARGE),
    "cut at the mirror": (CUT, CUT, SMALL, SMALL),
    "damaged at the mirror": (PAGE, DAMAGED, SMALL, SMALL),
    "damaged everywhere": (CUT, DAMAGED, DAMAGED, CUT),
    "gone everywhere": (DAMAGED, None, None, DAMAGED),
    "missing": (None, DAMAGED, LARGE, LARGE),
}


@pytest.fixture
def server():
    def answer(place: int):
        def respond(e) -> None:
            data = IMAGES[e.path.rpartition("/")[2].removesuffix(".jpg").replace("-", " ")][place]
            e.answer(data or b"", "200 OK" if data else "404 Not Found")

        return respond

    with fault_server() as running:
        running.routes |= {"mirror": answer(1), "original": answer(2)}
        yield running


@pytest.fixture
def folder(tmp_path, server):
    """Return a folder with the files of IMAGES, and an index and datapoints beside it."""
    ids = [name.replace(" ", "-") for name in IMAGES]
    write_index(
        tmp_path / "photos",
        [{"id": name, "subset": "train", "url": f"{server.base}/original/{name}"} for name in ids],
    )
    points = [{"id": name, "annotations": []} for name in ids]
    (tmp_path / "points.json").write_text(json.dumps(points))
    (tmp_path / "photos").mkdir()
    for name, (data, *_) in zip(ids, IMAGES.values(), strict=True):
        if data is not None:
            (tmp_path / f"photos/{name}.jpg").write_bytes(data)
    return tmp_path / "photos"


@pytest.fixture
def process(script, folder):
    def call(*flags: object) -> dict[str, str]:
        """Run step 5 and return what it lists as failed, in bad.csv."""
        script(
            "process_images", "--image_directory", folder, "--datapoints_input_path", folder.with_name("points.json"),
            "--datapoints_output_path", folder.with_name("out.json"), "--workers", 1,
            "--failures_path", folder.with_name("bad.csv"), *flags,
        )  # fmt: skip
        return {failure.id: failure.reason for failure in read_failures(folder.with_name("bad.csv"))}

    return call


@pytest.fixture
def download(script, server, folder):
    def call(*flags: object):
        mirror = ("--mirror_url", f"{server.base}/mirror")
        return script("download_images", *arguments(folder, *mirror, *flags))

    return call


def photos(folder) -> dict[str, bytes]:
    return {path.stem.replace("-", " "): path.read_bytes() for path in folder.glob("*.jpg")}


AT_LAST = {name: data for name, (*_, data) in IMAGES.items()}
STAY = {"damaged-everywhere": "damaged", "gone-everywhere": "gone"}


@pytest.mark.parametrize("in_place", [False, True])
def test_bad_files_are_replaced_by_good_ones_alone(download, process, server, folder, in_place):
    saving = () if in_place else ("--image_saving_directory", folder.with_name("resized"))
    assert process(*saving, "--max_side", 4000).keys() == {
        name.replace(" ", "-") for name in IMAGES if name != "good"
    }
    refetch = ("--refetch", folder.with_name("bad.csv"))
    dry = download(*refetch, "--dry_run")
    assert (dry.counts["already_there"], dry.counts["to_download"]) == (1, 7)
    outcome = download(*refetch)
    assert outcome.code == 0, outcome.err
    assert outcome.messages.startswith(f"{refetch[1]}: 7 of 7 images are to be downloaded\n")
    assert (outcome.counts["downloaded"], outcome.counts["already_there"]) == (5, 1)
    assert {name: outcome.counts[name] for name in ("failed", "damaged", "gone")} == {
        "failed": 2, "damaged": 1, "gone": 1,
    }  # fmt: skip
    assert photos(folder) == AT_LAST
    lists = {failure.id: failure.reason for failure in read_failures(folder / "download_failures.csv")}
    assert lists == STAY
    # The same command again requests nothing, and a run without the flag neither.
    server.requests.clear()
    assert download(*refetch).counts["already_there"] == 6
    assert download().counts["already_there"] == 8
    assert server.requests == []
    assert photos(folder) == AT_LAST
    if not in_place:
        os.utime(refetch[1])  # a file older than the list is downloaded again
        assert download(*refetch).counts["downloaded"] == 5
        assert photos(folder) == AT_LAST
    assert process(*saving, "--max_side", 4000, "--overwrite").keys() == STAY.keys()


def test_what_step_5_finds_too_small_comes_from_a_source_that_has_more(
    download, process, folder, monkeypatch
):
    for name in IMAGES:
        monkeypatch.setitem(IMAGES, name, (SMALL, SMALL, LARGE, LARGE))
        (folder / f"{name.replace(' ', '-')}.jpg").write_bytes(SMALL)
    saving = ("--image_saving_directory", folder.with_name("resized"), "--min_side", 110)
    assert set(process(*saving).values()) == {"too_small"}
    assert download("--refetch", folder.with_name("bad.csv")).counts["downloaded"] == 8
    assert set(photos(folder).values()) == {LARGE}
    assert process(*saving) == {}


def test_what_could_not_be_shrunk_comes_from_the_next_source(download, server, folder):
    """With --max_side a bad image never is on disk: the folder's own list of failures names it."""
    for path in folder.iterdir():
        path.unlink()
    first = download("--max_side", 100)
    assert first.counts["damaged"] == 3
    listed = folder / "download_failures.csv"
    outcome = download("--max_side", 100, "--refetch", listed)
    assert (outcome.counts["downloaded"], outcome.counts["already_there"]) == (3, 3)
    assert {failure.id: failure.reason for failure in read_failures(listed)} == STAY
    server.requests.clear()
    assert download("--max_side", 100, "--refetch", listed).counts["already_there"] == 6
    assert server.requests == []


def test_what_could_not_be_shrunk_is_requested_again_with_other_settings(download, process, folder):
    process("--image_saving_directory", folder.with_name("resized"))
    assert download("--max_side", 100, "--refetch", folder.with_name("bad.csv")).counts["damaged"] == 1
    other = download("--max_side", 100, "--keep_damaged", "--overwrite")
    assert {name: other.counts[name] for name in ("failed", "truncated", "damaged_kept")} == {
        "failed": 1, "truncated": 1, "damaged_kept": 3,
    }  # fmt: skip


def test_an_original_among_shrunk_images_is_shrunk_by_the_next_run(download, folder):
    download("--max_side", 100)
    shrunk, listed = photos(folder)["page"], folder.with_name("bad.csv")
    listed.write_text("id,reason,detail,url\npage,damaged,,\n")
    download("--refetch", listed)
    assert photos(folder)["page"] == LARGE
    download("--max_side", 100)
    assert photos(folder)["page"] == shrunk


def test_a_bad_file_in_a_sub_folder_is_replaced_where_it_is(download, process, folder):
    (folder / "train").mkdir()
    (folder / "page.jpg").rename(folder / "train/page.JPG")
    process("--image_saving_directory", folder.with_name("resized"))
    assert download("--refetch", folder.with_name("bad.csv")).counts["downloaded"] == 5
    assert photos(folder) | {"page": (folder / "train/page.JPG").read_bytes()} == AT_LAST
    assert not (folder / "page.jpg").exists()


def test_an_empty_file_is_no_image(download, folder):
    (folder / "good.jpg").write_bytes(b"")
    outcome = download()
    assert (outcome.counts["already_there"], outcome.counts["downloaded"]) == (6, 2)
    assert photos(folder)["good"] == SMALL
