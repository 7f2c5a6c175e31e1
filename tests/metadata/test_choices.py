"""Step 3: which classes, boxes and images are chosen, and what they bring along."""

import csv
import json
import random
import sys

import pytest

from common.openimages.classes import read_descriptions
from tests.support.step3 import (
    ANIMAL,
    CAT,
    DOG,
    GOOD,
    INDEX,
    INDEX_V3,
    MAMMAL,
    PET,
    TRAIN_V3,
    TREE,
    V4,
    A,
    B,
    C,
    box,
    entry,
    results,
    table,
)

AIRPLANE, BALL = "/m/0cmf2", "/m/018xm"
DESCRIPTIONS = (
    f"{CAT},Cat\n{DOG},Dog\n{TREE},Tree\n/m/04rmv,Mouse\n/m/020lf,Mouse\n/m/0cvnqh,Bench\n/m/076lb9,Bench\n"
    '/m/01z1m1x,"Bacon, ""Fried"""\n'
    f"{AIRPLANE},Fixed-wing aircraft\n{BALL},Ball\n/m/0cyhj_,Orange (fruit)\n/m/0jc_p,Orange\n"
)


@pytest.fixture
def choose(step, tmp_path):
    """Return `choose(classes)`, a run that asks for these; Mouse is trainable twice, Bench once."""

    def call(asked: str, *flags: object):
        (tmp_path / "names.csv").write_text(DESCRIPTIONS)
        (tmp_path / "more.txt").write_text(
            f"/m/04rmv\n{DOG}\n{CAT}\n/m/020lf\n/m/0cvnqh\n/m/01z1m1x\n{AIRPLANE}\n{BALL}\n/m/0cyhj_\n"
        )
        return step(
            table(TRAIN_V3, box(A, CAT), box(B, DOG), box(C, "/m/0cvnqh"), box(C, "/m/01z1m1x"), box(A, AIRPLANE), box(A, BALL)),
            table(INDEX_V3, entry(A), entry(B), entry(C)),
            "--trainable_classes_path", tmp_path / "more.txt", *(("--classes", asked) if asked else ()),
            "--class_description_path", tmp_path / "names.csv",
            "--trainable_classes_output_path", tmp_path / "chosen.txt", *flags,
        )  # fmt: skip

    return call


CHOICES = {
    "one name": ("Cat", [CAT]),
    "any case and blanks": (" dOG , CAT ", [DOG, CAT]),
    "order of the trainable list": ("Cat,Dog", [DOG, CAT]),
    "MID": (f"{CAT}", [CAT]),
    "same class twice": (f"Cat,{CAT}", [CAT]),
    "a shared name of which one is trainable": ("Bench", ["/m/0cvnqh"]),
    "quoted": ('"Dog"', [DOG]),
    "quoted after a blank": ('"Cat", "Dog"', [DOG, CAT]),
    "name before V7": ("airplane", [AIRPLANE]),
    "name of V7": ("Ball (Object)", [BALL]),
    "a comma in the name": ('"bacon, ""fried""", cat', [CAT, "/m/01z1m1x"]),
}


@pytest.mark.parametrize(("asked", "chosen"), CHOICES.values(), ids=CHOICES)
def test_classes_are_chosen_by_name(choose, tmp_path, asked, chosen):
    outcome = choose(asked)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "chosen.txt").read_text().split() == chosen
    labels = {annotation["label"] for point in results(tmp_path)[0] for annotation in point["annotations"]}
    assert labels == set(chosen)


def test_a_name_of_another_release_is_named_in_one_line(choose, tmp_path):
    assert choose("Cat,Fixed-wing aircraft,Ball").messages == ""
    outcome = choose("Cat,Airplane")
    assert (
        outcome.messages
        == f"--classes: 'Airplane' is named 'Fixed-wing aircraft' in {tmp_path}/names.csv ({AIRPLANE})\n"
    )


def test_the_renamed_classes_are_those_of_the_releases(real_files):
    if real_files is None:
        pytest.skip("OPEN_IMAGES_FILES is not set")
    from common.openimages.class_choice import RENAMED

    v5, v7 = (
        read_descriptions(real_files / path)
        for path in (
            "v5_boxable/class-descriptions-boxable.csv",
            "v7_classes/oidv7-class-descriptions-boxable.csv",
        )
    )
    assert {mid: (name, v7[mid]) for mid, name in v5.items() if v7[mid] != name} == RENAMED


def test_classes_are_chosen_by_a_file_too(choose, tmp_path):
    """One a line, names as they are written: a comma or quote needs no quotes here."""
    (tmp_path / "wanted.txt").write_bytes(f'\ufeffBacon, "Fried"\r\n\r\n  cat\r\n{DOG}'.encode())
    assert choose("", "--classes_path", tmp_path / "wanted.txt").code == 0
    assert (tmp_path / "chosen.txt").read_text().split() == [DOG, CAT, "/m/01z1m1x"]
    (tmp_path / "wanted.txt").write_text("Cat\nMouse\n")
    outcome = choose("", "--classes_path", tmp_path / "wanted.txt")
    assert (outcome.code, "2 classes are named 'Mouse': give a MID" in outcome.err) == (1, True)


WRONG_CHOICES = {
    "unknown": ("Dgo", "class 'Dgo' is unknown; similar names: Dog"),
    "not trainable": ("Tree", f"class 'Tree' is not trainable ({TREE})"),
    "older name that another class has now": (
        "Orange",
        "class 'Orange' is not trainable (/m/0jc_p); similar names: Orange (fruit)",
    ),
    "like an older name": ("Aeroplane", "class 'Aeroplane' is unknown; similar names: Fixed-wing aircraft"),
    "shared": ("Mouse", "2 classes are named 'Mouse': give a MID (/m/04rmv or /m/020lf)"),
    "MID that is not trainable": (TREE, f"class {TREE} (Tree) is not one of the 9 trainable classes"),
    "nothing": (" , ", "--classes: no class in it, names or MIDs were expected"),
    "open quote": ('"Dog', "--classes: unexpected end of data, names separated by commas were expected"),
}


@pytest.mark.parametrize(("asked", "message"), WRONG_CHOICES.values(), ids=WRONG_CHOICES)
def test_wrong_choices_name_the_candidates(choose, tmp_path, asked, message):
    outcome = choose(asked)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert message in outcome.err
    assert not (tmp_path / "chosen.txt").exists()


def test_a_choice_needs_a_place_for_the_chosen_list(step):
    outcome = step(GOOD, INDEX, "--classes", CAT)
    assert outcome.code == 2
    assert "need --trainable_classes_output_path for the chosen list" in outcome.err


def test_a_larger_number_of_images_contains_the_smaller_whatever_the_order(step, tmp_path):
    ids = [f"{number:016x}" for number in range(40)]
    kept = {}
    for number in (3, 10):
        random.Random(number).shuffle(ids)
        outcome = step(
            table(TRAIN_V3, *map(box, ids)), table(INDEX_V3, *map(entry, ids)), "--max_images", number
        )
        assert outcome.counts["images_not_chosen"] == 40 - number
        points, images = results(tmp_path)
        kept[number] = {point["id"] for point in points}
        assert kept[number] == {image["id"] for image in images}
        assert len(kept[number]) == number
    assert kept[3] < kept[10]
    step(table(TRAIN_V3, *map(box, ids)), table(INDEX_V3, *map(entry, ids)), "--max_images", 10, "--seed", 1)
    assert {point["id"] for point in results(tmp_path)[0]} != kept[10]


# --- filters, hierarchy, image-level labels, attribution --------------------------------------------------


def test_boxes_are_excluded_by_attribute_and_size(step, tmp_path):
    boxes = table(
        V4, box(A, more=",0,0,1,0,0"), box(A, more=",1,0,0,0,0"), box(A, DOG, more=",0,1,0,1,-1"),
        box(B, corners="0.1,0.14,0,1", more=",0,0,0,0,0"), box(B, corners="0.25,0.3125,0,1", more=",0,0,0,0,0"),
    )  # fmt: skip
    outcome = step(
        boxes,
        table(INDEX_V3, entry(A), entry(B)),
        "--exclude",
        "group_of,depiction",
        "--min_box_side",
        0.0625,
    )
    assert outcome.code == 0
    assert (
        outcome.counts.items()
        >= {"boxes": 2, "excluded_group_of": 1, "excluded_depiction": 1, "too_small": 1}.items()
    )
    assert [point["id"] for point in results(tmp_path)[0]] == [A, B]


def test_boxes_a_rounding_of_pixels_over_the_edge_are_clipped(step, tmp_path):
    """Up to 0.01, before any other rule; what is further outside, or has no area then, stays out."""
    corners = [
        "-0.01,1.004,0.5,1.01",
        "0.2,1.02,0,1",
        "1.001,1.002,0,1",
        "0.995,1.009,0,1",
        "0,1,0,1.0000005",
    ]
    boxes = table(TRAIN_V3, *(box(corners=sides) for sides in corners), box(A, TREE, "0,1.001,0,1"))
    plain = {"boxes": 1, "outside_image": 4, "other_classes": 1, "without_area": 0}
    outcome = step(boxes, INDEX)
    assert outcome.counts.items() >= plain.items()
    path = tmp_path / "boxes.csv"
    assert outcome.messages == (
        f"{path}: most boxes are outside the image: line 2: XMin is -0.01, a number from 0 to 1 was expected; "
        "see --clip_boxes\n"
    )
    outcome = step(boxes, INDEX, "--clip_boxes", "--min_box_side", "0.006")
    clipped = {"boxes": 2, "clipped": 1, "outside_image": 1, "without_area": 1, "too_small": 1}
    assert (outcome.messages, outcome.counts.items() >= clipped.items()) == ("", True)
    found = [[one[key] for key in ("x0", "x1", "y0", "y1")] for one in results(tmp_path)[0][0]["annotations"]]
    assert found == [[0, 1, 0.5, 1], [0, 1, 0, 1]]


def test_filters_that_leave_nothing_are_told(step):
    outcome = step(GOOD, INDEX, "--min_box_side", "0.9")
    assert outcome.code == 1
    assert "no box to keep" in outcome.err
    assert outcome.err.endswith("rows=1, too_small=1\n")


def test_excluding_what_the_release_does_not_say_is_an_error(step):
    outcome = step(GOOD, INDEX, "--exclude", "group_of")
    assert outcome.code == 1
    assert "boxes.csv:1: no column IsGroupOf; the header has" in outcome.err


@pytest.mark.parametrize(
    "flags",
    [("--exclude", "blurred"), ("--min_box_side", "2"), ("--expand_hierarchy",), ("--keep_labels_only",)],
)
def test_flags_that_make_no_sense_exit_2(step, flags):
    assert step(GOOD, INDEX, *flags).code == 2


LIST = f"""train/{B}

s3://open-images-dataset/validation/{C}.jpg
2019-03-28 10:12:33     512345 {"ABC".rjust(16, "0")}.JPG
2019-03-28 10:12:33      51234 train/{"d" * 16}.jpeg
                           PRE challenge2018/
{"E" * 16}
own_image-1.png"""


def test_exactly_the_images_of_a_list(step, tmp_path):
    """As ids, paths, addresses or a listing of the mirror; the index counts, not the boxes, for what is not found."""
    (tmp_path / "ids.txt").write_text(LIST)
    ids = [A, B, C, "abc".rjust(16, "0"), "e" * 16, "own_image-1"]
    boxes, index = table(TRAIN_V3, *map(box, [A, B, *ids[3:]])), table(INDEX_V3, *map(entry, ids))
    counts = step(boxes, index, "--image_ids_path", tmp_path / "ids.txt").counts
    expected = {"images": 4, "images_not_chosen": 1, "not_listed": 1, "listed_not_found": 1}
    assert counts.items() >= (expected | {"listed_without_boxes": 1}).items()
    assert [point["id"] for point in results(tmp_path)[0]] == [B, *ids[3:]]


OTHERS = [f"{number:016x}" for number in range(100, 130)]  # images without a box of the classes


@pytest.fixture
def background(step, tmp_path):
    """Return `background(*flags)`, a run in which A and B have boxes and C lost its only one to a filter.

    It returns the ids of the images that were kept, those with boxes first, and the counts.
    """
    boxes = table(TRAIN_V3, box(OTHERS[0], TREE), box(A), box(C, corners="0,0.01,0,1"), box(B, DOG))
    index = table(INDEX_V3, *map(entry, [*OTHERS[:20], B, A, C, *OTHERS[20:]]))

    def call(*flags: object):
        outcome = step(boxes, index, "--min_box_side", 0.05, *flags)
        assert outcome.code == 0, outcome.err
        points, kept = results(tmp_path)
        assert {point["id"] for point in points} == {image["id"] for image in kept}
        assert all(bool(point["annotations"]) == (point["id"] in (A, B)) for point in points)
        return [point["id"] for point in points], outcome.counts

    return call


def test_images_without_boxes_are_background(background):
    """So many by hash, in the order of the index; one that lost its boxes to a filter is none."""
    assert background() == ([A, B], background()[1])
    few, counts = background("--keep_images_without_boxes", 4)
    assert counts.items() >= {"images": 6, "boxes": 2, "images_without_boxes": 4, "too_small": 1}.items()
    assert few[:2] == [A, B]
    assert few[2:] == [image for image in OTHERS if image in few]
    more = background("--keep_images_without_boxes", 9)[0]
    assert (len(more), set(few) < set(more)) == (11, True)
    assert background("--keep_images_without_boxes", 9, "--seed", 1)[0] != more
    assert background("--keep_images_without_boxes", 99)[0] == [A, B, *OTHERS]
    limits = ("--max_images_per_class", 1, "--max_images", 5)
    found, counts = background("--keep_images_without_boxes", 5, *limits)
    assert counts.items() >= {"images": 5, "images_not_chosen": 2, "over_max_images": 2}.items()
    assert set(found) < {A, B, *background("--keep_images_without_boxes", 5)[0]}


def test_images_of_a_list_are_background(background, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join([A, C, *OTHERS[:5], "gone", "gone too".replace(" ", "_")]))
    listed = ("--image_ids_path", tmp_path / "ids.txt")
    found, counts = background(*listed)
    assert (found, counts["listed_not_found"], counts["listed_without_boxes"]) == ([A], 2, 6)
    found, counts = background(*listed, "--keep_images_without_boxes")
    assert (found, counts["listed_not_found"], counts["listed_without_boxes"]) == ([A, *OTHERS[:5]], 2, 1)
    assert len(background(*listed, "--keep_images_without_boxes", 3)[0]) == 4


def test_background_with_a_label_verified_present_is_none(background, tmp_path):
    """The label of a class that is not kept does not count; those verified absent are passed on."""
    rows = f"{OTHERS[0]},{CAT},1", f"{OTHERS[1]},{CAT},0", f"{OTHERS[2]},{TREE},1", f"{C},{CAT},0"
    (tmp_path / "labels.csv").write_text(table("ImageID,LabelName,Confidence", *rows))
    flags = ("--keep_images_without_boxes", 99, "--image_labels_input_path", tmp_path / "labels.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.metadata.index.BUCKET", 2)
        found, counts = background(*flags)
    assert (found, counts["present_without_boxes"]) == ([A, B, *OTHERS[1:]], 1)
    points = results(tmp_path)[0]
    assert points[2]["image_labels"] == [{"label": CAT, "confidence": 0}]
    assert points[3]["image_labels"] == []


def test_mlperfs_list_is_read(step, real_files):
    if real_files is None:
        pytest.skip("OPEN_IMAGES_FILES is not set")
    path = real_files / "mlperf_ids/openimages_cal_images_list.txt"
    outcome = step(
        table(TRAIN_V3, box("dd51a1780bcb3d28")),
        table(INDEX_V3, entry("dd51a1780bcb3d28")),
        "--image_ids_path",
        path,
    )
    assert outcome.counts.items() >= {"images": 1, "listed_not_found": 499}.items()


APART = {
    "lost zeros": (
        "2b66c9c498e",
        A,
        f"the index has 2b66c9c498e (leading zeros lost?), the box file has {A}",
    ),
    "file names": (A, "b.jpg", f"the index has {A}, the box file has b.jpg (a file name?)"),
    "decimal numbers": (
        "139",
        A,
        f"the index has 139 (a decimal number, or leading zeros lost?), the box file has {A}",
    ),
    "upper case": ("AB" * 8, A, f"the index has ABABABABABABABAB (upper case?), the box file has {A}"),
    "nothing odd": (A, B, f"the index has {A}, the box file has {B}"),
    "both alike": ("139", "140", "the index has 139, the box file has 140"),
}


@pytest.mark.parametrize(("one", "other", "text"), APART.values(), ids=APART)
def test_ids_that_have_nothing_in_common_are_shown(step, one, other, text):
    outcome = step(table(TRAIN_V3, box(other)), table(INDEX_V3, entry(one)))
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.endswith(f"{text}\n")


def test_so_many_images_of_each_class(step, tmp_path):
    rows = [box(f"{number:016x}", CAT if number % 3 else DOG) for number in range(60)]
    index = table(INDEX_V3, *(entry(f"{number:016x}") for number in range(60)))
    kept = {}
    for number in (4, 9):
        random.Random(number).shuffle(rows)
        assert step(table(TRAIN_V3, *rows), index, "--max_images_per_class", number).code == 0
        points = results(tmp_path)[0]
        labels = [point["annotations"][0]["label"] for point in points]
        assert (labels.count(CAT), labels.count(DOG)) == (number, number)
        kept[number] = {point["id"] for point in points}
    assert kept[4] < kept[9]
    counts = step(table(TRAIN_V3, *rows), index, "--max_images_per_class", 4, "--max_images", 5).counts
    assert counts.items() >= {"images": 5, "over_max_images_per_class": 52, "over_max_images": 3}.items()
    assert {point["id"] for point in results(tmp_path)[0]} < kept[4]


@pytest.fixture
def hierarchy(tmp_path):
    """Root > Animal > (Mammal > (Cat, Dog), Pet > Cat); Tree beside them; Dog has a Part that counts for nothing."""
    cat, dog = {"LabelName": CAT}, {"LabelName": DOG, "Part": [{"LabelName": TREE}]}
    kinds = [{"LabelName": MAMMAL, "Subcategory": [cat, dog]}, {"LabelName": PET, "Subcategory": [cat]}]
    tree = {
        "LabelName": "/m/0bl9f",
        "Subcategory": [{"LabelName": ANIMAL, "Subcategory": kinds}, {"LabelName": TREE}],
    }
    (tmp_path / "hierarchy.json").write_text(json.dumps(tree))
    (tmp_path / "trainable.txt").write_text("".join(f"{mid}\n" for mid in (TREE, CAT, ANIMAL, DOG, PET)))
    return (
        "--hierarchy_path",
        tmp_path / "hierarchy.json",
        "--trainable_classes_path",
        tmp_path / "trainable.txt",
    )


def test_kinds_of_a_chosen_class_join_it(step, tmp_path, hierarchy):
    flags = ("--classes", PET, "--trainable_classes_output_path", tmp_path / "chosen.txt")
    boxes = table(TRAIN_V3, box(A, CAT), box(A, DOG), box(A, TREE))
    assert step(boxes, INDEX, *hierarchy, *flags).code == 0
    assert (tmp_path / "chosen.txt").read_text().split() == [CAT, PET]
    assert [annotation["label"] for annotation in results(tmp_path)[0][0]["annotations"]] == [CAT]


def test_subclasses_that_are_not_chosen_are_hinted_at(step, tmp_path, hierarchy):
    """The hierarchy beside the class files changes nothing; with the flag there is nothing to hint at."""
    flags = ("--classes", f"{ANIMAL},{CAT}", "--trainable_classes_output_path", tmp_path / "chosen.txt")
    outcome = step(GOOD, INDEX, *hierarchy[2:], *flags)
    assert outcome.code == 0
    assert (tmp_path / "chosen.txt").read_text().split() == [CAT, ANIMAL]
    assert outcome.messages == (
        f"{tmp_path}/hierarchy.json: boxes of {DOG}, {PET} are background; this --hierarchy_path "
        "takes subclasses too\n"
    )
    (tmp_path / "names.csv").write_text(f"{PET},Pet\n{DOG},Dog\n")
    named = step(GOOD, INDEX, *hierarchy[2:], *flags, "--class_description_path", tmp_path / "names.csv")
    assert "boxes of Dog, Pet are background" in named.err
    assert step(GOOD, INDEX, *hierarchy, *flags).messages == ""
    (tmp_path / "hierarchy.json").write_text("damaged")
    assert step(GOOD, INDEX, *hierarchy[2:], *flags).messages == ""


def test_a_box_gets_a_copy_for_each_kept_ancestor_once(step, tmp_path, hierarchy):
    """Cat is below Animal twice, Mammal is not trainable, and the root is no class of its own."""
    with open(tmp_path / "trainable.txt", "a") as stream:
        stream.write("/m/0bl9f\n")
    boxes = table(TRAIN_V3, box(A, CAT), box(A, TREE), box(A, DOG))
    outcome = step(boxes, INDEX, *hierarchy, "--expand_hierarchy")
    labels = [annotation["label"] for annotation in results(tmp_path)[0][0]["annotations"]]
    assert labels == [CAT, PET, ANIMAL, TREE, DOG, ANIMAL]
    assert outcome.counts["expanded"] == 3


def test_verified_labels_go_up_when_present_and_down_when_absent(step, tmp_path, hierarchy):
    (tmp_path / "labels.csv").write_text(table(
        "ImageID,Source,LabelName,Confidence", f"{A},verification,{CAT},1", f"{A},verification,/m/zz,1", f"{A},crowd,{CAT},0",
        f"{B},verification,{MAMMAL},0", f"{B},verification,{TREE},1", f"{'d' * 16},verification,{CAT},1",
    ))  # fmt: skip
    flags = ("--image_labels_input_path", tmp_path / "labels.csv", *hierarchy)
    boxes, index = table(TRAIN_V3, box(A, CAT)), table(INDEX_V3, entry(B), entry(A), entry(C))
    outcome = step(boxes, index, *flags)
    counted = {"images": 1, "label_rows": 6, "labels_of_other_classes": 1, "labels_not_in_index": 1}
    assert outcome.counts.items() >= counted.items()
    present = [{"label": mid, "confidence": 1} for mid in sorted((CAT, PET, ANIMAL))]
    assert results(tmp_path)[0][0]["image_labels"] == present
    assert step(boxes, index, *flags, "--keep_labels_only").counts["images"] == 2
    points, images = results(tmp_path)
    assert [image["id"] for image in images] == [B, A]
    assert points[1] == {
        "id": B, "subset": "train", "annotations": [],
        "image_labels": [
            {"label": mid, "confidence": int(mid == TREE)} for mid in sorted((CAT, DOG, TREE))
        ],
    }  # fmt: skip


def test_labels_of_many_images_in_any_order(step, tmp_path):
    """Over several temporary files and blocks; where a class is both present and absent, present wins."""
    ids = [f"{number:016x}" for number in range(500)]
    rows = [f"{image},{mid},{place % 2}" for place, image in enumerate(ids * 10) for mid in (CAT, DOG)]
    random.Random(1).shuffle(rows)
    (tmp_path / "labels.csv").write_text(table("ImageID,LabelName,Confidence", *rows, f"{ids[0]},{CAT},1.0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.metadata.index.BUCKET", 64)
        patch.setattr("common.metadata.rows.BLOCK", 20_000)
        outcome = step(
            table(TRAIN_V3, *map(box, ids[::2])), table(INDEX_V3, *map(entry, ids)),
            "--image_labels_input_path", tmp_path / "labels.csv", "--keep_labels_only",
        )  # fmt: skip
    assert outcome.counts.items() >= {"images": 500, "boxes": 250, "label_rows": 10_001}.items()
    points = results(tmp_path)[0]
    assert [point["id"] for point in points] == [*ids[::2], *ids[1::2]]
    for point in points:
        confidence = int(point["id"], 16) % 2
        first = int(point["id"] == ids[0]) or confidence
        assert point["image_labels"] == [
            {"label": mid, "confidence": number}
            for mid, number in sorted({CAT: first, DOG: confidence}.items())
        ]


def test_labels_of_other_images_are_an_error(step, tmp_path):
    """Those of another split, and it would seem that nothing was verified."""
    (tmp_path / "labels.csv").write_text(
        table("ImageID,LabelName,Confidence", f"{B},{CAT},1", f"{C},{CAT},0")
    )
    outcome = step(GOOD, INDEX, "--image_labels_input_path", tmp_path / "labels.csv", "--keep_labels_only")
    assert outcome.code == 1
    assert "labels.csv: none of its 2 image labels is of an image in the index" in outcome.err
    assert not list((tmp_path / "out").glob("*"))


BAD_HIERARCHIES = {
    "not JSON": ("{", "hierarchy.json: not JSON"),
    "an array": ("[]", "hierarchy.json: [], an object with LabelName was expected"),
    "no name below": (
        '{"LabelName": "/m/0bl9f", "Subcategory": [{}]}',
        "hierarchy.json: {}, an object with LabelName",
    ),
    "children that are no array": (
        '{"LabelName": "/m/a", "Subcategory": 1}',
        "Subcategory of /m/a is not an array",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_HIERARCHIES.values(), ids=BAD_HIERARCHIES)
def test_a_bad_hierarchy_is_one_line(step, tmp_path, hierarchy, text, message):
    (tmp_path / "hierarchy.json").write_text(text)
    outcome = step(GOOD, INDEX, *hierarchy)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert message in outcome.err


def test_a_hierarchy_may_be_as_deep_as_its_json_is_read(step, tmp_path, hierarchy):
    """Python 3.13 reads JSON deeper than functions may call themselves."""
    depth = 2000 if sys.version_info >= (3, 13) else 300
    start = "".join(f'{{"LabelName": "/m/{number}", "Subcategory": [' for number in range(depth))
    (tmp_path / "hierarchy.json").write_text(f'{start}{{"LabelName": "{DOG}"}}{"]}" * depth}')
    outcome = step(GOOD, INDEX, *hierarchy)
    assert outcome.code == 0, outcome.err


def test_everyone_is_named_who_made_a_photo(step, tmp_path):
    assert (
        step(GOOD, table(INDEX_V3, entry(B), entry(A)), "--attribution_output_path", tmp_path / "by.csv").code
        == 0
    )
    assert list(csv.reader((tmp_path / "by.csv").read_text(encoding="utf-8").splitlines())) == [
        ["id", "author", "title", "landing_url", "license", "author_profile_url", "url"],
        [A, 'Ann, "A"', "Tïtle", "http://page", "http://cc", "http://me", f"http://host/{A}.jpg"],
    ]


def test_the_real_hierarchy_is_read(real_files):
    """31 classes stand below one ancestor twice; Kitchenware and Container are ancestors as well."""
    if real_files is None:
        pytest.skip("OPEN_IMAGES_FILES is not set")
    from common.openimages.classes import descendants, read_ancestors

    ancestors = read_ancestors(real_files / "2018_04/bbox_labels_600_hierarchy.json")
    assert len(ancestors) == 601
    assert "/m/0bl9f" not in set().union(*ancestors.values())
    assert CAT in descendants(ancestors)["/m/0jbk"]
