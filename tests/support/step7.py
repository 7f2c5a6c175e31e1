"""Images, datapoints, a run and its records read back, for all tests of step 7."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.openimages.datapoints import Datapoint, checked
from common.records.types import Work

CAT, DOG, TREE = "/m/01yrx", "/m/0bt9lr", "/m/07j7r"
FLOATS = {"image/object/bbox/xmin", "image/object/bbox/xmax", "image/object/bbox/ymin", "image/object/bbox/ymax",
          "image/object/area", "image/object/weight", "image/object/mask/weight", "image/class/confidence"}  # fmt: skip
BYTES = {"image/encoded", "image/format", "image/filename", "image/source_id", "image/key/sha256",
         "image/object/class/text", "image/object/mask", "image/class/text"}  # fmt: skip


def photo(mode: str = "RGB", size: tuple[int, int] = (40, 30), image_format: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, "navy" if mode == "RGB" else 0).save(stream, image_format)
    return stream.getvalue()


def annotation(label: str = CAT, **more: object) -> dict[str, object]:
    return {
        "id": "x",
        "label": label,
        "confidence": 1,
        "x0": 0.25,
        "x1": 0.5,
        "y0": 0.125,
        "y1": 0.75,
        **more,
    }


@pytest.fixture
def step(script, tmp_path):
    """Return `step(points, images, *flags)`, a run on these files with Dog and Cat trainable."""

    def call(points: object, images: dict[str, bytes], *flags: object, save: str = "out/data.tfrecord"):
        (tmp_path / "images").mkdir(exist_ok=True)
        for name, data in images.items():
            (tmp_path / "images" / name).write_bytes(data)
        (tmp_path / "points.json").write_text(points if isinstance(points, str) else json.dumps(points))
        (tmp_path / "classes.txt").write_text(f"{DOG}\n{CAT}\n")
        return script(
            "record_maker", "--points_path", tmp_path / "points.json", "--saved_images_directory", tmp_path / "images",
            "--trainable_classes_path", tmp_path / "classes.txt", "--record_save_path", tmp_path / save,
            "--workers", 1, *flags,
        )  # fmt: skip

    return call


def read_back(*paths: Path) -> list[dict[str, list[Any]]]:
    """Return the features of each record, read by tf.data and by tf.io alike."""
    import tensorflow as tf

    records = []
    for raw in tf.data.TFRecordDataset([str(path) for path in paths]):
        example = tf.train.Example.FromString(raw.numpy())
        features = {}
        for name, feature in example.features.feature.items():
            kind = "bytes_list" if name in BYTES else "float_list" if name in FLOATS else "int64_list"
            assert feature.WhichOneof("kind") == kind, name
            features[name] = list(getattr(feature, kind).value)
        kinds = {
            name: tf.string if name in BYTES else tf.float32 if name in FLOATS else tf.int64
            for name in features
        }
        parsed = tf.io.parse_single_example(
            raw, {name: tf.io.VarLenFeature(kind) for name, kind in kinds.items()}
        )
        assert {name: parsed[name].values.numpy().tolist() for name in features} == features
        records.append(features)
    return records


def many(number: int) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    points = [
        {"id": f"p{index}", "annotations": [annotation(CAT if index % 2 else DOG)] * (index % 3 + 1)}
        for index in range(number)
    ]
    return points, {f"p{index}.jpg": photo(size=(20 + index, 30)) for index in range(number)}


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def mask_of(size: tuple[int, int], area: tuple[int, int, int, int]) -> dict[str, Any]:
    """Return an annotation's mask: in an image of this width and height the pixels x0, y0 to x1, y1."""
    from pycocotools import mask as coco_mask

    pixels = np.zeros(size[::-1], np.uint8, order="F")
    pixels[area[1] : area[3], area[0] : area[2]] = 1
    mask = coco_mask.encode(pixels)
    return {"size": mask["size"], "counts": mask["counts"].decode()}


def record_work(point: dict[str, Any], size: tuple[int, int]) -> Work:
    """Return the input of step 7 for one record, with all classes of the datapoint."""
    made = checked(point | {"id": "a"}, Datapoint, "point")  # an id may be evil in tests of the report
    return Work(point["id"], f"{point['id']}.jpg", 0, made.annotations, made.image_labels, size)
