"""Turning and fitting: the boxes stay on their objects, on drawn scenes where both are known."""

import json
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.images.settings import FITS, plan_fit
from common.images.tasks import move_box
from sample.classes import BY_LABEL, DRAWN
from sample.scenes import Box, draw
from tests.support.exif import as_stored

COLOUR_TOLERANCE = 60  # of a channel: scaling and JPEG blur edges; classes are 100 apart
SEEDS = ("one", "two", "three")
BRIGHT = tuple(
    one for one in DRAWN if one.colour and max(one.colour) > 120
)  # not to be taken for black padding


def object_extent(image: Image.Image, box: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return x0, x1, y0, y1, in fractions, of the pixels around a box that have its object's colour."""
    colour = BY_LABEL[box["label"]].colour
    assert colour
    width, height = image.size
    margin = 8
    left, top = int(box["x0"] * width) - margin, int(box["y0"] * height) - margin
    right, bottom = int(box["x1"] * width) + margin, int(box["y1"] * height) + margin
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    difference = np.abs(np.asarray(image.crop((left, top, right, bottom)), int) - colour)
    ys, xs = np.nonzero((difference <= COLOUR_TOLERANCE).all(axis=2))
    assert xs.size, "no pixel has the colour of the object"
    return (
        (left + xs.min()) / width, (left + xs.max() + 1) / width,
        (top + ys.min()) / height, (top + ys.max() + 1) / height,
    )  # fmt: skip


def assert_boxes_sit_on_their_objects(image: Image.Image, boxes) -> None:
    for box in boxes:
        seen = object_extent(image, box)
        for name, value in zip(("x0", "x1", "y0", "y1"), seen, strict=True):
            pixels = image.width if name[0] == "x" else image.height
            assert abs(value - box[name]) * pixels <= 2.5, (name, box, seen)


@pytest.fixture
def processed(script, tmp_path):
    """Return `processed(scenes, *flags)`: the images and datapoints that step 5 makes from drawn scenes.

    A scene is id -> (image, boxes, rotation, EXIF orientation or None).
    """

    def call(scenes: dict[str, tuple[Image.Image, list[Box], object, int | None]], *flags: object):
        photos = tmp_path / "photos"
        photos.mkdir()
        points = []
        for image_id, (image, boxes, rotation, orientation) in scenes.items():
            exif = Image.Exif()
            if orientation:
                exif[0x0112] = orientation
            image.save(photos / f"{image_id}.jpg", quality=95, exif=exif)
            points.append(
                {"id": image_id, "rotation": rotation, "annotations": [box.as_dict() for box in boxes]}
            )
        (tmp_path / "points.json").write_text(json.dumps(points))
        arguments = (
            "--image_directory", photos, "--image_saving_directory", tmp_path / "out",
            "--datapoints_input_path", tmp_path / "points.json",
            "--datapoints_output_path", tmp_path / "out.json", "--workers", 1, *flags,
        )  # fmt: skip
        results = []
        for _ in range(2):  # what was finished by an earlier run comes out the same
            outcome = script("process_images", *arguments)
            assert outcome.code == 0, outcome.err
            results.append((tmp_path / "out.json").read_bytes())
        assert results[0] == results[1]
        assert outcome.counts["already_there"] == len(scenes)
        made = {}
        for point in json.loads(results[0]):
            (path,) = (tmp_path / "out").glob(f"{point['id']}.*")
            with Image.open(path) as image:
                assert image.mode == "RGB"
                assert image.size == (point["width"], point["height"])
                assert image.getexif().get(0x0112, 1) == 1
                image.load()
                made[point["id"]] = (image, point)
        return made

    return call


def scenes(rotations=(0, 90, 180, 270), orientations: tuple[int | None, ...] = (None,)):
    """Return a scene for each rotation and orientation, of the seeds in turn."""
    seeds = cycle(SEEDS)
    every = [(next(seeds), turn, one) for turn in rotations for one in orientations]
    return {f"{seed}-{turn}-{one}": (*drawn(seed, turn), float(turn), one) for seed, turn, one in every}


@cache
def drawn(seed: str, turn: int) -> tuple[Image.Image, list[Box]]:
    return draw(seed, turn, BRIGHT)


def test_by_default_pixels_and_boxes_stay_as_they_are_stored(processed):
    given_scenes = scenes(orientations=(None, 6))
    for image_id, (image, point) in processed(given_scenes).items():
        stored, boxes, rotation, _ = given_scenes[image_id]
        assert (image.width > image.height) == (stored.width > stored.height) or stored.width == stored.height
        assert point["rotation"] == rotation
        assert [{**box} for box in point["annotations"]] == [box.as_dict() for box in boxes]
        assert_boxes_sit_on_their_objects(image, point["annotations"])


@pytest.mark.parametrize("fit", FITS)
def test_rotate_upright_turns_boxes_with_pixels(processed, fit):
    given_scenes = scenes(orientations=(None, 3, 6, 8))
    for image_id, (image, point) in processed(given_scenes, "--rotate_upright", "--fit", fit).items():
        upright, boxes = drawn(image_id.split("-")[0], 0)
        assert point["rotation"] == 0
        assert_boxes_sit_on_their_objects(image, point["annotations"])
        if fit == "longer":
            assert (image.width > image.height) == (
                upright.width > upright.height
            ) or upright.width == upright.height
            for box, expected in zip(point["annotations"], boxes, strict=True):
                values = expected.as_dict()
                assert all(abs(box[name] - values[name]) < 2e-6 for name in ("x0", "x1", "y0", "y1"))
            # The sky is above: pale, where the ground is darker.
            grey = image.convert("L").resize((1, 9))
            assert grey.getpixel((0, 0)) > grey.getpixel((0, 8))


@pytest.mark.parametrize("fit", FITS)
def test_exif_upright_turns_images_and_leaves_boxes_that_were_drawn_upright(processed, fit):
    upright, boxes = drawn("three", 0)
    assert upright.width != upright.height
    turned: dict[str, tuple[Image.Image, list[Box], object, int | None]] = {
        f"exif-{one}": (as_stored(upright, one), boxes, None, one) for one in range(1, 9)
    }
    for image, point in processed(turned, "--exif_upright", "--fit", fit).values():
        assert_boxes_sit_on_their_objects(image, point["annotations"])
        if fit in ("longer", "shorter"):
            assert (image.width > image.height) == (upright.width > upright.height)
            assert point["annotations"] == [box.as_dict() for box in boxes]


@pytest.mark.parametrize("form", ["jpeg", "png"])
@pytest.mark.parametrize("fit", FITS)
def test_boxes_stay_right_in_every_fit(processed, fit, form):
    for image, point in processed(
        scenes((0, 0, 0)), "--fit", fit, "--format", form, "--max_side", 200
    ).values():
        assert image.format == form.upper()
        assert_boxes_sit_on_their_objects(image, point["annotations"])
        sides = sorted(image.size)
        assert {"longer": sides[1], "shorter": sides[0]}.get(fit, 200) == 200
        assert fit in {"longer", "shorter"} or sides == [200, 200]


def test_an_image_with_another_rotation_is_made_again(script, tmp_path):
    """The rotation is an input too: what was finished without it is not finished with it."""
    (tmp_path / "photos").mkdir()
    image, boxes = draw("one", 90)
    image.save(tmp_path / "photos" / "a1.jpg", quality=95)
    widths = []
    for rotation in (0, 90, "90.0", 180, None):
        point = {"id": "a1", "rotation": rotation, "annotations": [box.as_dict() for box in boxes]}
        (tmp_path / "points.json").write_text(json.dumps([point]))
        outcome = script(
            "process_images", "--image_directory", tmp_path / "photos", "--rotate_upright", "--workers", 1,
            "--image_saving_directory", tmp_path / "out", "--datapoints_input_path", tmp_path / "points.json",
            "--datapoints_output_path", tmp_path / "out.json",
        )  # fmt: skip
        widths.append(
            (outcome.counts["resized"], json.loads((tmp_path / "out.json").read_text())[0]["rotation"])
        )
    assert widths == [(1, 0), (1, 0), (0, 0), (1, 0), (1, 0)]


@pytest.mark.parametrize("rotation", [45, -90, 360, "45"])
def test_a_wrong_rotation_is_one_line(script, tmp_path, rotation):
    (tmp_path / "photos").mkdir()
    (tmp_path / "points.json").write_text(json.dumps([{"id": "a1", "rotation": rotation, "annotations": []}]))
    arguments = (
        "--image_directory", tmp_path / "photos", "--image_saving_directory", tmp_path / "out",
        "--datapoints_input_path", tmp_path / "points.json", "--datapoints_output_path", tmp_path / "out.json",
    )  # fmt: skip
    outcome = script("process_images", *arguments, "--rotate_upright")
    assert outcome.code == 1
    assert f"rotation of a1 is {rotation!r}, 0, 90, 180 or 270 was expected\n" in outcome.err
    assert "none of the 1 images" in script("process_images", *arguments, "--workers", 1, "--overwrite").err


@pytest.mark.parametrize("flags", [("--rotate_upright",), ("--fit", "pad"), ("--format", "png")])
def test_flags_that_would_apply_twice_in_place_are_refused(script, tmp_path, flags):
    for more in ((), ("--image_saving_directory", tmp_path)):
        outcome = script(
            "process_images", "--image_directory", tmp_path, "--datapoints_input_path", tmp_path / "points.json",
            "--datapoints_output_path", tmp_path / "out.json", *flags, *more,
        )  # fmt: skip
        assert outcome.code == 2
        assert f"{' '.join(flags)} needs an --image_saving_directory other than" in outcome.err


SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.sampled_from([0, 90, 180, 270]), st.sampled_from(FITS), st.integers(1, 2000))
def test_a_fit_keeps_its_promises(width, height, turn, fit, side):
    turned = (width, height) if turn % 180 == 0 else (height, width)
    plan = plan_fit(turned, fit, side)
    assert min(plan.scaled) >= 1
    assert all(o >= 0 and o + s <= c for o, s, c in zip(plan.offset, plan.scaled, plan.canvas, strict=True))
    if fit in {"pad", "stretch"}:
        assert plan.canvas == (side, side)
    else:
        assert plan.canvas == plan.scaled
        assert all(s <= t for s, t in zip(plan.scaled, turned, strict=True))
        assert (max if fit == "longer" else min)(plan.canvas) <= side


@given(st.sampled_from([0, 90, 180, 270]), st.sampled_from(FITS), SIDES, SIDES, st.data())
def test_a_box_stays_inside_the_image_with_its_corners_in_order(turn, fit, width, height, data):
    x0, y0 = (data.draw(st.floats(0, 0.98)) for _ in range(2))
    x1, y1 = (data.draw(st.floats(low + 0.01, 1)) for low in (x0, y0))
    plan = plan_fit((width, height), fit, 256)
    box = move_box({"x0": x0, "x1": x1, "y0": y0, "y1": y1, "label": "/m/1"}, turn, plan)
    assert 0 <= box["x0"] < box["x1"] <= 1
    assert 0 <= box["y0"] < box["y1"] <= 1
    assert box["label"] == "/m/1"


def test_padding_is_black(processed):
    white = Image.new("RGB", (400, 100), "white")
    ((image, _),) = processed({"a": (white, [], 0, None)}, "--fit", "pad", "--max_side", 100).values()
    rows = [image.getpixel((50, y))[0] for y in (10, 34, 41, 58, 65, 90)]
    assert [row > 128 for row in rows] == [False, False, True, True, False, False]


def test_a_box_thinner_than_the_rounding_keeps_its_area():
    thin = {"id": "x", "label": "/m/01yrx", "x0": 0.1, "x1": 0.1 + 2e-7, "y0": 0.3, "y1": 0.7}
    moved = move_box(thin, 0, plan_fit((256, 128), "pad", 256))
    assert moved["x0"] < moved["x1"]
    assert moved["y0"] < moved["y1"]
