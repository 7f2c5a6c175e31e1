"""Step 7 with --verify: sound files are counted, and damaged or wrong records are named."""

import bisect
import hashlib
import struct
from typing import Any

import pytest
from PIL import Image

from common.records.examples import example_features
from tests.support.step7 import CAT, annotation, many, mask_of, photo, png, record_work
from tests.support.step7 import step as step


def test_sound_files_are_verified(step, tmp_path):
    outcome = step(*many(7), "--num_shards", 3, "--verify")
    counts = outcome.counts
    assert outcome.code == 0
    assert (
        (counts["verified_records"], counts["verified_boxes"])
        == (counts["records"], counts["boxes"])
        == (7, 13)
    )
    assert counts["verified_bytes"] == counts["bytes"]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_flipped_byte_anywhere_is_found_and_named(step, tmp_path, compression):
    points, images = many(2)
    flags = ("--num_shards", 1, "--verify", "--compression", compression)
    assert step(points, images, *flags).code == 0
    path = tmp_path / "out/data.tfrecord-00000-of-00001"
    sound = path.read_bytes()
    starts = [0]
    while compression == "none" and starts[-1] < len(sound):
        (length,) = struct.unpack_from("<Q", sound, starts[-1])
        starts.append(starts[-1] + 16 + length)
    for position in [*range(24), *range(24, len(sound), 97), len(sound) - 1]:
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        outcome = step(points, {}, *flags)
        assert outcome.code == 1
        assert outcome.err.endswith("1 of 1 files are damaged; remove them and run the same command again\n")
        record = f": record {bisect.bisect_right(starts, position)}: " if compression == "none" else ": "
        assert outcome.err.startswith(f"{path}{record}"), (position, outcome.err)
        assert "{" not in outcome.err  # TensorFlow's own names: a user can do nothing with them
        assert outcome.err.count("\n") == 2


def test_a_record_of_something_else_is_found_and_named(step, tmp_path):
    import tensorflow as tf

    points, images = many(3)
    assert step(points, images, "--verify").code == 0
    path = tmp_path / "out/data.tfrecord"
    first, *others = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(first)
        writer.write(b"\n" * (sum(map(len, others)) + 16))  # a file of another size would be made anew
    outcome = step(points, {}, "--verify")
    assert outcome.code == 1
    assert outcome.err.startswith(f"{path}: record 2: not a tf.train.Example\n")


def test_records_with_wrong_features_are_found():
    from common.records.verify import record_problem

    image = photo(size=(40, 30))
    texts = {CAT: CAT}
    labels = [{"label": CAT, "confidence": 1}]
    work = record_work({"id": "a1", "annotations": [annotation()], "image_labels": labels}, (40, 30))

    boxes = [annotation(mask=mask_of((40, 30), (4, 4, 12, 9))), annotation()]
    masked = record_work({"id": "a1", "annotations": boxes}, (40, 30))
    grey, small = Image.new("L", (40, 30)), Image.new("L", (30, 40))

    def mask_problem(**changes: list[Any]) -> str | None:
        record = example_features(masked, image, {CAT: 1}, texts, missing_masks="empty")
        record |= {f"image/object/{name}": values for name, values in changes.items()}
        return record_problem(record, {1: CAT.encode()}, masked=True)

    assert mask_problem() is None
    for masks, message in (
        ([png(grey)], "the lists of boxes differ in length"),
        ([png(grey), b""], "mask 2 cannot be decoded"),
        ([png(grey), png(grey)[:-20]], "mask 2 cannot be decoded"),
        ([png(small), png(grey)], "mask 1 has 30x40 pixels, the image 40x30"),
        ([png(grey), png(grey.point([255] * 256))], "mask 2 is not 8-bit grey of 0 and 1"),
        ([png(grey), png(grey.convert("1"))], "mask 2 is not 8-bit grey of 0 and 1"),
        ([png(grey), png(grey.convert("RGB"))], "mask 2 is not 8-bit grey of 0 and 1"),
    ):
        assert message in str(mask_problem(mask=masks)), message
    record = example_features(work, image, {CAT: 1}, texts)
    assert "'image/object/mask'" in str(record_problem(record, {1: CAT.encode()}, masked=True))

    def problem(**changes: list[Any]) -> str | None:
        record = example_features(work, image, {CAT: 1}, texts)
        for name, values in changes.items():
            record["image/" + name.replace("__", "/")] = values
        return record_problem(record, {1: CAT.encode()})

    assert problem() is None
    broken = image[:300] + b"<html>"
    broken_sha256 = [hashlib.sha256(broken).hexdigest().encode()]
    for changes, message in (
        ({"encoded": [broken]}, "the image is not the one that was written"),
        ({"encoded": [broken], "key__sha256": broken_sha256}, "the image cannot be decoded"),
        ({"width": [41]}, "the image has 40x30 pixels, the record says 41x30"),
        ({"width": []}, "a feature is missing or not single"),
        ({"object__bbox__xmin": [-0.1]}, "a box from (-0.1, 0.125) to (0.5, 0.75), inside"),
        ({"object__bbox__xmin": [0.7]}, "a box from (0.7, 0.125) to (0.5, 0.75), inside"),
        ({"object__weight": []}, "the lists of boxes differ in length"),
        ({"object__class__label": [2]}, "class 2 with the text"),
        ({"class__label": [2]}, "class 2 with the text"),
        ({"class__confidence": []}, "the lists of image labels differ in length (1, 1, 0)"),
        ({"object__class__text": [b"/m/0"]}, "class 1 with the text b'/m/0' is not in the label map"),
    ):
        assert message in str(problem(**changes)), changes
