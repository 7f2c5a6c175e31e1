"""Step 7's COCO files, read back by pycocotools, and the numbers of images."""

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from common.files.places import parse_path
from common.openimages.ids import image_number
from tests.support.step7 import CAT, DOG, annotation, many, mask_of, photo, read_back
from tests.support.step7 import step as step

ANIMAL, PET = "/m/0jbk", "/m/068hy"
NAMES = f'{CAT},Pet\n{DOG},Pet\n{ANIMAL},"Animal, any"\n'
HIERARCHY = {"LabelName": "/m/0bl9f", "Subcategory": [
    {"LabelName": ANIMAL, "Subcategory": [{"LabelName": PET, "Subcategory": [{"LabelName": DOG}]}, {"LabelName": DOG}]},
    {"LabelName": CAT},
]}  # fmt: skip
# Two ids of 16 hexadecimal digits whose hashes have the same first 53 bits.
TWINS = ("0000000001d1bf26", "0000000006abdb00")


@pytest.fixture
def coco(step, tmp_path):
    """Return `coco(points, images, *flags)`: the COCO file of such a run, as pycocotools reads it."""
    from pycocotools.coco import COCO

    def call(points, images, *flags):
        outcome = step(points, images, "--coco_path", tmp_path / "coco/all.json", *flags)
        assert (outcome.code, outcome.messages) == (0, "")
        with redirect_stdout(StringIO()):  # it chats
            return COCO(tmp_path / "coco/all.json")

    return call


def test_the_file_says_what_the_records_say(coco, tmp_path):
    points = [
        {"id": "a1", "width": 40, "height": 30, "annotations": [
            annotation(CAT, group_of=1), annotation(DOG, group_of=-1, x0="0.5", x1=1), annotation("/m/0other"),
        ]},
        {"id": "b2", "annotations": [], "image_labels": [{"label": DOG, "confidence": 1}]},
        {"id": "gone", "annotations": [annotation()]},
        {"id": "c3", "annotations": [annotation(CAT, x0=0.123456, x1=0.654321, y0=0, y1=1)]},
    ]  # fmt: skip
    images = {
        "a1.jpg": photo(),
        "b2.jpg": photo(size=(8, 9)),
        "c3.png": photo(size=(64, 48), image_format="PNG"),
    }
    found = coco(points, images, "--num_shards", 2, "--source_id", "number")
    assert found.dataset["images"] == [
        {"id": image_number("a1"), "file_name": "a1.jpg", "open_images_id": "a1", "width": 40, "height": 30},
        {"id": image_number("b2"), "file_name": "b2.jpg", "open_images_id": "b2", "width": 8, "height": 9},
        {"id": image_number("c3"), "file_name": "c3.png", "open_images_id": "c3", "width": 64, "height": 48},
    ]
    assert found.dataset["categories"] == [
        {"id": 1, "name": DOG, "mid": DOG}, {"id": 2, "name": CAT, "mid": CAT},
    ]  # fmt: skip
    assert found.dataset["annotations"][0] == {
        "id": 1, "image_id": image_number("a1"), "category_id": 2, "bbox": [10, 3.75, 10, 18.75], "area": 187.5, "iscrowd": 1,
    }  # fmt: skip
    records = read_back(*(tmp_path / "out").glob("data.tfrecord-*"))
    assert {int(record["image/source_id"][0]) for record in records} == set(found.getImgIds())
    for record in records:
        boxes = found.loadAnns(found.getAnnIds(int(record["image/source_id"][0])))
        assert [box["category_id"] for box in boxes] == record["image/object/class/label"]
        assert [box["iscrowd"] for box in boxes] == record["image/object/is_crowd"]
        np.testing.assert_allclose([box["area"] for box in boxes], record["image/object/area"], rtol=1e-5)
        (width,), (height,) = record["image/width"], record["image/height"]
        left, right = (np.array(record[f"image/object/bbox/{side}"]) * width for side in ("xmin", "xmax"))
        top, bottom = (np.array(record[f"image/object/bbox/{side}"]) * height for side in ("ymin", "ymax"))
        sides = np.stack([left, top, right - left, bottom - top], axis=1)
        np.testing.assert_allclose(np.reshape([box["bbox"] for box in boxes], (-1, 4)), sides, atol=1e-3)


def test_the_records_name_their_images_by_id_unless_numbers_are_asked_for(step, tmp_path):
    points, images = many(3)
    for flags, expected in (((), "p0"), (("--source_id", "number"), str(image_number("p0")))):
        assert step(points, images, *flags).code == 0
        first, *_ = read_back(tmp_path / "out/data.tfrecord")
        assert first["image/source_id"] == [expected.encode()]
        assert first["image/filename"] == [b"p0.jpg"]


def test_a_number_never_changes():
    assert image_number("000002b66c9c498e") == 5050725153633928
    assert 2**52 < max(image_number(str(number)) for number in range(1000)) < 2**53


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_ground_truth_fed_back_scores_1(coco, kind):
    from pycocotools import mask as coco_mask
    from pycocotools.cocoeval import COCOeval

    points, images = many(6)
    for place, point in enumerate(points):  # boxes of one image that are not alike, as boxes and as masks
        point["annotations"] = [
            dict(box, y1=0.4 + 0.2 * number) for number, box in enumerate(point["annotations"])
        ]
        for box in point["annotations"]:
            pixels = np.zeros((30, 20 + place), np.uint8, order="F")
            pixels[4 : round(30 * box["y1"]), 5:10] = 1
            mask = coco_mask.encode(pixels)
            box["mask"] = {"size": mask["size"], "counts": mask["counts"].decode()}
    points[0]["annotations"][0]["group_of"] = 1
    found = coco(points, images)
    with redirect_stdout(StringIO()):
        detections = found.loadRes([{**box, "score": 1.0} for box in found.dataset["annotations"]])
        evaluation = COCOeval(found, detections, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1.0


def test_evaluation_has_a_file_beside_named_like_its_records(step, tmp_path):
    points, images = many(30)
    outcome = step(
        points, images, "--eval_record_save_path", tmp_path / "out/held.tfrecord", "--eval_fraction", "0.3",
        "--coco_path", tmp_path / "coco/train.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    for coco_name, records in (("train", "data"), ("held", "held")):
        written = json.loads((tmp_path / f"coco/{coco_name}.json").read_text())
        names = [image["file_name"].encode() for image in written["images"]]
        assert names == [
            record["image/filename"][0] for record in read_back(tmp_path / f"out/{records}.tfrecord")
        ]
        numbers = {image["id"] for image in written["images"]}
        assert {box["image_id"] for box in written["annotations"]} == numbers
        assert [box["id"] for box in written["annotations"]] == list(
            range(1, len(written["annotations"]) + 1)
        )


def test_a_mask_is_written_as_it_stands_and_its_area_counts(coco):
    from pycocotools import mask as coco_mask

    pixels = np.zeros((30, 40), np.uint8, order="F")
    pixels[4:9, 11:17] = 1
    mask = coco_mask.encode(pixels)
    mask["counts"] = mask["counts"].decode()
    points = [{"id": "a1", "annotations": [annotation(mask=mask), annotation(DOG)]}]
    box = np.zeros_like(pixels)
    box[4:22, 10:20] = 1  # 3.75 to 22.5 down: half a pixel is rounded to even
    for missing, expected in (("empty", 0 * box), ("box", box)):
        found = coco(points, {"a1.jpg": photo()}, "--missing_masks", missing)
        masked, other = found.dataset["annotations"]
        assert masked["segmentation"] == mask
        assert masked["area"] == 30
        assert other["area"] == 187.5
        assert (found.annToMask(masked) == pixels).all()
        assert (found.annToMask(other) == expected).all()


def test_coco_evaluates_masks_of_a_set_with_boxes_without_one(coco):
    """Without a segmentation the evaluation stops with a KeyError; an empty one is an object never found."""
    from pycocotools.cocoeval import COCOeval

    mask = mask_of((40, 30), (4, 4, 12, 9))
    points = [
        {"id": "a1", "annotations": [annotation(mask=mask), annotation(DOG), annotation(DOG, group_of=1)]},
        {"id": "b2", "annotations": [annotation(DOG, mask=mask)]},
    ]
    images = {"a1.jpg": photo(), "b2.jpg": photo()}
    for missing, recall in (("empty", 0.75), ("box", 1.0)):
        found = coco(points, images, "--missing_masks", missing)
        with redirect_stdout(StringIO()):
            detections = found.loadRes([{**box, "score": 1.0} for box in found.dataset["annotations"]])
            evaluation = COCOeval(found, detections, "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert evaluation.stats[8] == recall  # of two classes, one with a box of which half have a mask


def test_supercategories_are_the_nearest_ancestors_and_names_are_unlike(coco, tmp_path):
    (tmp_path / "names.csv").write_text(NAMES)
    (tmp_path / "hierarchy.json").write_text(json.dumps(HIERARCHY))
    points, images = many(2)
    hierarchy = ("--hierarchy_path", tmp_path / "hierarchy.json")
    found = coco(points, images, *hierarchy, "--class_description_path", tmp_path / "names.csv")
    # Nobody described the nearest ancestor, and none is above the cat.
    assert [(one["name"], one["supercategory"]) for one in found.dataset["categories"]] == [
        (f"Pet ({DOG})", PET), (f"Pet ({CAT})", "Pet"),
    ]  # fmt: skip
    found = coco(points, images, *hierarchy)
    assert [one["supercategory"] for one in found.dataset["categories"]] == [PET, CAT]


def test_author_and_licence_are_those_of_the_attribution(coco, tmp_path):
    points, images = many(4)
    (tmp_path / "names.csv").write_text(
        "id,author,title,landing_url,license,author_profile_url,url\n"
        'p2,"Žofka, ""Z""",Heath,https://l/2,https://by/2.0/,,https://o/2\n'
        "elsewhere,Nobody,,,https://by/4.0/,,\n"
        "p0,Ann,,,https://by-sa/,https://ann/,https://o/0\n"
        "p1,Ben,,,https://by/2.0/,,https://o/1\n"
    )
    found = coco(points, images, "--attribution_path", tmp_path / "names.csv")
    licenses = {one["id"]: one["url"] for one in found.dataset["licenses"]}
    by_id = {image.pop("open_images_id"): image for image in found.dataset["images"]}
    assert set(by_id) == {"p0", "p1", "p2", "p3"}
    assert (by_id["p2"]["author"], by_id["p2"]["title"]) == ('Žofka, "Z"', "Heath")
    assert by_id["p2"]["landing_url"] == "https://l/2"
    assert "author_profile_url" not in by_id["p2"]
    assert by_id["p0"]["author_profile_url"] == "https://ann/"
    assert [licenses[by_id[name]["license"]] for name in ("p0", "p1", "p2")] == [
        "https://by-sa/", "https://by/2.0/", "https://by/2.0/",
    ]  # fmt: skip
    assert sorted(licenses.values()) == ["https://by-sa/", "https://by/2.0/"]
    assert "license" not in by_id["p3"]


@pytest.mark.parametrize("flags", [("--source_id", "number"), ("--coco_path", "coco.json")])
def test_two_images_of_one_number_are_an_error_that_names_both(step, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    assert image_number(TWINS[0]) == image_number(TWINS[1])
    points = [{"id": name, "annotations": [annotation()]} for name in TWINS]
    images = {f"{name}.jpg": photo() for name in TWINS}
    assert step(points, images).code == 0
    outcome = step(points, images, *flags, save="other/data.tfrecord")
    assert outcome.code == 1
    assert f"images {TWINS[0]} and {TWINS[1]} share the number 4589286026452293: leave one out" in outcome.err
    assert not (tmp_path / "other/data.tfrecord").exists()


def test_a_repeated_id_is_no_second_image_with_its_number(coco):
    points, images = many(2)
    found = coco([*points, points[0]], images)
    assert len(found.dataset["images"]) == 2


def test_the_same_inputs_give_the_same_bytes_packed_or_not(step, tmp_path):
    import gzip

    points, images = many(5)
    written = []
    for name in ("a.json", "b.json.gz", "c.json"):
        assert step(points, images, "--coco_path", tmp_path / name).code == 0
        data = (tmp_path / name).read_bytes()
        written.append(gzip.decompress(data) if name.endswith(".gz") else data)
    assert written[0] == written[1] == written[2]


def test_memory_grows_by_less_than_200_bytes_an_image(tmp_path):
    import tracemalloc

    import msgspec

    from common.openimages.datapoints import Annotation
    from common.records.coco import CocoSettings, write_coco
    from common.records.types import RecordSet, Work

    categories = [{"id": 1, "name": CAT, "mid": CAT}]
    peaks = []
    for images in (3000, 8000):  # with more than is read of a file at once
        records = RecordSet(tmp_path / "records")
        with open(tmp_path / "work", "wb") as lines, open(tmp_path / "attribution.csv", "w") as attribution:
            attribution.write("id,author,license,title\n")
            for number in range(images):
                records.offsets.append(lines.tell())
                boxes = [Annotation(CAT, 0.1, 0.2, 0.3, 0.4)] * 2
                work = Work(f"{number:016x}", f"{number:016x}.jpg", 20_000, boxes, [], (256, 192))
                lines.write(msgspec.json.encode(work) + b"\n")
                attribution.write(f"{number:016x},Ann,https://by/2.0/,{'long ' * 300}\n")
        settings = CocoSettings([tmp_path / "coco.json"], categories, str(tmp_path / "attribution.csv"))
        tracemalloc.start()
        write_coco([records], tmp_path / "work", settings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 5000 < 200


def test_a_file_on_a_store_is_the_same(step, tmp_path, bucket):
    points, images = many(2)
    assert step(points, images, "--coco_path", tmp_path / "coco.json").code == 0
    assert step(points, images, "--coco_path", f"{bucket}/coco.json").code == 0
    assert parse_path(f"{bucket}/coco.json").read_bytes() == (tmp_path / "coco.json").read_bytes()


def test_labels_alone_make_a_file_without_annotations(coco):
    points = [{"id": "a1", "annotations": [], "image_labels": [{"label": CAT, "confidence": 0}]}]
    found = coco(points, {"a1.jpg": photo()})
    assert found.dataset["annotations"] == []
    assert len(found.dataset["images"]) == 1


def test_the_manifest_holds_the_classes(step, tmp_path):
    points, images = many(1)
    assert step(points, images).code == 0
    manifest = json.loads((tmp_path / "out/data.tfrecord.manifest.json").read_text())
    assert manifest["classes"] == [DOG, CAT]
