"""JSON in and out as streams: arrays with one element a line, written so, read in any layout.

A line that holds one object is decoded by msgspec, in a third of the time of the json module. The json module
reads text in any other layout, a piece at a time.
"""

from __future__ import annotations

import json
import re
from codecs import iterdecode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.folders import CHUNK
from common.files.places import parse_path, status
from common.files.whole_files import MAX_ITEM, open_input, open_output

BETWEEN = re.compile(r"[ \t\r\n]*(,?)[ \t\r\n]*")  # two elements
LITERALS = ("true", "false", "null", "-")  # one cut short, or nothing, may be the end of a file


@contextmanager
def json_writer(path: str | Path) -> Iterator[Callable[[Any], None]]:
    """Yield a function that appends one element to the JSON array in `path`, one element a line.

    Bytes are taken for elements that are JSON already, one a line, with `,` between.
    """
    with open_output(path) as stream, ThreadPoolExecutor(1) as thread:
        text, separator = bytearray(), b"[\n"
        writing = thread.submit(int)  # nothing yet

        def write(element: Any) -> None:
            nonlocal text, separator, writing
            text += separator
            text += element if isinstance(element, bytes) else to_json(element)
            separator = b",\n"
            if len(text) > CHUNK:
                writing.result()
                writing = thread.submit(stream.write, text)  # while the caller makes more
                text = bytearray()

        yield write
        writing.result()
        stream.write(text + (b"[\n]\n" if separator == b"[\n" else b"\n]\n"))


def to_json(element: Any) -> bytes:
    """Return `element` as compact JSON in UTF-8."""
    return json.dumps(element, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def read_json(path: str | Path, kind: type = dict) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each object of a JSON array or of JSON Lines, as a stream.

    A file that begins with `[` is an array. An object alone on its line that is of `kind`, a msgspec.Struct,
    comes as such; no other does. One that is not alone has the number of the line where it ends.
    """
    import msgspec

    typed: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode
    plain = msgspec.json.Decoder(dict).decode

    def decode(text: bytes) -> Any:
        try:
            return typed(text)
        except msgspec.ValidationError:
            return plain(text)

    with open_input(path) as stream:
        number, before = 1, b""  # JSON in place of the lines before that number
        for number, line in enumerate(iter(partial(stream.readline, CHUNK), b""), start=1):
            if before == b"[0" or not line.endswith(b"\n"):  # after the last object, or a part of a line
                break
            text = line.strip()
            if number == 1 and text == b"[":
                before = text
                continue
            has_comma = before and text.endswith(b",")
            try:
                value = decode(text[:-1] if has_comma else text)
            except (ValueError, RecursionError):  # not one object
                break
            yield number, value
            if before:
                before = b"[0," if has_comma else b"[0"
        else:
            number, line = number + 1, b""
        pieces = chain([before + line], iter(partial(stream.read, CHUNK), b""))
        elements = _read_any_layout(path, number, iterdecode(pieces, "utf-8", "surrogateescape"))
        yield from islice(elements, int(b"0" in before), None)


def count_elements(path: str | Path) -> int | None:
    """Return the number of objects of a file with one a line; None in another layout or if it is a pipe."""
    if not status(parse_path(path)):
        return None
    with open_input(path) as stream:
        return sum(line.startswith(b"{") for line in iter(partial(stream.readline, CHUNK), b"")) or None


def _read_any_layout(path: str | Path, line: int, pieces: Iterator[str]) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each element of text in any layout, which begins in this line."""
    decode = json.JSONDecoder().raw_decode
    text, place, comma = "", 0, ""
    while not text.strip() and (more := next(pieces, "")):
        text += more
    in_array = text.lstrip().startswith("[")
    if in_array:
        place = text.index("[") + 1
        line += text.count("\n", 0, place)
    while True:
        between = BETWEEN.match(text, place)
        assert between
        try:
            if between[1] != comma:
                raise json.JSONDecodeError("a comma too many or too few", text, between.start(1))
            value, end = decode(text, between.end())
            to_json(value)  # raises what it would raise where the value is written, as for 1e400
        except (ValueError, RecursionError) as error:
            left = text[place:]
            # Twice as much, so that a long element is not decoded again for each piece.
            if len(left) <= MAX_ITEM and (more := "".join(islice(pieces, 1 + len(left) // CHUNK))):
                text, place = left + more, 0
                continue
            if left.strip() == ("]" if in_array else ""):
                return
            at = getattr(error, "pos", between.end())
            line += text.count("\n", place, at)
            raise InputError(f"{path}:{line}: {_fault(error, left, text[at:])}") from None
        line += text.count("\n", place, end)
        place, comma = end, "," if in_array else ""
        yield line, value


def _fault(error: Exception, left: str, rest: str) -> str:
    """Return what is wrong with an element at the beginning of the text that is left, and at its rest."""
    what = getattr(error, "msg", str(error))
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not UTF-8 text"
    if left.lstrip().startswith("]"):
        return "text after the end of the array"
    if what.startswith("Unterminated") or any(word.startswith(rest.strip()) for word in LITERALS):
        if len(left) > MAX_ITEM:
            return f"not JSON (a value of over {MAX_ITEM} characters)"
        return "the file ends in the middle of an array or object; is it cut short?"
    return f"not JSON ({what})"
