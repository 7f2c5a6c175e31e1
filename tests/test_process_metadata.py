"""Step 3: every column set, what is dropped and counted, what is refused, and files in any order."""

import json
import os
import re
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import cli
from common.files.whole_files import open_output
from common.metadata.index import BUCKET
from tests.support.step3 import (
    CAT,
    DOG,
    EVIL,
    GOOD,
    INDEX,
    INDEX_V3,
    INDEX_V4,
    TRAIN_V3,
    TRAIN_V6,
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

ATTRIBUTES = {"occluded": 1, "truncated": 0, "group_of": -1, "depiction": 0, "inside": 0}
COLUMN_SETS = {
    "V3 train": (TRAIN_V3, "", {}),
    "V4": (V4, ",1,0,-1,0,0", ATTRIBUTES),
    "V4 by pandas": (V4, ",1.0,0.0,-1.0,0.0,0.0", ATTRIBUTES),
    "V4 by a program with truth values, unknown left empty": (V4, ",True,False,,False,False", ATTRIBUTES),
    "V4 by a spreadsheet": (V4, ",TRUE,FALSE,,FALSE,FALSE", ATTRIBUTES),
    "V6 train": (TRAIN_V6, ",1,0,-1,0,0" + ",0.1" * 8, ATTRIBUTES),
}


@pytest.mark.parametrize(("header", "more", "attributes"), COLUMN_SETS.values(), ids=COLUMN_SETS)
def test_every_column_set_becomes_a_datapoint(step, tmp_path, header, more, attributes):
    outcome = step(table(header, box(more=more)), table(INDEX_V4, entry(rotation="90.0")))
    assert outcome.code == 0, outcome.err
    points, images = results(tmp_path)
    corners = {"x0": 0.1, "x1": 0.2, "y0": 0.3, "y1": 0.4}
    annotation = {"id": A, "label": CAT, "confidence": 1, **corners, **attributes, "source": "xclick"}
    assert points == [{"id": A, "subset": "train", "rotation": 90.0, "annotations": [annotation]}]
    assert images == [
        {
            "id": A, "url": f"http://host/{A}.jpg", "subset": "train", "size": 123, "md5": "bWQ1", "rotation": 90.0,
            "landing_url": "http://page", "license": "http://cc", "author_profile_url": "http://me",
            "author": 'Ann, "A"', "title": "Tïtle",
        }
    ]  # fmt: skip


def test_columns_are_found_by_name_in_any_order(step, tmp_path):
    header, row = "YMax,YMin,XMax,XMin,LabelName,ImageID", f"0.4,0.3,0.2,0.1,{CAT},{A}"
    assert step(table(header, row), table("OriginalURL,ImageID", f"http://x,{A}")).code == 0
    points, images = results(tmp_path)
    annotation = {"id": A, "label": CAT, "x0": 0.1, "x1": 0.2, "y0": 0.3, "y1": 0.4}
    assert points == [{"id": A, "annotations": [annotation]}]
    assert images == [{"id": A, "url": "http://x"}]


def test_the_outputs_agree_and_every_loss_is_counted(step, tmp_path):
    boxes = table(
        TRAIN_V3, box(B), box(B), box(B, DOG), box(A, TREE), box(A, corners="0.2,0.2,0.3,0.4"),
        box(A, corners="0.1,0.2,0.4,0.3"), box(A, corners="0.1,1.1,0.3,0.4"), box(A, corners="-0.0000005,1.0000005,0,1"),
        box("d" * 16), box(C, TREE),
    )  # fmt: skip
    outcome = step(boxes, table(INDEX_V3, entry(A), entry(C), entry(A), entry(B)))
    assert outcome.code == 0
    points, images = results(tmp_path)
    assert [(point["id"], len(point["annotations"])) for point in points] == [(B, 2), (A, 1)]
    assert points[1]["annotations"][0]["x0"] == 0.0
    assert points[1]["annotations"][0]["x1"] == 1.0
    assert [image["id"] for image in images] == [A, B]
    assert outcome.counts == {
        "images": 2, "classes": 2, "rows": 10, "boxes": 3, "other_classes": 2, "outside_image": 1, "without_area": 2,
        "repeated_rows": 1, "images_not_in_index": 1, "images_not_chosen": 0, "index_rows": 4, "repeated_ids": 1,
    }  # fmt: skip


def test_empty_rows_of_spreadsheets_are_no_rows(step, tmp_path):
    """Of any width, between and after the others; the files are read as if they were not there."""
    assert step(GOOD, INDEX).code == 0
    plain = results(tmp_path)
    spread = [text.replace("\n", f"\n{empty}\n") for text, empty in ((GOOD, "," * 7), (INDEX, ",,"))]
    outcome = step(*spread)
    assert (outcome.code, outcome.counts["rows"], outcome.counts["index_rows"]) == (0, 1, 1), outcome.err
    assert results(tmp_path) == plain


def test_boxes_alike_whose_rows_differ_are_not_duplicates(step, tmp_path):
    """Rows that differ in the way a number is written, or in a column that no box has, are two boxes."""
    header = TRAIN_V3 + ",Note"
    rows = box(more=",a"), box(more=",b"), box(corners="0.10,0.2,0.3,0.4", more=",a"), box(more=",a")
    outcome = step(table(header, *rows, box(B, more=","), rows[1]), table(INDEX_V3, entry(A), entry(B)))
    assert (outcome.counts["boxes"], outcome.counts["repeated_rows"]) == (4, 2)
    points, _ = results(tmp_path)
    assert points[0]["annotations"] == points[0]["annotations"][:1] * 3


@pytest.mark.parametrize(
    ("text", "json_text"),
    [
        ("0.00005", "0.00005"),
        ("0.000001", "1e-6"),
        ("1e-7", "1e-7"),
        ("0.0001", "0.0001"),
        ("0.000000", "0.0"),
    ],
)
def test_small_numbers_are_written_in_their_shortest_form(step, tmp_path, text, json_text):
    assert step(table(TRAIN_V3, box(corners=f"{text},0.5,0.25,1")), table(INDEX_V3, entry(A))).code == 0
    written = (tmp_path / "out/points.json").read_text()
    assert f'"x0":{json_text},"x1":0.5,"y0":0.25,"y1":1.0' in written


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 3)), min_size=1, max_size=12),
    st.sampled_from([2, BUCKET]),
)
def test_rows_in_any_order_give_the_same_boxes(tmp_path_factory, rows, bucket):
    """Rows of an image that are apart give what the same rows give side by side, images by first row.

    So they do when the boxes are in several temporary files.
    """
    from process_metadata import main

    folder = tmp_path_factory.mktemp("order")
    (folder / "images.csv").write_text(table(INDEX_V3, *(entry(image) for image in (C, B, A))))
    (folder / "classes.txt").write_text(f"{CAT}\n")
    first = list(dict.fromkeys(image for image, _ in rows))
    outputs = []
    for name, order in (("apart", rows), ("sorted", sorted(rows, key=lambda row: first.index(row[0])))):
        lines = (box(image, corners=f"0.{number},0.9,0.1,0.2") for image, number in order)
        (folder / "boxes.csv").write_text(table(TRAIN_V3, *lines))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("common.metadata.index.BUCKET", bucket)
            main([
                "--annotations_input_path", str(folder / "boxes.csv"),
                "--image_index_input_path", str(folder / "images.csv"),
                "--trainable_classes_path", str(folder / "classes.txt"),
                "--point_output_path", str(folder / name),
                "--image_index_output_path", str(folder / f"{name}-index"),
            ])  # fmt: skip
        outputs.append((folder / name).read_bytes() + (folder / f"{name}-index").read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(("boxes", "index", "message"), EVIL.values(), ids=EVIL)
def test_bad_files_are_one_line_and_leave_nothing(step, tmp_path, boxes, index, message):
    outcome = step(boxes, index)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


def test_two_outputs_on_one_path_are_refused(step, tmp_path):
    outcome = step(GOOD, INDEX, "--image_index_output_path", tmp_path / "out/../out/points.json")
    assert outcome.code == 2
    assert "two outputs have the same path" in outcome.err


@pytest.mark.parametrize("name", ["boxes.csv", "images.csv", "classes.txt"])
def test_an_output_never_replaces_an_input(step, tmp_path, name):
    outcome = step(GOOD, INDEX, "--trainable_classes_output_path", tmp_path / "out/.." / name)
    assert outcome.code == 2
    assert f"/out/../{name} is an input" in outcome.err
    assert (tmp_path / "boxes.csv").read_text() == GOOD
    assert (tmp_path / "classes.txt").read_text() == f"{DOG}\n{CAT}\n"


def test_an_output_never_replaces_an_input_given_by_its_folder(step, tmp_path):
    """Neither of the class files; one beside them is allowed, and descriptions that nobody reads may be none."""
    folder = tmp_path / "classes"
    folder.mkdir()
    (folder / "list.txt").write_text(f"{CAT}\n")
    (folder / "names.csv").write_text(f"{CAT},Cat\n")
    folders = ("--trainable_classes_path", folder, "--class_description_path", folder)
    for name in ("list.txt", "names.csv"):
        outcome = step(GOOD, INDEX, *folders, "--trainable_classes_output_path", folder / name)
        assert outcome.code == 2
        assert f"/classes/{name} is an input: an output would replace it" in outcome.err.splitlines()[-1]
    assert (folder / "list.txt").read_text() == f"{CAT}\n"
    assert (folder / "names.csv").read_text() == f"{CAT},Cat\n"
    (folder / "names.csv").unlink()
    outcome = step(GOOD, INDEX, *folders, "--trainable_classes_output_path", folder / "chosen.txt")
    assert outcome.code == 0, outcome.err
    assert (folder / "chosen.txt").read_text() == f"{CAT}\n"


@pytest.mark.parametrize(
    "flag", ["--annotations_input_path", "--image_index_input_path", "--masks_input_path"]
)
def test_a_pipe_is_refused_before_anything_is_written(step, tmp_path, flag):
    """As `<(cat images.csv)` makes one; it is read more than once."""
    assert step(GOOD, INDEX).code == 0
    before = (tmp_path / "out/points.json").read_bytes()
    reader, writer = os.pipe()
    os.write(writer, (INDEX if "index" in flag else GOOD).encode())
    os.close(writer)
    try:
        outcome = step(table(TRAIN_V3, box(A, DOG)), INDEX, flag, f"/dev/fd/{reader}")
    finally:
        os.close(reader)
    message = "not a regular file, and it is read more than once: a file was expected"
    assert (outcome.code, outcome.err) == (1, f"process_metadata.py: /dev/fd/{reader}: {message}\n")
    assert (tmp_path / "out/points.json").read_bytes() == before


def test_no_room_for_grouping_on_disk_is_one_line(step, tmp_path):
    ids = [f"{number:016x}" for number in range(15000)]
    many = table(TRAIN_V3, *map(box, ids), box(ids[0], DOG))
    (tmp_path / "many.csv").write_text(many)
    index = table("ImageID,OriginalURL", *(f"{image}," for image in ids))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        outcome = step(GOOD, index, "--annotations_input_path", tmp_path / "many.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].endswith("set TMPDIR to a folder with more room")
    assert "Traceback" not in outcome.err
    assert not list((tmp_path / "out").glob("*"))


def test_compressed_files_are_read_and_written(step, tmp_path):
    import gzip

    assert step(GOOD, INDEX).code == 0
    plain = results(tmp_path)
    for name in ("boxes.csv", "images.csv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    outcome = step(
        GOOD, INDEX, "--annotations_input_path", tmp_path / "boxes.csv.gz",
        "--image_index_input_path", tmp_path / "images.csv.gz", "--point_output_path", tmp_path / "p.json.gz",
    )  # fmt: skip
    assert outcome.code == 0
    assert json.loads(gzip.decompress((tmp_path / "p.json.gz").read_bytes())) == plain[0]


def test_an_id_is_held_in_at_most_200_bytes():
    import tracemalloc

    from common.metadata.index import Images

    number = 50_000
    images = Images()
    images.entries.add("entries", [(0, b"")])  # opens the temporary file
    tracemalloc.start()
    for value in range(number):
        images.add_entries([(f"{value:016x}", f'"rotation":{90.0 * (value % 4)}', b"{}")])
    images.number_all(f"{value:016x}" for value in range(number))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    images.close()
    assert held <= 200 * number


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_progress_is_the_share_of_each_file_read(step, tmp_path, monkeypatch, ending):
    """Of a compressed file too, whose size is that of its bytes on disk."""
    monkeypatch.setattr(cli, "LINE_SECONDS", 0)
    path = tmp_path / f"many.{ending}"
    with open_output(path) as stream:
        stream.write(table(V4, *(box(more=",1,0,-1,0,0") for _ in range(2000))).encode())
    outcome = step("", table(INDEX_V4, entry(rotation="0")), "--annotations_input_path", path)
    assert outcome.code == 0, outcome.err
    *_, done = re.findall(rf"many\.{ending}: 100%\|#+\| (\S+)/(\S+) ", outcome.err)
    assert done[0] == done[1]
    assert "boxes by image: 100%|" in outcome.err
