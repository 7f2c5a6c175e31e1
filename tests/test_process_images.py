"""Step 5: images and datapoints in; resized images, and the datapoints of those that can be used, out."""

import io
import json
import os
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import process_images
from common import cli
from common.files.json_files import json_writer
from common.files.whole_files import locked_folder
from common.images.settings import FITS
from tests.support.step5 import (
    BAD,
    GOOD,
    IDS,
    arguments,
    contents,
    look,
    photo,
    point,
    write_points,
)
from tests.support.step5 import folder as folder

COUNTS = {
    "images": 0,
    "resized": 0,
    "unchanged": 0,
    "damaged_kept": 0,
    "already_there": 0,
    "failed": 0,
} | dict.fromkeys(
    ("missing", "truncated", "damaged", "unreadable", "too_large", "too_small", "turned_by_exif"), 0
)


@pytest.fixture
def process(script, folder):
    """Return `process(*flags)`, a run on the folder, with one worker unless said otherwise."""

    def call(*more: object, into: str | None = "small"):
        return script("process_images", *arguments(folder, *more, into=into))

    return call


def test_good_images_come_out_and_bad_ones_are_counted_and_listed(process, folder):
    outcome = process()
    assert outcome.code == 0, outcome.err
    assert outcome.counts == COUNTS | {
        "images": 8, "resized": 3, "unchanged": 1, "failed": 4, "truncated": 2, "unreadable": 1, "missing": 1,
    }  # fmt: skip
    points = json.loads((folder / "out.json").read_text())
    assert [one["id"] for one in points] == ["f1", "a2", "c3", "b4"]
    for one in points:
        with Image.open(folder / "small" / f"{one['id']}.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (one["width"], one["height"]))
            assert max(image.size) == (200 if one["id"] == "c3" else 256)
            image.load()
        assert one == point(one["id"]) | {"width": one["width"], "height": one["height"]}
    assert (folder / "small" / "c3.jpg").read_bytes() == GOOD["c3"]
    rows = (folder / "small" / "process_failures.csv").read_text().splitlines()
    assert rows[0] == "id,reason,detail,url"
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["e5", "truncated"], ["d6", "unreadable"], ["g7", "truncated"], ["h8", "missing"],
    ]  # fmt: skip
    assert sorted(path.name for path in (folder / "small").iterdir()) == [
        ".process_finished", "a2.jpg", "b4.jpg", "c3.jpg", "f1.jpg", "process_failures.csv", "process_settings.json",
    ]  # fmt: skip


def test_unknown_keys_are_passed_on(process, folder):
    strange = point("f1", subset="train", rotation=90, width=3, mine={"a": [1, None, "ü"]})
    strange["annotations"][0]["note"] = "of step 3½"
    background = {"id": "a2", "annotations": [], "image_labels": [{"label": "/m/01yrx", "confidence": 0}]}
    (folder / "points.json").write_text(json.dumps([strange, background]))
    assert process().code == 0
    one, other = json.loads((folder / "out.json").read_text())
    assert one == strange | {"width": one["width"], "height": one["height"]}
    assert one["width"] != 3
    assert other == background | {"width": other["width"], "height": other["height"]}


@pytest.mark.parametrize("into", ["small", None])
def test_any_number_of_workers_gives_the_same_bytes(script, folder, into, monkeypatch):
    monkeypatch.setattr(process_images, "BATCH_IMAGES", 5)
    write_points(folder, IDS + [f"n{number}" for number in range(60)])
    for number in range(60):
        (folder / "photos" / f"n{number}.jpg").write_bytes(
            GOOD["f1" if number < 10 else "c3"] if number % 3 else BAD["e5"]
        )
    before = contents(folder)
    results = []
    for workers in (1, 2):
        rmtree(folder / "small", ignore_errors=True)
        rmtree(folder / "photos")
        for name, data in before.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        outcome = script("process_images", *arguments(folder, "--workers", workers, into=into))
        assert outcome.code == 0
        results.append((outcome.out, contents(folder)))
    assert results[0] == results[1]


def test_in_place_images_are_replaced_and_broken_ones_stay(process, folder):
    outcome = process(into=None)
    assert outcome.code == 0, outcome.err
    photos = folder / "photos"
    for image_id, data in BAD.items():
        assert (photos / f"{image_id}.jpg").read_bytes() == data
    assert (photos / "c3.jpg").read_bytes() == GOOD["c3"]
    assert look(photos / "b4.jpg") == ("JPEG", 256)
    assert look(photos / "f1.jpg") == ("JPEG", 256)
    assert [one["id"] for one in json.loads((folder / "out.json").read_text())] == ["f1", "a2", "c3", "b4"]
    assert (photos / "process_failures.csv").exists()


def test_the_image_directory_as_saving_directory_means_in_place(process, folder):
    assert process(into=None).code == 0
    before = contents(folder)
    outcome = process(into="photos/../photos")
    assert (outcome.code, outcome.counts["already_there"]) == (0, 4)
    assert contents(folder) == before


def test_in_place_the_target_of_a_link_is_replaced(process, folder):
    (folder / "photos" / "f1.jpg").rename(folder / "elsewhere.jpg")
    (folder / "photos" / "f1.jpg").symlink_to(folder / "elsewhere.jpg")
    assert process(into=None).code == 0
    assert (folder / "photos" / "f1.jpg").is_symlink()
    assert look(folder / "elsewhere.jpg") == ("JPEG", 256)


@pytest.mark.parametrize("into", ["small", None])
def test_a_second_run_makes_nothing_and_ends_the_same(process, folder, into):
    assert process(into=into).code == 0
    before = contents(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    outcome = process(into=into)
    assert (outcome.code, outcome.counts["already_there"], outcome.counts["resized"]) == (0, 4, 0)
    assert outcome.counts["unchanged"] == 0
    assert contents(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == times


def overwrite_with_zeros(path: Path) -> None:
    """Replace a file's bytes, and nothing that its status shows."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("flags", [("--fit", fit) for fit in FITS] + [("--rotate_upright",)])
def test_a_run_over_a_finished_folder_opens_no_image(process, folder, flags):
    (folder / "points.json").write_text(json.dumps([point(image_id, rotation=90) for image_id in GOOD]))
    assert process(*flags).code == 0
    wanted = (folder / "out.json").read_bytes()
    for path in [*folder.glob("photos/*.jpg"), *folder.glob("small/*.jpg")]:
        overwrite_with_zeros(path)
    (folder / "out.json").unlink()
    assert process(*flags).counts["already_there"] == len(GOOD)
    assert (folder / "out.json").read_bytes() == wanted


def test_in_place_a_run_over_a_finished_folder_opens_no_image(process, folder):
    assert process(into=None).code == 0
    wanted = (folder / "out.json").read_bytes()
    for image_id in GOOD:
        overwrite_with_zeros(folder / "photos" / f"{image_id}.jpg")
    assert process(into=None).counts["already_there"] == len(GOOD)
    assert (folder / "out.json").read_bytes() == wanted


def test_images_in_a_journal_of_an_earlier_version_are_made_again(process, folder):
    """Its lines end after the turn."""
    assert process().code == 0
    before = contents(folder)
    journal = folder / "small" / ".process_finished"
    journal.write_text(
        "".join(" ".join(line.split()[:4]) + "\n" for line in journal.read_text().splitlines())
    )
    (folder / "small" / "f1.jpg").write_bytes(b"")
    assert process().counts["already_there"] == 0
    assert contents(folder) == before
    assert process().counts["already_there"] == len(GOOD)


CHANGES = {
    "a missing image came": ("photos/h8.jpg", GOOD["f1"], {"resized": 1, "missing": 0}),
    "a broken one was replaced": ("photos/e5.jpg", GOOD["a2"], {"resized": 1, "truncated": 1}),
    "an original went": ("photos/f1.jpg", None, {"already_there": 3, "missing": 2}),
    "a resized image went": ("small/f1.jpg", None, {"resized": 1}),
    "a resized image is empty": ("small/f1.jpg", b"", {"resized": 1}),
    "the output went": ("out.json", None, {"already_there": 4}),
    "the output is another": ("out.json", b"[]", {"already_there": 4}),
    "the failures went": ("small/process_failures.csv", None, {"already_there": 4}),
    "a resized image is cut short": ("small/f1.jpg", b"\xff\xd8" + bytes(500), {"resized": 1}),
    "the journal went": ("small/.process_finished", None, {"resized": 3, "unchanged": 1}),
}


@pytest.mark.parametrize(("name", "data", "counts"), CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(process, folder, name, data, counts):
    assert process().code == 0
    (folder / name).unlink(missing_ok=True)
    if data is not None:
        (folder / name).write_bytes(data)
    outcome = process()
    assert outcome.code == 0
    assert {key: outcome.counts[key] for key in counts} == counts
    listed = [point["id"] for point in json.loads((folder / "out.json").read_text())]
    again = {path: contents(folder)[path] for path in ("out.json", *(f"small/{one}.jpg" for one in listed))}
    rmtree(folder / "small")
    (folder / "out.json").unlink()
    assert process().code == 0
    assert {path: contents(folder)[path] for path in again} == again


def test_a_replaced_image_is_made_again(process, folder):
    """Even if the new file is older."""
    assert process().code == 0
    for image_id, data in (("f1", photo(11)), ("e5", photo(5))):
        (folder / "photos" / f"{image_id}.jpg").write_bytes(data)
        os.utime(folder / "photos" / f"{image_id}.jpg", (1e9, 1e9))
    outcome = process()
    assert (outcome.counts["resized"], outcome.counts["already_there"], outcome.counts["failed"]) == (2, 3, 3)
    again = contents(folder)
    rmtree(folder / "small")
    assert process().code == 0
    assert contents(folder) == again


@pytest.mark.parametrize("into", ["small", None])
def test_other_settings_are_refused_or_with_overwrite_made_again(process, folder, into):
    assert process("--max_side", 200, into=into).code == 0
    before = contents(folder)
    outcome = process("--max_side", 100, "--quality", 80, into=into)
    name = folder / (into or "photos") / "process_settings.json"
    assert (outcome.code, outcome.err) == (
        1,
        f"process_images.py: {name}: the images in this folder were made with max_side 200, not 100, "
        "quality 85, not 80; --overwrite makes them again\n",
    )
    assert contents(folder) == before
    assert process("--max_side", 100, "--overwrite", into=into).counts["resized"] == 4
    assert process("--max_side", 100, into=into).counts["already_there"] == 4
    assert process("--max_side", 100, "--overwrite", into=into).counts["already_there"] == 4


def test_without_the_settings_file_no_image_is_finished(process, folder):
    assert process().code == 0
    before = contents(folder)
    (folder / "small" / "process_settings.json").unlink()
    assert process().counts["already_there"] == 0
    assert contents(folder) == before


def test_too_small_images_are_left_out(process, folder):
    outcome = process("--min_side", 151)
    assert (outcome.counts["too_small"], outcome.counts["failed"]) == (1, 5)
    assert (
        'c3,too_small,"200x150, at least 151 expected",\n'
        in (folder / "small/process_failures.csv").read_text()
    )


def test_failures_path(process, folder):
    assert process("--failures_path", folder / "lists" / "bad.csv").code == 0
    assert len((folder / "lists" / "bad.csv").read_text().splitlines()) == 5
    assert not (folder / "small" / "process_failures.csv").exists()


@pytest.mark.parametrize(
    ("limit", "code"), [("4", 0), ("3", 1), ("0", 1), ("50%", 0), ("49.9%", 1), ("0%", 1), ("100%", 0)]
)
def test_a_limit_on_failures(process, folder, limit, code):
    (folder / "out.json").write_text("what was there")
    outcome = process("--max_failures", limit)
    assert outcome.code == code
    assert outcome.counts["failed"] == 4
    assert len((folder / "small" / "process_failures.csv").read_text().splitlines()) == 5
    if code:
        assert outcome.messages == f"process_images.py: 4 of 8 images failed, --max_failures is {limit}\n"
        assert (folder / "out.json").read_text() == "what was there"


def test_no_usable_image_is_an_error(process, folder):
    write_points(folder, ["h8", "d6"])
    outcome = process()
    assert outcome.code == 1
    assert outcome.messages == (
        f"process_images.py: none of the 2 images can be used, see {folder}/small/process_failures.csv\n"
    )
    assert outcome.counts["missing"] == outcome.counts["unreadable"] == 1
    assert not (folder / "out.json").exists()


EVIL_POINTS = {
    "no such file": (None, "points.json: no such file"),
    "empty": ("[]", "points.json: no images in it"),
    "not JSON": ("[{\n'id'}]", "points.json:2: not JSON"),
    "cut short": (
        json.dumps([point("f1")])[:-1],
        "points.json:1: the file ends in the middle of an array or object; is it cut short?",
    ),
    "id of a path": (json.dumps([point("../f1")]), "at `$.id`: '../f1'"),
    "no annotations": (
        '[{"id": "f1"}]',
        "points.json:1: Object missing required field `annotations`: {'id': 'f1'}",
    ),
    "id twice": (json.dumps([point("f1"), point("a2"), point("f1")]), "points.json:1: duplicate image id f1"),
}


@pytest.mark.parametrize(("text", "message"), EVIL_POINTS.values(), ids=EVIL_POINTS)
def test_evil_datapoints_are_one_line(process, folder, text, message):
    (folder / "points.json").unlink()
    if text is not None:
        (folder / "points.json").write_text(text)
    outcome = process()
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (folder / "out.json").exists()


EVIL_FLAGS = {
    "side 0": ("--max_side", "0"), "side beyond JPEG": ("--max_side", "70000"), "quality 0": ("--quality", "0"),
    "quality 101": ("--quality", "101"), "no workers": ("--workers", "0"), "limit -1": ("--max_failures", "-1"),
    "limit of a half": ("--max_failures", "0.5"), "limit of words": ("--max_failures", "few%"),
}  # fmt: skip


@pytest.mark.parametrize("flags", EVIL_FLAGS.values(), ids=EVIL_FLAGS)
def test_wrong_flags_exit_2(process, flags):
    assert process(*flags).code == 2


def test_a_missing_folder_is_one_line(process, folder):
    (folder / "photos").rename(folder / "elsewhere")
    outcome = process()
    assert (outcome.code, outcome.err) == (
        1, f"process_images.py: {folder}/photos: no such folder, one with images was expected\n",
    )  # fmt: skip
    assert not (folder / "small").exists()


@pytest.mark.parametrize("into", ["small", None])
def test_two_runs_at_one_time_are_refused(process, folder, into):
    with locked_folder(folder / (into or "photos")):
        outcome = process(into=into)
    assert outcome.code == 1
    assert outcome.err.endswith("another run is working in this folder\n")
    assert process(into=into).code == 0


def test_half_written_files_of_a_killed_run_are_removed(process, folder):
    (folder / "small").mkdir()
    (folder / "small" / ".zz.jpg.part").write_bytes(b"half")
    (folder / "small" / ".theirs.part").write_bytes(b"not ours")
    assert process().code == 0
    assert not (folder / "small" / ".zz.jpg.part").exists()
    assert (folder / "small" / ".theirs.part").exists()


def test_damaged_images_are_left_out_unless_keep_damaged(process, folder):
    whole = GOOD["c3"]
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(300) + whole[middle + 300 :]
    (folder / "photos" / "c3.jpg").write_bytes(damaged)
    outcome = process()
    assert (outcome.code, outcome.counts["damaged"], outcome.counts["damaged_kept"]) == (0, 1, 0)
    assert "c3,damaged,Corrupt JPEG data" in (folder / "small" / "process_failures.csv").read_text()
    assert not (folder / "small" / "c3.jpg").exists()
    outcome = process("--keep_damaged", "--overwrite")
    assert (outcome.code, outcome.counts["damaged"], outcome.counts["damaged_kept"]) == (0, 0, 1)
    kept = (folder / "small" / "c3.jpg").read_bytes()
    assert kept != damaged  # encoded again, so that every reader can decode it
    simplejpeg.decode_jpeg(kept, strict=True)
    assert outcome.counts["truncated"] == 2


def test_an_image_that_lacks_its_end_marker_alone_is_kept_with_keep_damaged(process, folder):
    (folder / "photos" / "c3.jpg").write_bytes(GOOD["c3"][:-2])
    assert process().counts.items() >= {"truncated": 3, "damaged_kept": 0}.items()
    assert (
        process("--keep_damaged", "--overwrite").counts.items() >= {"truncated": 2, "damaged_kept": 1}.items()
    )
    simplejpeg.decode_jpeg((folder / "small" / "c3.jpg").read_bytes(), strict=True)


def test_precise_is_closer_to_full_decoding(process, folder):
    """Full decoding: at full size, resized with Lanczos."""
    with Image.open(io.BytesIO(GOOD["f1"])) as image:
        size = (round(image.width * 250 / max(image.size)), round(image.height * 250 / max(image.size)))
        slow = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.int64)
    errors = []
    for number, flags in enumerate(((), ("--precise",))):
        assert process("--max_side", 250, "--format", "png", *flags, into=f"small{number}").code == 0
        with Image.open(folder / f"small{number}" / "f1.png") as image:
            errors.append(np.square(np.asarray(image, np.int64) - slow).mean())
    assert 0 < errors[1] < errors[0] < 100


def turn_by_exif(folder: Path) -> None:
    """Give two of the good images an EXIF orientation that turns them, and one that does not."""
    for image_id, orientation in {"f1": 3, "c3": 6, "a2": 1}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = folder / "photos" / f"{image_id}.jpg"
        with Image.open(path) as image:
            image.save(path, exif=exif)


UPRIGHT = "if they were drawn on upright images, use --exif_upright --overwrite"
EXIF_WARNINGS = {
    "own images": (None, (), f"have an EXIF orientation that was not applied, BESIDE: {UPRIGHT}"),
    "in place": (None, ("in place",), f"{UPRIGHT} on the originals, the images here have no EXIF any more"),
    "own images, upright": (None, ("--exif_upright",), ""),
    "own images, upright in place": (None, ("in place", "--exif_upright"), ""),
    "Open Images": (0.0, (), ""),
    "Open Images, upright": (90.0, ("--rotate_upright",), ""),
    "Open Images by EXIF": (0.0, ("--exif_upright",), "were turned by EXIF, BESIDE: Open Images, whose datapoints"),
}  # fmt: skip


@pytest.mark.parametrize(("rotation", "flags", "message"), EXIF_WARNINGS.values(), ids=EXIF_WARNINGS)
def test_images_turned_by_exif_are_counted_and_warned_of(process, folder, rotation, flags, message):
    turn_by_exif(folder)
    more = {} if rotation is None else {"rotation": rotation}
    points = [point("f1"), point("a2", **more), point("c3"), point("b4")]
    (folder / "points.json").write_text(json.dumps(points))
    into = None if "in place" in flags else "small"
    flags = [flag for flag in flags if flag != "in place"]
    first = process(*flags, into=into)
    made = contents(folder)
    for outcome in (first, process(*flags, into=into)):
        assert (outcome.code, outcome.counts["turned_by_exif"]) == (0, 2)
        assert len(outcome.messages.splitlines()) == bool(message)
        assert message.replace("BESIDE", "their boxes may be beside the objects") in outcome.messages
        assert outcome.messages.startswith("2 images " if message else "")
    assert contents(folder) == made  # by the second run


@pytest.mark.parametrize("into", ["small", None])
def test_exif_upright_turns_once_however_often_it_runs(process, folder, into):
    turn_by_exif(folder)
    write_points(folder, GOOD)
    assert process("--exif_upright", into=into).counts["resized"] == 4
    made = contents(folder)
    (upright,) = (one for one in json.loads(made["out.json"]) if one["id"] == "c3")
    assert upright == point("c3") | {"width": 150, "height": 200}
    with Image.open(folder / (into or "photos") / "c3.jpg") as image:
        assert image.size == (150, 200)
    (folder / (into or "photos") / ".process_finished").unlink()
    again = process("--exif_upright", into=into)
    assert (again.counts["already_there"], again.counts["unchanged"]) == (0, 0 if into else 4)
    assert contents(folder) == made


def test_a_folder_remembers_exif_upright_only_if_set(process, folder):
    turn_by_exif(folder)
    assert process().code == 0
    settings = folder / "small" / "process_settings.json"
    assert "exif_upright" not in settings.read_text()  # as in folders of versions that did not know it
    refused = process("--exif_upright")
    assert refused.code == 1
    assert "were made with exif_upright False, not True; --overwrite makes them again" in refused.err
    assert process("--exif_upright", "--overwrite").counts["resized"] == 4
    assert json.loads(settings.read_text())["exif_upright"] is True
    assert "were made with exif_upright True, not False" in process().err


def test_an_image_that_failed_is_tried_again(process, folder):
    """A folder in the place of the image stands in for a disk that fails once."""
    path = folder / "photos" / "f1.jpg"
    path.rename(folder / "f1.jpg")
    path.mkdir()
    assert process().counts.items() >= {"failed": 5, "unreadable": 2}.items()
    assert "f1,unreadable,Is a directory," in (folder / "small/process_failures.csv").read_text()
    path.rmdir()
    (folder / "f1.jpg").rename(path)
    assert process().counts.items() >= {"failed": 4, "unreadable": 1, "resized": 1}.items()


def test_the_output_may_not_be_the_input(script, folder):
    before = (folder / "points.json").read_bytes()
    outcome = script(
        "process_images", *arguments(folder), "--datapoints_output_path", folder / "photos/../points.json"
    )
    assert outcome.code == 2
    assert "an image that fails once would be lost from it" in outcome.err
    assert (folder / "points.json").read_bytes() == before


def test_progress_has_the_number_of_datapoints(process, folder, monkeypatch):
    monkeypatch.setattr(cli, "LINE_SECONDS", 0)
    with json_writer(folder / "points.json") as write:
        for image_id in IDS:
            write(point(image_id))
    assert f" {len(IDS)}/{len(IDS)} " in process().err
