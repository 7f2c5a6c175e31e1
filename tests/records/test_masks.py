"""Step 7's masks: what is in the records of datapoints with masks, and masks that cannot be used."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.masks import drawn, masked_point, png, read_masks, real_masks, write_points, write_zips
from tests.support.step7 import CAT, DOG, TREE, annotation, many, mask_of, photo, read_back
from tests.support.step7 import step as step

SIZE = (40, 30)
AREA = (4, 5, 17, 20)  # x0, y0, x1, y1
MASK = mask_of(SIZE, AREA)
POINTS = [
    {
        "id": "a1",
        "annotations": [annotation(), annotation(DOG, mask=MASK), annotation(TREE, mask="tree.png")],
    },
    {"id": "b2", "annotations": [annotation(x0=0.999, x1=1, y0=0, y1=0.001)]},
    {"id": "c3", "annotations": [], "image_labels": [{"label": DOG, "confidence": 1}]},
]
IMAGES = {f"{point['id']}.jpg": photo(size=SIZE) for point in POINTS}


def filled(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    pixels = np.zeros(SIZE[::-1], np.uint8)
    pixels[y0:y1, x0:x1] = 1
    return pixels


BOXES = {
    "empty": (filled(0, 0, 0, 0), filled(0, 0, 0, 0)),
    "box": (filled(10, 4, 20, 22), filled(39, 0, 40, 1)),
}


@pytest.mark.parametrize("missing", BOXES)
def test_each_box_has_a_mask_of_zeros_and_ones(step, tmp_path, missing):
    outcome = step(POINTS, IMAGES, "--missing_masks", missing, "--verify")
    assert outcome.code == 0, outcome.err
    import tensorflow as tf  # loaded by the step, without Keras

    assert outcome.counts.items() >= {"boxes": 3, "masks": 1, "verified_boxes": 3}.items()
    first, second, labels = read_back(tmp_path / "out/data.tfrecord")
    masks = [
        tf.io.decode_png(mask).numpy()  # as many channels and as deep as the file has them
        for record in (first, second)
        for mask in record["image/object/mask"]
    ]
    whole, corner = BOXES[missing]
    for found, expected in zip(masks, (whole, filled(*AREA), corner), strict=True):
        assert found.shape == (30, 40, 1)
        np.testing.assert_array_equal(found[:, :, 0], expected)
    assert first["image/object/mask/weight"] == [0.0, 1.0]
    assert first["image/object/area"] == [187.5, 195.0]  # of the box, and of the mask
    assert second["image/object/mask/weight"] == [0.0]
    assert labels["image/object/mask"] == labels["image/object/mask/weight"] == []


def test_datapoints_without_masks_give_no_features_of_masks(step, tmp_path):
    points = [{**POINTS[0], "annotations": [annotation(), annotation(DOG)]}, *POINTS[1:]]
    assert "masks" not in step(points, IMAGES).counts
    assert step(points, IMAGES, "--missing_masks", "box", save="box/data.tfrecord").code == 0
    assert files(tmp_path / "out") == files(tmp_path / "box")
    for record in read_back(tmp_path / "out/data.tfrecord"):
        assert not [name for name in record if "mask" in name]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_mask_for_boxes_without_one_writes_the_records_again(step, tmp_path):
    flags = ("--num_shards", 2)
    assert step(POINTS, IMAGES, *flags).code == 0
    before = files(tmp_path / "out")
    assert step(POINTS, IMAGES, *flags, "--missing_masks", "box").code == 0
    assert not any(files(tmp_path / "out")[name] == data for name, data in before.items() if "00000" in name)
    assert step(POINTS, IMAGES, *flags).code == 0
    assert files(tmp_path / "out") == before
    status = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*of*")}
    assert step(POINTS, IMAGES, *flags).code == 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*of*")} == status


def test_evaluation_records_have_masks_too_if_only_training_records_do(step, tmp_path):
    points, images = many(6)
    for point, subset in zip(points, ("train", "validation") * 3, strict=True):
        point["subset"] = subset
    points[0]["annotations"][0] = annotation(mask=mask_of((20, 30), (1, 2, 3, 4)))
    flags = ("--eval_record_save_path", tmp_path / "out/eval", "--eval_subset", "validation", "--num_shards", 1,
             "--tfds_metadata")  # fmt: skip
    assert step(points, images, *flags, save="out/train").code == 0
    features = json.loads((tmp_path / "out/features.json").read_text())["featuresDict"]["features"]
    for name in ("train", "eval"):
        for record in read_back(tmp_path / f"out/{name}-00000-of-00001"):
            assert len(record["image/object/mask"]) == len(record["image/object/bbox/xmin"])
            assert set(record) == set(features)


def test_masks_of_step_5_are_in_the_records_as_they_are(step, script, tmp_path, real_files):
    """Turned and padded with their images; with OPEN_IMAGES_FILES the fifteen official masks too."""
    sizes = {"a000": (640, 480), "b111": (480, 640)}
    shape = ("corner", (0.3, 0.1, 0.95, 0.8))
    points = real_masks(real_files / "efoks_masks", tmp_path) if real_files else []
    real = sum(len(point["annotations"]) for point in points)
    (tmp_path / "photos").mkdir(exist_ok=True)
    for image_id, size in sizes.items():
        (tmp_path / f"photos/{image_id}.jpg").write_bytes(photo(size=size))
        points.append(masked_point(image_id, [f"{image_id}_1.png", "gone.png", None], rotation=90))
    members = {f"{image_id}_1.png": png(drawn(shape, size)) for image_id, size in sizes.items()}
    write_zips(tmp_path / "masks", members, split="validation")
    write_points(tmp_path / "from_3.json", points)
    outcome = script(
        "process_images", "--image_directory", tmp_path / "photos", "--image_saving_directory", tmp_path / "images",
        "--datapoints_input_path", tmp_path / "from_3.json", "--datapoints_output_path", tmp_path / "from_5.json",
        "--masks_directory", tmp_path / "masks", "--rotate_upright", "--fit", "pad", "--workers", 1,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    outcome = step((tmp_path / "from_5.json").read_text(), {}, "--verify")
    assert outcome.counts.items() >= {"records": len(points), "boxes": real + 6, "masks": real + 2}.items()
    expected = read_masks(tmp_path / "from_5.json")
    for record in read_back(tmp_path / "out/data.tfrecord"):
        masks = expected[record["image/source_id"][0].decode()]
        assert record["image/object/mask/weight"] == [float(mask is not None) for mask in masks]
        for encoded, mask in zip(record["image/object/mask"], masks, strict=True):
            with Image.open(io.BytesIO(encoded)) as found:
                np.testing.assert_array_equal(found, np.zeros((256, 256)) if mask is None else mask)


UNUSABLE = {
    "the name of a file": (
        "a1_m01yrx_0.png",
        "points.json: image a1: annotation 2 (/m/01yrx): the mask is still the name of a file "
        "('a1_m01yrx_0.png'); run process_images.py with --masks_directory",
    ),
    "of another size": (
        mask_of((30, 40), AREA),
        "points.json: image a1: annotation 2 (/m/01yrx): the mask has 30x40 pixels, but the image 40x30; give the "
        "datapoints and images of one run of process_images.py",
    ),
    "runs that end early": (
        {"size": [30, 40], "counts": "04P0"},
        "image a1: a mask of /m/01yrx is not COCO's run-length encoding of 40x30 pixels: 04P0",
    ),
    "runs that end late": (
        {"size": [30, 40], "counts": "oooooooooo"},
        "image a1: a mask of /m/01yrx is not COCO's run-length encoding of 40x30 pixels: oooooooooo",
    ),
    "another alphabet": (
        {"size": [30, 40], "counts": "xyz"},
        "points.json:1: Expected `str` matching regex '^[0-o]+\\\\Z' - at `$.annotations[1].mask.counts`: 'xyz'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("mask", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_mask_that_cannot_be_used_is_one_line(step, tmp_path, mask, message):
    points = [{"id": "a1", "annotations": [annotation(DOG), annotation(CAT, mask=mask)]}]
    outcome = step(points, IMAGES)
    assert outcome.code == 1
    assert outcome.err.startswith("record_maker.py: ")
    assert outcome.err.endswith(f"{message}\n")
    assert outcome.err.count("\n") == 1
    assert not list((tmp_path / "out").glob("data.tfrecord"))
