"""JSON in and out as streams: arrays with one element a line, written so, read in any layout."""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from common.cli import InputError
from common.files.whole_files import MAX_ITEM, open_output, text_chunks

_NUMBER_GOES_ON = ("", *".eE+-")
_NOT_BLANK = re.compile(r"[^ \t\r\n]")


@contextmanager
def json_writer(path: str | Path) -> Iterator[Callable[[Any], None]]:
    """Yield a function that appends one element to the JSON array in `path`, one element a line.

    Bytes are taken for elements that are JSON already, one a line, with `,` between.
    """
    with open_output(path) as stream:
        separator = b"[\n"

        def write(element: Any) -> None:
            nonlocal separator
            stream.write(separator)
            stream.write(element if isinstance(element, bytes | memoryview) else to_json(element))
            separator = b",\n"

        yield write
        stream.write(b"[\n]\n" if separator == b"[\n" else b"\n]\n")


def to_json(element: Any) -> bytes:
    """Return `element` as compact JSON in UTF-8."""
    text = json.dumps(element, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only hold escaped
        return json.dumps(element, allow_nan=False, separators=(",", ":")).encode()


def read_json(path: str | Path, kind: type | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the line number and value of each element of a JSON array or of JSON Lines, as a stream.

    Any layout is taken: one element a line (as `json_writer` makes), several a line, or indented. With
    `kind`, a msgspec.Struct, an element alone on its line that is of that kind comes as such; no other does.
    """
    text = _JsonText(path, kind)
    in_array = text.peek() == "["
    if in_array:
        text.position += 1
        if text.peek() == "]":
            text.position += 1
            in_array = False
            if text.peek():
                text.fail("text after the end of the array")
    while text.peek():
        yield text.value()
        if not in_array:
            continue
        char = text.peek()
        if char not in (",", "]"):
            text.fail("',' or ']' was expected after an element; is the file cut short?")
        text.position += 1
        if char == "]":
            if text.peek():
                text.fail("text after the end of the array")
            return
        text.peek()
    if in_array:
        text.fail("the array has no end; is the file cut short?")


class _JsonText:
    """A window on the text of a JSON file that moves on as values are taken from it."""

    def __init__(self, path: str | Path, kind: type | None = None) -> None:
        self.path = path
        self.chunks = text_chunks(path)
        self.buffer = ""
        self.position = 0  # the next character to look at
        self.counted = 0  # up to here line ends are in `line`
        self.line = 1
        self.decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).raw_decode
        self.by_line = True  # one element a line, as far as is known
        self.decode_line = _line_decoder(kind)

    def fail(self, what: str, offset: int | None = None) -> NoReturn:
        raise InputError(f"{self.path}:{self.line_at(self.position if offset is None else offset)}: {what}")

    def line_at(self, offset: int) -> int:
        return self.line + self.buffer.count("\n", self.counted, offset)

    def peek(self) -> str:
        """Return the next character that is no white space, "" at the end of the file."""
        while True:
            match = _NOT_BLANK.search(self.buffer, self.position)
            if match:
                self.position = match.start()
                return match.group()
            self.position = len(self.buffer)
            if not self.grow():
                return ""

    def grow(self) -> bool:
        """Drop what was read and double what is left; False at the end of the file."""
        self.line = self.line_at(self.position)
        pieces = [self.buffer[self.position :]]
        wanted = len(pieces[0]) * 2  # doubling keeps the cost of a long value linear
        self.position = self.counted = 0
        grown = False
        while (sum(map(len, pieces)) < wanted or not grown) and (piece := next(self.chunks, "")):
            pieces.append(piece)
            grown = True
        self.buffer = "".join(pieces)
        return grown

    def value(self) -> tuple[int, Any]:
        """Return the line number and value that begin at the next character."""
        if self.by_line and (found := self.whole_line()):
            return found
        while True:
            start = self.position
            try:
                value, end = self.decode(self.buffer, start)
            except RecursionError:
                self.fail("nested too deeply")
            except ValueError as error:
                offset = getattr(error, "pos", start)
                cut = str(error).startswith("Unterminated") or offset > len(self.buffer) - 16
                if not cut or len(self.buffer) - start > MAX_ITEM or not self.grow():
                    offset -= start - self.position  # where it is now, should the window have moved
                    self.fail(f"not JSON ({getattr(error, 'msg', error)})", offset)
                continue
            if self.buffer[end : end + 1] in _NUMBER_GOES_ON and self.grow():
                continue  # a number may have been cut by the end of the chunk
            end -= start - self.position
            break
        self.line, self.counted = self.line_at(self.position), self.position
        self.position = end
        return self.line, value

    def whole_line(self) -> tuple[int, Any] | None:
        """Return the line number and value where a line holds just one; msgspec takes a third of json's time.

        None for any other layout, and for what only json takes or names the fault of.
        """
        import msgspec

        start, end = self.position, self.buffer.find("\n", self.position)
        if end < 0:
            return None  # the last line of the window
        comma = self.buffer[end - 1] == ","
        try:
            value = self.decode_line(self.buffer[start : end - comma])
        except (msgspec.DecodeError, RecursionError):
            self.by_line = False
            return None
        self.line, self.counted = self.line_at(start), start
        self.position = end - comma
        return self.line, value


def _line_decoder(kind: type | None) -> Callable[[str], Any]:
    import msgspec

    plain = msgspec.json.Decoder().decode
    if kind is None:
        return plain
    typed: Callable[[str], Any] = msgspec.json.Decoder(kind).decode

    def decode(text: str) -> Any:
        try:
            return typed(text)
        except msgspec.ValidationError:
            return plain(text)

    return decode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    """Return a number; one beyond a double would become inf, for which JSON has no number."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is too large a number")
    return value
