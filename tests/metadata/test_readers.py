"""Step 3 in blocks and row by row: the same bytes, counts and errors, whatever is in the files."""

import csv
import io
import json
import random
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cli import InputError
from common.metadata import rows as rows_module
from process_metadata import main
from tests.support.step3 import (
    ANIMAL,
    CAT,
    DOG,
    EVIL,
    GOOD,
    INDEX_V3,
    INDEX_V4,
    PET,
    TRAIN_V3,
    TREE,
    V4,
    box,
    entry,
    table,
)

IDS = [f"{number:016x}" for number in range(6)]
OUTPUTS = ("points.json", "images.json", "credits.csv")
LOW = [
    "0.000000", "0.100000", "0", "0.0", "0.022673031", "0.00005", "0.000100", "5e-05", "9.765625E-4", "-0.0000001", "-0.0",
    ".25", "00.25", "+0.25", "0.12345678901234567", "0.30000000000000004", "1e-400", "0.1" + "0" * 30, "0.25000",
]  # fmt: skip
HIGH = [
    "1.000000", "1.005", "0.560250", "1", "1.0", "1.0000005", "0.99999999999999999", "5e-1", "1.", "0.5000", "0.75", "2.5", "9" * 20,
]  # fmt: skip
NO_NUMBERS = ["", "nan", "inf", "1e400", "0x1p-1", "1_0", " 0.5", "0.5 ", "١", "0.5.5", "0/5", "1,5", "-"]
TEXTS = st.text('ab ",é\\\t\x1f\x7f\u2028日', max_size=5)


def files(draw) -> tuple[bytes, bytes]:
    """Return annotations and an index: mostly right, in several dialects of CSV."""
    header = draw(st.sampled_from([TRAIN_V3, V4, V4 + ",Note"])).split(",")
    low, high = (
        st.one_of(st.sampled_from(texts), st.sampled_from(texts), st.floats(0, 1).map(form))
        for texts, form in ((LOW, "{:.6f}".format), (HIGH, repr))
    )
    values = {
        "ImageID": st.sampled_from(IDS),
        "Source": st.sampled_from(["xclick", "activemil", 'a "b", é\\', ""]),
        "LabelName": st.sampled_from([CAT, DOG, CAT, DOG, TREE, ANIMAL, "/m/none"]),
        "Confidence": st.sampled_from(["1", "0", "0.5", "1.0", "1e0"]),
        "XMin": low, "YMin": low, "XMax": high, "YMax": high, "Note": TEXTS,
    }  # fmt: skip
    row = st.tuples(
        *(values.get(name, st.sampled_from(["0", "1", "-1", "0", "1", "1.0", "True", ""])) for name in header)
    )
    rows = draw(st.lists(row, min_size=1, max_size=12))
    if draw(st.integers(0, 4)) < 4:
        rows.sort(key=lambda row: row[0])
        rows[1:1] = rows[: draw(st.integers(0, 1))]
    if draw(st.integers(0, 9)) == 9:
        wrong = list(rows[-1])
        wrong[draw(st.integers(3, len(header) - 1))] = draw(st.sampled_from(NO_NUMBERS))
        rows[-1] = tuple(wrong)
    index_header = draw(
        st.sampled_from([INDEX_V3, INDEX_V4, "Title," + INDEX_V4.replace("Title", "Mine")])
    ).split(",")
    index_values = {
        "ImageID": st.sampled_from([*IDS, "x.y"]),
        "Subset": st.sampled_from(["train", "test", ""]),
        "OriginalSize": st.sampled_from(["123", "0", "", "0123", "1e3", "98765432109876543210", "12.0"]),
        "Rotation": st.sampled_from(["0.0", "90.0", "", "90", "1e-7"]),
    }
    images = draw(
        st.lists(st.tuples(*(index_values.get(name, TEXTS) for name in index_header)), min_size=3, max_size=9)
    )
    place = index_header.index("ImageID")
    images = [
        (*row[:place], image, *row[place + 1 :]) for row, image in zip(images, IDS, strict=False)
    ] + images[6:]
    return dialect(draw, [header, *rows]), dialect(draw, [index_header, *images])


def dialect(draw, rows) -> bytes:
    stream = io.StringIO()
    quoting = draw(
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    )
    csv.writer(stream, lineterminator=draw(st.sampled_from(["\n", "\n", "\r\n"])), quoting=quoting).writerows(
        rows
    )
    text = stream.getvalue()
    if draw(st.integers(0, 14)) == 14:  # broken or odd somewhere
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + draw(st.sampled_from(['"', "\n", ",", "\r", "\0", "\n\n", "a", "\n,\n"]))
            + text[place:]
        )
    if draw(st.integers(0, 29)) == 29:
        text = text[: draw(st.integers(0, len(text)))]
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + text.encode()


FLAGS = st.sampled_from([
    [], [], ["--min_box_side", "0.3"], ["--max_images", "2"], ["--max_images_per_class", "1", "--seed", "3"],
    ["--expand_hierarchy", "--max_images_per_class", "1"], ["--image_ids_path", "ids.txt"],
    ["--image_labels_input_path", "labels.csv"], ["--image_labels_input_path", "labels.csv", "--keep_labels_only"],
    ["--image_labels_input_path", "labels.csv", "--keep_labels_only", "--max_images_per_class", "1"],
    ["--clip_boxes"], ["--image_labels_input_path", "labels.csv", "--keep_images_without_boxes", "2", "--exclude", "inside"],
])  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the files that all examples share."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "classes.txt").write_text(f"{DOG}\n{CAT}\n{ANIMAL}\n{PET}\n")
    (folder / "ids.txt").write_text("\n".join(IDS[:3]))
    (folder / "labels.csv").write_text(table(
        "ImageID,LabelName,Confidence", *(f"{image},{CAT if place % 2 else DOG},{place % 3 % 2}" for place, image in enumerate(IDS)),
    ))  # fmt: skip
    cat, dog = {"LabelName": CAT}, {"LabelName": DOG}
    pet = {"LabelName": PET, "Subcategory": [cat, dog]}
    tree = {"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": ANIMAL, "Subcategory": [pet, cat]}]}
    (folder / "hierarchy.json").write_text(json.dumps(tree))
    return folder


def outcome(folder: Path, flags: list[str]) -> tuple[str, dict[str, bytes]]:
    """Return the counts of a run, or its error, and what it wrote."""
    for name in OUTPUTS:
        (folder / name).unlink(missing_ok=True)
    out = io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            main([
                "--annotations_input_path", f"{folder}/boxes.csv", "--image_index_input_path", f"{folder}/images.csv",
                "--trainable_classes_path", f"{folder}/classes.txt", "--hierarchy_path", f"{folder}/hierarchy.json",
                "--point_output_path", f"{folder}/points.json", "--image_index_output_path", f"{folder}/images.json",
                "--attribution_output_path", f"{folder}/credits.csv",
                *(f"{folder}/{flag}" if flag.endswith((".txt", ".csv")) else flag for flag in flags),
            ])  # fmt: skip
        said = out.getvalue()
    except InputError as error:
        said = str(error)
    return said, {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}


def row_by_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rows_module, "_read_block", lambda read, width, block: (0, None))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_both_ways_agree(folder, data):
    """Whatever is in the files, reading in blocks of any size gives what reading row by row gives."""
    boxes, index = files(data.draw)
    flags = data.draw(FLAGS)
    if b"IsGroupOf" in boxes.split(b"\n")[0] and data.draw(st.booleans()):
        flags = [*flags, "--exclude", "occluded,group_of"]
    (folder / "boxes.csv").write_bytes(boxes)
    (folder / "images.csv").write_bytes(index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK", data.draw(st.sampled_from([1 << 20, 1 << 20, 300, 1000])))
        patch.setattr(rows_module, "SLICE", data.draw(st.sampled_from([1, 2, 500])))
        patch.setattr(rows_module, "usable_cores", lambda: 1)
        fast = outcome(folder, flags)
        row_by_row(patch)
        slow = outcome(folder, flags)
    assert fast == slow


# --- what is wrong far down a file, and the order of many rows ------------------------------------------

GOOD_ROWS = [box(f"{number:016x}") for number in range(300)]
ROWS_DOWN = {
    name: evil for name, evil in EVIL.items() if evil[0] not in (GOOD, "") and "boxes.csv:3" in evil[2]
}


@pytest.mark.parametrize(("boxes", "index", "message"), ROWS_DOWN.values(), ids=ROWS_DOWN)
def test_a_wrong_line_far_down_is_named(step, tmp_path, monkeypatch, boxes, index, message):
    """The line is named by its place in the file, whatever block it is in; what comes below does not matter."""
    monkeypatch.setattr(rows_module, "BLOCK", 4096)
    good, more = table(TRAIN_V3, *GOOD_ROWS).encode(), table("", *GOOD_ROWS)[1:].encode()
    wrong = boxes if isinstance(boxes, bytes) else boxes.encode()
    outcome = step(good + wrong.removeprefix(GOOD.encode()) + (b"" if b'"' in wrong else more), index)
    assert outcome.code == 1
    assert message.replace("boxes.csv:3", "boxes.csv:302") in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


def test_images_in_random_order_and_apart_give_the_same_boxes(step, tmp_path):
    """Over many blocks: sorted, shuffled by image, and shuffled by row, up to order."""
    ids = [f"{number:016x}" for number in range(300)]
    index = table(INDEX_V3, *map(entry, ids))
    rows = [box(image, corners=f"0.{number + 1},0.9,0.1,0.2") for image in ids for number in range(7)]
    found = []
    for order in ("sorted", "by image", "by row"):
        if order == "by image":
            random.Random(1).shuffle(ids)
            rows = [row for image in ids for row in rows if row.startswith(image)]
        elif order == "by row":
            random.Random(1).shuffle(rows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows_module, "BLOCK", 2000)
            if order != "by row":  # which is read by worker processes
                patch.setattr(rows_module, "usable_cores", lambda: 1)
            outcome = step(table(TRAIN_V3, *rows), index)
        assert (outcome.code, outcome.messages) == (0, "")
        points = json.loads((tmp_path / "out/points.json").read_bytes())
        assert [point["id"] for point in points] == list(dict.fromkeys(row[:16] for row in rows))
        boxes = {point["id"]: sorted(map(json.dumps, point["annotations"])) for point in points}
        found.append((boxes, (tmp_path / "out/images.json").read_bytes()))
    assert found[0] == found[1] == found[2]
