"""Step 5 with --masks_directory: masks out of zips or a folder become pixels in the frame of their images."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.files.places import folder_of, parse_path
from common.images.settings import FITS, plan_fit
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster
from tests.support.exif import as_stored
from tests.support.masks import (
    drawn,
    masked_point,
    overlap,
    png,
    read_masks,
    real_masks,
    write_points,
    write_zips,
)  # fmt: skip
from tests.support.running import wait_in_run
from tests.support.step5 import arguments, contents
from tests.support.step5_cluster import STEP

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools 2.0.11 with NumPy 2

SHAPES = {
    "disc": ("disc", (0.1, 0.2, 0.6, 0.9)),
    "corner": ("corner", (0.3, 0.1, 0.95, 0.8)),
    "small disc": ("disc", (0.7, 0.05, 0.85, 0.2)),
    "edge to edge": ("tile", (0.0, 0.4, 1.0, 0.6)),
}
IMAGES = {"a000": (640, 480), "b111": (480, 640), "0c22": (1024, 683), "f333": (200, 150)}
MASK_SIZES = {"a000": (1600, 1200), "b111": (900, 1200), "0c22": (1600, 1066), "f333": (720, 540)}
NAMES = {
    f"{image_id}_m01yrx_{n}.png": shape for image_id in IMAGES for n, shape in enumerate(SHAPES.values())
}
REASONS = ("missing", "unreadable", "empty", "other_shape", "vanished")


def mask_names(image_id: str) -> list[str]:
    return [name for name in NAMES if name.startswith(image_id)]


@pytest.fixture(scope="module")
def drawn_folder(tmp_path_factory):
    """Return a folder with four images, their masks in `masks` and their datapoints; one box has no mask."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "photos").mkdir()
    for image_id, size in IMAGES.items():
        Image.new("RGB", size, "teal").save(folder / "photos" / f"{image_id}.jpg")
    write_zips(folder / "masks", {n: png(drawn(shape, MASK_SIZES[n[:4]])) for n, shape in NAMES.items()})
    points = [masked_point(each, [*mask_names(each), None], rotation=90) for each in IMAGES]
    write_points(folder / "points.json", points)
    return folder


@pytest.fixture
def folder(drawn_folder, tmp_path):
    """Return a copy of that folder."""
    return shutil.copytree(drawn_folder, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def process(script, folder):
    def call(*more: object, into: str | None = "small"):
        flags = arguments(folder, "--masks_directory", folder / "masks", *more, into=into)
        return script("process_images", *flags)

    return call


def truth(shape, size: tuple[int, int], fit: str, turn: int, side: int) -> np.ndarray:
    """Return what a shape is at the finished size: drawn there, turned and placed."""
    plan = plan_fit(size if turn % 180 == 0 else size[::-1], fit, side)
    image = drawn(shape, plan.scaled if turn % 180 == 0 else plan.scaled[::-1])
    pixels = np.zeros(plan.canvas[::-1], bool)
    left, top = plan.offset
    turned = np.rot90(np.asarray(image), turn // 90)
    pixels[top : top + turned.shape[0], left : left + turned.shape[1]] = turned
    return pixels


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize(("fit", "side"), [(fit, side) for fit in FITS for side in (256, 150)])
def test_masks_go_where_their_images_go(process, folder, fit, side, turn):
    write_points(
        folder / "points.json", [masked_point(each, mask_names(each), rotation=turn) for each in IMAGES]
    )
    outcome = process("--fit", fit, "--max_side", side, "--rotate_upright")
    assert outcome.code == 0, outcome.err
    assert outcome.counts["masks"] == len(NAMES)
    for image_id, masks in read_masks(folder / "out.json").items():
        assert len(masks) == len(SHAPES)
        for mask, shape in zip(masks, SHAPES.values(), strict=True):
            expected = truth(shape, IMAGES[image_id], fit, turn, side)
            assert overlap(mask, expected) >= (0.95 if expected.sum() > 200 else 0.85)


@pytest.mark.parametrize("orientation", [3, 5, 6, 7])
@pytest.mark.parametrize(("fit", "form"), [("longer", "JPEG"), ("pad", "PNG"), ("stretch", "TIFF")])
def test_masks_that_were_drawn_upright_stay_so_with_exif_upright(
    process, script, folder, fit, form, orientation
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for image_id, size in IMAGES.items():
        stored = as_stored(Image.new("RGB", size, "teal"), orientation)
        stored.save(folder / "photos" / f"{image_id}.jpg", form, exif=exif)
    write_points(folder / "points.json", [masked_point(each, mask_names(each)) for each in IMAGES])
    flags = ("--fit", fit, "--exif_upright")
    assert process(*flags).counts["masks"] == len(NAMES)
    made = (folder / "out.json").read_bytes()
    for image_id, masks in read_masks(folder / "out.json").items():
        for mask, shape in zip(masks, SHAPES.values(), strict=True):
            expected = truth(shape, IMAGES[image_id], fit, 0, 256)
            assert overlap(mask, expected) >= (0.95 if expected.sum() > 200 else 0.85)
    later = folder / "later"  # of images that are finished already
    assert script("process_images", *arguments(folder, *flags, into=later)).counts["resized"] == len(IMAGES)
    assert process(*flags, into=later).counts.items() >= {"already_there": 4, "masks": len(NAMES)}.items()
    assert (folder / "out.json").read_bytes() == made


def test_at_full_size_a_mask_of_its_image_s_size_stays_as_it_is(process, folder):
    write_zips(folder / "masks", {name: png(drawn(shape, IMAGES[name[:4]])) for name, shape in NAMES.items()})
    assert process("--max_side", 2000).code == 0
    for image_id, masks in read_masks(folder / "out.json").items():
        for mask, shape in zip(masks, SHAPES.values(), strict=False):
            assert (mask == np.asarray(drawn(shape, IMAGES[image_id]))).all()


def test_a_pixel_counts_from_half_of_its_area_on(process, folder):
    pixels = np.zeros((480, 640), bool)
    pixels[::2, ::2] = True  # one in four
    pixels[::2, 1:320:2] = True  # two in four on the left
    write_zips(folder / "masks", {"a000.png": png(Image.fromarray(pixels))})
    write_points(folder / "points.json", [masked_point("a000", ["a000.png"])])
    assert process("--max_side", 320).code == 0
    ((mask,),) = read_masks(folder / "out.json").values()
    assert mask[:, :160].all()
    assert not mask[:, 160:].any()


def test_what_comes_out(process, folder):
    outcome = process()
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1].endswith(
        f" masks={len(NAMES)} masks_missing=0 masks_unreadable=0 masks_empty=0 masks_other_shape=0 masks_vanished=0"
    )
    for point, before in zip(
        json.loads((folder / "out.json").read_text()),
        json.loads((folder / "points.json").read_text()),
        strict=True,
    ):
        for box, original in zip(point["annotations"], before["annotations"], strict=True):
            assert {**box, "mask": None} == {**original, "mask": None}
            assert ("mask" in box) == ("mask" in original)
            assert "mask" not in box or set(box["mask"]) == {"size", "counts"}


def test_without_the_flag_names_are_passed_on_and_not_counted(script, folder):
    outcome = script("process_images", *arguments(folder))
    assert (outcome.code, "masks" in outcome.out) == (0, False)
    before = json.loads((folder / "points.json").read_text())
    after = json.loads((folder / "out.json").read_text())
    assert [point["annotations"] for point in after] == [point["annotations"] for point in before]


def test_a_folder_of_pngs_and_zips_of_several_splits_do_as_well(process, folder):
    assert process().code == 0
    wanted = contents(folder)["out.json"]
    members: dict[str, bytes] = {}
    for path in (folder / "masks").iterdir():
        with zipfile.ZipFile(path) as file:
            members |= {name: file.read(name) for name in file.namelist()}
        path.unlink()
    for name, data in members.items():
        (folder / "masks" / name).write_bytes(data)
    assert process().code == 0
    assert contents(folder)["out.json"] == wanted
    names = list(members)
    write_zips(folder / "masks", {name: members[name] for name in names[::2]}, "train")
    write_zips(folder / "masks", {name: members[name] for name in names[1::2]}, "test")
    for name in names:
        (folder / "masks" / name).unlink()
    assert process().code == 0
    assert contents(folder)["out.json"] == wanted


# --- masks that are left out ---------------------------------------------------------------------


def huge() -> bytes:
    """Return a PNG whose header says 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">2I5B", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(5000)), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


DISC = drawn(SHAPES["disc"], (640, 480))
GREY = DISC.convert("L")
CLEAR = Image.merge("LA", (GREY.point(lambda _: 255), GREY))
DOT = Image.new("1", (1600, 1200))
DOT.putpixel((700, 700), 1)
EVIL = {
    "1 bit": (png(DISC), ""),
    "8 bits, 0 and 255": (png(GREY), ""),
    "8 bits, 0 and 1": (png(GREY.point(lambda value: value // 255)), ""),
    "16 bits": (png(Image.fromarray(np.asarray(DISC).astype(np.uint16))), ""),
    "palette": (png(GREY.convert("RGB").quantize(2)), ""),
    "RGB": (png(GREY.convert("RGB")), ""),
    "RGBA": (png(GREY.convert("RGBA")), ""),
    "transparent around the object": (png(CLEAR), ""),
    "1.9 % wider": (png(DISC.resize((652, 480))), ""),
    "not in the zip": (None, "missing"),
    "no bytes": (b"", "unreadable"),
    "text": (b"<html>", "unreadable"),
    "a JPEG": (png(GREY, "JPEG"), "unreadable"),
    "cut short": (png(DISC)[:-200], "unreadable"),
    "huge": (huge(), "unreadable"),
    "empty": (png(Image.new("1", (640, 480))), "empty"),
    "upright": (png(drawn(SHAPES["disc"], (480, 640))), "other_shape"),
    "2.1 % wider": (png(DISC.resize((654, 480))), "other_shape"),
    "a dot": (png(DOT), "vanished"),
}  # fmt: skip


@pytest.mark.parametrize("in_zips", [True, False], ids=["zips", "PNGs"])
def test_evil_masks_are_left_out_and_counted(process, folder, in_zips):
    names = {f"a000_{number}.png": data for number, (data, _) in enumerate(EVIL.values())}
    members = {name: data for name, data in names.items() if data is not None}
    if in_zips:
        write_zips(folder / "masks", members)
    else:
        for path in (folder / "masks").iterdir():
            path.unlink()
        for name, data in members.items():
            (folder / "masks" / name).write_bytes(data)
    write_points(folder / "points.json", [masked_point("a000", list(names))])
    outcome = process("--max_side", 320)
    assert outcome.code == 0, outcome.err
    found = [reason for _, reason in EVIL.values()]
    assert {name: outcome.counts[f"masks_{name}"] for name in REASONS} == {n: found.count(n) for n in REASONS}
    (masks,) = read_masks(folder / "out.json").values()
    assert [mask is not None for mask in masks] == [not reason for reason in found]
    expected = np.asarray(drawn(SHAPES["disc"], (320, 240)))
    assert all(overlap(mask, expected) > 0.97 for mask in masks if mask is not None)


def edit(path: Path, change) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def test_a_damaged_member_is_unreadable_and_the_others_are_not(process, folder):
    def spoil(data: bytearray) -> None:
        place = data.index(b"a000_m01yrx_1.png") + len("a000_m01yrx_1.png") + 20
        data[place : place + 40] = bytes(40)

    edit(folder / "masks" / "train-masks-a.zip", spoil)
    outcome = process()
    assert (outcome.code, outcome.counts["masks"], outcome.counts["masks_unreadable"]) == (
        0,
        len(NAMES) - 1,
        1,
    )
    assert [mask is None for mask in read_masks(folder / "out.json")["a000"]] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_an_encrypted_member_is_unreadable(process, folder):
    def encrypt(data: bytearray) -> None:
        place = data.index(b"PK\3\4") + 6
        data[place] |= 1
        place = data.index(b"PK\1\2") + 8
        data[place] |= 1

    edit(folder / "masks" / "train-masks-a.zip", encrypt)
    assert process().counts["masks_unreadable"] == 1


def cut_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def spoil_directory(path: Path) -> None:
    def spoil(data: bytearray) -> None:
        place = data.index(b"PK\1\2")
        data[place : place + 4] = b"none"

    edit(path, spoil)


BAD_ZIPS = {
    "removed": (Path.unlink, "{folder}/*-masks-b.zip: no such file, it holds masks of b111"),
    "empty": (lambda path: path.write_bytes(b""), "{folder}/train-masks-b.zip: damaged zip file (its end is missing)"),
    "cut short": (cut_end, "{folder}/train-masks-b.zip: damaged zip file (its end is missing)"),
    "its directory": (
        spoil_directory, "{folder}/train-masks-b.zip: damaged zip file (Bad magic number for central directory)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("spoil", "message"), BAD_ZIPS.values(), ids=BAD_ZIPS)
def test_a_bad_zip_is_one_line(process, folder, spoil, message, workers):
    spoil(folder / "masks" / "train-masks-b.zip")
    outcome = process("--workers", workers)
    assert (outcome.code, outcome.err) == (
        1,
        f"process_images.py: {message.format(folder=folder / 'masks')}\n",
    )
    assert not (folder / "out.json").exists()


def test_a_folder_without_masks_is_one_line(process, folder):
    for path in (folder / "masks").iterdir():
        path.unlink()
    assert process().err == (
        f"process_images.py: {folder}/masks: no masks in it, *-masks-[0-9a-f].zip or *.png were expected\n"
    )
    (folder / "masks").rmdir()
    assert process().err == (
        f"process_images.py: {folder}/masks: no such folder, one with masks was expected\n"
    )


def test_no_mask_at_all_is_an_error(process, folder):
    write_points(folder / "points.json", [masked_point("a000", ["a1.png", "a2.png"])])
    outcome = process()
    assert (outcome.code, outcome.counts["masks_missing"]) == (1, 2)
    assert outcome.messages == (
        f"process_images.py: {folder}/masks: none of the 2 masks can be used: check step 3's --masks_input_path\n"
    )
    write_points(folder / "points.json", [masked_point("a000", [None])])
    assert "/masks: no usable image has a mask: check" in process().err


@pytest.mark.parametrize("mask", ["../a1.png", "/etc/passwd", "", {"size": [1, 1], "counts": "01"}])
def test_a_mask_that_is_not_a_name_is_one_line(process, folder, mask):
    point = masked_point("a000", ["a1.png"])
    point["annotations"][0]["mask"] = mask
    write_points(folder / "points.json", [point])
    outcome = process()
    assert outcome.code == 1
    assert outcome.err == (
        f"process_images.py: {folder}/points.json:1: mask {mask!r} of a000, the name of a file was expected\n"
    )


# --- run again -----------------------------------------------------------------------------------


def overwrite_with_zeros(path: Path) -> None:
    """Replace a file's bytes, and nothing that its status shows."""
    found = path.stat()
    path.write_bytes(bytes(found.st_size))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("flags", [("--fit", fit) for fit in FITS] + [("--rotate_upright",)])
def test_a_run_over_a_finished_folder_decodes_no_mask(process, folder, flags):
    first = process(*flags)
    wanted = contents(folder)
    for digit in "ab0f":
        path = folder / "masks" / f"train-masks-{digit}.zip"
        with zipfile.ZipFile(path) as file:
            end = file.start_dir  # the directory stays, or the zip would be refused
        found = path.stat()
        edit(path, lambda data, end=end: data.__setitem__(slice(0, end), bytes(end)))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    (folder / "out.json").unlink()
    again = process(*flags)
    assert again.counts["already_there"] == len(IMAGES)
    assert again.counts["masks"] == first.counts["masks"] == len(NAMES)
    assert contents(folder)["out.json"] == wanted["out.json"]


def test_masks_may_be_asked_for_later_and_no_image_is_made_again(script, process, folder):
    assert process("--rotate_upright").code == 0
    wanted = contents(folder)["out.json"]
    for path in (folder / "small").glob(".process*"):
        path.unlink()
    subprocess.run(["rm", "-rf", folder / "small", folder / "out.json"], check=True)
    assert script("process_images", *arguments(folder, "--rotate_upright")).counts["resized"] == len(IMAGES)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("small/*.jpg")}
    outcome = process("--rotate_upright")
    assert (outcome.counts["already_there"], outcome.counts["masks"]) == (len(IMAGES), len(NAMES))
    assert contents(folder)["out.json"] == wanted
    assert {path: path.stat().st_mtime_ns for path in folder.glob("small/*.jpg")} == times
    (folder / "small" / ".process_masks").unlink()
    overwrite_with_zeros(folder / "photos" / "a000.jpg")  # whose size masks are compared with
    outcome = process("--rotate_upright")
    assert (outcome.counts["already_there"], outcome.counts["unreadable"]) == (len(IMAGES) - 1, 1)


def test_replaced_masks_are_made_again(process, folder):
    assert process().code == 0
    shape = SHAPES["disc"]
    members = {name: png(drawn(shape, MASK_SIZES[name[:4]])) for name in NAMES}
    write_zips(folder / "masks", members)
    assert process().counts["already_there"] == len(IMAGES)
    again = contents(folder)["out.json"]
    for masks in read_masks(folder / "out.json").values():
        assert all((mask == masks[0]).all() for mask in masks[1:-1])
    subprocess.run(["rm", "-rf", folder / "small"], check=True)
    assert process().code == 0
    assert contents(folder)["out.json"] == again


CHANGES = {
    "another size": ("--max_side", 100, "--overwrite"),
    "padded": ("--fit", "pad", "--overwrite"),
}


@pytest.mark.parametrize("flags", CHANGES.values(), ids=CHANGES)
def test_with_other_settings_masks_are_made_again(process, folder, flags):
    assert process().code == 0
    assert process(*flags).code == 0
    again = contents(folder)
    subprocess.run(["rm", "-rf", folder / "small"], check=True)
    assert process(*flags).code == 0
    assert contents(folder) == again


def test_a_damaged_journal_costs_work_alone(process, folder):
    assert process().code == 0
    wanted = contents(folder)
    journal = folder / "small" / ".process_masks"
    first, second, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(bytes(len(first)) + b"\n" + second + b"".join(rest)[:-40])
    assert process().code == 0
    assert contents(folder) == wanted


@pytest.mark.parametrize("fit", ["longer", "shorter"])
def test_in_place_masks_come_out_the_same(process, folder, fit):
    flags = ("--fit", fit, "--max_side", 200, "--min_side", 150)  # some are smaller once they are resized
    assert process(*flags).code == 0
    wanted = read_masks(folder / "out.json")
    assert process(*flags, into=None).code == 0
    for image_id, masks in read_masks(folder / "out.json").items():
        for mask, expected in zip(masks, wanted[image_id], strict=True):
            assert (mask == expected).all() if expected is not None else mask is None
    in_place = contents(folder)["out.json"]
    (folder / "photos" / ".process_masks").unlink()
    outcome = process(*flags, into=None)
    assert outcome.counts["already_there"] == len(IMAGES)
    assert contents(folder)["out.json"] == in_place


def test_in_place_a_stretched_image_has_lost_the_shape_that_masks_are_held_against(process):
    outcome = process("--fit", "stretch", into=None)
    assert outcome.code == 2
    assert "--masks_directory with --fit stretch needs an --image_saving_directory" in outcome.err


def fill(folder: Path, number: int) -> None:
    """Write many images, each with two masks."""
    ids = [f"{each:04x}"[::-1] for each in range(number)]  # in all zips
    photo = io.BytesIO()
    Image.new("RGB", (640, 480), "olive").save(photo, "JPEG")
    (folder / "photos").mkdir(parents=True)
    for image_id in ids:
        (folder / "photos" / f"{image_id}.jpg").write_bytes(photo.getvalue())
    shapes = [png(drawn(shape, (1600, 1200))) for shape in SHAPES.values()]
    members = {f"{one}_{n}.png": shapes[(place + n) % 4] for place, one in enumerate(ids) for n in (0, 1)}
    write_zips(folder / "masks", members)
    points = [masked_point(one, [f"{one}_0.png", None, f"{one}_1.png"]) for one in ids]
    write_points(folder / "points.json", points)


def test_a_run_interrupted_then_killed_resumes_and_ends_the_same(script, tmp_path):
    number = 150
    for name in ("disturbed", "undisturbed"):
        fill(tmp_path / name, number)
    folder = tmp_path / "disturbed"
    flags = arguments(folder, "--masks_directory", folder / "masks", "--workers", 2)
    journal = folder / "small" / ".process_masks"

    def done() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def is_past(least: int) -> bool:
        return done() > least

    for signum, least in ((signal.SIGINT, number // 6), (signal.SIGKILL, number // 2)):
        with subprocess.Popen(
            [sys.executable, "-c", STEP, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as run:
            wait_in_run(run, partial(is_past, least))
            run.send_signal(signum)
            run.stdout.read()  # ends when the last worker has ended
    assert not (folder / "out.json").exists()
    with open(journal, "ab") as stream:
        stream.write(b"0123456789abcdef [[")  # as a kill in the middle of a write leaves it
    before = done()
    outcome = script("process_images", *arguments(folder, "--masks_directory", folder / "masks"))
    assert (outcome.code, outcome.counts["masks"]) == (0, 2 * number)
    assert before <= outcome.counts["already_there"] < number
    assert done() == number  # none was made twice
    undisturbed = tmp_path / "undisturbed"
    flags = arguments(undisturbed, "--masks_directory", undisturbed / "masks")
    assert script("process_images", *flags).code == 0
    assert contents(folder) == contents(undisturbed)


# --- elsewhere -----------------------------------------------------------------------------------


def test_the_workers_of_a_cluster_read_the_zips_of_the_shared_folder(process, folder):
    with cluster(folder / "cluster", workers=1) as found:
        outcome = process("--dask_scheduler", found.address)
        assert outcome.code == 0, outcome.err
        on_cluster = (folder / "out.json").read_bytes()
        spoil_directory(folder / "masks" / "train-masks-b.zip")
        outcome = process("--dask_scheduler", found.address)
        expected = (
            f"{folder}/masks/train-masks-b.zip: damaged zip file (Bad magic number for central directory)\n"
        )
        assert (outcome.code, outcome.err) == (1, f"process_images.py: {expected}")
    write_zips(folder / "masks", {n: png(drawn(shape, MASK_SIZES[n[:4]])) for n, shape in NAMES.items()})
    assert process(into="here").code == 0
    assert (folder / "out.json").read_bytes() == on_cluster


def test_images_may_be_on_a_store_while_the_zips_are_on_disk(script, process, folder, bucket):
    photos = {path.name: path.read_bytes() for path in (folder / "photos").iterdir()}
    folder_of(parse_path(f"{bucket}/photos")).write_many(photos.items())
    assert process().code == 0
    wanted = (folder / "out.json").read_bytes()
    for how in ("resized", "already_there"):
        outcome = script(
            "process_images", "--image_directory", f"{bucket}/photos", "--image_saving_directory", f"{bucket}/small",
            "--datapoints_input_path", folder / "points.json", "--datapoints_output_path", folder / "out.json",
            "--workers", 1, "--masks_directory", folder / "masks",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert outcome.counts[how] >= 3  # one is unchanged
        assert (folder / "out.json").read_bytes() == wanted
    journal = folder_of(parse_path(f"{bucket}/small")).read(".process_masks")
    assert journal.count(b"\n") == len(IMAGES)


@pytest.mark.parametrize("fit", FITS)
def test_real_masks_fill_their_boxes(script, tmp_path, real_files, fit):
    """Runs on two drawn masks, and on the fifteen official ones if OPEN_IMAGES_FILES is set."""
    if real_files:
        points = real_masks(real_files / "efoks_masks", tmp_path)
        number = 15
    else:
        (tmp_path / "photos").mkdir()
        Image.new("RGB", (1024, 683)).save(tmp_path / "photos" / "a1.jpg")
        shapes = [("disc", (0.25, 0.125, 0.5, 0.75)), ("tile", (0.25, 0.125, 0.5, 0.75))]
        names = {f"a1_{n}.png": png(drawn(shape, (1600, 1066))) for n, shape in enumerate(shapes)}
        write_zips(tmp_path / "masks", names)
        points, number = [masked_point("a1", list(names))], 2
    for turn, point in enumerate(points):
        point["rotation"] = turn % 4 * 90
    write_points(tmp_path / "points.json", points)
    flags = arguments(tmp_path, "--masks_directory", tmp_path / "masks", "--fit", fit, "--rotate_upright")
    outcome = script("process_images", *flags)
    assert (outcome.code, outcome.counts["masks"]) == (0, number), outcome.err
    masks = read_masks(tmp_path / "out.json")
    for point in json.loads((tmp_path / "out.json").read_text()):
        for box, mask in zip(point["annotations"], masks[point["id"]], strict=True):
            ys, xs = np.nonzero(mask)
            seen = {"x0": xs.min(), "x1": xs.max() + 1, "y0": ys.min(), "y1": ys.max() + 1}
            for name, value in seen.items():
                side = point["width"] if name[0] == "x" else point["height"]
                assert abs(value - box[name] * side) <= 2, (point["id"], name)
