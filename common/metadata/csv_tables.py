"""CSV files as Arrow tables, a block of lines at a time, in several threads.

Arrow takes in silence what the plain reader of `files` refuses. So a block is parsed only when its bytes
leave one way to read them, with every field as text; what the fields have to be, the caller checks. Whatever
is out of the ordinary is refused: then the plain reader names the line that is wrong or, when nothing is,
reads the file in its own time. Arrow lets go of Python's lock, so that threads use all cores here, and no
gigabytes travel between processes.
"""

from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from common.cli import InputError
from common.files.csv_files import csv_rows
from common.files.whole_files import open_input
from common.openimages.ids import IMAGE_ID
from common.workers.batches import usable_cores

BLOCK = 1 << 22  # bytes
LONGEST = 4  # blocks without a place to cut, before the file is left to the plain reader
CODES = pa.dictionary(pa.int32(), pa.string())  # for columns of few values, or of values that stay for rows

Result = TypeVar("Result")


class NotPlainError(Exception):
    """Why a file is left to the plain reader."""


class _QuotesError(NotPlainError):
    """Quotes that leave open where a line ends."""


@dataclass(frozen=True)
class Block:
    """Whole lines of a file, and the number of the first."""

    line: int
    data: bytes


@contextmanager
def open_blocks(path: str | Path, *, keep_together: bool) -> Iterator[tuple[list[str], Iterator[Block]]]:
    """Yield a CSV file's header and its other lines; `keep_together` cuts where the first field changes."""
    with open_input(path) as stream:
        start = stream.read(BLOCK).removeprefix(BOM_UTF8)
        lines = BytesIO(start)
        header = next(csv_rows(path, _decoded(path, lines, 1)), (1, []))[1]
        end = lines.tell()
        yield header, _blocks(stream, start[end:], start.count(b"\n", 0, end) + 1, keep_together)


def _blocks(stream: BinaryIO, rest: bytes, line: int, keep_together: bool) -> Iterator[Block]:
    while True:
        cut = rest.rfind(b"\n") + 1
        if keep_together:
            cut = _start_of_group(rest, cut)
        if cut:
            block = Block(line, rest[:cut])
            line += block.data.count(b"\n")
            rest = rest[cut:]
            yield block
        elif len(rest) > LONGEST * BLOCK:
            raise NotPlainError(f"over {LONGEST * BLOCK >> 20} MB without a place to cut it")
        if not (chunk := stream.read(BLOCK)):
            break
        rest += chunk
    if rest:
        yield Block(line, rest)


def _start_of_group(data: bytes, end: int) -> int:
    """Return where the last lines with one first field start, among those before `end`."""
    start = data.rfind(b"\n", 0, max(end - 1, 0)) + 1
    field = data[start : data.find(b",", start, end) + 1]
    while field and start and data.startswith(field, before := data.rfind(b"\n", 0, start - 1) + 1):
        start = before
    return start


def map_blocks(
    function: Callable[[Block], Result], blocks: Iterator[Block], check: Callable[[Block], None]
) -> Iterator[Result]:
    """Yield `function(block)` of each block, in order, from as many threads as there are cores.

    A block that `function` refuses goes through `check`, which raises an InputError when a line of it is
    wrong; otherwise the NotPlainError stands.
    """
    threads = usable_cores()
    waiting: deque[tuple[Block, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:

        def first() -> Result:
            block, future = waiting.popleft()
            try:
                return future.result()
            except _QuotesError:
                raise
            except NotPlainError:
                check(block)
                raise

        try:
            for block in blocks:
                waiting.append((block, pool.submit(function, block)))
                if len(waiting) > threads:
                    yield first()
            while waiting:
                yield first()
        finally:
            for _, future in waiting:
                future.cancel()


def block_rows(path: str | Path, block: Block, width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each row of a block as the plain reader sees them."""
    lines = _decoded(path, BytesIO(block.data), block.line)
    return csv_rows(path, lines, width=width, before=block.line - 1)


def _decoded(path: str | Path, lines: BytesIO, first: int) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, first):
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            raise InputError(f"{path}:{number}: not UTF-8 text") from None


def parse_block(block: Block, width: int, kinds: dict[int, pa.DataType], *, empty_is_null: bool) -> pa.Table:
    """Return the columns of a block whose places `kinds` gives, named by their places, in one chunk each.

    Raises NotPlainError when a byte of it stands where it may not, or a row has not `width` fields.
    """
    _check_bytes(block.data)
    names = {place: str(place) for place in range(width)}
    types = {names[place]: kind for place, kind in kinds.items()}
    if not block.data.strip(b"\r\n"):
        return pa.table({name: pa.array([], kind) for name, kind in types.items()})
    quoted = b'"' in block.data
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block.data),
            pa.csv.ReadOptions(
                column_names=list(names.values()), use_threads=False, block_size=len(block.data) + 1
            ),
            pa.csv.ParseOptions(quote_char='"' if quoted else False, double_quote=quoted),
            pa.csv.ConvertOptions(
                include_columns=list(types),
                column_types=types,
                null_values=[""],
                strings_can_be_null=empty_is_null,
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise NotPlainError(str(error)) from None
    return table.combine_chunks()


def _check_bytes(data: bytes) -> None:
    """Refuse what Arrow and the plain reader could see differently."""
    if not data.endswith(b"\n"):
        raise NotPlainError("no line end at its end")
    if b"\0" in data:
        raise NotPlainError("a NUL byte")
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        raise NotPlainError("a carriage return inside a line")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise NotPlainError("bytes that are not UTF-8") from None
    if b'"' in data:
        _check_quotes(data)


def _check_quotes(data: bytes) -> None:
    """Refuse quotes unless they enclose whole fields of one line; those inside are doubled.

    Every other quote opens, counting each half of a doubled one. What opens follows a separator or a quote;
    what closes is followed by one.
    """
    view = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(view == ord('"'))
    opening, closing = quotes[0::2], quotes[1::2]
    ends = np.flatnonzero(view == ord("\n"))
    if (
        len(opening) != len(closing)
        or (np.searchsorted(ends, opening) != np.searchsorted(ends, closing)).any()
    ):
        raise _QuotesError("quotes that a line leaves open")
    if not np.isin(view[opening[opening > 0] - 1], list(b',\n"')).all():
        raise _QuotesError("a quote inside a field")
    if not np.isin(view[closing + 1], list(b',\r\n"')).all():
        raise _QuotesError("text after a closing quote")


# --- columns -------------------------------------------------------------------------------------


def column(table: pa.Table, place: int) -> Any:
    """Return the one chunk of a column."""
    chunked = table.column(str(place))
    return chunked.chunk(0) if chunked.num_chunks else pa.array([], chunked.type)


def check_image_ids(texts: pa.Array) -> None:
    """Refuse texts, or an empty field, that are no image ids."""
    if texts.null_count or pc.all(pc.match_substring_regex(texts, f"^{IMAGE_ID.pattern}$")).as_py() is False:
        raise NotPlainError("an ImageID that is none")


def values_of(column: pa.DictionaryArray) -> list[str]:
    return column.dictionary.to_pylist()  # type: ignore[no-any-return]


def codes_of(column: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    return np.asarray(column.indices).astype(np.int64)


def combined(columns: Sequence[tuple[pa.DictionaryArray, Sequence[str]]]) -> pa.Array:
    """Return a text for each row: the texts that columns of few values have for it, one after the other.

    Each column comes with a text for each value of its dictionary.
    """
    codes: Any = 0
    for column, texts in columns:
        codes = codes * len(texts) + codes_of(column)
    seen = pa.array(codes).dictionary_encode()
    pieces = []
    for code in seen.dictionary.to_pylist():
        text = ""
        for _, texts in reversed(columns):
            code, place = divmod(code, len(texts))
            text = texts[place] + text
        pieces.append(text)
    return pa.array(pieces, pa.string()).take(seen.indices)


def json_elements(texts: pa.Array) -> memoryview:
    """Return texts that each end in `,\\n` as the elements of a JSON array, without the last end."""
    if not len(texts):
        return memoryview(b"")
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, texts.offset * 4)
    return memoryview(texts.buffers()[2])[offsets[0] : offsets[-1] - 2]
