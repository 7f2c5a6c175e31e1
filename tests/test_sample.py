"""The sample: official formats, and boxes that enclose the objects."""

import base64
import filecmp
import hashlib
import io
import itertools
import json
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageChops
from pycocotools import mask as coco_mask

from common.openimages.classes import read_classes, read_descriptions
from sample import make, masks, plan, release, scenes
from sample.classes import BY_LABEL, CLASSES, SEGMENTABLE, TRAINABLE
from sample.scenes import NOISE_SPAN
from tests.support.sample_release import V7_INDEX, Entry, photos, rows

INDEX = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL"
)
LABELS = "ImageID,Source,LabelName,Confidence"
BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax"
FULL_BOXES = f"{BOXES},IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
V6_BOXES = f"{FULL_BOXES},XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
MASKS = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
HEADERS = {
    "2018_04/train/train-images-boxable-with-rotation.csv": f"{INDEX},Rotation",
    "2018_04/validation/validation-images-with-rotation.csv": f"{INDEX},Rotation",
    "2018_04/test/test-images-with-rotation.csv": f"{INDEX},Rotation",
    "2018_04/train/train-annotations-bbox.csv": FULL_BOXES,
    "2018_04/validation/validation-annotations-bbox.csv": FULL_BOXES,
    "2018_04/test/test-annotations-bbox.csv": FULL_BOXES,
    "v5/validation-annotations-bbox.csv": FULL_BOXES,
    "v5/test-annotations-bbox.csv": FULL_BOXES,
    "v6/oidv6-train-annotations-bbox.csv": V6_BOXES,
    "v5/train-annotations-human-imagelabels-boxable.csv": LABELS,
    "v5/validation-annotations-human-imagelabels-boxable.csv": LABELS,
    "v5/test-annotations-human-imagelabels-boxable.csv": LABELS,
    "v7/oidv7-train-annotations-human-imagelabels.csv": LABELS,
    "v7/oidv7-val-annotations-human-imagelabels.csv": LABELS,
    "v7/oidv7-test-annotations-human-imagelabels.csv": LABELS,
    "v5/train-annotations-object-segmentation.csv": MASKS,
    "v5/validation-annotations-object-segmentation.csv": MASKS,
    "v5/test-annotations-object-segmentation.csv": MASKS,
    "v5/classes-segmentation.txt": "/m/01g317",
    "v7/oidv7-class-descriptions-boxable.csv": "LabelName,DisplayName",
    "v5/class-descriptions-boxable.csv": '/m/0138tl,Toy',
    "2018_04/class-descriptions-boxable.csv": "/m/0138tl,Toy",
    "2018_04/bbox_labels_600_hierarchy.json": "{",
}  # fmt: skip
TARBALL_HEADERS = {
    "images": {"train/images.csv": INDEX, "validation/images.csv": INDEX, "test/images.csv": INDEX},
    "annotations_human_bbox": {
        "train/annotations-human-bbox.csv": BOXES,
        "validation/annotations-human-bbox.csv": FULL_BOXES,
        "test/annotations-human-bbox.csv": FULL_BOXES,
    },
    "annotations_human": {
        "train/annotations-human.csv": LABELS,
        "validation/annotations-human.csv": LABELS,
        "test/annotations-human.csv": LABELS,
    },
    "classes": {
        "class-descriptions.csv": "/m/0138tl,Toy\r",
        "classes.txt": "/m/0138tl",
        "classes-trainable.txt": "/m/0138tl",
        "classes-bbox.txt": "/m/0138tl",
        "classes-bbox-trainable.txt": "/m/01g317",
    },
}
V7_BOXES = {
    "train": "v6/oidv6-train-annotations-bbox.csv",
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}


@pytest.fixture(scope="module")
def folder(sample_directory):
    return sample_directory


@pytest.fixture(scope="module")
def truth(folder):
    return make.read_truth(folder)


@pytest.fixture(scope="module")
def v3(folder, tmp_path_factory):
    """Return the files of V3's tarballs."""
    directory = tmp_path_factory.mktemp("v3")
    for path in (folder / "release/2017_11").iterdir():
        subprocess.run(["tar", "-xzf", path, "-C", directory], check=True)
    return directory / "2017_11"


# --- formats -------------------------------------------------------------------------------------


def test_every_file_of_v4_to_v7_has_its_official_path_and_header(folder):
    directory = folder / "release"
    found = {
        path.relative_to(directory).as_posix(): path.read_text("utf-8").split("\n")[0]
        for path in directory.rglob("*")
        if path.is_file() and path.suffix not in (".gz", ".zip")
    }
    assert found == HEADERS


@pytest.mark.parametrize("year", ["2017_07", "2017_11"])
def test_every_tarball_of_v2_and_v3_has_its_official_files_and_headers(folder, year):
    found = {}
    for path in sorted((folder / "release" / year).iterdir()):
        with tarfile.open(path) as archive:
            found[path.name] = {
                name: archive.extractfile(name).read().decode().split("\n")[0] for name in archive.getnames()
            }
    assert found == {
        f"{name}_{year}.tar.gz": {f"{year}/{inner}": header for inner, header in members.items()}
        for name, members in TARBALL_HEADERS.items()
    }


def test_class_lists_and_descriptions_are_those_of_the_classes(folder, v3):
    trainable = read_classes(v3 / "classes-bbox-trainable.txt")
    assert trainable == [one.label for one in TRAINABLE] != sorted(trainable)
    boxable = read_classes(v3 / "classes-bbox.txt")
    assert set(boxable) - set(trainable) == {"/m/02wmf"}
    names = read_descriptions(v3 / "class-descriptions.csv")
    assert list(names) == read_classes(v3 / "classes.txt") == sorted(names)
    assert names["/m/0cvnqh"] == names["/m/076lb9"] == "Bench"
    assert names["/m/0zzsmp_"] == 'Rocket, "Žofka" type'
    assert any(name != name.strip() for name in names.values())
    assert b'/m/0zzsmp_,"Rocket, ""\xc5\xbdofka"" type"\r\n' in (v3 / "class-descriptions.csv").read_bytes()
    later = read_descriptions(folder / "release/v7/oidv7-class-descriptions-boxable.csv")
    assert later == {label: names[label] for label in boxable} | {"/m/076lb9": "Training bench"}
    assert b"\r" not in (folder / "release/v7/oidv7-class-descriptions-boxable.csv").read_bytes()


def test_the_hierarchy_has_the_real_ones_structure_and_traps(folder):
    root = json.loads((folder / "release/2018_04/bbox_labels_600_hierarchy.json").read_text())
    parents: dict[str, list[str]] = {}

    def walk(tree):
        assert set(tree) <= {"LabelName", "Subcategory", "Part"}
        for child in tree.get("Subcategory", []):
            parents.setdefault(child["LabelName"], []).append(tree["LabelName"])
        for child in [*tree.get("Subcategory", []), *tree.get("Part", [])]:
            walk(child)

    walk(root)
    assert root["LabelName"] == "/m/0bl9f"
    assert set(BY_LABEL) < set(parents)
    assert {label for label, above in parents.items() if len(set(above)) > 1} == {"/m/02wmf", "/m/0kmg4"}
    assert parents["/m/076lb9"] == ["/m/05y5lj", "/m/05y5lj"]  # sports equipment appears twice
    assert "/m/0dzct" in parents


def test_the_index_and_the_boxes_of_v7_agree_with_truth(folder, truth):
    for split in release.SPLITS:
        listed = [
            e for e in truth if e["subset"] == split and e["indexed"] and (e["boxes"] or split != "train")
        ]
        found = rows(folder / "release" / V7_INDEX[split])
        ids = [row["ImageID"] for row in found]
        assert ids != sorted(ids)
        repeated = [e["id"] for e in listed if e["fault"] == "repeated_row"]
        assert sorted(ids) == sorted([*(e["id"] for e in listed), *repeated])
        by_id = {e["id"]: e for e in listed}
        for row in found:
            entry = by_id[row["ImageID"]]
            assert row["Subset"] == split
            assert row["OriginalURL"] == f"{make.ORIGINALS_URL}/{row['ImageID']}_o.jpg"
            assert bool(row["Thumbnail300KURL"]) == entry["thumbnail"]
            assert (int(row["OriginalSize"]), row["OriginalMD5"]) == (entry["size"], entry["md5"])
            assert row["Rotation"] == entry["rotation"]
        assert_boxes(rows(folder / "release" / V7_BOXES[split]), [e for e in truth if e["subset"] == split])


def test_the_index_and_the_boxes_of_v3_agree_with_truth(v3, truth):
    for split in release.SPLITS:
        entries = [e for e in truth if e["subset"] == split]
        ids = [row["ImageID"] for row in rows(v3 / split / "images.csv")]
        repeated = [e["id"] for e in entries if e["fault"] == "repeated_row"]
        assert sorted(ids) == sorted([*(e["id"] for e in entries if e["indexed"]), *repeated])
        assert ids[: len(ids) - len(repeated)] == sorted(set(ids))
        assert_boxes(rows(v3 / split / "annotations-human-bbox.csv"), entries)


def assert_boxes(found: list[dict[str, str]], entries: list[Entry]) -> None:
    expected = []
    for entry in sorted(entries, key=lambda entry: entry["id"]):
        boxes = [*entry["boxes"], *(entry["boxes"][:1] if entry["fault"] == "repeated_box" else [])]
        for box in sorted(boxes, key=lambda box: (box["label"], box["x0"], box["y0"])):
            corners = [f"{box[key]:.6f}" for key in ("x0", "x1", "y0", "y1")]
            attributes = [
                str(box[key]) for key in ("occluded", "truncated", "group_of", "depiction", "inside")
            ]
            expected.append((entry["id"], box["source"], box["label"], "1", *corners, *attributes))
    assert [tuple(row.values())[:13] for row in found] == [row[: len(found[0])] for row in expected]


def test_the_sample_has_the_quirks_of_the_real_files(folder, truth, v3):
    by_fault: dict[str, list[Entry]] = {}
    for entry in truth:
        by_fault.setdefault(entry["fault"], []).append(entry)
    assert set(by_fault) == {"", *plan.FAULTS.values()}
    assert len(by_fault[""]) > len(truth) / 2
    assert {e["rotation"] for e in truth} == {"", "0.0", "90.0", "180.0", "270.0"}
    assert {len(e["id"]) for e in truth} == {16}
    attributes = {row["IsOccluded"] for row in rows(folder / "release" / V7_BOXES["train"])}
    assert attributes == {"-1", "0", "1"}
    clicks = rows(folder / "release" / V7_BOXES["train"])
    assert {row["XClick1Y"] == row["YMin"] for row in clicks if row["Source"] == "xclick"} == {True}
    assert {row["XClick1Y"] for row in clicks if row["Source"] == "activemil"} == {"-1"}
    assert {box["label"] for e in truth for box in e["boxes"]} == {one.label for one in CLASSES if one.colour}
    assert {box["label"] for e in by_fault["untrainable"] for box in e["boxes"]} == {"/m/02wmf"}
    for row in by_fault["no_index_row"]:
        assert row["boxes"]
        assert not row["indexed"]
    text = (v3 / "train/images.csv").read_text("utf-8")
    for quirk in ("&#x27;", "&amp;", '""old""', "José", ',"B. Quill, Jr.",', "_z.jpg?zz=1\n", "==,\n"):
        assert quirk in text, quirk
    assert ',"Foto &amp; Film",' in text
    assert ",Foto &amp; Film," in (folder / "release" / V7_INDEX["train"]).read_text("utf-8")


# --- masks ---------------------------------------------------------------------------------------


PYCOCOTOOLS = pytest.mark.filterwarnings("ignore:__array__ implementation")  # 2.0.11 with NumPy 2


@pytest.fixture(scope="module")
def published(folder):
    """Return the published masks of each split: its rows, and the bytes of each PNG by its name."""
    found = {}
    for split in release.SPLITS:
        contents: dict[str, bytes] = {}
        for digit in masks.DIGITS:
            with zipfile.ZipFile(folder / f"release/v5/{split}-masks/{split}-masks-{digit}.zip") as archive:
                names = archive.namelist()
                assert all(name.startswith(digit) for name in names)
                contents |= {name: archive.read(name) for name in names}
        rows_of = rows(folder / f"release/v5/{split}-annotations-object-segmentation.csv")
        found[split] = (rows_of, contents)
    return found


def test_each_row_of_masks_has_its_png_and_its_mask_in_truth(published, truth):
    for split, (found, contents) in published.items():
        listed = {
            masks.path_of(entry["id"], mask): (entry["id"], mask)
            for entry in truth
            if entry["subset"] == split
            for mask in entry["masks"]
        }
        assert sorted(row["MaskPath"] for row in found) == sorted(contents) == sorted(listed)
        for row in found:
            image_id, mask = listed[row["MaskPath"]]
            assert (row["ImageID"], row["LabelName"], row["BoxID"]) == (
                image_id, mask["label"], mask["box_id"]
            )  # fmt: skip
            for column, name in (("BoxXMin", "x0"), ("BoxXMax", "x1"), ("BoxYMin", "y0"), ("BoxYMax", "y1")):
                assert abs(float(row[column]) - mask[name]) <= (0 if split == "train" else 0.00006)
            assert bool(row["PredictedIoU"]) == bool(row["Clicks"]) == (split == "train")


def test_masks_have_the_quirks_of_the_real_ones(published, truth):
    found = [row for split in published.values() for row in split[0]]
    for split in release.SPLITS:
        ids = [row["ImageID"] for row in published[split][0]]
        assert ids != sorted(ids)
        if split == "train":
            assert len(list(itertools.groupby(ids))) > len(set(ids)), "the rows of each image stand together"
    corners = [row[name] for row in found for name in ("BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")]
    assert not any(text.endswith("0") and text not in ("0.0", "1.0") for text in corners)
    assert any(row["MaskPath"].startswith(f"{row['ImageID']}_m0zzsmp__") for row in found)
    labels = {row["LabelName"] for row in found}
    assert len(labels) > 8
    assert labels <= {one.label for one in SEGMENTABLE} < {one.label for one in CLASSES if one.colour}
    every = [mask for entry in truth for mask in entry["masks"]]
    assert sum(mask["empty"] for mask in every) >= 1
    assert sum(mask["box"] is None for mask in every) >= 1
    with_masks = [entry for entry in truth if entry["masks"]]
    assert 0.5 <= len(with_masks) / len(truth) <= 0.67
    assert any(len(entry["masks"]) < len(entry["boxes"]) for entry in with_masks)
    sizes = {entry["id"]: {tuple(mask["size"]) for mask in entry["masks"]} for entry in with_masks}
    assert {len(found) for found in sizes.values()} == {1}
    frames = {entry["id"]: (entry["width"], entry["height"]) for entry in with_masks}
    same = [image_id for image_id, found in sizes.items() if found == {frames[image_id]}]
    assert 0 < len(same) < len(sizes) / 4
    ratios = [
        size[0] * frames[image_id][1] / (size[1] * frames[image_id][0]) for image_id, (size,) in sizes.items()
    ]
    assert 1 not in {round(max(ratios), 4), round(min(ratios), 4)}
    assert all(0.99 < ratio < 1.01 for ratio in ratios)


def test_only_large_boxes_of_single_objects_have_a_mask(truth):
    for entry in truth:
        of_boxes = [mask["box"] for mask in entry["masks"] if mask["box"] is not None]
        assert len(of_boxes) == len(set(of_boxes))
        for box in (entry["boxes"][number] for number in of_boxes):
            assert {box["group_of"], box["depiction"], box["inside"]} <= {0, -1}
            sides = ((box["x1"] - box["x0"]) * entry["width"], (box["y1"] - box["y0"]) * entry["height"])
            assert max(sides) > 80
            assert min(sides) > 40


@PYCOCOTOOLS
def test_each_png_is_1_bit_and_shows_its_object(published, truth):
    contents = {name: data for split in published.values() for name, data in split[1].items()}
    for entry in truth:
        for mask in entry["masks"]:
            with Image.open(io.BytesIO(contents[masks.path_of(entry["id"], mask)])) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "1", tuple(mask["size"]))
                whole = image.convert("L").resize((entry["width"], entry["height"]), Image.Resampling.BOX)
            drawn = np.asarray(whole) >= 128
            if mask["empty"]:
                assert not drawn.any()
            elif mask["box"] is not None:
                assert overlap(drawn, exact(entry["boxes"][mask["box"]])) > 0.97


def test_the_mask_of_a_drawn_object_is_exact():
    drawn = set()
    for seed in range(16):
        image, boxes = scenes.draw(f"mask {seed}", degrees := seed % 4 * 90)
        pixels = np.asarray(image).astype(np.int16)
        for label in {box.label for box in boxes}:
            near = (abs(pixels - np.array(BY_LABEL[label].colour, np.int16)) <= NOISE_SPAN).all(axis=2)
            same_class = [np.asarray(box.mask) for box in boxes if box.label == label]
            assert (np.logical_or.reduce(same_class) == near).all(), (seed, degrees, label)
            drawn.add(label)
    assert drawn == {one.label for one in CLASSES if one.colour}


@PYCOCOTOOLS
def test_exact_masks_are_the_pixels_of_their_objects(folder, truth):
    """In the originals that are in colour. JPEG blurs the edges."""
    checked = 0
    for entry in truth:
        if entry["sources"]["original"] != "ok" or entry["fault"] in ("grey", "cmyk", "truncated"):
            continue
        with Image.open(photos(folder, entry)["original"]) as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.int16)
        for box in entry["boxes"]:
            mask = exact(box)
            assert mask.shape == pixels.shape[:2]
            left, right = round(box["x0"] * entry["width"]), round(box["x1"] * entry["width"])
            inside = (
                slice(round(box["y0"] * entry["height"]), round(box["y1"] * entry["height"])),
                slice(left, right),
            )
            assert mask.sum() == mask[inside].sum()
            near = np.all(abs(pixels[inside] - np.array(box["colour"], np.int16)) <= 48, axis=2)
            assert overlap(mask[inside], near) > 0.92, (entry["id"], box["label"])
            checked += 1
    assert checked > 60


def exact(box: Entry) -> np.ndarray:
    return coco_mask.decode(box["mask"]).astype(bool)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over the union of two masks."""
    return float((one & other).sum() / (one | other).sum())


# --- images --------------------------------------------------------------------------------------


def test_sizes_and_md5_are_those_of_the_originals(folder, truth):
    for entry in truth:
        data = photos(folder, entry)["original"]
        whole = data.read_bytes() if data.exists() else b""
        md5 = base64.b64encode(hashlib.md5(whole).digest()).decode()
        same = (len(whole), md5) == (entry["size"], entry["md5"])
        assert same == (entry["sources"]["original"] == "ok"), entry


def test_every_source_has_the_files_of_truth(folder, truth):
    for entry in truth:
        for source, path in photos(folder, entry).items():
            outcome = entry["sources"][source]
            empty = path.exists() and path.stat().st_size == 0
            there = path.exists() and not empty
            assert there == (outcome in ("ok", "changed") or (outcome == "no_source")), (
                entry,
                source,
            )
            if source != "mirror":
                assert empty == (entry["fault"] in ("gone", "original_gone")), (entry, source)


def test_every_file_has_the_format_of_truth(folder, truth):
    kinds = {"png": ("PNG", "RGB"), "cmyk": ("JPEG", "CMYK"), "grey": ("JPEG", "L")}
    for entry in truth:
        for source, path in photos(folder, entry).items():
            if not path.exists() or not path.stat().st_size:
                continue
            with Image.open(path) as image:
                assert (image.format, image.mode) == kinds.get(entry["fault"], ("JPEG", "RGB")), entry
                assert (image.getexif().get(0x0112) == 6) == (entry["fault"] == "exif")
                side = {"original": 10_000, "mirror": 1024, "thumbnail": 640}[source]
                assert (
                    max(image.size) == min(side, max(entry["width"], entry["height"]))
                    or entry["fault"] == "changed"
                )
                if entry["fault"] == "truncated":
                    with pytest.raises(OSError, match="truncated"):
                        image.load()
                else:
                    image.load()


def test_the_outcomes_follow_from_the_sources(truth):
    for entry in truth:
        found = entry["sources"]
        assert entry["download"] == ("ok" if found["mirror"] == "ok" else found["original"])
        expected = "truncated" if entry["fault"] == "truncated" else "ok"
        assert entry["process"] == (expected if entry["download"] == "ok" else "missing")
    assert {e["download"] for e in truth} == {"ok", "gone", "changed"}
    assert {e["process"] for e in truth} == {"ok", "missing", "truncated"}
    assert sum(e["process"] == "ok" for e in truth) > len(truth) * 3 / 4


@pytest.mark.parametrize("source", ["original", "mirror"])
def test_boxes_enclose_the_objects_in_the_stored_pixels(folder, truth, source):
    checked = 0
    for entry in truth:
        path = photos(folder, entry)[source]
        if (
            entry["fault"] in ("grey", "cmyk", "truncated", "changed")
            or not path.exists()
            or not path.stat().st_size
        ):
            continue
        with Image.open(path) as image:
            pixels = image.convert("RGB")
        for box in entry["boxes"]:
            assert_extent(pixels, box, entry)
            checked += 1
    assert checked > 60


def assert_extent(pixels: Image.Image, box: Entry, entry: Entry) -> None:
    """Assert that the pixels of the class's colour reach the four sides of the box and not beyond."""
    margin = 5  # objects are at least 12 pixels apart in the originals
    corners = (
        box["x0"] * pixels.width,
        box["y0"] * pixels.height,
        box["x1"] * pixels.width,
        box["y1"] * pixels.height,
    )
    area = (
        max(round(corners[0]) - margin, 0),
        max(round(corners[1]) - margin, 0),
        min(round(corners[2]) + margin, pixels.width),
        min(round(corners[3]) + margin, pixels.height),
    )
    part = pixels.crop(area)
    distance = ImageChops.difference(part, Image.new("RGB", part.size, tuple(box["colour"])))
    near = [band.point([255 * (v <= 48) for v in range(256)]) for band in distance.split()]
    mask = ImageChops.darker(ImageChops.darker(near[0], near[1]), near[2])
    found = mask.getbbox()
    assert found, (entry["id"], box)
    extent = (found[0] + area[0], found[1] + area[1], found[2] + area[0], found[3] + area[1])
    for seen, true in zip(extent, corners, strict=True):
        assert abs(seen - true) <= 3, (entry["id"], box, extent, corners)


def test_turning_counterclockwise_by_rotation_puts_the_sky_on_top(folder, truth):
    turned = set()
    for entry in truth:
        if entry["sources"]["original"] != "ok" or entry["fault"] == "truncated":
            continue
        with Image.open(photos(folder, entry)["original"]) as image:
            upright = image.convert("RGB").rotate(float(entry["rotation"] or 0), expand=True)
        third = upright.height // 3
        top = pale_pixels(upright.crop((0, 0, upright.width, third)))
        bottom = pale_pixels(upright.crop((0, 2 * third, upright.width, 3 * third)))
        assert top > 5 * bottom, entry
        turned.add(entry["rotation"])
    assert turned == {"", "0.0", "90.0", "180.0", "270.0"}


def pale_pixels(image: Image.Image) -> int:
    """Return the sky's pixels: only they are bright in all channels."""
    red, green, blue = image.split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return sum(darkest.histogram()[160:])


# --- making --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(folder, tmp_path):
    for name, seed, images in (("one", 1, 10), ("again", 1, 10), ("other", 2, 3)):
        make.main(["--directory", str(tmp_path / name), "--seed", str(seed), "--images", str(images)])
    names = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    again = {
        path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()
    }
    assert names == again
    _, different, errors = filecmp.cmpfiles(tmp_path / "one", tmp_path / "again", names, shallow=False)
    assert (different, errors) == ([], [])
    photo_names = {name for name in names if name.parts[0] in ("photos", "mirror") and name.suffix == ".jpg"}
    _, different, errors = filecmp.cmpfiles(folder, tmp_path / "one", photo_names, shallow=False)
    assert (len(photo_names) > 20, different, errors) == (
        True,
        [],
        [],
    )  # a larger sample begins with the same
    mine, other = make.read_truth(folder)[:3], make.read_truth(tmp_path / "other")
    assert all(a["id"] != b["id"] and a["md5"] != b["md5"] for a, b in zip(mine, other, strict=True))


def test_a_second_run_does_nothing_and_another_sample_replaces_the_first(tmp_path, script):
    assert script("sample.make", "--directory", tmp_path, "--images", 2).code == 0
    first = (tmp_path / "truth.json").stat()
    stale = next((tmp_path / "photos").glob("*_o.jpg"))
    assert script("sample.make", "--directory", tmp_path, "--images", 2).code == 0
    assert (tmp_path / "truth.json").stat().st_mtime_ns == first.st_mtime_ns
    outcome = script("sample.make", "--directory", tmp_path, "--images", 1, "--seed", 5)
    assert outcome.counts == {"images": 1, "seed": 5}
    assert len(make.read_truth(tmp_path)) == 1
    assert not stale.exists()


def test_a_folder_with_other_files_is_not_touched(tmp_path, script):
    (tmp_path / "thesis.txt").write_text("mine")
    outcome = script("sample.make", "--directory", tmp_path)
    assert (outcome.code, outcome.out) == (1, "")
    assert (
        outcome.err
        == f"sample.make.py: {tmp_path}: holds thesis.txt, an empty folder or an older sample was expected\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_large_sample_repeats_scenes_under_new_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SCENES", 5)
    make.main(["--directory", str(tmp_path), "--images", "12"])
    truth = make.read_truth(tmp_path)
    assert len({entry["id"] for entry in truth}) == 12
    for entry, repeated in zip(truth, truth[5:], strict=False):
        assert {**repeated, "id": ""} == {**entry, "id": ""}
        for path, again in zip(
            photos(tmp_path, entry).values(), photos(tmp_path, repeated).values(), strict=True
        ):
            assert path.exists() == again.exists()
            assert not path.exists() or path.samefile(again)
    listed = [row for split in release.SPLITS for row in rows(tmp_path / "release" / V7_INDEX[split])]
    assert {row["ImageID"] for row in listed} == {entry["id"] for entry in truth}
