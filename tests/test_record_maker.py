"""Step 7: every feature of every record, read back by tf.data, and interrupted runs."""

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common import cli
from common.records import shards
from common.records.examples import example_features
from tests.conftest import ROOT
from tests.support.downloads import no_file_above
from tests.support.running import wait_in_run
from tests.support.step7 import CAT, DOG, TREE, annotation, many, mask_of, photo, read_back, record_work
from tests.support.step7 import step as step


def test_a_record_has_every_feature_that_the_readers_know(step, tmp_path):
    from google.protobuf import text_format

    image = photo()
    boxes = [
        annotation(CAT, occluded=1, truncated=0, group_of=1, depiction=0, inside=-1, source="xclick"),
        annotation(DOG, group_of=-1, x0="0.5", x1=1),
    ]
    labels = [
        {"label": DOG, "confidence": 1},
        {"label": CAT, "confidence": 0},
        {"label": TREE, "confidence": 1},
    ]
    outcome = step([{"id": "a1", "annotations": boxes, "image_labels": labels}], {"a1.jpg": image})
    assert (outcome.code, outcome.messages) == (0, "")
    import tensorflow as tf

    (raw,) = tf.data.TFRecordDataset(str(tmp_path / "out/data.tfrecord")).as_numpy_iterator()
    example = tf.train.Example.FromString(raw)
    assert example.features.feature.pop("image/encoded").bytes_list.value == [image]
    assert example == text_format.Parse(golden(hashlib.sha256(image).hexdigest()), tf.train.Example())


def golden(sha256: str) -> str:
    """Return the record above in protobuf's text format, without its image."""
    features = {
        "image/format": 'bytes_list { value: "jpeg" }',
        "image/filename": 'bytes_list { value: "a1.jpg" }',
        "image/source_id": 'bytes_list { value: "a1" }',
        "image/key/sha256": f'bytes_list {{ value: "{sha256}" }}',
        "image/height": "int64_list { value: 30 }",
        "image/width": "int64_list { value: 40 }",
        "image/object/bbox/xmin": "float_list { value: 0.25 value: 0.5 }",
        "image/object/bbox/xmax": "float_list { value: 0.5 value: 1 }",
        "image/object/bbox/ymin": "float_list { value: 0.125 value: 0.125 }",
        "image/object/bbox/ymax": "float_list { value: 0.75 value: 0.75 }",
        "image/object/class/label": "int64_list { value: 2 value: 1 }",
        "image/object/class/text": f'bytes_list {{ value: "{CAT}" value: "{DOG}" }}',
        "image/object/group_of": "int64_list { value: 1 value: 0 }",
        "image/object/is_crowd": "int64_list { value: 1 value: 0 }",
        "image/object/area": "float_list { value: 187.5 value: 375 }",
        "image/object/difficult": "int64_list { value: 0 value: 0 }",
        "image/object/weight": "float_list { value: 1 value: 1 }",
        "image/object/occluded": "int64_list { value: 1 value: -1 }",
        "image/object/truncated": "int64_list { value: 0 value: -1 }",
        "image/object/depiction": "int64_list { value: 0 value: -1 }",
        "image/object/inside": "int64_list { value: -1 value: -1 }",
        "image/class/label": "int64_list { value: 1 value: 2 }",
        "image/class/text": f'bytes_list {{ value: "{DOG}" value: "{CAT}" }}',
        "image/class/confidence": "float_list { value: 1 value: 0 }",
    }
    entries = (f'feature {{ key: "{name}" value {{ {value} }} }}' for name, value in features.items())
    return f"features {{ {' '.join(entries)} }}"


def test_every_record_equals_its_datapoint(step, tmp_path):
    points, images = many(23)
    assert step(points, images, "--num_shards", 5).code == 0
    shards = sorted((tmp_path / "out").glob("data.tfrecord-*"))
    assert [shard.name for shard in shards] == [f"data.tfrecord-{index:05d}-of-00005" for index in range(5)]
    records = [read_back(shard) for shard in shards]
    assert sorted(map(len, records)) == [4, 4, 5, 5, 5]
    by_id = {record["image/source_id"][0].decode(): record for shard in records for record in shard}
    assert set(by_id) == {point["id"] for point in points}
    for index, point in enumerate(points):
        record = by_id[point["id"]]
        assert record["image/encoded"] == [images[f"{point['id']}.jpg"]]
        assert (record["image/width"], record["image/height"]) == ([20 + index], [30])
        assert record["image/object/class/label"] == [2 if index % 2 else 1] * (index % 3 + 1)
        assert len({len(values) for name, values in record.items() if name.startswith("image/object/")}) == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 0.49), st.floats(0.2, 1), st.sampled_from([-1, 0, 1, "1", None])), max_size=5
    )
)
def test_lists_of_boxes_have_one_length_whatever_is_annotated(rows):
    boxes = [annotation(x0=x, y1=y, **({} if flag is None else {"inside": flag})) for x, y, flag in rows]
    features = example_features(
        record_work({"id": "a", "annotations": boxes}, (4, 4)), b"", {CAT: 1}, {CAT: CAT}
    )
    assert {len(values) for name, values in features.items() if "/object/" in name} == {len(rows)}
    assert features["image/object/inside"] == [-1 if flag is None else int(flag) for _, _, flag in rows]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_workers_do_not_change_a_byte(step, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RECORDS_A_PROCESS", 6)  # fewer are written by one process
    points, images = many(12)
    assert step(points, images, "--num_shards", 3).code == 0
    assert step(points, images, "--num_shards", 3, "--workers", 2, save="two/data.tfrecord").code == 0
    assert files(tmp_path / "out") == files(tmp_path / "two")


def test_a_second_run_writes_only_missing_files(step, tmp_path):
    points, images = many(6)
    assert step(points, images, "--num_shards", 3).code == 0
    before = files(tmp_path / "out")
    kept, gone, short = sorted((tmp_path / "out").glob("data.tfrecord-*"))
    kept_status = kept.stat()
    gone.unlink()
    short.write_bytes(b"half")
    assert step(points, {}, "--num_shards", 3).code == 0
    assert files(tmp_path / "out") == before
    assert kept.stat().st_mtime_ns == kept_status.st_mtime_ns
    assert kept.stat().st_ino == kept_status.st_ino


CHANGES = {
    "other number of shards": {"flags": ("--num_shards", 2)},
    "one file": {"flags": ()},
    "other datapoints": {"points": many(5)[0]},
    "other photo": {"images": {"p0.jpg": photo(size=(99, 99))}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_inputs_write_all_files_and_leave_no_older_shard(step, tmp_path, change):
    points, images = many(6)
    assert step(points, images, "--num_shards", 3).code == 0
    changed = change.get("points", points), change.get("images", {})
    flags = change.get("flags", ("--num_shards", 3))
    assert step(*changed, *flags).code == 0
    assert step(*changed, *flags, save="fresh/data.tfrecord").code == 0
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_losses_are_counted_and_named(step, tmp_path):
    points = [
        {"id": name, "annotations": [annotation()]}
        for name in ("ok", "gone", "grey", "cmyk", "gif", "text", "ok")
    ]
    points.append({"id": "tree", "annotations": [annotation(TREE)]})
    points.append({"id": "png", "annotations": [annotation(), annotation(TREE)]})
    images = {
        "ok.jpg": photo(), "grey.jpg": photo("L"), "cmyk.jpg": photo("CMYK"), "gif.jpg": photo("P", (4, 4), "GIF"),
        "text.jpg": b"<html>", "tree.jpg": photo(), "png.png": photo(image_format="PNG"),
    }  # fmt: skip
    outcome = step(points, images)
    assert outcome.code == 0
    assert outcome.messages == "4 images are not RGB JPEGs or PNGs: run process_images.py first\n"
    (size,) = {path.stat().st_size for path in (tmp_path / "out").glob("data.tfrecord")}
    assert outcome.counts == {
        "images": 9, "records": 2, "boxes": 2, "files": 1, "bytes": size, "missing": 1, "not_rgb": 4, "without_boxes": 1, "other_labels": 0,
        "other_classes": 2, "repeated_ids": 1,
    }  # fmt: skip
    first, second = read_back(tmp_path / "out/data.tfrecord")
    assert first["image/format"] == [b"jpeg"]
    assert (second["image/format"], second["image/filename"]) == ([b"png"], [b"png.png"])


def test_an_image_with_verified_labels_and_no_box_is_a_record(step, tmp_path):
    labels = [{"label": CAT, "confidence": 0}]
    points = [{"id": "a1", "annotations": [], "image_labels": labels}, {"id": "a2", "annotations": []}]
    outcome = step(points, {"a1.jpg": photo(), "a2.jpg": photo()})
    assert outcome.counts.items() >= {"records": 1, "boxes": 0, "without_boxes": 1}.items()
    (record,) = read_back(tmp_path / "out/data.tfrecord")
    assert (record["image/class/text"], record["image/class/confidence"]) == ([CAT.encode()], [0.0])
    assert record["image/object/class/label"] == []


def test_images_without_boxes_are_background_if_asked_for(step, tmp_path):
    """One without boxes, one with boxes of other classes alone; with masks too, and in the COCO file."""
    mask = mask_of((40, 30), (10, 4, 20, 22))
    points = [
        {"id": "a1", "width": 40, "height": 30, "annotations": [annotation(mask=mask)]},
        {"id": "a2", "annotations": []},
        {"id": "a3", "annotations": [annotation(TREE)]},
        {"id": "gone", "annotations": []},
    ]
    images = {f"a{number}.jpg": photo() for number in (1, 2, 3)}
    assert step(points, images).counts.items() >= {"records": 1, "without_boxes": 3}.items()
    flags = (
        "--keep_without_boxes",
        "--verify",
        "--coco_path",
        tmp_path / "coco.json",
        "--report_path",
        tmp_path / "r.html",
    )
    outcome = step(points, images, *flags)
    expected = {
        "records": 3,
        "records_without_boxes": 2,
        "without_boxes": 0,
        "missing": 1,
        "other_classes": 1,
    }
    assert outcome.counts.items() >= (expected | {"verified_records": 3, "boxes": 1}).items()
    first, *background = read_back(tmp_path / "out/data.tfrecord")
    for record in background:
        assert record.keys() == first.keys()
        assert not any(values for name, values in record.items() if "/object/" in name or "/class/" in name)
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert [image["open_images_id"] for image in coco["images"]] == ["a1", "a2", "a3"]
    assert [box["image_id"] for box in coco["annotations"]] == [coco["images"][0]["id"]]


def test_values_of_unknown_keys_do_not_matter(step, tmp_path):
    boxes = [annotation(note=[1], serial=10**30, truncated="1", inside=1.0)]
    points = json.dumps([{"id": "a1", "annotations": boxes, "note": None}])
    assert step(points, {"a1.jpg": photo()}).code == 0
    (record,) = read_back(tmp_path / "out/data.tfrecord")
    found = {name: record[f"image/object/{name}"] for name in ("occluded", "truncated", "inside")}
    assert found == {"occluded": [-1], "truncated": [1], "inside": [1]}


def test_an_image_that_step_5_did_not_write_is_one_line(step, tmp_path):
    """Its datapoint has a width and height, so its header is only read with the rest of it."""
    points = [{"id": "a1", "width": 40, "height": 30, "annotations": [annotation()]}]
    outcome = step(points, {"a1.jpg": photo("L")})
    assert outcome.code == 1
    assert outcome.err == (
        f"record_maker.py: {tmp_path}/images/a1.jpg: not an RGB JPEG or PNG, but its datapoint has "
        "40x30; run process_images.py again, and give the datapoints and images of one run\n"
    )
    assert not list((tmp_path / "out").glob("data.tfrecord"))


def test_an_image_of_another_size_than_its_datapoint_is_one_line(step, tmp_path):
    """From an earlier run of step 5 with another --fit: nothing else shows that the boxes are wrong."""
    points = [{"id": "a1", "width": 40, "height": 30, "annotations": [annotation()]}]
    outcome = step(points, {"a1.jpg": photo(size=(50, 20))})
    assert (outcome.code, outcome.err) == (
        1, f"record_maker.py: {tmp_path}/images/a1.jpg: 50x20 pixels, but its datapoint has 40x30; run "
        "process_images.py again, and give the datapoints and images of one run\n",
    )  # fmt: skip
    assert not list((tmp_path / "out").glob("data.tfrecord"))
    assert step(points, {"a1.jpg": photo()}).code == 0


def test_a_png_that_pillow_does_not_open_is_not_used(step, tmp_path):
    """A compressed comment larger than Pillow accepts, in an image that step 5 has not processed."""
    stream, comment = io.BytesIO(), PngInfo()
    comment.add_text("comment", "x" * 3_000_000, zip=True)
    Image.new("RGB", (40, 30)).save(stream, "PNG", pnginfo=comment)
    points = [*POINT, {"id": "a2", "annotations": [annotation()]}]
    outcome = step(points, {"a1.png": stream.getvalue(), "a2.jpg": photo()})
    assert outcome.code == 0, outcome.err
    assert outcome.counts.items() >= {"records": 1, "not_rgb": 1}.items()


def test_an_image_in_two_formats_is_one_line(step, tmp_path):
    photos = {"a1.jpg": photo(), "a1.png": photo(image_format="PNG")}
    assert step(POINT, photos).err == (
        f"record_maker.py: {tmp_path}/images: a1.jpg and a1.png both exist; remove the files of an "
        "earlier run\n"
    )


def test_records_that_cannot_be_written_are_one_line(step, tmp_path):
    """A limit on the size of files stands in for a full disk: TensorFlow's writer raises no OSError."""
    points, images = many(200)
    assert step(points, images).code == 0
    with no_file_above(65536):
        ended = step(points, {}, save="full/data.tfrecord")
    assert (ended.code, ended.messages) == (
        1, f"record_maker.py: {tmp_path}/full/data.tfrecord: File too large\n"
    )  # fmt: skip
    assert not list((tmp_path / "full").glob("*.tfrecord*part")) + list(
        (tmp_path / "full").glob("*.tfrecord")
    )


def test_an_image_that_changes_during_the_run_is_one_line(step, tmp_path, monkeypatch):
    """Shards were dealt by the sizes that the images had when the run began."""

    def check_and_change(*given: object) -> None:
        (tmp_path / "images/a1.jpg").write_bytes(photo(size=(50, 20)))

    monkeypatch.setattr("common.records.work_list.check_enough", check_and_change)
    outcome = step(POINT, {"a1.jpg": photo(size=(400, 300))})
    assert outcome.code == 1
    assert outcome.err == (
        f"record_maker.py: {tmp_path}/images/a1.jpg: changed while the records were made; "
        "run the same command again\n"
    )
    assert not list((tmp_path / "out").glob("data.tfrecord"))


POINT = [{"id": "a1", "annotations": [annotation()]}]
EVIL = {
    "no photo": (POINT, "no record can be made of its 1 images: 1 missing"),
    "no class": (
        [{"id": "a1", "annotations": [annotation(TREE)]}],
        "1 without a box or verified label of a trainable class",
    ),
    "empty array": ([], "points.json: no images in it"),
    "empty file": ("", "points.json: no images in it"),
    "not JSON": ("id,url\n", "points.json:1: not JSON (Expecting value)"),
    "cut short": (
        json.dumps(POINT)[:-1],
        "points.json:1: the file ends in the middle of an array or object; is it cut short?",
    ),
    "a number": (
        "[\n1\n]",
        "points.json:2: Expected `object`, got `int`: 1",
    ),
    "path for an id": (
        [{"id": "../a", "annotations": []}],
        "at `$.id`: '../a'",
    ),
    "no annotations": (
        [{"id": "a1"}],
        "points.json:1: Object missing required field `annotations`: {'id': 'a1'}",
    ),
    "no label": (
        [{"id": "a1", "annotations": [{}]}],
        "Object missing required field `label` - at `$.annotations[0]`: {}",
    ),
    "outside the image": (
        [{"id": "a1", "annotations": [annotation(x1=1.5)]}],
        "Expected `float` <= 1.0 - at `$.annotations[0].x1`: 1.5",
    ),
    "no width": (
        [{"id": "a1", "annotations": [annotation(x1=0.25)]}],
        "Expected x0 < x1 and y0 < y1 - at `$.annotations[0]`: {",
    ),
}


@pytest.mark.parametrize(("points", "message"), EVIL.values(), ids=EVIL)
def test_bad_input_is_one_line_and_no_file(step, tmp_path, points, message):
    outcome = step(points, {})
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_bad_run_leaves_the_old_records_alone(step, tmp_path):
    assert step(*many(3), "--num_shards", 2).code == 0
    before = files(tmp_path / "out")
    assert step("[", {}, "--num_shards", 2).code == 1
    assert files(tmp_path / "out") == before


def test_too_many_failures_are_an_error(step, tmp_path):
    points, images = many(4)
    del images["p3.jpg"]
    assert step(points, images, "--max_failures", "25%").code == 0
    outcome = step(points, images, "--max_failures", 0)
    assert (outcome.code, outcome.err) == (
        1, "record_maker.py: 1 of 4 images failed, --max_failures is 0\n",
    )  # fmt: skip


def test_a_killed_run_resumes_and_ends_as_an_undisturbed_one(step, tmp_path):
    number = 1500
    points, _ = many(number)
    data = photo(size=(64, 64))
    images = {f"p{index}.jpg": data for index in range(number)}
    flags = ("--num_shards", 60)
    assert step(points, images, *flags, save="calm/data.tfrecord").code == 0
    arguments = (
        "--points_path", "points.json", "--saved_images_directory", "images", "--trainable_classes_path",
        "classes.txt", "--record_save_path", "cut/data.tfrecord", "--workers", "1", "--num_shards", "60",
    )  # fmt: skip
    command = [sys.executable, str(ROOT / "record_maker.py"), *arguments]
    cut = tmp_path / "cut"
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_in_run(process, lambda: len(list(cut.glob("data.tfrecord-*"))) >= 12)
        process.kill()
    done = len(list(cut.glob("data.tfrecord-*")))
    assert 6 <= done <= 54
    before = {path: path.stat().st_ino for path in cut.glob("data.tfrecord-*")}
    listed = {
        shard["file"] for shard in json.loads((cut / "data.tfrecord.manifest.json").read_text())["shards"]
    }
    assert step(points, {}, *flags, save="cut/data.tfrecord").code == 0
    assert files(cut) == files(tmp_path / "calm")
    assert all(path.stat().st_ino == inode for path, inode in before.items() if path.name in listed)
    assert len(listed) >= done - 1


# --- names as class texts --------------------------------------------------------------------------------


def test_names_in_records_are_those_of_the_label_map(step, script, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text(f"{CAT},Bench\n{DOG},Bench\n{TREE},Tree\n")
    points, images = many(2)
    assert step(points, images, "--class_text", "name", "--class_description_path", names).code == 0
    texts = {
        (label, text)
        for record in read_back(tmp_path / "out/data.tfrecord")
        for label, text in zip(
            record["image/object/class/label"], record["image/object/class/text"], strict=True
        )
    }
    assert texts == {(1, f"Bench ({DOG})".encode()), (2, f"Bench ({CAT})".encode())}
    outcome = script(
        "create_label_map", "--trainable_classes_path", tmp_path / "classes.txt", "--class_description_path", names,
        "--label_map_save_path", tmp_path / "map.pbtxt", "--name_field", "name",
    )  # fmt: skip
    assert outcome.code == 0
    assert (tmp_path / "map.pbtxt").read_text() == (
        f'item {{\n  name: "Bench ({DOG})"\n  id: 1\n  display_name: "Bench"\n}}\n'
        f'item {{\n  name: "Bench ({CAT})"\n  id: 2\n  display_name: "Bench"\n}}\n'
    )


BAD_LABELS = {
    "no array": (3, "Expected `array`, got `int` - at `$.image_labels`: 3"),
    "no label": (
        [{"confidence": 1}],
        "Object missing required field `label` - at `$.image_labels[0]`: {'confidence': 1}",
    ),
    "no confidence": (
        [{"label": CAT}],
        "Object missing required field `confidence` - at `$.image_labels[0]`: {",
    ),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_image_labels_are_one_line(step, labels, message):
    outcome = step([{"id": "a1", "annotations": [annotation()], "image_labels": labels}], {"a1.jpg": photo()})
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_progress_has_the_number_of_datapoints_and_records(step, monkeypatch):
    monkeypatch.setattr(cli, "LINE_SECONDS", 0)
    points, images = many(5)
    err = step("\n".join(map(json.dumps, points)), images).err
    assert re.search(r"checking images: 100%\|#+\| 5/5 ", err)
    assert re.search(r"writing data.tfrecord: 100%\|#+\| 5/5 ", err)
