"""All seven steps on the sample release, as make_dataset.sh chains them."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from common.records.shards import load_tensorflow  # without Keras, which would take a third of its time
from sample.classes import BY_LABEL
from sample.masks import path_of
from sample.release import SPLITS
from sample.serve import serving
from tests.conftest import ROOT
from tests.support.downloads import children, wait_gone
from tests.support.sample_release import V7_INDEX


def run_all(addresses, data: Path, out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, **addresses.environment(), "PYTHON": sys.executable, "DATA": str(data), "OUT": str(out), **settings,
    }  # fmt: skip
    return subprocess.run(
        ["sh", str(ROOT / "make_dataset.sh")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")  # journals and locks of the steps
    }


@pytest.fixture(scope="module")
def sample(sample_directory, tmp_path_factory):
    folder = shutil.copytree(sample_directory, tmp_path_factory.mktemp("served") / "sample")
    with serving(folder) as addresses:
        yield folder, addresses


@pytest.fixture(scope="module")
def truth(sample):
    return {image["id"]: image for image in json.loads((sample[0] / "truth.json").read_text())["images"]}


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory):
    """Return the folder of a run with masks on V7's train split, with one worker everywhere, and its stdout."""
    folder = tmp_path_factory.mktemp("made")
    result = run_all(
        sample[1], folder / "data", folder / "out", MASKS="1", NUM_SHARDS="3", DOWNLOAD_FLAGS="--threads 1",
        PROCESS_FLAGS="--workers 1", RECORD_FLAGS="--workers 1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_an_interrupted_run_many_workers_and_a_further_run_give_the_same_bytes(sample, made, tmp_path):
    """The signal reaches the shell alone, as in a container; a server that never answers holds the step."""
    settings = {
        "MASKS": "1", "NUM_SHARDS": "3", "DOWNLOAD_FLAGS": "--threads 16", "PROCESS_FLAGS": "--workers 3",
        "RECORD_FLAGS": "--workers 2",
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            ["sh", str(ROOT / "make_dataset.sh")],
            env={**os.environ, **sample[1].environment(), "PYTHON": sys.executable, "DATA": str(tmp_path / "data"),
                 "OUT": str(tmp_path / "out"), **settings, "MIRROR_URL": url},
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        silent.settimeout(60)
        with silent.accept()[0]:
            steps = children(process.pid)
            assert steps
            process.terminate()
            _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.splitlines()[-2].endswith(": interrupted; run the same command again")
    assert err.splitlines()[-1] == "make_dataset.sh: interrupted; run the same command again to resume"
    assert all(wait_gone(pid, 5) for pid in steps)
    for _ in range(2):
        result = run_all(sample[1], tmp_path / "data", tmp_path / "out", **settings)
        assert result.returncode == 0, result.stderr
        assert digests(tmp_path / "out") == digests(made[0] / "out")


def test_the_results_are_those_that_the_sample_predicts(made, truth):
    train = [
        image
        for image in truth.values()
        if image["subset"] == "train" and image["indexed"] and image["boxes"]
    ]
    out = made[0] / "out/train"
    photos = {path.stem for path in (out / "photos").glob("*.jpg")}
    assert photos == {image["id"] for image in train if image["download"] == "ok"}
    resized = {path.stem for path in (out / "resized").glob("*.jpg")}
    assert resized == {image["id"] for image in train if image["process"] == "ok"}
    points = json.loads((out / "points-resized.json").read_text())
    assert {point["id"] for point in points} == resized
    for name, step in (
        ("photos/download_failures.csv", "download"),
        ("resized/process_failures.csv", "process"),
    ):
        rows = [line.split(",")[:2] for line in (out / name).read_text().splitlines()[1:]]
        assert dict(rows) == {image["id"]: image[step] for image in train if image[step] != "ok"}


def test_the_records_hold_the_drawn_boxes_in_their_colours(made, truth):
    """Each box, cut out of the record's image, has the colour of its object."""
    tf = load_tensorflow()
    mids = (made[0] / "out/classes-trainable.txt").read_text().split()
    shards = sorted(str(path) for path in (made[0] / "out/train/records").glob("train.tfrecord-*"))
    sizes = []
    seen = set()
    checked = 0
    for shard in shards:
        size = 0
        for raw in tf.data.TFRecordDataset(shard):
            size += 1
            features = tf.train.Example.FromString(raw.numpy()).features.feature
            image_id = features["image/source_id"].bytes_list.value[0].decode()
            seen.add(image_id)
            pixels = tf.io.decode_jpeg(features["image/encoded"].bytes_list.value[0], channels=3).numpy()
            assert pixels.shape[0] == features["image/height"].int64_list.value[0]
            assert pixels.shape[1] == features["image/width"].int64_list.value[0]
            assert max(pixels.shape) <= 256
            boxes = {
                (box["label"], box["x0"], box["y0"], box["x1"], box["y1"]): box
                for box in truth[image_id]["boxes"]
            }
            corners = [
                features[f"image/object/bbox/{side}"].float_list.value
                for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            drawn = [
                share_of_colour(pixels, box, boxes[text, *map(round6, box)]["colour"])
                for text, *box in zip(texts_of(features), *corners, strict=True)
                if truth[image_id]["fault"] != "grey"
                and not overlapped([round6(side) for side in box], boxes)
            ]
            assert all(share > 0.4 for share in drawn), (image_id, drawn)
            checked += len(drawn)
            labels = features["image/object/class/label"].int64_list.value
            texts = texts_of(features)
            assert [mids[label - 1] for label in labels] == texts
            assert sorted(
                (text, *map(round6, box)) for text, *box in zip(texts, *corners, strict=True)
            ) == sorted(boxes)
        sizes.append(size)
    assert max(sizes) - min(sizes) <= 1
    assert len(seen) == sum(sizes)
    assert checked >= 10


def texts_of(features) -> list[str]:
    return [text.decode() for text in features["image/object/class/text"].bytes_list.value]


def overlapped(box: list[float], boxes) -> bool:
    """Return whether another box of the image overlaps this one, x0, y0, x1, y1."""
    return any(
        box != list(other)
        and box[0] < other[2]
        and other[0] < box[2]
        and box[1] < other[3]
        and other[1] < box[3]
        for _, *other in boxes
    )


def share_of_colour(pixels, box: list[float], colour: list[int]) -> float:
    """Return the share of the pixels inside a box, x0, y0, x1, y1 from 0 to 1, with nearly this colour."""
    height, width, _ = pixels.shape
    inside = pixels[
        round(box[1] * height) : max(round(box[3] * height), 1),
        round(box[0] * width) : max(round(box[2] * width), 1),
    ]
    return float((abs(inside.astype(int) - colour).sum(axis=2) < 120).mean())


def round6(value: float) -> float:
    """Round a 32-bit coordinate of a record to the six decimals of the annotations."""
    return round(value, 6)


def test_every_setting_reaches_its_step_and_every_split(sample, tmp_path):
    """On another release: V3, whose classes and files differ from V7's."""
    data, out = tmp_path / "my data", tmp_path / "out"
    names = tmp_path / "names.csv"  # flags are split at blanks
    names.symlink_to(data / "classes/class-descriptions.csv")
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").symlink_to(data / split / "image-labels.csv")
    result = run_all(
        sample[1], data, out, RELEASE="v3", SPLIT="train validation", CLASSES="Cat,Dog", MAX_IMAGES="6", MAX_SIDE="100",
        NUM_SHARDS="1", GET_FLAGS="--image_labels", PROCESS_FLAGS="--workers 1",
        METADATA_FLAGS=f"--image_labels_input_path {tmp_path}/{{split}}.csv --seed 1 --keep_images_without_boxes 9",
        LABEL_MAP_FLAGS="--name_field name",
        RECORD_FLAGS=f"--compression gzip --keep_without_boxes --workers 1 --class_text name --class_description_path {names} "
        f"--coco_path {out}/{{split}}/coco.json --report_path {out}/{{split}}/report.html",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (out / "classes-trainable.txt").read_text().split() == ["/m/0bt9lr", "/m/01yrx"]  # in V3's order
    assert result.stderr.count("--classes Cat,Dog") == 1
    label_map = (out / "label_map.pbtxt").read_text()
    assert (label_map.count("item {"), label_map.count('  name: "Cat"')) == (2, 1)
    assert json.loads((out / "classes-translated.json").read_text()) == ["Dog", "Cat"]
    for split in ("train", "validation"):
        points = json.loads((out / split / "points.json").read_text())
        assert [point["subset"] for point in points] == [split] * 6
        assert any(not point["annotations"] for point in points)  # background
        assert any(point.get("image_labels") for point in points)
        sizes = [
            max(point["width"], point["height"])
            for point in json.loads((out / split / "points-resized.json").read_text())
        ]
        assert set(sizes) == {100}
        records = out / split / f"records/{split}.tfrecord-00000-of-00001"
        assert records.read_bytes().startswith(b"\x1f\x8b")
        assert (out / split / "report.html").stat().st_size > 1000
    results = [f"label map: {out}/label_map.pbtxt"]
    for split in ("train", "validation"):
        results += [
            f"records:   {out}/{split}/records/{split}.tfrecord-*",
            f"COCO file: {out}/{split}/coco.json",
            f"report:    {out}/{split}/report.html",
        ]
    assert result.stdout.splitlines()[-7:] == results
    *_, head, rows, boxes, images, downloaded, verified, records = result.stderr.splitlines()
    assert head == "From rows to records:"
    found = [line.split(maxsplit=2)[:2] for line in (rows, images, downloaded, verified, records)]
    assert [name for name, _ in found] == ["rows", "images", "downloaded", "verified", "records"]
    assert found[1][1] == "6"
    assert [int(number) for _, number in found[1:]] == sorted((int(n) for _, n in found[1:]), reverse=True)
    assert re.match(r"  kept boxes +\d+  .*other classes", boxes)


@pytest.mark.parametrize("split", ["train,validation", "train val", "trial", " "])
def test_an_unknown_split_is_refused_at_once(sample, tmp_path, split):
    result = run_all(sample[1], tmp_path / "data", tmp_path / "out", SPLIT=split)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"make_dataset.sh: SPLIT={split}: train, validation, test, or several with blanks between was expected\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_second_run_on_the_folder_is_refused_and_a_killed_one_holds_nothing(tmp_path):
    """A server that never answers holds the first run in step 1; the shell alone is killed."""
    out = tmp_path / "out"
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        urls = [f"http://127.0.0.1:{server.getsockname()[1]}" for server in (silent, closed)]
        closed.close()
        first = subprocess.Popen(
            ["sh", str(ROOT / "make_dataset.sh")],
            env={**os.environ, "OPEN_IMAGES_URL": urls[0], "PYTHON": sys.executable, "DATA": str(tmp_path / "data"),
                 "OUT": str(out)},
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        other = SimpleNamespace(environment=lambda: {"OPEN_IMAGES_URL": urls[1]})
        silent.settimeout(60)
        try:
            with silent.accept()[0]:
                second = run_all(other, tmp_path / "more", out, SPLIT="test")
                assert (second.returncode, second.stdout) == (1, "")
                assert second.stderr == f"make_dataset.sh: {out}: another run is working in this folder\n"
                assert not (tmp_path / "more").exists()
                first.kill()
                first.wait()
                third = run_all(other, tmp_path / "more", out, SPLIT="test")
                assert third.stderr.endswith("make_dataset.sh: step 1 of 7 failed with exit code 1\n")
        finally:
            os.killpg(first.pid, signal.SIGKILL)


def test_a_step_that_fails_is_named_and_ends_the_run(sample, tmp_path):
    result = run_all(sample[1], tmp_path / "data", tmp_path / "out", CLASSES="Unicorn")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-2:]
    assert last[0].startswith("process_metadata.py: --classes: class 'Unicorn' is unknown")
    assert last[1] == "make_dataset.sh: step 3 of 7 failed with exit code 1"
    assert not (tmp_path / "out/train/points.json").exists()


# --- masks -----------------------------------------------------------------------------------------

PYCOCOTOOLS = pytest.mark.filterwarnings("ignore:__array__ implementation")  # 2.0.11 with NumPy 2


def with_masks(truth, split: str, *, empty: bool) -> dict[str, tuple[str, Any]]:
    """Return the file's name of each mask of a split that has a box: its image and its box."""
    return {
        path_of(image["id"], mask): (image["id"], image["boxes"][mask["box"]])
        for image in truth.values()
        if image["subset"] == split and image["indexed"]
        for mask in image["masks"]
        if mask["box"] is not None and (empty or not mask["empty"])
    }


def corners(box) -> tuple[str, float, float, float, float]:
    return box["label"], box["x0"], box["x1"], box["y0"], box["y1"]


def likeness(mask: np.ndarray, box) -> float:
    """Return the intersection over union of a mask and the exact one of its object, drawn at its size."""
    exact = Image.fromarray(coco_mask.decode(box["mask"]) * 255)
    height, width = mask.shape
    expected = np.asarray(exact.resize((width, height), Image.Resampling.BOX)) >= 128
    assert expected.sum() > 200
    return float((mask & expected).sum() / (mask | expected).sum())


@pytest.mark.parametrize("split", SPLITS)
def test_every_mask_of_the_sample_finds_its_box(sample, truth, script, tmp_path, split):
    """Outside of train the table of masks has fewer digits than the boxes."""
    release, classes = sample[0] / "release", tmp_path / "classes.txt"
    classes.write_text("".join(f"{label}\n" for label in BY_LABEL))
    outcome = script(
        "process_metadata",
        "--annotations_input_path", release / f"2018_04/{split}/{split}-annotations-bbox.csv",
        "--image_index_input_path", release / V7_INDEX[split],
        "--masks_input_path", release / f"v5/{split}-annotations-object-segmentation.csv",
        "--trainable_classes_path", classes,
        "--point_output_path", tmp_path / "points.json",
        "--image_index_output_path", tmp_path / "images.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = {
        box["mask"]: (point["id"], corners(box))
        for point in json.loads((tmp_path / "points.json").read_text())
        for box in point["annotations"]
        if box.get("mask")
    }
    expected = with_masks(truth, split, empty=True)
    assert found == {path: (image_id, corners(box)) for path, (image_id, box) in expected.items()}
    assert outcome.counts["masks"] == len(found) > 0
    images = [image for image in truth.values() if image["subset"] == split and image["indexed"]]
    without_box = sum(mask["box"] is None for image in images for mask in image["masks"])
    assert outcome.counts["masks_without_box"] == without_box == (2 if split == "train" else 0)


@PYCOCOTOOLS
def test_resized_masks_are_those_of_the_drawn_objects(made, truth):
    folder, stdout = made
    counts = {
        name: int(number)
        for line in stdout.splitlines() if " masks_missing=" in line  # of step 5
        for name, number in (pair.split("=") for pair in line.split())
    }  # fmt: skip
    resized = json.loads((folder / "out/train/points-resized.json").read_text())
    points = {point["id"]: point for point in resized}
    expected = with_masks(truth, "train", empty=False)
    expected = {path: pair for path, pair in expected.items() if pair[0] in points}
    found = 0
    for image_id, box in expected.values():
        point = points[image_id]
        (mask,) = [
            one["mask"]
            for one in point["annotations"]
            if corners(one) == corners(box) and one.get("mask")  # a box that is listed twice has one mask
        ]
        assert mask["size"] == [point["height"], point["width"]]
        assert likeness(coco_mask.decode(mask).astype(bool), box) >= 0.95
        found += 1
    assert counts["masks"] == found == len(expected) > 20
    empty = [
        image_id for image_id, _ in with_masks(truth, "train", empty=True).values() if image_id in points
    ]
    assert counts["masks_empty"] == len(empty) - found > 0
    assert found == sum(bool(box.get("mask")) for point in points.values() for box in point["annotations"])


@PYCOCOTOOLS
def test_records_hold_the_masks_of_the_drawn_objects(made, truth):
    tf = load_tensorflow()
    expected = {
        (image_id, *map(str, corners(box))): box
        for image_id, box in with_masks(truth, "train", empty=False).values()
    }
    found = set()
    for shard in sorted(str(path) for path in (made[0] / "out/train/records").glob("train.tfrecord-*")):
        for raw in tf.data.TFRecordDataset(shard):
            features = tf.train.Example.FromString(raw.numpy()).features.feature
            image_id = features["image/source_id"].bytes_list.value[0].decode()
            height, width = (features[f"image/{side}"].int64_list.value[0] for side in ("height", "width"))
            sides = [
                features[f"image/object/bbox/{name}"].float_list.value
                for name in ("xmin", "xmax", "ymin", "ymax")
            ]
            weights = features["image/object/mask/weight"].float_list.value
            pngs = features["image/object/mask"].bytes_list.value
            areas = features["image/object/area"].float_list.value
            for label, png, weight, area, *box in zip(
                texts_of(features), pngs, weights, areas, *sides, strict=True
            ):
                mask = tf.io.decode_png(png).numpy()
                assert mask.shape == (height, width, 1)
                assert set(np.unique(mask)) <= {0, 1}
                assert weight == float(mask.any())
                if weight:
                    key = (image_id, label, *(str(round6(side)) for side in box))
                    found.add(key)
                    assert area == mask.sum()
                    assert likeness(mask[:, :, 0].astype(bool), expected[key]) >= 0.95
    resized = {path.stem for path in (made[0] / "out/train/resized").glob("*.jpg")}
    assert found == {key for key in expected if key[0] in resized}
    assert len(found) > 20


def drawn(box, size: tuple[int, int], fit: str, turn: int) -> np.ndarray:
    """Return the exact mask of an object, turned, and resized by Pillow alone to the frame of its image."""
    exact = Image.fromarray(coco_mask.decode(box["mask"]) * 255)
    if turn:
        exact = exact.transpose(Image.Transpose[f"ROTATE_{turn}"])
    scale = min(size[0] / exact.width, size[1] / exact.height)
    scaled = (round(exact.width * scale), round(exact.height * scale)) if fit == "pad" else size
    canvas = Image.new("L", size)
    canvas.paste(
        exact.resize(scaled, Image.Resampling.BOX), ((size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2)
    )
    return np.asarray(canvas) >= 128


FRAMES = {
    "shorter": ["--fit", "shorter"], "pad": ["--fit", "pad"], "stretch": ["--fit", "stretch"],
    "longer, upright": ["--rotate_upright"], "pad, upright": ["--fit", "pad", "--rotate_upright", "--max_side", "512"],
}  # fmt: skip


@PYCOCOTOOLS
@pytest.mark.parametrize(("frame", "flags"), FRAMES.items(), ids=FRAMES)
def test_masks_sit_on_their_objects_in_every_frame(made, truth, script, tmp_path, frame, flags):
    """From the masks that step 3 found to the records, by every fit, with and without turning."""
    tf = load_tensorflow()
    out = made[0] / "out/train"
    outcome = script(
        "process_images", "--image_directory", out / "photos", "--image_saving_directory", tmp_path / "resized",
        "--datapoints_input_path", out / "points.json", "--datapoints_output_path", tmp_path / "points.json",
        "--masks_directory", made[0] / "data/train/masks", *flags,
    )  # fmt: skip
    assert outcome.code == 0
    outcome = script(
        "record_maker", "--points_path", tmp_path / "points.json", "--saved_images_directory", tmp_path / "resized",
        "--trainable_classes_path", made[0] / "out/classes-trainable.txt", "--record_save_path", tmp_path / "records",
    )  # fmt: skip
    assert outcome.code == 0
    objects = with_masks(truth, "train", empty=False)
    points = {point["id"]: point for point in json.loads((out / "points.json").read_text())}
    compared = turned = 0
    for raw in tf.data.TFRecordDataset(str(tmp_path / "records")):
        features = tf.train.Example.FromString(raw.numpy()).features.feature
        point = points[features["image/source_id"].bytes_list.value[0].decode()]
        turn = int(point.get("rotation", 0)) if "upright" in frame else 0
        for one, png in zip(
            point["annotations"], features["image/object/mask"].bytes_list.value, strict=True
        ):
            if one.get("mask") in objects:
                mask = tf.io.decode_png(png).numpy()[:, :, 0].astype(bool)
                expected = drawn(objects[one["mask"]][1], mask.shape[::-1], frame.partition(",")[0], turn)
                assert expected.sum() > 200
                assert (mask & expected).sum() / (mask | expected).sum() >= 0.95
                compared += 1
                turned += turn != 0
    assert compared > 20
    assert (turned > 0) == ("upright" in frame)


def test_masks_are_wanted_or_not(sample, tmp_path):
    result = run_all(sample[1], tmp_path / "data", tmp_path / "out", MASKS="yes")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "make_dataset.sh: MASKS=yes: 1 or nothing was expected\n"
    assert not (tmp_path / "data").exists()


def test_masks_of_a_release_without_any_end_the_run(sample, tmp_path):
    result = run_all(sample[1], tmp_path / "data", tmp_path / "out", MASKS="1", RELEASE="v4")
    assert result.returncode == 2
    assert result.stderr.splitlines()[1:] == [
        "get_dataset.sh: --masks: v4 has no masks; --release v5, v6 or v7 was expected; see sh get_dataset.sh --help",
        "make_dataset.sh: step 1 of 7 failed with exit code 2",
    ]
