"""Step 7's records in light readers, and the metadata for TFDS; heavy readers are in test_interop.py."""

import io
import json
import pickle
import subprocess
import sys

import pytest
from PIL import Image

from tests.support.step7 import CAT, DOG, annotation, many, photo, read_back
from tests.support.step7 import step as step


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_reader_of_pytorch_users(step, tmp_path, compression):
    """The package tfrecord, in a process without TensorFlow; one record has no boxes."""
    points, images = many(5)
    points.append({"id": "a1", "annotations": [], "image_labels": [{"label": CAT, "confidence": 0}]})
    assert step(points, images | {"a1.jpg": photo()}, "--compression", compression).code == 0
    code = """
import pickle, sys
from tfrecord.reader import tfrecord_loader
records = list(tfrecord_loader(sys.argv[1], None, None, compression_type={"none": None}.get(sys.argv[2], sys.argv[2])))
assert "tensorflow" not in sys.modules
sys.stdout.buffer.write(pickle.dumps({record["image/source_id"].decode(): record for record in records}))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out/data.tfrecord"), compression]
    found = pickle.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert set(found) == {point["id"] for point in points}
    for point in points[:-1]:
        record, boxes = found[point["id"]], point["annotations"]
        assert record["image/encoded"] == images[f"{point['id']}.jpg"]
        with Image.open(io.BytesIO(record["image/encoded"])) as image:
            assert (record["image/width"].item(), record["image/height"].item()) == image.size
        assert record["image/object/bbox/xmin"].tolist() == [box["x0"] for box in boxes]
        assert record["image/object/bbox/ymax"].tolist() == [box["y1"] for box in boxes]
        numbers = [{DOG: 1, CAT: 2}[box["label"]] for box in boxes]
        assert record["image/object/class/label"].tolist() == numbers
        texts = record["image/object/class/text"]  # this reader unpacks lists of one
        assert ([texts] if isinstance(texts, bytes) else texts.tolist()) == [
            box["label"].encode() for box in boxes
        ]
    assert found["a1"]["image/object/class/label"].size == 0
    assert found["a1"]["image/class/confidence"].tolist() == [0.0]


# --- TFDS ------------------------------------------------------------------------------------------------


def test_the_metadata_for_tfds_match_the_files(step, tmp_path):
    points, images = many(7)
    for point, subset in zip(points, ("train", "train", "test") * 3, strict=False):
        point["subset"] = subset
    flags = ("--num_shards", 2, "--tfds_metadata", "--eval_subset", "test", "--eval_record_save_path")
    assert step(points, images, *flags, tmp_path / "out/eval.tfrecord", save="out/train.tfrecord").code == 0
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())
    assert info["fileFormat"] == "tfrecord"
    sizes = {
        split["name"]: [
            sum(path.stat().st_size for path in (tmp_path / "out").glob(f"{split['name']}.tfrecord-*")),
            split["shardLengths"],
        ]
        for split in info["splits"]
    }
    assert [split["numBytes"] for split in info["splits"]] == [
        str(sizes[name][0]) for name in ("eval", "train")
    ]
    assert [lengths for _, lengths in sizes.values()] == [["1", "1"], ["3", "2"]]
    assert [split["filepathTemplate"] for split in info["splits"]] == [
        "eval.tfrecord-{SHARD_X_OF_Y}", "train.tfrecord-{SHARD_X_OF_Y}",
    ]  # fmt: skip
    features = json.loads((tmp_path / "out/features.json").read_text())["featuresDict"]["features"]
    records = read_back(*(tmp_path / "out").glob("train.tfrecord-*"))
    for record in records:
        assert set(record) == set(features)
        for name, feature in features.items():
            assert "sequence" in feature or len(record[name]) == 1, name


def test_a_later_run_keeps_the_splits_of_earlier_runs(step, tmp_path):
    points, images = many(4)
    flags = ("--num_shards", 1, "--tfds_metadata")

    def splits() -> dict[str, list[str]]:
        info = json.loads((tmp_path / "out/dataset_info.json").read_text())
        return {split["name"]: split["shardLengths"] for split in info["splits"]}

    assert step(points[:3], images, *flags, save="out/train.tfrecord").code == 0
    assert step(points[3:], images, *flags, save="out/test.tfrecord").code == 0
    assert splits() == {"test": ["1"], "train": ["3"]}
    assert step(points, images, *flags, save="out/train.tfrecord").code == 0
    assert splits() == {"test": ["1"], "train": ["4"]}
    (tmp_path / "out/test.tfrecord-00000-of-00001").unlink()
    assert step(points, images, *flags, save="out/train.tfrecord").code == 0
    assert splits() == {"train": ["4"]}


TFDS_ERRORS = {
    "another data set": ("out/train.tfrecord", "dataset_info.json: not written by --tfds_metadata; give the records a"),
    "a name that TFDS reads otherwise": ("out/my train.tfrecord", "letters, digits, _ and - were expected"),
    "the name of all splits": ("out/all.tfrecord", "letters, digits, _ and - were expected, and not all"),
}  # fmt: skip


@pytest.mark.parametrize(("save", "message"), TFDS_ERRORS.values(), ids=TFDS_ERRORS)
def test_names_that_tfds_cannot_read_are_refused_before_anything_is_written(step, tmp_path, save, message):
    (tmp_path / "out").mkdir()
    if "not written" in message:
        (tmp_path / "out/dataset_info.json").write_text('{"name": "mnist", "splits": []}')
    before = sorted(tmp_path.glob("out/*"))
    points = [{"id": "a1", "annotations": [annotation()]}]
    outcome = step(points, {"a1.jpg": photo()}, "--num_shards", 1, "--tfds_metadata", save=save)
    assert outcome.code == 1
    assert message in outcome.err
    assert sorted(tmp_path.glob("out/*")) == before


@pytest.mark.parametrize("flags", [(), ("--num_shards", 1, "--compression", "gzip")])
def test_flags_that_tfds_does_not_support(step, flags):
    outcome = step([], {}, "--tfds_metadata", *flags)
    assert outcome.code == 2
    assert "--tfds_metadata needs --num_shards or --shard_bytes, and no --compression" in outcome.err
