"""Step 7's records in the readers that people feed them to: make interop."""

import base64
import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import create_label_map
import record_maker
from sample.classes import DRAWN
from sample.scenes import draw

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]
IMAGES, SIDE = 48, 256  # of images the number, and the width of each in pixels
BACKGROUND = (5, 8)  # images without boxes and labels, one for training and one for evaluation
CLASSES = [one.label for one in DRAWN]
CORNERS = ("ymin", "xmin", "ymax", "xmax")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Records of drawn scenes, in two files for training and one for evaluation, and their label map."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    points = []
    for number in range(IMAGES):
        image, boxes = draw(f"interop {number}")
        small = image.resize((SIDE, SIDE * image.height // image.width))
        small.save(folder / f"images/i{number:02}.jpg", quality=90)
        subset = "validation" if number % 8 == 0 else "train"
        annotations = [box.as_dict() for box in boxes]
        for box, annotation in list(zip(boxes, annotations, strict=True))[number % 2 :]:
            mask = coco_mask.encode(np.asfortranarray(box.mask.resize(small.size), dtype=np.uint8))
            annotation["mask"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        labels = [{"label": CLASSES[number % len(CLASSES)], "confidence": number % 2}]
        if number in BACKGROUND:
            annotations, labels = [], []
        points.append(
            {"id": f"i{number:02}", "subset": subset, "annotations": annotations, "image_labels": labels}
        )
    (folder / "points.json").write_text(json.dumps(points))
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "names.csv").write_text("".join(f"{one.label},Name {one.label[3:]}\n" for one in DRAWN))
    record_maker.main(
        ["--points_path", f"{folder}/points.json", "--saved_images_directory", f"{folder}/images",
         "--trainable_classes_path", f"{folder}/classes.txt", "--record_save_path", f"{folder}/records/train.tfrecord",
         "--eval_record_save_path", f"{folder}/records/eval.tfrecord", "--eval_subset", "validation",
         "--num_shards", "2", "--tfds_metadata", "--workers", "1", "--coco_path", f"{folder}/coco/train.json",
         "--class_description_path", f"{folder}/names.csv", "--keep_without_boxes"]
    )  # fmt: skip
    create_label_map.main(
        ["--trainable_classes_path", f"{folder}/classes.txt", "--class_description_path", f"{folder}/names.csv",
         "--label_map_save_path", f"{folder}/label_map.pbtxt"]
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def truth(made) -> dict[str, dict[str, Any]]:
    """What each reader must give for an image: boxes as ymin, xmin, ymax, xmax; size; classes; crowds."""
    found = {}
    for point in json.loads((made / "points.json").read_text()):
        boxes = point["annotations"]
        with Image.open(made / f"images/{point['id']}.jpg") as image:
            width, height = image.size
            pixels = np.asarray(image)
        found[point["id"]] = {
            "subset": point["subset"], "width": width, "height": height, "pixels": pixels,
            "boxes": np.array([[box["y0"], box["x0"], box["y1"], box["x1"]] for box in boxes]).reshape(-1, 4),
            "mids": [box["label"] for box in boxes],
            "classes": [CLASSES.index(box["label"]) + 1 for box in boxes],
            "masks": [coco_mask.decode(box["mask"]) if "mask" in box else None for box in boxes],
            "labels": [CLASSES.index(label["label"]) + 1 for label in point["image_labels"]],
            "confidences": [label["confidence"] for label in point["image_labels"]],
            "crowd": [box["group_of"] == 1 for box in boxes],
        }  # fmt: skip
    return found


def shards(made: Path, name: str = "*") -> list[str]:
    return sorted(str(path) for path in (made / "records").glob(f"{name}.tfrecord-*"))


def same_picture(found: Any, pixels: Any) -> bool:
    """Two JPEG decoders differ by little."""
    return bool(found.shape == pixels.shape and np.abs(np.asarray(found, int) - pixels).mean() < 2)


def same_masks(found: Any, expected: dict[str, Any]) -> None:
    """Both decoders give float32 [boxes, height, width]; a box without a mask has an empty one."""
    assert found.shape == (len(expected["masks"]), expected["height"], expected["width"])
    for pixels, mask in zip(found, expected["masks"], strict=True):
        np.testing.assert_array_equal(pixels, 0 * pixels if mask is None else mask)


def test_model_gardens_decoder(made, truth):
    import tensorflow as tf
    from official.vision.dataloaders.tf_example_decoder import TfExampleDecoder

    decoder = TfExampleDecoder(include_mask=True)
    seen = set()
    for raw in tf.data.TFRecordDataset(shards(made)):
        found = {name: value.numpy() for name, value in decoder.decode(raw).items()}
        expected = truth[found["source_id"].decode()]
        seen.add(found["source_id"].decode())
        assert (found["width"], found["height"]) == (expected["width"], expected["height"])
        assert same_picture(found["image"], expected["pixels"])
        np.testing.assert_allclose(found["groundtruth_boxes"], expected["boxes"], atol=1e-6)
        assert found["groundtruth_classes"].tolist() == expected["classes"]
        assert found["groundtruth_is_crowd"].tolist() == expected["crowd"]
        same_masks(found["groundtruth_instance_masks"], expected)
        sides = (expected["boxes"][:, 2:] - expected["boxes"][:, :2]) * [
            expected["height"],
            expected["width"],
        ]
        areas = [
            side if mask is None else mask.sum()
            for side, mask in zip(sides.prod(axis=1), expected["masks"], strict=True)
        ]
        np.testing.assert_allclose(found["groundtruth_area"], areas, rtol=1e-4)
    assert seen == set(truth)


def test_the_object_detection_apis_decoder_and_label_map(made, truth):
    """In a process of its own: its generated code is older than the protobuf that TensorFlow comes with."""
    code = """
import sys, pickle
import tensorflow as tf
from tensorflow.python.ops import control_flow_ops
control_flow_ops.case, control_flow_ops.cond = tf.case, tf.cond  # tf_slim looks for them there
from object_detection.data_decoders.tf_example_decoder import TfExampleDecoder
label_map, out, *shards = sys.argv[1:]
from object_detection.protos import input_reader_pb2
masks = {"load_instance_masks": True, "instance_mask_type": input_reader_pb2.PNG_MASKS}
decoders = [TfExampleDecoder(**masks), TfExampleDecoder(label_map_proto_file=label_map, **masks)]
found = [
    {name: value.numpy() for name, value in decoder.decode(raw).items()}
    for raw in tf.data.TFRecordDataset(shards) for decoder in decoders
]
open(out, "wb").write(pickle.dumps(found))
"""
    out = made / "decoded"
    subprocess.run(
        [sys.executable, "-c", code, made / "label_map.pbtxt", out, *shards(made)], check=True, capture_output=True,
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    decoded = pickle.loads(out.read_bytes())
    assert len(decoded) == 2 * IMAGES
    for found in decoded:
        image_id = found["source_id"].decode()
        expected = truth[image_id]
        assert found["filename"] == f"{image_id}.jpg".encode()
        assert found["original_image_spatial_shape"].tolist() == [expected["height"], expected["width"]]
        assert same_picture(found["image"], expected["pixels"])
        np.testing.assert_allclose(found["groundtruth_boxes"], expected["boxes"], atol=1e-6)
        assert found["groundtruth_classes"].tolist() == expected["classes"]
        assert found["groundtruth_is_crowd"].tolist() == expected["crowd"]
        assert found["groundtruth_group_of"].tolist() == expected["crowd"]
        assert found["groundtruth_image_classes"].tolist() == expected["labels"]
        assert found["groundtruth_image_confidences"].tolist() == expected["confidences"]
        same_masks(found["groundtruth_instance_masks"], expected)
        weights = [float(mask is not None) for mask in expected["masks"]]
        assert found["groundtruth_instance_mask_weights"].tolist() == weights
        assert found["groundtruth_weights"].tolist() == [1.0] * len(expected["classes"])
        assert not found["groundtruth_difficult"].any()


def test_tensorflow_datasets_reads_the_folder(made, truth):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(made / "records")
    for split, subset in (("train", "train"), ("eval", "validation")):
        expected_ids = {image_id for image_id, image in truth.items() if image["subset"] == subset}
        assert builder.info.splits[split].num_examples == len(expected_ids)
        seen = set()
        for found in tfds.as_numpy(builder.as_dataset(split=split)):
            image_id = found["image/source_id"].decode()
            expected = truth[image_id]
            seen.add(image_id)
            assert same_picture(found["image/encoded"], expected["pixels"])
            assert (found["image/width"], found["image/height"]) == (expected["width"], expected["height"])
            corners = np.stack([found[f"image/object/bbox/{name}"] for name in CORNERS], axis=-1)
            np.testing.assert_allclose(corners, expected["boxes"], atol=1e-6)
            assert found["image/object/class/label"].tolist() == expected["classes"]
            masks = found["image/object/mask"][..., 0]  # without any, of no height and width
            same_masks(masks if len(masks) else masks.reshape(0, *expected["pixels"].shape[:2]), expected)
            assert [text.decode() for text in found["image/object/class/text"]] == expected["mids"]
        assert seen == expected_ids
    half = builder.as_dataset(split="train[:50%]")
    assert len(half) == round(builder.info.splits["train"].num_examples / 2)


def test_fiftyones_parser(made, truth, monkeypatch):
    """FiftyOne itself wants a database; its parser does not."""
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
    import fiftyone.utils.tf as fiftyone_tf
    import tensorflow as tf

    parser = fiftyone_tf.TFObjectDetectionSampleParser(force_rgb=True)
    seen = set()
    for raw in tf.data.TFRecordDataset(shards(made)):
        parser.with_sample(raw)
        (source_id,) = (
            tf.train.Example.FromString(raw.numpy()).features.feature["image/source_id"].bytes_list.value
        )
        image_id = source_id.decode()
        seen.add(image_id)
        expected = truth[image_id]
        assert same_picture(parser.get_image(), expected["pixels"])
        metadata = parser.get_image_metadata()
        assert (metadata.width, metadata.height) == (expected["width"], expected["height"])
        assert metadata.mime_type == "image/jpeg"
        found = parser.get_label().detections
        assert [box.label for box in found] == expected["mids"]
        ymin, xmin, ymax, xmax = expected["boxes"].T
        sides = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], 1)
        np.testing.assert_allclose(np.reshape([box.bounding_box for box in found], (-1, 4)), sides, atol=1e-6)
    assert seen == set(truth)


def test_fiftyones_coco_importer(made, truth, monkeypatch):
    """It finds the images of each COCO file in the folder that they are in, with boxes and names."""
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
    import fiftyone.utils.coco as fiftyone_coco

    for name, subset in (("train", "train"), ("eval", "validation")):
        importer = fiftyone_coco.COCODetectionDatasetImporter(
            data_path=str(made / "images"), labels_path=str(made / f"coco/{name}.json"), extra_attrs=True
        )
        importer.setup()
        seen = set()
        for path, metadata, label in importer:
            image_id = Path(path).stem
            expected = truth[image_id]
            seen.add(image_id)
            assert (metadata.width, metadata.height) == (expected["width"], expected["height"])
            label = label.get("detections") if isinstance(label, dict) else label
            found = label.detections if label else []
            assert [box.label for box in found] == [f"Name {mid[3:]}" for mid in expected["mids"]]
            assert [box.iscrowd == 1 for box in found] == expected["crowd"]
            ymin, xmin, ymax, xmax = expected["boxes"].T
            sides = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], 1)
            corners = np.reshape([box.bounding_box for box in found], (-1, 4))
            np.testing.assert_allclose(corners, sides, atol=1e-5)
        assert seen == {image_id for image_id, image in truth.items() if image["subset"] == subset}


def mask_column(array: Any) -> str:
    """Return a mask as the challenge's CSV has it: COCO's run-length encoding, zlib, base64."""
    counts = coco_mask.encode(np.asfortranarray(array, dtype=np.uint8))["counts"]
    return base64.b64encode(zlib.compress(counts)).decode()


def test_the_open_images_metric_for_masks(tmp_path, real_files):
    """The ground truth scores 1.0, one of two masks 0.5, and a box without a mask is ignored."""
    corner = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    masks = [corner, [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]]
    columns = [mask_column(mask) for mask in masks]
    if real_files:
        golden = json.loads((real_files / "eval_fixture/challenge_mask_encoding.json").read_text())
        for case in (case for name, case in golden.items() if not name.startswith("_")):
            inflated = [zlib.decompress(base64.b64decode(text))
                        for text in (case["mask_column"], mask_column(case["array"]))]  # fmt: skip
            assert inflated == [case["coco_rle_counts"].encode()] * 2
        assert golden["2x2 corner in 3x4"]["array"] == corner
        columns[0] = golden["2x2 corner in 3x4"]["mask_column"]
    sides = [(0.5, 1.0, 0.0, 2 / 3), (0.0, 0.5, 0.0, 2 / 3), (0.5, 1.0, 2 / 3, 1.0)]
    rows = [
        {"ImageID": "i", "LabelName": CLASSES[0], **dict(zip(("XMin", "XMax", "YMin", "YMax"), side, strict=True)),
         "IsGroupOf": 0, "ConfidenceImageLabel": None, "Mask": column, "ImageWidth": 4, "ImageHeight": 3}
        for side, column in zip(sides, [*columns, None], strict=True)
    ]  # fmt: skip
    code = """
import sys, json, numpy as np, pandas as pd
np.float, np.bool = float, bool
from object_detection.metrics import oid_challenge_evaluation_utils as utils
from object_detection.utils import object_detection_evaluation
rows, label = json.loads(sys.argv[1]), sys.argv[2]
table = pd.DataFrame(rows)
scores = []
for found in (2, 1):
    evaluator = object_detection_evaluation.OpenImagesInstanceSegmentationChallengeEvaluator([{"id": 1, "name": label}])
    evaluator.add_single_ground_truth_image_info("i", utils.build_groundtruth_dictionary(table, {label: 1}))
    detected = utils.build_predictions_dictionary(table[:found].assign(Score=1.0), {label: 1})
    evaluator.add_single_detected_image_info("i", detected)
    scores.append(evaluator.evaluate()["OpenImagesInstanceSegmentationChallenge_Precision/mAP@0.5IOU"])
print(json.dumps(scores))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(rows), CLASSES[0]], check=True, capture_output=True, text=True,
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert json.loads(result.stdout) == [1.0, 0.5]
