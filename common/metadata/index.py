"""The image index: its images in memory, and in temporary files what was read of each."""

from __future__ import annotations

import pickle
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import compress
from sys import intern
from typing import IO, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from common.cli import InputError
from common.files.csv_files import write_csv
from common.files.json_files import json_writer
from common.files.whole_files import read_lines
from common.metadata.rows import NUMBER, Rows, check_id, read_rows, typed_rows
from common.openimages.datapoints import INDEX_COLUMNS
from common.openimages.ids import is_image_id, list_key, one_of_each

KEYS = {column: key for key, column in INDEX_COLUMNS.items()}
SIZE = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # bytes
KINDS: dict[str, Any] = {"size": SIZE | Literal[""], "rotation": NUMBER | Literal[""]}
ATTRIBUTION = ("id", "author", "title", "landing_url", "license", "author_profile_url", "url")
HEAD = ("subset", "rotation")  # keys that a datapoint has before its annotations
BUCKET = 1 << 15  # images whose boxes, labels and masks, or index entries, are in memory together: 100 MB
BUFFER = 1 << 18  # bytes that wait in memory for each temporary file
LISTED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} .*\s")  # in a line of `aws s3 ls`, what is before the name

Entries = list[tuple[str, str, bytes]]  # id, what datapoints take from it as JSON keys, all of it as JSON


class Spool:
    """Items of bytes, each of a kind and with a number, added in any order and read back by number.

    They are in temporary files without a name, so nothing is left even by kill -9. Each file holds the items
    of BUCKET numbers; those of one file are in memory at a time.
    """

    def __init__(self) -> None:
        self.buckets: list[IO[bytes]] = []

    def add(self, kind: str, items: Iterable[tuple[int, bytes]]) -> None:
        """Add items with their numbers; a full disk is an InputError that names the folder."""
        by_place: dict[int, list[tuple[int, bytes]]] = {}
        for item in items:
            by_place.setdefault(item[0] // BUCKET, []).append(item)
        with _needs_room():
            for place, some in by_place.items():
                while len(self.buckets) <= place:
                    self.buckets.append(tempfile.TemporaryFile(buffering=BUFFER))  # noqa: SIM115  # see close
                pickle.dump((kind, some), self.buckets[place])

    def __iter__(self) -> Iterator[tuple[int, dict[str, list[bytes]]]]:
        """Yield each number with its items by kind, in the order they were added."""
        for file in self.buckets:
            with _needs_room():
                file.seek(0)  # writes what is left in the buffer
            by_kind: dict[str, dict[int, list[bytes]]] = {}
            with suppress(EOFError):
                while True:
                    kind, some = pickle.load(file)  # noqa: S301  # of add
                    items = by_kind.setdefault(kind, {})
                    for number, item in some:
                        items.setdefault(number, []).append(item)
            for number in sorted(set().union(*by_kind.values())):
                yield number, {kind: items[number] for kind, items in by_kind.items() if number in items}

    def close(self) -> None:
        for file in self.buckets:
            with suppress(OSError):  # on a full disk, what waits in memory is no longer needed
                file.close()


@contextmanager
def _needs_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = tempfile.gettempdir()
        raise InputError(f"{where}: {error.strerror}; set TMPDIR to a folder with more room") from None


class Images:
    """The images of an index, in at most 200 bytes an id; what was read of them is on disk.

    Each has a position: that in the index. Each that may get a datapoint has a number, too: the place of its
    datapoint.
    """

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.heads: list[str] = []  # by position; few are different
        self.numbers = array("i")  # by position, -1: none yet
        self.by_number = array("I")  # positions
        self.lost = bytearray()  # by position: whether boxes of the classes were dropped
        self.others: set[str] = set()  # ids with boxes to keep that the index lacks
        self.entries = Spool()  # of several at a time a line each, by the position of the first
        self.items = Spool()  # boxes, labels, masks and marks of background, by number

    def add_entries(self, entries: Entries) -> None:
        """Add images of the index; duplicates are ignored."""
        added, first = [], len(self.positions)
        for image_id, head, entry in entries:
            if image_id not in self.positions:
                self.positions[image_id] = len(self.positions)
                self.heads.append(intern(head))
                self.numbers.append(-1)
                self.lost.append(False)
                added.append(entry)
        if added:
            self.entries.add("entries", [(first, b"\n".join(added))])

    def number_all(self, image_ids: Iterable[str]) -> None:
        """Give the next numbers to those of these images that have none."""
        for image_id in image_ids:
            position = self.positions.get(image_id)
            if position is None:
                self.others.add(image_id)
            elif self.numbers[position] < 0:
                self.numbers[position] = len(self.by_number)
                self.by_number.append(position)

    def add(self, kind: str, items: Iterable[tuple[str, bytes]]) -> None:
        """Keep the items of images that have a number."""
        found = ((self.positions.get(image_id), item) for image_id, item in items)
        numbered = ((self.numbers[position], item) for position, item in found if position is not None)
        self.items.add(kind, ((number, item) for number, item in numbered if number >= 0))

    def entries_at(self, wanted: bytearray) -> Iterator[bytes]:
        """Yield the index entries of the wanted positions."""
        lines = (entry for _, items in self.entries for entry in items["entries"][0].split(b"\n"))
        return compress(lines, wanted)

    def close(self) -> None:
        self.entries.close()
        self.items.close()


def read_index(path: str, images: Images, counts: Counter[str]) -> None:
    """Add the images of an index; count its rows and duplicate ids. No image is an error."""
    for entries in read_rows(path, ("ImageID", "OriginalURL"), read_entries):
        counts["index_rows"] += len(entries)
        images.add_entries(entries)
    counts["repeated_ids"] = counts["index_rows"] - len(images.positions)
    if not images.positions:
        raise InputError(f"{path}: no images in it")


def read_entries(header: tuple[str, ...], rows: Rows) -> Entries:
    """Return the entries of rows, empty fields left out; a reader as `read_rows` takes it."""
    keys = [KEYS.get(name, name) for name in header]
    columns = tuple((name, f"_{place}", KINDS.get(keys[place], str)) for place, name in enumerate(header))
    encode = msgspec.json.Encoder().encode
    entries = []
    for row in typed_rows(header, columns, rows):
        fields = zip(keys, msgspec.structs.astuple(row), strict=True)
        entry = {key: value for key, value in fields if value != ""}
        check_id(entry.get("id", ""))
        head = {key: entry[key] for key in HEAD if key in entry}
        text = intern(encode(head)[1:-1].decode())  # equal ones are pickled once
        entries.append((entry["id"], text, encode(entry)))
    return entries


def read_listed(path: str, index_path: str, images: Images, counts: Counter[str]) -> frozenset[str]:
    """Return the images of the index that a file lists, one a line, and count the others.

    A line may hold a path or address of the image, or be one of `aws s3 ls`, whose last column counts. Ids
    are compared as `list_key` has them.
    """
    ids = set()
    for line, text in read_lines(path):
        name = LISTED.sub("", text.strip()).rpartition("/")[2]
        if name and not is_image_id(name):
            raise InputError(f"{path}:{line}: {name[:80]!r}, an image id was expected")
        ids.add(list_key(name))
    ids.discard("")
    if not ids:
        raise InputError(f"{path}: no image ids in it, one a line was expected")
    of_index = images.positions
    listed = frozenset(image_id for image_id in of_index if image_id in ids or list_key(image_id) in ids)
    if not listed:
        shown = one_of_each("list", min(ids), "index", next(iter(of_index)))
        raise InputError(f"{path}: none of its {len(ids)} image ids is in {index_path}: {shown}")
    counts["listed_not_found"] = len(ids) - len(set(map(list_key, listed)))
    return listed


def write_index(images: Images, wanted: bytearray, path: str, attribution_path: str | None) -> None:
    """Write the index entries of the wanted positions and, if asked for, their attribution as CSV."""
    with json_writer(path) as write:
        for entry in images.entries_at(wanted):
            write(entry)
    if attribution_path:
        entries = map(msgspec.json.decode, images.entries_at(wanted))
        rows = ([entry.get(key, "") for key in ATTRIBUTION] for entry in entries)
        write_csv(attribution_path, ATTRIBUTION, rows)
