"""Steps 1, 2, 3 and 6 on the published V3 release, served on this machine and fetched by get_dataset.sh.

The sample's V3 stands for it; where OPEN_IMAGES_FILES names a folder of the official files, they go through too.
"""

import csv
import json
import os
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from google.protobuf import text_format

from sample.serve import start
from tests.conftest import ROOT
from tests.support.label_map import LABEL_MAP

OFFICIAL = os.environ.get("OPEN_IMAGES_FILES", "")
BOX_CLASSES = "2017_11/classes-bbox-trainable.txt"


@pytest.fixture(scope="module", params=["sample", "official"] if OFFICIAL else ["sample"])
def release(request, sample_directory):
    """Return a folder with the release's files under their official paths."""
    return Path(OFFICIAL) if request.param == "official" else sample_directory / "release"


@pytest.fixture(scope="module")
def data(release, tmp_path_factory):
    """Return the folder that step 1 made from all three splits of V3."""
    folder = tmp_path_factory.mktemp("data")
    with ExitStack() as stack:
        url = start(stack, release, 0).url
        for split in ("train", "validation", "test"):
            command = ["sh", "get_dataset.sh", "--release", "v3", "--split", split, "--image_labels"]
            subprocess.run(
                [*command, "--directory", folder], cwd=ROOT, env={**os.environ, "OPEN_IMAGES_URL": url},
                capture_output=True, check=True, timeout=60,
            )  # fmt: skip
    return folder


def member(release: Path, name: str, path: str) -> bytes:
    with tarfile.open(release / "2017_11" / f"{name}_2017_11.tar.gz") as tarball:
        return tarball.extractfile(path).read()


@pytest.fixture(scope="module")
def mids(release):
    """Return the trainable classes of the boxes, as listed in the release."""
    return member(release, "classes", BOX_CLASSES).decode().split()


@pytest.fixture(scope="module")
def names(release):
    rows = member(release, "classes", "2017_11/class-descriptions.csv").decode().splitlines()
    return dict(csv.reader(rows))


def test_step_1_keeps_every_byte(release, data):
    for split in ("train", "validation", "test"):
        for name, tarball, path in (
            ("images", "images", "images.csv"), ("boxes", "annotations_human_bbox", "annotations-human-bbox.csv"),
            ("image-labels", "annotations_human", "annotations-human.csv"),
        ):  # fmt: skip
            official = member(release, tarball, f"2017_11/{split}/{path}")
            assert (data / split / f"{name}.csv").read_bytes() == official
    assert (data / "classes/classes-trainable.txt").read_bytes() == member(release, "classes", BOX_CLASSES)


def test_step_2_names_the_classes_in_their_order(script, data, mids, names, tmp_path):
    outcome = script(
        "translate_class_descriptions", "--trainable_classes_path", data / "classes",
        "--class_description_path", data / "classes", "--trainable_translated_path", tmp_path / "names.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "names.json").read_text("utf-8")) == [names[mid] for mid in mids]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_step_3_accounts_for_every_row(script, data, mids, split, tmp_path):
    outcome = script(
        "process_metadata", "--annotations_input_path", data / split / "boxes.csv",
        "--image_index_input_path", data / split / "images.csv", "--trainable_classes_path", data / "classes",
        "--image_labels_input_path", data / split / "image-labels.csv",
        "--point_output_path", tmp_path / "points.json", "--image_index_output_path", tmp_path / "images.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    with open(data / split / "boxes.csv", newline="", encoding="utf-8") as stream:
        rows = {tuple(row.items()): row for row in csv.DictReader(stream)}.values()
    with open(data / split / "images.csv", newline="", encoding="utf-8") as stream:
        indexed = {row["ImageID"]: row for row in csv.DictReader(stream)}
    kept = [row for row in rows if row["LabelName"] in set(mids) and row["ImageID"] in indexed]
    points = json.loads((tmp_path / "points.json").read_text("utf-8"))
    seen = [(point["id"], box["label"], box["x0"], box["x1"], box["y0"], box["y1"]) for point in points
            for box in point["annotations"]]  # fmt: skip
    columns = ("XMin", "XMax", "YMin", "YMax")
    assert seen == [
        (row["ImageID"], row["LabelName"], *(float(row[column]) for column in columns)) for row in kept
    ]
    images = json.loads((tmp_path / "images.json").read_text("utf-8"))
    assert {image["id"] for image in images} == {point["id"] for point in points}
    for image in images:
        row = indexed[image["id"]]
        assert (image["url"], image["size"], image["md5"], image.get("title", "")) == (
            row["OriginalURL"], int(row["OriginalSize"]), row["OriginalMD5"], row["Title"],
        )  # fmt: skip


def test_step_6_numbers_the_classes_by_their_position(script, data, mids, names, tmp_path):
    outcome = script(
        "create_label_map", "--trainable_classes_path", data / "classes",
        "--class_description_path", data / "classes", "--label_map_save_path", tmp_path / "map.pbtxt",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    items = text_format.Parse((tmp_path / "map.pbtxt").read_text("utf-8"), LABEL_MAP()).item
    assert [(item.id, item.name, item.display_name) for item in items] == [
        (number, mid, names[mid]) for number, mid in enumerate(mids, start=1)
    ]
