"""CSV files: rows with their line numbers, columns by name, numbers in fields."""

from __future__ import annotations

import csv
import io
import math
import re
from codecs import getwriter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.whole_files import MAX_ITEM, open_output, read_lines

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
SEPARATORS = {";": "semicolons", "\t": "tabs"}  # of other programs

csv.field_size_limit(MAX_ITEM)


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write `rows` below `header` to `path`."""
    with open_output(path) as stream:
        writer = csv.writer(getwriter("utf-8")(stream, "backslashreplace"), lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def csv_line(row: Iterable[str]) -> str:
    """Return a row on one line, so that one that was cut is recognized by its missing line end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(" ".join(text.replace("\0", " ").split()) for text in row)
    return line.getvalue()


def read_csv(path: str | Path, *, needs_last_line_end: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and fields of each row of a CSV file, its header included.

    Every row must have as many fields as the first. A last row without a line end is an error, as in a file
    that was cut short, unless `needs_last_line_end` is False. Rows whose fields are all empty are skipped.
    """
    last, number, width = "", 0, 0

    def lines() -> Iterator[str]:
        nonlocal last, number
        for number, last in read_lines(path):
            if "\0" in last:
                raise InputError(f"{path}:{number}: a NUL byte, text was expected")
            if "\r" in last.rstrip("\r\n"):
                raise InputError(f"{path}:{number}: a carriage return inside a line, LF or CRLF was expected")
            yield last

    rows = csv.reader(lines(), strict=True)
    while True:
        line = number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{path}:{line}: {error}, a CSV row was expected") from None
        if row is None:
            break
        if row and needs_last_line_end and not last.endswith("\n"):
            raise InputError(f"{path}:{line}: no line end after the last row; is the file cut short?")
        if not any(row):
            continue
        width = width or len(row)
        if len(row) != width:
            raise InputError(f"{path}:{line}: {len(row)} fields, {width} were expected")
        yield line, row


def check_separator(path: str | Path, line: int, row: Sequence[str]) -> None:
    """Raise InputError at a row that has one field, with what other programs write between fields in it."""
    for mark, name in SEPARATORS.items():
        if len(row) == 1 and mark in row[0]:
            raise InputError(f"{path}:{line}: columns separated by {name}, commas were expected")


def columns(path: str | Path, header: list[str], required: tuple[str, ...]) -> dict[str, int]:
    """Return the place of each column by name; a missing or duplicate one is an error."""
    places = {name.strip().removeprefix("\ufeff"): place for place, name in enumerate(header)}
    missing = [name for name in required if name not in places]
    if not header:
        raise InputError(f"{path}: an empty file, a header with {', '.join(required)} was expected")
    if len(required) > 1:
        check_separator(path, 1, header)
    if missing:
        raise InputError(
            f"{path}:1: no column {', '.join(missing)}; the header has {', '.join(header)[:200]}"
        )
    if len(places) != len(header):
        raise InputError(f"{path}:1: duplicate column name in the header {', '.join(header)[:200]}")
    return places


def parse_number(value: Any) -> float | None:
    """Return a finite decimal number from text or a number; None for others (`nan`, `1_0`, `1e400`)."""
    text = str(value)
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
