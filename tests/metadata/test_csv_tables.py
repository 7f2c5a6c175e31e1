"""Blocks of CSV lines in columns: what is taken is what the plain reader sees, and the rest is refused."""

import io
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.cli import InputError
from common.metadata import csv_tables
from common.metadata.csv_tables import Block, NotPlainError, block_rows, column, open_blocks, parse_block


def columns_of(data: bytes, width: int, *, kind: pa.DataType = csv_tables.CODES) -> list[list[str]]:
    """Return the rows of a block by way of its columns."""
    table = parse_block(Block(2, data), width, dict.fromkeys(range(width), kind), empty_is_null=False)
    return [
        list(row) for row in zip(*(column(table, place).to_pylist() for place in range(width)), strict=True)
    ]


REFUSED = {
    "short row": b"a,b\nc\n",
    "extra field": b"a,b\nc,d,e\n",
    "blanks alone": b"a,b\n  \n",
    "NUL byte": b"a,\0\n",
    "lone carriage return": b"a,b\rc,d\n",
    "carriage return inside a field": b"a\r,b\n",
    "two carriage returns": b"a,b\r\r\n",
    "no line end": b"a,b\nc,d",
    "half a letter": b"a,\xc3\n",
    "surrogate": b"a,\xed\xa0\x80\n",
    "open quote": b'a,"b\n',
    "open quote and another below": b'a,"b\nc,d"\n',
    "quote inside a field": b'a,b"c"\n',
    "one quote inside a field": b'a,b"\n',
    "text after a quote": b'a,"b"c\n',
    "blank after a quote": b'a,"b" \n',
    "blank before a quote": b'a, "b"\n',
    "line end inside quotes": b'a,"b\nc"\nd,e\n',
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(data):
    with pytest.raises(NotPlainError):
        columns_of(data, 2)


TAKEN = {
    "LF": (b"a,b\nc,d\n", [["a", "b"], ["c", "d"]]),
    "CRLF": (b"a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]),
    "both": (b"a,b\r\nc,d\n", [["a", "b"], ["c", "d"]]),
    "blank lines": (b"\na,b\n\r\n\nc,d\n\n", [["a", "b"], ["c", "d"]]),
    "nothing": (b"\n\r\n", []),
    "empty fields": (b",\n,d\n", [["", ""], ["", "d"]]),
    "words that stand for nothing elsewhere": (b"NA,null\nNaN,#N/A\n", [["NA", "null"], ["NaN", "#N/A"]]),
    "numbers stay text": (b"1,0.50\n01,+1\n", [["1", "0.50"], ["01", "+1"]]),
    "other line ends are text": ("a\x0b\x1c,b\x85\u2028c\n".encode(), [["a\x0b\x1c", "b\x85\u2028c"]]),
    "quoted": (b'"a,b","c ""d"""\n"",""""\n', [["a,b", 'c "d"'], ["", '"']]),
    "backslash and apostrophe": (b"a\\,'b\n", [["a\\", "'b"]]),
}


@pytest.mark.parametrize("kind", [csv_tables.CODES, pa.string()], ids=["codes", "texts"])
@pytest.mark.parametrize(("data", "rows"), TAKEN.values(), ids=TAKEN)
def test_what_is_taken(data, rows, kind):
    assert columns_of(data, 2, kind=kind) == rows


@settings(max_examples=500, deadline=None)
@given(st.text('ab",\n\r é\0', max_size=40), st.integers(1, 3))
@example('"a"\n"', 1)
@example('""a""\n', 1)
@example('a,""\r\n"",b\r\n', 2)
def test_what_is_taken_is_what_the_plain_reader_sees(text, width):
    """A block of any bytes is refused, or its columns are the rows that the plain reader sees."""
    data = text.encode()
    try:
        rows = columns_of(data, width)
    except NotPlainError:
        return
    assert rows == [row for _, row in block_rows("file.csv", Block(2, data), width)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text(' ab",é'), min_size=2, max_size=2), min_size=1, max_size=8), st.booleans())
def test_every_quoted_field_is_taken(rows, all_quoted):
    """What the csv module writes is not left to the slow way, but for fields that hold a line end."""
    import csv

    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL).writerows(rows)
    assert columns_of(stream.getvalue().encode(), 2) == rows


# --- blocks --------------------------------------------------------------------------------------


GROUPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "1", "22"])), max_size=30)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("blocks") / "file.csv"


@settings(max_examples=200, deadline=None)
@given(GROUPS, st.integers(10, 40))
def test_blocks_are_the_file_and_keep_groups_together(file, rows, size):
    lines = "".join(f"{key},{value}\n" for key, value in rows).encode()
    file.write_bytes(b"\xef\xbb\xbfk,v\n" + lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_tables, "BLOCK", size)
        patch.setattr(csv_tables, "LONGEST", 1000)
        with open_blocks(file, keep_together=True) as (header, blocks):
            found = list(blocks)
    assert header == ["k", "v"]
    assert b"".join(block.data for block in found) == lines
    line = 2
    for block in found:
        assert block.line == line
        line += block.data.count(b"\n")
    for block, after in pairwise(found):
        assert after.data[:2] != block.data.splitlines()[-1][:2]


def test_a_group_that_never_ends_is_left_to_the_plain_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "BLOCK", 64)
    (tmp_path / "file.csv").write_text("k,v\n" + "a,1\n" * 1000)
    with pytest.raises(NotPlainError), open_blocks(tmp_path / "file.csv", keep_together=True) as (_, blocks):
        list(blocks)


def test_a_wrong_line_of_a_block_is_named_with_its_place_in_the_file():
    rows = block_rows("file.csv", Block(100, b"a,b\n\nc\n"), 2)
    with pytest.raises(InputError, match=r"^file.csv:102: 1 fields, 2 were expected$"):
        list(rows)


def test_results_come_in_order_and_the_first_refusal_stops():
    def work(block: Block) -> int:
        if block.line == 50:
            raise NotPlainError("fifty")
        return block.line

    seen: list[int] = []
    checked: list[int] = []
    blocks = (Block(line, b"") for line in range(100))
    results = csv_tables.map_blocks(work, blocks, lambda block: checked.append(block.line))
    with pytest.raises(NotPlainError, match="fifty"):
        seen.extend(results)
    assert seen == list(range(50))
    assert checked == [50]
