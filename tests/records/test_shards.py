"""Step 7: shards of equal size, compression, and the split into training and evaluation."""

import gzip
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.records.shards import deal
from tests.support.step7 import annotation, many, read_back
from tests.support.step7 import step as step

# --- even shards -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=200), st.integers(1, 20))
def test_each_record_is_dealt_once_and_counts_differ_by_one(sizes, number):
    shards = [list(map(int, shard)) for shard in deal(sizes, number)]
    assert sorted(index for shard in shards for index in shard) == list(range(len(sizes)))
    assert all(shard == sorted(shard) for shard in shards)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    # Rounds are homogeneous: the fullest shard is ahead of the emptiest by no more than one largest record.
    totals = [sum(sizes[index] for index in shard) for shard in shards]
    assert max(totals) - min(totals) <= max(sizes)


def test_a_thousand_records_make_files_of_one_size(step, tmp_path):
    noise = random.Random(1)
    points = [
        {"id": f"p{index}", "annotations": [annotation()] * noise.randint(1, 30)} for index in range(1000)
    ]
    images = {}
    for point in points:
        side = noise.choice([16, 32, 64, 200])
        stream = io.BytesIO()
        Image.frombytes("RGB", (side, side), noise.randbytes(side * side * 3)).save(stream, "JPEG")
        images[f"{point['id']}.jpg"] = stream.getvalue()
    assert step(points, images, "--num_shards", 16).code == 0
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("data.tfrecord-*")]
    assert len(sizes) == 16
    assert max(sizes) <= 1.05 * min(sizes)


def test_the_number_of_files_can_follow_from_their_size(step, tmp_path):
    points, images = many(40)
    outcome = step(points, images, "--shard_bytes", "20K")
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("data.tfrecord-*")]
    assert outcome.counts["files"] == len(sizes) > 2
    assert all(0.5 * 20_000 < size <= 20_000 for size in sizes)


def test_compressed_records_are_the_same_records(step, tmp_path):
    points, images = many(4)
    assert step(points, images).code == 0
    assert step(points, images, "--compression", "gzip", save="packed/data.tfrecord").code == 0
    packed = (tmp_path / "packed/data.tfrecord").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "out/data.tfrecord").read_bytes()


# --- evaluation apart ------------------------------------------------------------------------------------


def ids_in(folder: Path, name: str) -> set[str]:
    paths = [path for path in folder.glob(f"{name}*") if path.suffix != ".json"]
    return {record["image/source_id"][0].decode() for record in read_back(*paths)}


def test_an_image_never_changes_sides_when_the_data_grow(step, tmp_path):
    points, images = many(60)
    for number, out in ((40, "a"), (60, "b")):
        outcome = step(
            points[:number], images, "--eval_record_save_path", tmp_path / out / "eval", "--eval_fraction", "0.3",
            "--num_shards", 2, save=f"{out}/train",
        )  # fmt: skip
        assert outcome.code == 0
        train, held = ids_in(tmp_path / out, "train-"), ids_in(tmp_path / out, "eval-")
        assert not train & held
        assert train | held == {point["id"] for point in points[:number]}
        assert outcome.counts["eval_records"] == len(held)
        assert 0.1 * number < len(held) < 0.5 * number
    assert ids_in(tmp_path / "a", "eval-") <= ids_in(tmp_path / "b", "eval-")
    assert ids_in(tmp_path / "a", "train-") <= ids_in(tmp_path / "b", "train-")


def test_a_subset_can_be_the_evaluation(step, tmp_path):
    points, images = many(6)
    for point, subset in zip(points, ("train", "validation", "test") * 2, strict=True):
        point["subset"] = subset
    flags = ("--eval_record_save_path", tmp_path / "out/eval", "--eval_subset", "validation")
    assert step(points, images, *flags, save="out/train").code == 0
    assert ids_in(tmp_path / "out", "eval") == {"p1", "p4"}
    assert ids_in(tmp_path / "out", "train") == {"p0", "p2", "p3", "p5"}


def test_a_split_with_an_empty_side_is_an_error(step, tmp_path):
    flags = ("--eval_record_save_path", tmp_path / "out/eval", "--eval_subset", "validation")
    outcome = step(*many(3), *flags)
    assert (outcome.code, outcome.err) == (
        1,
        f"record_maker.py: {tmp_path}/out/eval: the split leaves no image for this file\n",
    )
    assert not list((tmp_path / "out").iterdir())


WRONG_FLAGS = {
    "fraction without a path": (("--eval_fraction", "0.1"), "--eval_record_save_path goes with --eval_fraction or"),
    "path without a rule": (("--eval_record_save_path", "e"), "--eval_record_save_path goes with --eval_fraction or"),
    "two rules": (("--eval_fraction", "0.1", "--eval_subset", "test"), "not allowed with argument --eval_fraction"),
    "all of it": (("--eval_fraction", "1.0"), "'1.0' is not a fraction between 0 and 1, such as 0.1"),
    "none of it": (("--eval_fraction", "0.0"), "'0.0' is not a fraction between 0 and 1, such as 0.1"),
    "no bytes": (("--shard_bytes", "0M"), "'0M' is not a number of bytes such as 500K, 100M or 2G"),
    "both": (("--shard_bytes", "1M", "--num_shards", "2"), "not allowed with argument --shard_bytes"),
    "no names": (("--class_text", "name"), "--class_text name needs --class_description_path"),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "message"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_flags_that_contradict_each_other(step, flags, message):
    outcome = step(*many(1), *flags)
    assert outcome.code == 2
    assert message in outcome.err
