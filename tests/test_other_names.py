"""Images that other tools saved, under other names and in sub-folders, are found by steps 4 and 5."""

import json
import os

import pytest

from tests.support.step5 import GOOD, arguments, contents, write_points

NAMES = {
    "aws s3 sync": "train/{}.jpg",
    "the tarballs of the mirror": "train_0/{}.jpg",
    "deep": "a/b c/dü/{}.jpg",
    "upper case": "{}.JPG",
    "jpeg": "{}.jpeg",
    "png": "{}.PNG",
    "all of it": "train/{}.Jpeg",
}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with points.json, images.json (at a server that nobody may ask) and no images."""
    write_points(tmp_path, GOOD)
    entries = [{"id": image_id, "url": "http://127.0.0.1:9/a.jpg"} for image_id in GOOD]
    (tmp_path / "images.json").write_text(json.dumps(entries))
    return tmp_path


def save(folder, pattern: str, ids=tuple(GOOD)) -> None:
    for image_id in ids:
        path = folder / "photos" / pattern.format(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GOOD[image_id])


@pytest.fixture
def plan(script, folder):
    """Return a function that runs step 4 without a download, and gives the numbers there and to download."""

    def call() -> tuple[int, int]:
        index, photos = folder / "images.json", folder / "photos"
        flags = ("--images_path", index, "--images_output_directory", photos, "--dry_run")
        counts = script("download_images", *flags).counts
        return counts["already_there"], counts["to_download"]

    return call


@pytest.mark.parametrize("pattern", NAMES.values(), ids=NAMES)
def test_images_are_found_under_other_names(script, folder, plan, pattern):
    save(folder, "{}.jpg")
    assert script("process_images", *arguments(folder)).counts["resized"] == 3
    expected, points = contents(folder / "small"), (folder / "out.json").read_bytes()
    for image_id in GOOD:
        (folder / f"photos/{image_id}.jpg").unlink()
    save(folder, pattern)
    assert plan() == (4, 0)
    outcome = script("process_images", *arguments(folder, into="photos/resized"))
    assert (outcome.counts["resized"], outcome.counts["unchanged"], outcome.counts["failed"]) == (3, 1, 0)
    assert contents(folder / "photos/resized") == expected
    assert (folder / "out.json").read_bytes() == points
    # The resized images are in a sub-folder of the images: they are no second files of these.
    assert script("process_images", *arguments(folder, into="photos/resized")).counts["already_there"] == 4
    assert plan() == (4, 0)


def test_only_what_has_no_other_file_is_missing(script, folder, plan):
    first, second, third, last = GOOD
    save(folder, "{}.jpg", [first])
    save(folder, "train/{}.jpg", [second])
    save(folder, "train/{}.jpg", [third])
    (folder / f"photos/{third}.jpg").write_bytes(b"")  # an empty file is no image
    os.link(folder / f"photos/{first}.jpg", folder / f"photos/train/{first}.jpg")  # one file, two names
    (folder / f"photos/{last}.jpg.part").write_bytes(b"x")
    (folder / f"photos/.hidden/{last}.jpg").mkdir(parents=True)
    assert plan() == (3, 1)
    counts = script("process_images", *arguments(folder)).counts
    assert (counts["resized"] + counts["unchanged"], counts["missing"]) == (3, 1)
