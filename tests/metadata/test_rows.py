"""Rows in blocks: what the csv module reads in one go, or its error, whatever is in the file."""

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.cli import InputError
from common.files.csv_files import read_csv
from common.metadata import rows as rows_module
from common.metadata.rows import read_rows
from tests.support.rows import same, strict

WIDE = "é日\u2028\x0b\x1c\x85"


def in_blocks(path, reader=same):
    """Return all rows below the header, or the error."""
    try:
        return [row for some in read_rows(str(path), (), reader) for row in some]
    except InputError as error:
        return str(error)


def in_one_go(path):
    try:
        return [row for _, row in read_csv(path)][1:]
    except InputError as error:
        return str(error)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("rows") / "file.csv"


@pytest.fixture
def small_blocks(monkeypatch):
    """Make blocks of four bytes, read in this process."""
    monkeypatch.setattr(rows_module, "BLOCK", 4)
    monkeypatch.setattr(rows_module, "usable_cores", lambda: 1)


REFUSED = {
    "short row": b"a,b\nc\n",
    "extra field": b"a,b\nc,d,e\n",
    "blanks alone": b"a,b\n  \n",
    "NUL byte": b"a,\0\n",
    "lone carriage return": b"a,b\rc,d\n",
    "carriage return inside a field": b"a\r,b\n",
    "no line end": b"a,b\nc,d",
    "half a letter": b"a,\xc3\n",
    "surrogate": b"a,\xed\xa0\x80\n",
    "open quote": b'a,"b\n',
    "text after a quote": b'a,"b"c\n',
    "blank after a quote": b'a,"b" \n',
}
TAKEN = {
    "LF": (b"a,b\nc,d\n", [["a", "b"], ["c", "d"]]),
    "CRLF": (b"a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]),
    "both": (b"a,b\r\nc,d\n", [["a", "b"], ["c", "d"]]),
    "blank lines": (b"\na,b\n\r\n\nc,d\n\n", [["a", "b"], ["c", "d"]]),
    "empty rows": (b'a,b\n,\n,,,\n""\n"",""\nc,d\n,\n', [["a", "b"], ["c", "d"]]),
    "nothing": (b"\n\r\n", []),
    "empty fields": (b",\n,d\n", [["", "d"]]),
    "other line ends are text": (f"a{WIDE},{WIDE}b\n".encode(), [[f"a{WIDE}", f"{WIDE}b"]]),
    "quoted": (b'"a,b","c ""d"""\n"",""""\n', [["a,b", 'c "d"'], ["", '"']]),
    "two carriage returns": (b"a,b\r\r\n", [["a", "b"]]),
    "quote inside a field": (b'a,5"\nb,"c"\n', [["a", '5"'], ["b", "c"]]),
    "line end inside quotes": (b'a,"b\nc"\n"d\r\n",e\n', [["a", "b\nc"], ["d\r\n", "e"]]),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("before", [b"", b"x,y\n" * 9], ids=["first", "far down"])
def test_what_is_refused_is_named_by_its_line(small_blocks, file, data, before):
    file.write_bytes(b"k,v\n" + before + data)
    assert in_blocks(file) == in_one_go(file)
    assert in_blocks(file).startswith(f"{file}:")


@pytest.mark.parametrize(("data", "rows"), TAKEN.values(), ids=TAKEN)
def test_what_is_taken(small_blocks, file, data, rows):
    file.write_bytes(b"\xef\xbb\xbfk,v\n" + data)
    assert in_blocks(file) == rows


@settings(max_examples=500, deadline=None)
@given(st.text('ab",\n\r é\0', max_size=40), st.sampled_from([1, 7, 50]), st.integers(1, 3))
@example('"a"\n"', 7, 1)
@example('""a""\n', 7, 1)
@example('5",a\n"b\n",c\n', 7, 2)
def test_any_text_is_read_or_refused_as_in_one_go(file, text, size, width):
    file.write_bytes(b"k,l,m"[: 2 * width - 1] + b"\r\n" + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK", size)
        patch.setattr(rows_module, "LONGEST", 10 + 2 * size)
        patch.setattr(rows_module, "usable_cores", lambda: 1)
        assert in_blocks(file) == in_one_go(file)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.text(' ab",é\n\r', max_size=4), min_size=2, max_size=2), max_size=12),
    st.sampled_from([1, 7, 50]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_the_csv_module_writes_is_read_back(file, rows, size, quoting):
    rows = [[field.replace("\r", "\r\n") for field in row] for row in rows if any(row)]
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting).writerows([["k", "v"], *rows])
    file.write_bytes(stream.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK", size)
        patch.setattr(rows_module, "usable_cores", lambda: 1)
        assert in_blocks(file) == rows


def test_a_row_that_the_reader_refuses_is_named_by_its_line(small_blocks, file):
    file.write_bytes(b'k,v\n"a\n\n",1\n' + b"a,1\n" * 20 + b"b,2\n" + b"b,3\n")
    assert in_blocks(file, strict) == f"{file}:25: first is 'b'"


def test_worker_processes_keep_the_order_and_name_the_line_that_is_wrong(file, monkeypatch):
    monkeypatch.setattr(rows_module, "BLOCK", 1000)
    rows = [[str(number), f"{number * 7}"] for number in range(5000)]  # 45 blocks
    file.write_text("k,v\n" + "".join(f"{key},{value}\n" for key, value in rows) + "b,1\n" + "c,1\n" * 999)
    found: list[list[str]] = []
    with pytest.raises(InputError, match=f"^{file}:5002: first is 'b'$"):
        found.extend(row for some in read_rows(str(file), (), strict) for row in some)
    assert found == rows


def test_a_file_that_the_blocks_cannot_cut_is_read_to_its_end_and_the_user_is_told(file, monkeypatch, capsys):
    """Quotes inside fields that need none hide where a field in quotes, with a line end in it, begins."""
    monkeypatch.setattr(rows_module, "BLOCK", 16)
    monkeypatch.setattr(rows_module, "LONGEST", 64)
    file.write_text("k,v\n" + '5",a\n"b\n",c\n' * 20)
    assert in_blocks(file) == [['5"', "a"], ["b\n", "c"]] * 20
    assert "read row by row from line" in capsys.readouterr().err
