"""Files and command lines of the 2017 scripts: steps 2 and 4 to 7 still take them."""

import json

import pytest

from sample.make import main as make_sample
from sample.serve import serving


@pytest.fixture
def old(tmp_path):
    """Serve a sample, and write files as step 3 of 2017 did: one line, all values strings."""
    make_sample(["--directory", str(tmp_path / "sample"), "--images", "12"])
    with serving(tmp_path / "sample") as addresses:
        images = json.loads((tmp_path / "sample/truth.json").read_text())["images"]
        usable = [image for image in images if image["sources"]["original"] == "ok" and image["boxes"]]
        url = f"{addresses.originals_url}/{{}}_o.jpg"
        index = [{"id": image["id"], "url": url.format(image["id"])} for image in usable]
        points = [
            {
                "id": image["id"],
                "annotations": [
                    {"id": image["id"], "label": box["label"], "confidence": "1"}
                    | {side: str(box[side]) for side in ("x0", "x1", "y0", "y1")}
                    for box in image["boxes"]
                ],
            }
            for image in usable
        ]
        (tmp_path / "images.json").write_text(json.dumps(index))
        (tmp_path / "points.json").write_text(json.dumps(points))
        classes = sorted({box["label"] for image in usable for box in image["boxes"]})
        (tmp_path / "train").mkdir()
        (tmp_path / "train/class").write_text("\n".join(classes))
        (tmp_path / "data/classes").mkdir(parents=True)
        rows = [f"{mid},Class {number}\n" for number, mid in enumerate(classes)]
        (tmp_path / "data/classes/class-descriptions.csv").write_text("".join(rows))
        yield {image["id"] for image in usable if image["process"] == "ok"}


COMMANDS = """
translate_class_descriptions.py --class_description_path data/classes --trainable_classes_path train/class --trainable_translated_path train/translated
download_images.py --images_path images.json --images_output_directory photos
process_images.py --image_directory photos --datapoints_input_path points.json --datapoints_output_path points-resized.json
create_label_map.py --trainable_classes_path train/class --class_description_path data/classes --label_map_save_path label_map.pbtxt
record_maker.py --points_path points-resized.json --record_save_path train.record --trainable_classes_path train/class --saved_images_directory photos
""".strip().splitlines()


def test_the_old_command_lines_run_on_the_old_files(old, script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        name, *arguments = command.split()
        outcome = script(name.removesuffix(".py"), *arguments)
        assert outcome.code == 0, outcome.err
    assert old
    assert outcome.counts["records"] == len(old)
    points = json.loads((tmp_path / "points-resized.json").read_text())
    assert {point["id"] for point in points} == old
    assert all(isinstance(box["x0"], float) for point in points for box in point["annotations"])
    assert json.loads((tmp_path / "train/translated").read_text())[0] == "Class 0"
