"""JSON as streams: written one element a line, read in any layout, wrong files at their line."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli import InputError
from common.files import json_files
from common.files import whole_files as files
from common.files.json_files import json_writer, read_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
LAYOUTS = {
    "ours": None,
    "one line": json.dumps,
    "indented": lambda items: json.dumps(items, indent=3),
    "blanks everywhere": lambda items: (
        "\n [ " + " \r\n,\t".join(json.dumps(item) for item in items) + " ] \n"
    ),
    "lines": lambda items: "".join(json.dumps(item) + "\n" for item in items),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@given(
    items=st.lists(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), max_size=5),
    chunk=st.integers(1, 40),
)
def test_any_values_come_back_in_any_layout(tmp_path_factory, layout, items, chunk):
    path = tmp_path_factory.mktemp("json") / "a.json"
    if layout is None:
        with json_writer(path) as write:
            for item in items:
                write(item)
        assert json.loads(path.read_bytes()) == items
        assert path.read_bytes().count(b"\n") == len(items) + 2
    else:
        path.write_text(layout(items), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "CHUNK", chunk)
        found = [item for _, item in read_json(path)]
    assert repr(found) == repr(items)  # an int and a float are equal, and not the same


def test_an_object_has_the_line_where_it_ends(tmp_path):
    (tmp_path / "a.json").write_text('\n[\n{"a":\n1}, {}\n,\n{"b": 2}]')
    assert list(read_json(tmp_path / "a.json")) == [(4, {"a": 1}), (4, {}), (6, {"b": 2})]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_number_for_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"), json_writer(tmp_path / "a") as write:
        write({"x": value})
    assert not list(tmp_path.iterdir())


CUT = "the file ends in the middle of an array or object; is it cut short?"
NO_NUMBER = "not JSON (Out of range float values are not JSON compliant"
EVIL = {
    "cut in an object": ('[\n{"a": 1},\n{"b"', f"a.json:3: {CUT}"),
    "cut in a string": ('[\n{"a": 1},\n{"b', f"a.json:3: {CUT}"),
    "cut after an element": ('[\n{"a": 1}\n', f"a.json:3: {CUT}"),
    "cut after a comma": ('[\n{"a": 1},\n', f"a.json:3: {CUT}"),
    "cut after the bracket": ("[", f"a.json:1: {CUT}"),
    "cut in JSON Lines": ('{"a": 1}\n{"b":', f"a.json:2: {CUT}"),
    "no comma": ("[\n{}\n{}]", "a.json:3: not JSON (a comma too many or too few)"),
    "no comma on a line of our own": ("[\n{}\n{}\n]", "a.json:3: not JSON (a comma too many or too few)"),
    "two commas": ("[\n{},\n,{}]", "a.json:3: not JSON (Expecting value)"),
    "last comma": ("[\n{},\n]", "a.json:3: not JSON (Expecting value)"),
    "text after the array": ("[{}]\nx", "a.json:1: text after the end of the array"),
    "text after our array": ("[\n{}\n]\nx", "a.json:3: text after the end of the array"),
    "text after an empty array": ("[]\n[]", "a.json:1: text after the end of the array"),
    "a comma in JSON Lines": ("{},\n{}", "a.json:1: not JSON (a comma too many or too few)"),
    "NaN": ('[\n{"a": NaN}]', f"a.json:2: {NO_NUMBER}"),
    "infinity": ('{"a": 1}\n{"a": -Infinity}\n', f"a.json:2: {NO_NUMBER}"),
    "single quotes": (
        "[\n{'a': 1}]",
        "a.json:2: not JSON (Expecting property name enclosed in double quotes)",
    ),
    "CSV": ("id,url\na,b\n", "a.json:1: not JSON (Expecting value)"),
    "line end in a string": ('[\n{"a": "b\nc"}]', "a.json:2: not JSON (Invalid control character at)"),
    "number of 5,000 digits": ('[\n{"a": ' + "1" * 5000 + "}]", "a.json:2: not JSON (Exceeds the limit"),
    "number beyond a double": ('[\n{"a": 1e400}]', f"a.json:2: {NO_NUMBER}"),
    "the same below 0": ('[\n{},\n{"a": -1.5E+999}\n]', f"a.json:3: {NO_NUMBER}"),
    "half a surrogate pair": ('[\n{"a": "\\ud800"},\n{}\n]', "a.json:2: not UTF-8 text"),
    "not UTF-8": (b'[\n{},\n{"a": "\xe9"}\n]', "a.json:3: not UTF-8 text"),
    "nested too deeply": ("[" * 200_000, "a.json:1: nested too deeply"),
    "nested too deeply on a line": (
        "[\n" + "[" * 50_000 + "]" * 50_000 + "\n]",
        "a.json:2: nested too deeply",
    ),
    "binary": ("[\n\0\0", "a.json:2: not JSON (Expecting value)"),
}


@pytest.mark.parametrize(("text", "message"), EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_bad_file_is_an_error_at_its_line(tmp_path, monkeypatch, text, message, chunk):
    if len(text) > 10_000 and chunk == 1:
        chunk = 1000
    monkeypatch.setattr(json_files, "CHUNK", chunk)
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        list(read_json(tmp_path / "a.json"))
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_a_value_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_ITEM", 10_000)
    (tmp_path / "a.json").write_text('["' + "x" * 100_000)
    with pytest.raises(InputError, match=r"a.json:1: not JSON \(a value of over 10000 characters"):
        list(read_json(tmp_path / "a.json"))


COUNTED = {  # text of a file, and the elements that it has by counting lines
    "ours": ('[\n{"id":"a"},\n{"id":"b"}\n]\n', 2),
    "without a last line end": ('[\n{"id":"a"},\n{"id":"b"}\n]', 2),
    "lines": ('{"id":"a"}\n{"id":"b"}\n{"id":"c"}', 3),
    "one element": ('{"id":"a"}', 1),
    "one line": ('[{"id":"a"},{"id":"b"}]\n', None),
    "indented": ('[\n  {\n    "id": "a"\n  }\n]\n', None),
    "empty": ("", None),
}


@pytest.mark.parametrize("ending", ["json", "json.gz"])
@pytest.mark.parametrize(("text", "number"), COUNTED.values(), ids=COUNTED)
def test_elements_one_a_line_are_counted(tmp_path, text, number, ending):
    path = tmp_path / f"a.{ending}"
    with files.open_output(path) as stream:
        stream.write(text.encode())
    assert json_files.count_elements(path) == number


def test_a_pipe_is_not_read_to_count_its_elements(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert json_files.count_elements(tmp_path / "pipe") is None
