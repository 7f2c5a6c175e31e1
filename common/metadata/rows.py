"""Rows of a CSV file, read a block of lines at a time in worker processes, and their fields by column.

The first block with a byte or a row that is wrong, or may be wrong, ends the reading in blocks. From there on
the csv module reads row after row in this process: it names the line that is wrong, or reads the rest of the
file, several times slower.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import lru_cache, partial
from io import BytesIO
from itertools import chain, dropwhile, islice
from pathlib import PurePath
from typing import Annotated, Any, BinaryIO, TypeVar

import msgspec
from msgspec import Meta

from common.cli import InputError, progress, say
from common.files.csv_files import columns, parse_number, read_csv
from common.files.places import parse_path, status
from common.files.whole_files import bytes_read, check_rereadable, open_input
from common.openimages.datapoints import Attribute
from common.openimages.ids import is_image_id
from common.workers.pool import Processes, batches, usable_cores

BLOCK = 1 << 20  # bytes that a worker gets at a time
FEW = 9  # blocks: fewer are read here in less time than workers take to start
SLICE = 500  # rows that a reader gets at a time: so few that they stay in the cache of a core
LONGEST = 16 * BLOCK  # bytes read in search of a place to cut
ROUNDING = 1e-6  # the files have six decimals; a coordinate this little outside [0, 1] is on its edge

Rows = list[bytes]  # each with NUL between its fields: no file may hold one
Result = TypeVar("Result")

# Kinds of a column besides str and Attribute: no number but a finite one.
NUMBER = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
SHARE = Annotated[float, Meta(ge=-ROUNDING, le=1 + ROUNDING)]
VERIFIED = Annotated[int, Meta(ge=0, le=1)]  # of a label: absent, present
EXPECTED = {Attribute: "1, 0 or -1", VERIFIED: "0 or 1", SHARE: "a number from 0 to 1"}
WORDS = {"False": "0", "True": "1", "FALSE": "0", "TRUE": "1", "": "-1"}  # attributes by other programs

Columns = tuple[tuple[str, str, Any], ...]  # name, key and kind of each


def read_rows(
    path: str, required: tuple[str, ...], reader: Callable[[tuple[str, ...], Rows], Result]
) -> Iterator[Result]:
    """Yield `reader(header, rows)` for the rows of a CSV file, some at a time, in the order of the file.

    The header must have the required columns. Where a row is wrong the reader raises ValueError; its text
    must be true of the first row.
    """
    check_rereadable(path)  # a wrong line is named in a second reading
    found = status(parse_path(path))
    with open_input(path) as stream, progress(found and found.size, "B", PurePath(path).name) as bar:
        rows = read_csv(path)
        header = tuple(columns(path, next(rows, (1, []))[1], required))
        read = partial(reader, header)
        done = next(rows, (1, []))[0] - 1  # lines
        if not done:
            return
        for _ in range(done):
            stream.readline()
        blocks = _blocks(stream)
        some = list(islice(blocks, FEW))
        work = partial(_read_block, read, len(header))
        most = None if len(some) == FEW else 1
        with closing(Processes(usable_cores()).map(work, chain(some, blocks), most=most)) as results:
            for number, of_block in results:
                if of_block is None:
                    break
                yield from of_block
                bar.update(bytes_read(stream) - bar.n)
                done += number
            else:
                return
    for number, fields in dropwhile(lambda numbered: numbered[0] <= done, read_csv(path)):
        try:
            result = read(["\0".join(fields).encode()])
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        yield result
    say(f"{path}: read row by row from line {done + 1} on, which is slower: unusual quotes or line ends")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield blocks that end in a line end after an even number of quotes, so mostly outside quotes."""
    data = b""
    while chunk := stream.read(BLOCK):
        data += chunk
        cut = data.rfind(b"\n") + 1
        if len(data) > LONGEST:
            cut = cut or len(data)
        elif data.count(b'"', 0, cut) % 2:
            continue
        if cut:
            yield data[:cut]
            data = data[cut:]
    if data:
        yield data


def _read_block(read: Callable[[Rows], Result], width: int, block: bytes) -> tuple[int, list[Result] | None]:
    """Return how many lines a block has, and what `read` returns for its rows, None if it cannot."""
    try:
        return block.count(b"\n"), [read(rows) for rows in batches(_rows_of(block, width), SLICE)]
    except (ValueError, csv.Error):
        return 0, None


def _rows_of(block: bytes, width: int) -> Rows:
    """Return the rows of a block; ValueError or csv.Error unless read_csv would yield the same."""
    plain = block.replace(b"\r\n", b"\n") if b"\r" in block else block
    if b"\r" in plain or b"\0" in plain or not plain.endswith(b"\n"):
        raise ValueError
    if b'"' in block:
        rows, widths = [], set()
        for fields in csv.reader(map(bytes.decode, BytesIO(block)), strict=True):
            if any(fields):
                rows.append("\0".join(fields).encode())
                widths.add(len(fields))
    else:  # a tenth of the time
        plain.decode()
        lines = plain.replace(b",", b"\0").split(b"\n")
        rows = [line for line in lines if line.strip(b"\0")]
        widths = {row.count(b"\0") + 1 for row in rows}
    if widths - {width}:
        raise ValueError
    return rows


# --- fields ----------------------------------------------------------------------------------------------


def typed_rows(header: tuple[str, ...], columns: Columns, rows: Rows) -> list[Any]:
    """Return each row with the keys of these columns; ValueError if a field is not of its kind."""
    row_type, decode = _row_type(header, columns)
    text = b"\n".join(rows).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    with suppress(msgspec.DecodeError):
        found: list[Any] = decode(b'[["%b"]]' % text.replace(b"\0", b'","').replace(b"\n", b'"],["'))
        if len(found) == len(rows):
            return found
    kinds = row_type.__annotations__.values()
    fields = (row.decode().split("\0") for row in rows)  # takes five times as long
    return [row_type(*map(_parse, header, kinds, row)) for row in fields]


@lru_cache
def _row_type(header: tuple[str, ...], columns: Columns) -> tuple[Any, Any]:
    """Return the type of a row up to the last of these columns, and what decodes a list of them."""
    wanted = {name: (key, kind) for name, key, kind in columns if name in header}
    last = max(map(header.index, wanted))
    fields = [wanted.get(name, (f"_{place}", Any)) for place, name in enumerate(header[: last + 1])]
    row_type: Any = msgspec.defstruct("Row", fields, array_like=True, gc=False)
    return row_type, msgspec.json.Decoder(list[row_type], strict=False).decode


def _parse(name: str, kind: Any, text: str) -> Any:
    """Return the value of a field; ValueError if it is not of its kind."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:  # of other ways to write a number: .5, +1, 01
        other = WORDS.get(text) if kind is Attribute else str(parse_number(text))
    try:
        return msgspec.convert(other, kind, strict=False)
    except msgspec.ValidationError:
        expected = EXPECTED.get(kind, "a number")
        raise ValueError(f"{name} is {text!r:.80}, {expected} was expected") from None


def check_id(text: str) -> None:
    """Raise ValueError at an image id that cannot be a file name."""
    if not is_image_id(text):
        raise ValueError(f"ImageID {text!r:.80}, an image id was expected")
