"""Step 3: instance masks find their boxes by image, class and coordinates."""

import csv
import gzip
import json
import random

import pytest

from tests.support.step3 import (
    ANIMAL,
    CAT,
    DOG,
    INDEX_V3,
    TRAIN_V3,
    TREE,
    A,
    B,
    C,
    box,
    entry,
    results,
    table,
)

HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
INDEX = table(INDEX_V3, entry(A), entry(B), entry(C))


def mask(name: str, image: str = A, label: str = CAT, corners: str = "0.1,0.2,0.3,0.4") -> str:
    return f"{name}.png,{image},{label},{name},{corners},0.5,0.1 0.3 1;0.2 0.4 0"


@pytest.fixture
def join(step, tmp_path):
    """Return `join(boxes, masks, *flags)`, a run on these rows of three images."""

    def call(boxes, masks, *flags, index=INDEX):
        (tmp_path / "masks.csv").write_text(table(HEADER, *masks))
        return step(table(TRAIN_V3, *boxes), index, "--masks_input_path", tmp_path / "masks.csv", *flags)

    return call


def joined(tmp_path) -> list[tuple[str, str, str | None]]:
    """Return image, class and mask of each annotation that was written."""
    points = results(tmp_path)[0]
    return [(point["id"], one["label"], one.get("mask")) for point in points for one in point["annotations"]]


BOXES = ("0.1,0.2,0.3,0.4", "0.102,0.202,0.302,0.402", "0.6,0.8,0.6,0.8")
MATCHES = {  # the boxes and masks of one image and class, and the mask of each box
    "equal as numbers": (["0.887500,0.960938,.5,1"], ["0.8875,0.960938,0.5,1.0"], ["m0"]),
    "equal after a rounding outside": (["-0.0000001,1.0000003,0,1"], ["0,1,0,1"], ["m0"]),
    "other precision": (["0.022673031,0.9642005,0.07103825,0.80054647"], ["0.0227,0.9642,0.071,0.8005"], ["m0"]),
    "just within 0.005": (["0.5,0.7,0.5,0.7"], ["0.505,0.7,0.5,0.705"], ["m0"]),
    "one side beyond 0.005": (["0.5,0.7,0.5,0.7", "0.1,0.2,0.1,0.2"], ["0.5,0.7,0.5,0.7051", "0.1,0.2,0.1,0.2"], [None, "m1"]),
    "nearest of two": (BOXES, ["0.1012,0.2012,0.3012,0.4012"], [None, "m0", None]),
    "equal before near": (BOXES, ["0.1001,0.2,0.3,0.4", "0.1,0.2,0.3,0.4"], ["m1", "m0", None]),
    "each box once": (BOXES[:1], ["0.1001,0.2,0.3,0.4", "0.1002,0.2,0.3,0.4"], ["m0"]),
    "each mask once": (BOXES, ["0.1,0.2,0.3,0.4"], ["m0", None, None]),
    "two boxes and two masks at one place": ([BOXES[0]] * 2, [BOXES[0]] * 2, ["m0", "m1"]),
}  # fmt: skip


@pytest.mark.parametrize("order", [1, -1], ids=["", "reversed"])
@pytest.mark.parametrize(("boxes", "masks", "expected"), MATCHES.values(), ids=MATCHES)
def test_masks_find_their_boxes(join, tmp_path, boxes, masks, expected, order):
    rows = [mask(f"m{place}", corners=corners) for place, corners in enumerate(masks)][::order]
    boxes = [box(corners=corners).replace("xclick", f"s{place}") for place, corners in enumerate(boxes)]
    outcome = join(boxes, rows)
    assert outcome.code == 0, outcome.err
    names = [name and f"{name}.png" for name in expected]
    assert joined(tmp_path) == [(A, CAT, name) for name in names]
    found = len(names) - names.count(None)
    assert outcome.counts["boxes"] == len(boxes)
    assert outcome.counts["masks"] == found
    assert outcome.counts["masks_without_box"] == len(masks) - found


def test_a_mask_is_of_the_same_image_and_class(join, tmp_path):
    """Not counted are masks of other classes, and of images that are not in the index."""
    boxes = [box(A), box(B, DOG), box("d" * 16)]
    masks = [
        mask("other_class", B), mask("other_image", C), mask("tree", A, TREE), mask("stray", "d" * 16),
        mask("unknown", "e" * 16), mask("right", B, DOG),
    ]  # fmt: skip
    outcome = join(boxes, masks)
    assert joined(tmp_path) == [(A, CAT, None), (B, DOG, "right.png")]
    assert (outcome.counts["masks"], outcome.counts["masks_without_box"]) == (1, 2)
    assert (tmp_path / "out/points.json").read_text().count('"source":"xclick","mask":"right.png"}') == 1


def test_rows_of_many_images_in_any_order(join, tmp_path, monkeypatch):
    """Also of images that several temporary files hold, in blocks of a few rows."""
    monkeypatch.setattr("common.metadata.rows.BLOCK", 1 << 12)
    ids = [f"{number:016x}" for number in range(300)]
    boxes = [box(image, corners=f"0.{x},0.9,0.1,0.9") for image in ids for x in range(1, 5)]
    masks = [mask(f"{image}_{x}", image, corners=f"0.{x},0.9,0.1,0.9") for image in ids[::2] for x in (2, 3)]
    index = table(INDEX_V3, *map(entry, ids))
    texts = set()
    for seed in range(2):
        random.Random(seed).shuffle(masks)
        outcome = join(boxes, masks, index=index)
        assert (outcome.counts["masks"], outcome.counts["masks_without_box"]) == (300, 0)
        texts.add((tmp_path / "out/points.json").read_text())
    assert len(texts) == 1
    for point in results(tmp_path)[0]:
        has = [one.get("mask") for one in point["annotations"]]
        of_image = [f"{point['id']}_{x}.png" for x in (2, 3)]
        assert has == ([None, *of_image, None] if point["id"] in ids[::2] else [None] * 4)


def test_without_the_flag_there_are_no_masks_and_no_counts(step):
    assert not {"masks", "masks_without_box"} & set(step(table(TRAIN_V3, box()), INDEX).counts)


def test_a_compressed_file_with_columns_in_another_order(join, tmp_path):
    columns = ["BoxYMax", "LabelName", "Extra", "BoxXMin", "ImageID", "BoxXMax", "MaskPath", "BoxYMin"]
    row = ["0.4", CAT, "x", "0.1", A, "0.2", "88_m039xj__6133896f.png", "0.3"]
    path = tmp_path / "masks.csv.gz"
    path.write_bytes(gzip.compress(table(",".join(columns), ",".join(row)).encode()))
    assert join([box()], [], "--masks_input_path", path).code == 0
    assert joined(tmp_path) == [(A, CAT, "88_m039xj__6133896f.png")]


# --- boxes without a mask ----------------------------------------------------------------------------

SOME = ([box(A), box(A, DOG), box(B), box(C, DOG)], [mask("a"), mask("b", B)])
CHOICES: dict[str, tuple[list[tuple[str, str, str | None]], dict[str, int]]] = {
    "keep": ([(A, CAT, "a.png"), (A, DOG, None), (B, CAT, "b.png"), (C, DOG, None)], {"boxes": 4, "masks": 2}),
    "drop_box": (
        [(A, CAT, "a.png"), (B, CAT, "b.png")],
        {"boxes": 2, "masks": 2, "boxes_without_mask": 2, "images_without_mask": 1},
    ),
    "drop_image": ([(B, CAT, "b.png")], {"boxes": 1, "masks": 1, "images_without_mask": 2}),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "expected"), [(rule, CHOICES[rule]) for rule in CHOICES], ids=CHOICES)
def test_boxes_without_a_mask_are_kept_or_dropped(join, tmp_path, rule, expected):
    annotations, counts = expected
    outcome = join(*SOME, "--boxes_without_mask", rule)
    assert outcome.code == 0, outcome.err
    assert joined(tmp_path) == annotations
    assert [image["id"] for image in results(tmp_path)[1]] == sorted({image for image, _, _ in annotations})
    found = {name: outcome.counts.get(name, 0) for name in CHOICES["drop_box"][1]}
    assert found == dict.fromkeys(found, 0) | counts
    assert outcome.counts["masks_without_box"] == 0


@pytest.mark.parametrize(("rule", "kept"), [("keep", 2), ("drop_box", 2), ("drop_image", 1)])
def test_the_limits_count_what_is_left(join, tmp_path, rule, kept):
    outcome = join(*SOME, "--boxes_without_mask", rule, "--max_images", 2)
    assert outcome.counts["images"] == kept
    assert len(results(tmp_path)[0]) == kept
    assert outcome.counts["masks"] == sum(mask is not None for *_, mask in joined(tmp_path))


def test_images_that_lose_all_boxes_stay_with_their_labels_if_asked(join, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(table("ImageID,LabelName,Confidence", f"{C},{CAT},1"))
    flags = ("--boxes_without_mask", "drop_box", "--image_labels_input_path", labels)
    assert join(*SOME, *flags).counts["images"] == 2
    outcome = join(*SOME, *flags, "--keep_labels_only")
    assert (outcome.counts["images"], outcome.counts.get("images_without_mask", 0)) == (3, 0)
    assert results(tmp_path)[0][2]["annotations"] == []
    assert (
        join(*SOME, *flags, "--keep_labels_only", "--boxes_without_mask", "drop_image").counts["images"] == 1
    )


@pytest.mark.parametrize("rule", CHOICES)
def test_copies_for_ancestors_carry_the_mask_of_their_box(join, tmp_path, rule):
    animal = {"LabelName": ANIMAL, "Subcategory": [{"LabelName": CAT}, {"LabelName": DOG}]}
    (tmp_path / "hierarchy.json").write_text(json.dumps({"LabelName": "/m/0bl9f", "Subcategory": [animal]}))
    (tmp_path / "trainable.txt").write_text(f"{DOG}\n{CAT}\n{ANIMAL}\n")
    outcome = join(
        *SOME, "--hierarchy_path", tmp_path / "hierarchy.json", "--expand_hierarchy",
        "--trainable_classes_path", tmp_path / "trainable.txt", "--boxes_without_mask", rule,
    )  # fmt: skip
    annotations, counts = CHOICES[rule]
    assert joined(tmp_path) == [(i, label, m) for i, mid, m in annotations for label in (mid, ANIMAL)]
    assert (outcome.counts["masks"], outcome.counts["boxes"]) == (counts["masks"], 2 * counts["boxes"])
    assert outcome.counts["expanded"] == counts["boxes"]  # of boxes that are dropped there are no copies
    assert outcome.counts.get("boxes_without_mask", 0) == counts.get("boxes_without_mask", 0)


def test_dropping_every_image_is_an_error_that_says_so(join, tmp_path):
    outcome = join([box(A), box(A, DOG)], [mask("a")], "--boxes_without_mask", "drop_image")
    assert outcome.code == 1
    assert "no box to keep" in outcome.err
    assert "images_without_mask=1" in outcome.err
    assert not list((tmp_path / "out").glob("*"))


# --- what is refused ---------------------------------------------------------------------------------

EVIL = {
    "short row": (f"x.png,{A},{CAT}", "masks.csv:3: 3 fields, 10 were expected"),
    "path": (mask("../x"), "masks.csv:3: MaskPath is '../x.png', a file name that ends in .png was expected"),
    "hidden file": (mask(""), "masks.csv:3: MaskPath is '.png', a file name"),
    "path of Windows": (mask(r"a\x"), r"masks.csv:3: MaskPath is 'a\\x.png', a file name"),
    "quote in the name": (mask('a"x'), "masks.csv:3: MaskPath is 'a\"x.png', a file name"),
    "no PNG": (mask("x").replace(".png", ".jpg"), "masks.csv:3: MaskPath is 'x.jpg', a file name"),
    "long name": (mask("x" * 300), "masks.csv:3: MaskPath is 'xxx"),
    "no number": (mask("x", corners="a,0.2,0.3,0.4"), "masks.csv:3: BoxXMin is 'a', a number from 0 to 1 was expected"),
    "nothing": (mask("x", corners="0.1,,0.3,0.4"), "masks.csv:3: BoxXMax is '', a number from 0 to 1 was expected"),
    "nan": (mask("x", corners="0.1,0.2,nan,0.4"), "masks.csv:3: BoxYMin is 'nan', a number from 0 to 1 was expected"),
    "outside": (mask("x", corners="0.1,0.2,0.3,1.4"), "masks.csv:3: BoxYMax is '1.4', a number from 0 to 1 was"),
    "below 0": (mask("x", corners="-0.1,0.2,0.3,0.4"), "masks.csv:3: BoxXMin is '-0.1', a number from 0 to 1 was"),
    "outside, of another class": (mask("x", B, TREE, "7,0.2,0.3,0.4"), "masks.csv:3: BoxXMin is '7', a number from"),
    "NUL byte": (mask("x\0"), "masks.csv:3: a NUL byte, text was expected"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "message"), EVIL.values(), ids=EVIL)
def test_a_bad_row_is_one_line_and_nothing_is_written(join, tmp_path, row, message):
    outcome = join([box()], [mask("good"), row])
    assert outcome.code == 1
    assert message in outcome.err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*"))


UNMATCHED = {
    "other images only": ([mask("x", "e" * 16)], f"the first mask is {'e' * 16} {CAT} 0.1 0.2 0.3 0.4,"),
    "other classes only": ([mask("x", A, TREE)], f"the first mask is {A} {TREE} 0.1 0.2 0.3 0.4,"),
    "in pixels of another frame": ([mask("x", corners="0.2,0.3,0.3,0.4")], f"{A} {CAT} 0.2 0.3 0.3 0.4,"),
    "header only": ([], "the first mask is missing,"),
}


@pytest.mark.parametrize("rule", CHOICES)
@pytest.mark.parametrize(("masks", "message"), UNMATCHED.values(), ids=UNMATCHED)
def test_masks_of_which_none_matches_are_an_error_that_shows_both_files(join, tmp_path, masks, message, rule):
    for flags in ((), ("--max_images", 1)):
        outcome = join([box()], masks, "--boxes_without_mask", rule, *flags)
        assert outcome.code == 1
        assert "masks.csv: no mask matches a box of " in outcome.err
        assert message in outcome.err
        assert f"the first kept box {A} {CAT} 0.1 0.2 0.3 0.4;" in outcome.err
        assert not list((tmp_path / "out").glob("*"))


def test_without_a_box_to_keep_that_is_the_error(join):
    outcome = join([box(label=TREE)], [mask("x")])
    assert (outcome.code, "no box to keep" in outcome.err) == (1, True)


# --- real files --------------------------------------------------------------------------------------


def test_real_masks_find_their_boxes(step, real_files, tmp_path):
    """Official masks; their two tables were made from them, with other digits."""
    if real_files is None:
        pytest.skip("OPEN_IMAGES_FILES is not set")
    masks = real_files / "efoks_masks/derived-object-segmentation.csv"
    boxes = (real_files / "efoks_masks/derived-bbox.csv").read_text()
    rows = list(csv.DictReader(boxes.splitlines()))
    (tmp_path / "mids.txt").write_text("".join(f"{mid}\n" for mid in {row["LabelName"] for row in rows}))
    outcome = step(
        boxes, table(INDEX_V3, *map(entry, {row["ImageID"] for row in rows})),
        "--trainable_classes_path", tmp_path / "mids.txt", "--masks_input_path", masks,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    with masks.open() as stream:
        expected = sorted(
            (row["ImageID"], row["LabelName"], row["MaskPath"]) for row in csv.DictReader(stream)
        )
    assert sorted(joined(tmp_path)) == expected
    assert (outcome.counts["masks"], outcome.counts["masks_without_box"]) == (15, 0)
