"""JSON in and out as streams: arrays with one element a line, written so, read in any layout.

A line that holds one element is decoded by msgspec, in a third of the time of the json module. Text in any
other layout goes through ijson, line by line so that messages name it; half a surrogate pair is `?` there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.folders import CHUNK
from common.files.places import parse_path, status
from common.files.whole_files import MAX_ITEM, open_input, open_output, text_chunks

MAX_DEPTH = 500  # of arrays and objects in each other
BLANK = " \t\r\n"


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
    text = json.dumps(element, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only hold escaped
        return json.dumps(element, allow_nan=False, separators=(",", ":")).encode()


def read_json(path: str | Path, kind: type | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each element of a JSON array or of JSON Lines, as a stream.

    A file that begins with `[` is an array. With `kind`, a msgspec.Struct, an element alone on its line that
    is of that kind comes as such; no other does.
    """
    lines = _lines(path)
    number, line = next((each for each in lines if each[1].strip(BLANK)), (1, ""))
    in_array = line.lstrip(BLANK).startswith("[")
    # JSON for ijson in the place of the lines read before; a 0 in it is an element to leave out.
    so_far = ("[" if line.strip(BLANK) == "[" else "") if in_array else "0 "
    if so_far != "[":
        lines = chain([(number, line)], lines)
    if so_far:
        decode = _line_decoder(kind)
        for number, line in lines:
            text = line.strip(BLANK)
            has_comma = in_array and text.endswith(",")
            if not text:
                continue
            try:
                if not line.endswith("\n"):
                    raise ValueError("a part of a line")
                value = decode(text[:-1] if has_comma else text)
            except (ValueError, RecursionError):
                lines = chain([(number, line)], lines)
                break
            yield number, value
            if in_array:
                so_far = "[0," if has_comma else "[0"
                if not has_comma:
                    break
    found = _read_any_layout(path, chain([(number, so_far)], lines), in_array=in_array)
    yield from islice(found, int("0" in so_far), None)


def count_elements(path: str | Path) -> int | None:
    """Return the number of elements of a file with one a line, None in another layout or if it is a pipe."""
    if not status(parse_path(path)):
        return None
    with open_input(path) as stream:
        first = stream.readline(CHUNK)
        in_array = first.strip() == b"["
        last = stream.readline(CHUNK) if in_array else first
        if not (last.startswith(b"{") and last.rstrip().endswith((b"}", b"},"))):
            return None
        lines = last.count(b"\n")
        while chunk := stream.read(CHUNK):
            lines += chunk.count(b"\n")
            last = chunk
    return lines + (not last.endswith(b"\n")) - in_array  # the line of its closing bracket


def _read_any_layout(
    path: str | Path, lines: Iterable[tuple[int, str]], *, in_array: bool
) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each element from lines in any layout."""
    import ijson
    from ijson.common import ObjectBuilder

    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events, multiple_values=not in_array)
    level = int(in_array)  # how deep elements are
    depth, begin, size = 0, 0, 0
    builder = ObjectBuilder()
    number = 1
    try:
        for number, line in lines:
            if line:  # to ijson no bytes mean the end
                parser.send(line.encode())
            for event, value in events:
                depth -= event in ("end_map", "end_array")
                if depth < level:  # at a bracket of the array
                    depth += event == "start_array"
                    continue
                if depth == level and event not in ("end_map", "end_array"):
                    begin, builder = number, ObjectBuilder()
                builder.event(event, _number(value) if event == "number" else value)
                depth += event in ("start_map", "start_array")
                if depth == level:
                    yield begin, builder.value
                    size = 0
                elif depth > MAX_DEPTH:
                    raise InputError(f"{path}:{number}: nested too deeply")
            events.clear()
            size += len(line)
            if size > MAX_ITEM:
                raise InputError(f"{path}:{number}: not JSON (a value of over {MAX_ITEM} characters)")
        parser.close()
    except (ijson.JSONError, ValueError, SystemError) as error:  # the last for numbers of over 4,300 digits
        what = str(error.__cause__ or error).partition("\n")[0].rstrip(".")
        if "premature EOF" in what:
            what = "the file ends in the middle of an array or object; is it cut short?"
        elif "trailing garbage" in what:
            what = "text after the end of the array"
        else:
            what = f"not JSON ({what.partition(': ')[2] or what})"
        raise InputError(f"{path}:{number}: {what}") from None


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number; one longer than CHUNK comes in pieces without a line end."""
    number, rest = 1, ""
    for text in text_chunks(path):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            yield number, line + "\n"
            number += 1
        if len(rest) >= CHUNK:
            yield number, rest
            rest = ""
    yield number, rest + " "  # the blank ends a number


def _line_decoder(kind: type | None) -> Callable[[str], Any]:
    """Return a function that decodes one line, as `kind` where it is of that kind."""
    import msgspec

    plain = msgspec.json.Decoder().decode
    typed = msgspec.json.Decoder(kind).decode if kind else plain

    def decode(text: str) -> Any:
        try:
            return typed(text)
        except msgspec.ValidationError:
            return plain(text)
        except msgspec.DecodeError:  # of half a surrogate pair, which only json takes
            return json.loads(text, parse_constant=_number, parse_float=_number)

    return decode


def _number(value: int | Decimal | str) -> int | float:
    """Return an int as it is and another number as a float; one beyond a double has no JSON, nor has NaN."""
    if isinstance(value, int):
        return value
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"not JSON: {value!s:.80} is too large a number")
    return number
