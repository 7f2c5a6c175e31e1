"""Steps 2 and 6, which both read a class list and class descriptions."""

import json

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from create_label_map import label_map_item
from tests.support.label_map import LABEL_MAP

CLASSES = "/m/01g317\n/m/0bt9lr\n/m/0cvnqh\n/m/076lb9\n"
DESCRIPTIONS = (
    "/m/076lb9,Bench\r\n/m/01g317,Person\r\n/m/0bt9lr,Dog\r\n/m/0cvnqh,Bench\r\n/m/09j2d,Clothing\r\n"
)

OUTPUT_FLAG = {
    "translate_class_descriptions": "--trainable_translated_path",
    "create_label_map": "--label_map_save_path",
}


@pytest.fixture(params=OUTPUT_FLAG)
def step(request, script, tmp_path):
    """Return `step(classes, descriptions)`, a run of either script on two files of that content."""

    def call(classes: str | bytes = CLASSES, descriptions: str | bytes = DESCRIPTIONS):
        for name, content in (("classes.txt", classes), ("descriptions.csv", descriptions)):
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name).write_bytes(data)
        return script(
            request.param,
            "--trainable_classes_path", tmp_path / "classes.txt",
            "--class_description_path", tmp_path / "descriptions.csv",
            OUTPUT_FLAG[request.param], tmp_path / "out" / "result",
        )  # fmt: skip

    return call


@pytest.fixture
def translated(script, tmp_path):
    """Return `translated(classes, descriptions)`, the names that step 2 writes."""

    def call(classes: str, descriptions: bytes) -> list[str]:
        (tmp_path / "classes.txt").write_text(classes)
        (tmp_path / "descriptions.csv").write_bytes(descriptions)
        outcome = script(
            "translate_class_descriptions",
            "--trainable_classes_path", tmp_path / "classes.txt",
            "--class_description_path", tmp_path / "descriptions.csv",
            "--trainable_translated_path", tmp_path / "names.json",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return json.loads((tmp_path / "names.json").read_text())

    return call


NAMES = {
    "plain": (b"/m/a,Dog\n", "Dog"),
    "quoted comma": (b'/m/a,"Washington, D.C."\n', "Washington, D.C."),
    "doubled quotes": (b'/m/a,"Fiat 500 ""topolino"""\n', 'Fiat 500 "topolino"'),
    "apostrophe": (b"/m/a,Sprenger's tulip\n", "Sprenger's tulip"),
    "non-ASCII": ("/m/a,Käsespätzle 椅子\n".encode(), "Käsespätzle 椅子"),
    "blanks kept": (b"/m/a, Dog \n", " Dog "),
    "CRLF": (b"/m/a,Dog\r\n", "Dog"),
    "no last line end": (b"/m/a,Dog", "Dog"),
    "byte-order mark": (b"\xef\xbb\xbf/m/a,Dog\n", "Dog"),
    "header": (b"LabelName,DisplayName\n/m/a,Dog\n", "Dog"),
    "byte-order mark and header": (b"\xef\xbb\xbfLabelName,DisplayName\r\n/m/a,Dog\r\n", "Dog"),
    "header of the challenge": (b"id,name\n/m/a,Dog\n", "Dog"),
    "header of one's own, below empty rows": (b"\r\n,\r\n MID , Name of it\r\n/m/a,Dog\r\n", "Dog"),
    "rows without text": (b'/m/b,Cat\n,\n\n"",""\n/m/a,Dog\n,\n', "Dog"),
    "empty name": (b"/m/a,\n", ""),
    "same row twice": (b"/m/a,Dog\n/m/a,Dog\n", "Dog"),
    "line end in a quoted name": (b'/m/a,"Dog\nhouse"\n', "Dog\nhouse"),
}


@pytest.mark.parametrize(("descriptions", "name"), NAMES.values(), ids=NAMES)
def test_names_are_unchanged(translated, descriptions, name):
    assert translated("/m/a\n", descriptions) == [name]


def test_names_are_in_the_order_of_the_classes(translated):
    assert translated(CLASSES, DESCRIPTIONS.encode()) == ["Person", "Dog", "Bench", "Bench"]


def test_blank_lines_in_the_class_list_are_skipped(translated):
    assert translated("\n/m/0bt9lr\n \n\n/m/01g317", DESCRIPTIONS.encode()) == ["Dog", "Person"]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=20), min_size=1
    )
)
def test_any_names_round_trip_through_csv(names):
    import csv
    import tempfile
    from pathlib import Path

    from common.openimages.classes import describe

    with tempfile.TemporaryDirectory() as folder:
        classes = [f"/m/{number}" for number in range(len(names))]
        path = Path(folder, "descriptions.csv")
        with open(path, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(zip(classes, names, strict=True))
        assert describe(classes, "classes.txt", path) == names


EVIL = {
    "empty class list": (b"", DESCRIPTIONS, "classes.txt: no classes in it, one MID a line was expected"),
    "blank class list": (b"\n \n", DESCRIPTIONS, "classes.txt: no classes in it, one MID a line was expected"),
    "repeated class": (
        "/m/01g317\n\n/m/0bt9lr\n/m/01g317\n", DESCRIPTIONS,
        "classes.txt:4: duplicate class /m/01g317, first in line 1",
    ),
    "name instead of MID": (
        "/m/01g317\nDog\n", DESCRIPTIONS, "classes.txt:2: 'Dog', a class MID such as /m/01yrx was expected",
    ),
    "class list in Latin-1": ("/m/01g317\nKäse\n".encode("latin-1"), DESCRIPTIONS, "classes.txt:2: not UTF-8 text"),
    "no descriptions": (CLASSES, b"", "descriptions.csv: no class descriptions in it"),
    "header only": (CLASSES, "LabelName,DisplayName\n", "descriptions.csv: no class descriptions in it"),
    "one column": (CLASSES, "/m/01g317\n", "descriptions.csv:1: 1 fields, two were expected: MID, name"),
    "comma without quotes": (CLASSES, DESCRIPTIONS + "/m/0, D, C\n", "descriptions.csv:6: 3 fields, 2 were expected"),
    "columns swapped": (
        CLASSES, "Person,/m/01g317\n", "descriptions.csv:1: 'Person', a class MID such as /m/01yrx was expected",
    ),
    "damaged MID in the first row": (
        CLASSES, "m/01g317,Person\n", "descriptions.csv:1: 'm/01g317', a class MID such as /m/01yrx was expected",
    ),
    "second header": (
        CLASSES, "id,name\nMID,Name\n", "descriptions.csv:2: 'MID', a class MID such as /m/01yrx was expected",
    ),
    "two names for one class": (
        CLASSES, DESCRIPTIONS + "/m/0bt9lr,Cat\n", "descriptions.csv:6: /m/0bt9lr is named 'Cat', but 'Dog' above",
    ),
    "open quote": (CLASSES, DESCRIPTIONS + '/m/0,"Dog\n', "descriptions.csv:6: unexpected end of data"),
    "NUL byte": (CLASSES, DESCRIPTIONS + "/m/0,Do\0g\n", "descriptions.csv:6: a NUL byte, text was expected"),
    "descriptions in UTF-16": (CLASSES, DESCRIPTIONS.encode("utf-16"), "descriptions.csv: UTF-16 text, UTF-8 was expected"),
    "class without description": (
        CLASSES + "/m/zz1\n/m/zz2\n", DESCRIPTIONS,
        "classes.txt: /m/zz1, /m/zz2; give the class-descriptions.csv of the same release",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("classes", "descriptions", "message"), EVIL.values(), ids=EVIL)
def test_bad_input_is_one_line_and_no_file(step, tmp_path, classes, descriptions, message):
    outcome = step(classes, descriptions)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out" / "result").exists()


def test_a_bad_run_leaves_the_old_result_alone(step, tmp_path):
    assert step().code == 0
    before = (tmp_path / "out" / "result").read_bytes()
    assert step(descriptions=b"").code == 1
    assert (tmp_path / "out" / "result").read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result"]


def test_a_missing_file_is_one_line(script, tmp_path):
    outcome = script(
        "create_label_map",
        "--trainable_classes_path", tmp_path / "none.txt",
        "--class_description_path", tmp_path / "none.csv",
        "--label_map_save_path", tmp_path / "map.pbtxt",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (1, f"create_label_map.py: {tmp_path}/none.txt: no such file\n")


# --- folders as arguments --------------------------------------------------------------------------


def test_class_files_can_be_given_by_their_folders(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/classes").mkdir(parents=True)
    (tmp_path / "train/class").mkdir(parents=True)
    (tmp_path / "data/classes/descriptions.csv").write_text(f"id,name\r\n{DESCRIPTIONS}", newline="")
    (tmp_path / "data/classes/hierarchy.json").write_text('{"LabelName": "/m/0bl9f"}\n')
    (tmp_path / "data/classes/photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "train/class/trainable").write_text(CLASSES)
    outcome = script(
        "translate_class_descriptions",
        "--class_description_path", "data/classes",
        "--trainable_classes_path", "train/class",
        "--trainable_translated_path", "train/translated",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.counts == {"classes": 4, "distinct_names": 3}
    assert json.loads((tmp_path / "train/translated").read_text()) == ["Person", "Dog", "Bench", "Bench"]


FOLDERS: dict[str, tuple[dict[str, str], str]] = {
    "none fits": ({"readme.txt": "hello\n"}, "no file in this folder is a class list (one MID a line)"),
    "several fit": (
        {"b.txt": CLASSES, "a.txt": CLASSES},
        "2 files in this folder are a class list (one MID a line), give one of them: a.txt, b.txt",
    ),
}


@pytest.mark.parametrize(("files", "message"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_must_hold_one_file_that_matches(script, tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    outcome = script(
        "create_label_map",
        "--trainable_classes_path", tmp_path,
        "--class_description_path", tmp_path,
        "--label_map_save_path", tmp_path / "map.pbtxt",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (1, f"create_label_map.py: {tmp_path}: {message}\n")


@pytest.fixture(params=OUTPUT_FLAG)
def by_folder(request, script, tmp_path):
    """Return `by_folder(output)`, a run of either script on one folder that holds both files."""
    folder = tmp_path / "classes"
    folder.mkdir()
    (folder / "trainable.txt").write_text(CLASSES)
    (folder / "descriptions.csv").write_text(DESCRIPTIONS, newline="")
    (tmp_path / "link.txt").symlink_to(folder / "trainable.txt")

    def call(output: str):
        return script(
            request.param,
            "--trainable_classes_path", folder,
            "--class_description_path", folder,
            OUTPUT_FLAG[request.param], tmp_path / output,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    "output", ["classes/trainable.txt", "classes/../classes/descriptions.csv", "link.txt"]
)
def test_an_output_never_replaces_an_input_given_by_its_folder(by_folder, tmp_path, output):
    outcome = by_folder(output)
    assert outcome.code == 2
    assert f"{output} is an input: an output would replace it" in outcome.err.splitlines()[-1]
    assert (tmp_path / "classes/trainable.txt").read_text() == CLASSES
    assert (tmp_path / "classes/descriptions.csv").read_bytes() == DESCRIPTIONS.encode()


def test_an_output_can_be_beside_the_inputs_and_be_written_again(by_folder, tmp_path):
    assert [by_folder("classes/result").code for _ in range(2)] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "classes").iterdir()) == [
        "descriptions.csv", "result", "trainable.txt",
    ]  # fmt: skip


# --- the label map -----------------------------------------------------------------------------------


def test_the_label_map_has_the_official_form_byte_for_byte(script, tmp_path):
    (tmp_path / "classes.txt").write_text("/m/011k07\n/m/0bt9lr\n")
    (tmp_path / "descriptions.csv").write_bytes("/m/0bt9lr,Käse\r\n/m/011k07,Tortoise\r\n".encode())
    outcome = script(
        "create_label_map",
        "--trainable_classes_path", tmp_path / "classes.txt",
        "--class_description_path", tmp_path / "descriptions.csv",
        "--label_map_save_path", tmp_path / "label_map.pbtxt",
    )  # fmt: skip
    assert outcome.code == 0
    assert (tmp_path / "label_map.pbtxt").read_text(encoding="utf-8") == (
        'item {\n  name: "/m/011k07"\n  id: 1\n  display_name: "Tortoise"\n}\n'
        'item {\n  name: "/m/0bt9lr"\n  id: 2\n  display_name: "Käse"\n}\n'
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_protobuf_reads_any_name_back_and_writes_it_alike(name):
    text = label_map_item("/m/0bt9lr", 7, name)
    message = text_format.Parse(text, LABEL_MAP())
    assert [(item.name, item.id, item.display_name) for item in message.item] == [("/m/0bt9lr", 7, name)]
    assert text_format.MessageToString(message, as_utf8=True) == text


def test_the_real_classes_keep_their_order_in_the_label_map(script, tmp_path, real_files):
    """Runs on our own three classes, and on the official 601 if OPEN_IMAGES_FILES is set."""
    descriptions = tmp_path / "descriptions.csv"
    descriptions.write_text(DESCRIPTIONS)
    if real_files:
        descriptions = real_files / "2018_04" / "class-descriptions-boxable.csv"
    mids = [line.split(",")[0] for line in descriptions.read_text(encoding="utf-8").splitlines()]
    (tmp_path / "classes.txt").write_text("".join(f"{mid}\n" for mid in mids))
    outcome = script(
        "create_label_map",
        "--trainable_classes_path", tmp_path / "classes.txt",
        "--class_description_path", descriptions,
        "--label_map_save_path", tmp_path / "map.pbtxt",
    )  # fmt: skip
    assert outcome.code == 0
    message = text_format.Parse((tmp_path / "map.pbtxt").read_text(encoding="utf-8"), LABEL_MAP())
    assert [(item.id, item.name) for item in message.item] == list(enumerate(mids, start=1))
