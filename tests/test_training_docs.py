"""The code of docs/training.md, run as it stands on records of drawn scenes."""

import json
import re
import subprocess
import sys

import pytest

from sample.classes import DRAWN
from sample.scenes import draw
from tests.conftest import ROOT

PIPELINE, KERAS_HUB, MODEL_GARDEN, LOOP = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), re.S
)
IMAGES = 24


@pytest.fixture
def records(script, tmp_path):
    """Make the records that the page's command makes: squares of 256 pixels."""
    made = tmp_path / "dataset/validation"
    (made / "photos").mkdir(parents=True)
    points = []
    for number in range(IMAGES):
        image, boxes = draw(f"training {number}")
        image.save(made / f"photos/t{number:02}.jpg", quality=90)
        points.append({"id": f"t{number:02}", "annotations": [box.as_dict() for box in boxes]})
    (made / "points.json").write_text(json.dumps(points))
    classes = tmp_path / "dataset/classes-trainable.txt"
    classes.write_text("".join(f"{one.label}\n" for one in DRAWN))
    for name, *arguments in (
        ("process_images", "--image_directory", made / "photos", "--image_saving_directory", made / "resized",
         "--datapoints_input_path", made / "points.json", "--datapoints_output_path", made / "resized.json",
         "--fit", "pad", "--workers", "1"),
        ("record_maker", "--points_path", made / "resized.json", "--saved_images_directory", made / "resized",
         "--trainable_classes_path", classes, "--record_save_path", made / "records/validation.tfrecord",
         "--num_shards", "2", "--workers", "1"),
    ):  # fmt: skip
        outcome = script(name, *arguments)
        assert outcome.code == 0, outcome.err
    return tmp_path


def run(folder, *blocks: str) -> list[str]:
    """Run blocks of the page as one program and return the lines that it prints."""
    program = folder / "training.py"
    program.write_text("\n".join(blocks))
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


def test_the_pipeline_gives_images_and_their_boxes(records):
    *_, shape, flat = run(records, PIPELINE, CHECK)
    assert shape == "(4, 256, 256, 3) uint8"
    points = json.loads((records / "dataset/validation/resized.json").read_text())
    truth = {
        (*(round(box[side] * 256, 1) for side in ("y0", "x0", "y1", "x1")), box["label"])
        for point in points
        for box in point["annotations"]
        if box["group_of"] != 1
    }
    classes = [one.label for one in DRAWN]
    found = json.loads(flat)
    assert found
    for *box, label in found:
        assert (*(round(side, 1) for side in box), classes[label - 1]) in truth


@pytest.mark.interop
def test_a_detector_of_kerashub_learns(records):
    losses = json.loads(run(records, PIPELINE, KERAS_HUB, "print(history.history['loss'])")[-1])
    assert losses[-1] < 0.7 * losses[0], losses


@pytest.mark.interop
def test_a_retinanet_of_model_garden_learns(records):
    losses = json.loads(run(records, PIPELINE, MODEL_GARDEN, LOOP, "print(losses)")[-1])
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0], losses
