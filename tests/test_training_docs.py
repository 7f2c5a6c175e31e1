"""The code of docs/training.md, run as it stands on records of drawn scenes."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sample.classes import DRAWN
from sample.scenes import draw
from tests.conftest import ROOT

PIPELINE, KERAS_HUB, MODEL_GARDEN, LOOP, VALIDATION, MASK_RCNN, MASK_LOOP, COCO_RULES, OPEN_IMAGES = (
    re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), re.S)
)
IMAGES, SIDE = 24, 256  # of images the number, and width and height of each in pixels
CLASSES = [one.label for one in DRAWN]


@pytest.fixture
def make(script, tmp_path):
    """Return `make(images, points, *flags)`: records and label map that the page's command makes of them."""

    def call(images, points, *flags):
        made = tmp_path / "dataset/validation"
        (made / "photos").mkdir(parents=True)
        for image, point in zip(images, points, strict=True):
            image.save(made / f"photos/{point['id']}.jpg", quality=90)
        (made / "points.json").write_text(json.dumps(points))
        classes = tmp_path / "dataset/classes-trainable.txt"
        classes.write_text("".join(f"{mid}\n" for mid in CLASSES))
        names = tmp_path / "names.csv"
        names.write_text("".join(f"{mid},Name {mid[3:]}\n" for mid in CLASSES))
        for name, *arguments in (
            ("process_images", "--image_directory", made / "photos", "--image_saving_directory", made / "resized",
             "--datapoints_input_path", made / "points.json", "--datapoints_output_path", made / "resized.json",
             "--fit", "pad", "--workers", "1"),
            ("create_label_map", "--trainable_classes_path", classes, "--class_description_path", names,
             "--label_map_save_path", tmp_path / "dataset/label_map.pbtxt"),
            ("record_maker", "--points_path", made / "resized.json", "--saved_images_directory", made / "resized",
             "--trainable_classes_path", classes, "--record_save_path", made / "records/validation.tfrecord",
             "--num_shards", "2", "--workers", "1", "--label_map_path", tmp_path / "dataset/label_map.pbtxt",
             "--source_id", "number", "--coco_path", made / "annotations.json", *flags),
        ):  # fmt: skip
            outcome = script(name, *arguments)
            assert outcome.code == 0, outcome.err
        return tmp_path

    return call


@pytest.fixture
def records(make):
    """Make records of drawn scenes: squares of 256 pixels."""
    scenes = [draw(f"training {number}") for number in range(IMAGES)]
    points = [
        {"id": f"t{number:02}", "annotations": [box.as_dict() for box in boxes]}
        for number, (_, boxes) in enumerate(scenes)
    ]
    return make([image for image, _ in scenes], points)


def write_program(folder, *blocks: str) -> Path:
    program = folder / "training.py"
    program.write_text("\n".join(blocks))
    return program


@pytest.fixture
def run_here(capsys, monkeypatch):
    """Return `run_here(folder, *blocks)`, like `run` but in this process, where TensorFlow is loaded already."""

    def call(folder, *blocks: str) -> list[str]:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        runpy.run_path(str(write_program(folder, *blocks)), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return call


def run(folder, *blocks: str) -> list[str]:
    """Run blocks of the page as one program and return the lines that it prints."""
    program = write_program(folder, *blocks)
    result = subprocess.run(
        [sys.executable, program], cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


CHECK = """
import json
flat = [[*box, label] for all_boxes, all_labels in zip(boxes.numpy().tolist(), labels.numpy().tolist())
        for box, label in zip(all_boxes, all_labels) if label]
print(images.shape, images.dtype.name)
print(json.dumps(flat))
"""


def test_the_pipeline_gives_images_and_their_boxes(records, run_here):
    *_, shape, flat = run_here(records, PIPELINE, CHECK)
    assert shape == "(4, 256, 256, 3) uint8"
    points = json.loads((records / "dataset/validation/resized.json").read_text())
    truth = {
        (*(round(box[side] * 256, 1) for side in ("y0", "x0", "y1", "x1")), box["label"])
        for point in points
        for box in point["annotations"]
        if box["group_of"] != 1
    }
    found = json.loads(flat)
    assert found
    for *box, label in found:
        assert (*(round(side, 1) for side in box), CLASSES[label - 1]) in truth


@pytest.mark.interop
def test_a_detector_of_kerashub_learns(records):
    losses = json.loads(run(records, PIPELINE, KERAS_HUB, "print(history.history['loss'])")[-1])
    assert losses[-1] < 0.7 * losses[0], losses


# What is in the records, given to Model Garden's evaluator as a detector's finds.
FED_BACK = """
task.build_metrics(training=False)
for _, labels in task.build_inputs(experiment.task.validation_data):
    known = labels["groundtruths"]
    task.coco_metric.update_state(known, {
        "detection_boxes": known["boxes"], "detection_classes": known["classes"],
        "detection_scores": tf.cast(known["classes"] > 0, tf.float32), "num_detections": known["num_detections"],
        "source_id": known["source_id"], "image_info": tf.ones_like(labels["image_info"]),
    })
fed_back = task.coco_metric.result()
print([losses, float(results["AP"]), float(fed_back["AP"])])
"""


@pytest.mark.interop
def test_a_retinanet_of_model_garden_learns_and_is_evaluated(records):
    lines = run(records, PIPELINE, MODEL_GARDEN, LOOP, VALIDATION, FED_BACK)
    losses, precision, ground_truth = json.loads(lines[-1])
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0], losses
    assert 0 <= precision <= 1  # -1: no ground truth
    assert ground_truth == 1.0


@pytest.mark.interop
def test_a_mask_rcnn_of_model_garden_learns_masks(make):
    """On squares of the pipeline's size, with a mask for each box but the first."""
    from pycocotools import mask as coco_mask

    images, points = [], []
    for number in range(IMAGES):
        image, boxes = draw(f"training {number}")
        annotations = [box.as_dict() for box in boxes]
        for box, annotation in list(zip(boxes, annotations, strict=True))[number == 0 :]:
            mask = coco_mask.encode(np.asfortranarray(box.mask.resize((SIDE, SIDE)), dtype=np.uint8))
            annotation["mask"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        images.append(image.resize((SIDE, SIDE)))
        points.append({"id": f"t{number:02}", "annotations": annotations})
    folder = make(images, points, "--missing_masks", "box", "--verify")
    lines = run(folder, PIPELINE, MASK_RCNN, MASK_LOOP, "import json; print(json.dumps(losses))")
    losses = json.loads(lines[-1])
    for name, part in (("total_loss", 0.7), ("mask_loss", 0.8)):
        values = [loss[name] for loss in losses]
        assert sum(values[-5:]) / 5 < part * values[0], (name, values)


def test_the_ground_truth_scores_1_by_cocos_rules(records, run_here):
    assert run_here(records, COCO_RULES, "print(evaluation.stats[0])")[-1] == "1.0"


# --- the Open Images metric -------------------------------------------------------------------------------

PRECISIONS = """
import json
by_class = {name.rpartition("IOU/")[2]: value for name, value in precisions.items() if value == value}
print(json.dumps(by_class))
"""
MEAN = "OpenImagesDetectionChallenge_Precision/mAP@0.5IOU"
ONE, TWO, THREE = CLASSES[:3]


@pytest.mark.interop
def test_the_ground_truth_scores_1_by_the_open_images_rules(records):
    """Groups are in the drawn scenes, and score too."""
    points = json.loads((records / "dataset/validation/resized.json").read_text())
    boxes = [box for point in points for box in point["annotations"]]
    assert any(box["group_of"] == 1 for box in boxes)
    found = json.loads(run(records, OPEN_IMAGES, PRECISIONS)[-1])
    assert found == {MEAN: 1.0, **{box["label"]: 1.0 for box in boxes}}


def box(label, x0, y0, x1, y1, group_of=0):
    return {"label": label, "x0": x0, "x1": x1, "y0": y0, "y1": y1, "group_of": group_of}


# Two images. In the first a group of ONE, a single ONE, and TWO verified absent; nothing is known of THREE.
DRAWN_BY_HAND = [
    {"id": "first", "annotations": [box(ONE, 0, 0, 0.5, 0.5, group_of=1), box(ONE, 0.6, 0.6, 0.9, 0.9)],
     "image_labels": [{"label": ONE, "confidence": 1}, {"label": TWO, "confidence": 0}]},
    {"id": "second", "annotations": [box(TWO, 0.1, 0.1, 0.4, 0.4), box(THREE, 0.5, 0.5, 0.9, 0.9)],
     "image_labels": []},
]  # fmt: skip
# Image, class id, score, box as ymin, xmin, ymax, xmax. What is found in the second image is right.
SINGLE = ("first", 1, 0.6, [0.6, 0.6, 0.9, 0.9])
IN_THE_GROUP = [("first", 1, 0.8, [0.1, 0.1, 0.2, 0.2]), ("first", 1, 0.7, [0.3, 0.3, 0.4, 0.4])]
BESIDE_THE_GROUP = ("first", 1, 0.9, [0.1, 0.45, 0.2, 0.7])
WRONG = [("first", 2, 0.9, [0.7, 0.1, 0.9, 0.3]), ("first", 3, 0.9, [0.7, 0.1, 0.9, 0.3])]
RIGHT = [SINGLE, ("second", 2, 0.5, [0.1, 0.1, 0.4, 0.4]), ("second", 3, 0.5, [0.5, 0.5, 0.9, 0.9])]
CASES = {
    "two boxes inside the group are one true positive": ([*RIGHT, *IN_THE_GROUP], (1, 1, 1)),
    "a group with nothing inside is missed: recall 1/2": (RIGHT, (1 / 2, 1, 1)),
    "a box less than half inside the group is a false positive": (
        # In order of the scores: false, group, single. Precision 2/3 up to a recall of 1.
        [*RIGHT, *IN_THE_GROUP, BESIDE_THE_GROUP], (2 / 3, 1, 1),
    ),
    "a wrong class counts where it is verified absent, and not where nothing is known": (
        [*RIGHT, *IN_THE_GROUP, *WRONG], (1, 1 / 2, 1),
    ),
}  # fmt: skip


@pytest.mark.interop
def test_cases_drawn_by_hand_score_as_the_open_images_rules_say(make):
    folder = make([Image.new("RGB", (64, 64), "gray")] * 2, DRAWN_BY_HAND)
    detections = [found for found, _ in CASES.values()]
    score = f"""
for found in {detections!r}:
    def detect(image):
        here = [one[1:] for one in found if image["filename"] == f"{{one[0]}}.jpg".encode()]
        classes, scores, boxes = map(np.array, zip(*here))
        return {{"detection_boxes": boxes, "detection_classes": classes, "detection_scores": scores}}
    precisions = evaluate("dataset/validation/records/validation.tfrecord-*", detect)
    {PRECISIONS.strip().replace(chr(10), chr(10) + "    ")}
"""
    lines = run(folder, OPEN_IMAGES, score)[-len(CASES) :]
    for (case, (_, expected)), line in zip(CASES.items(), lines, strict=True):
        scores = dict(zip((ONE, TWO, THREE), expected, strict=True))
        assert json.loads(line) == pytest.approx({MEAN: sum(expected) / 3, **scores}), case
