"""The image index of every release, its columns by name, and the attribution of its images."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import compress, islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from common.cli import InputError
from common.files.csv_files import write_csv
from common.files.json_files import json_writer
from common.metadata.rows import NUMBER, Rows, check_id, parse_field, read_rows
from common.metadata.spool import Spool
from common.openimages.datapoints import INDEX_COLUMNS

KEYS = {column: key for key, column in INDEX_COLUMNS.items()}
KINDS = {"size": Annotated[int, Meta(ge=0, le=(1 << 63) - 1)], "rotation": NUMBER}  # bytes, degrees
ATTRIBUTION = ("id", "author", "title", "landing_url", "license", "author_profile_url", "url")
HEAD = ("subset", "rotation")  # keys that a datapoint has before its annotations
BUCKET = 1 << 17  # index entries read into memory together: 80 MB

Entries = list[tuple[str, str, bytes]]  # id, what datapoints take from it as JSON keys, all of it as JSON


class Images:
    """The images of an index and of the boxes, in at most 200 bytes an id; their index entries are on disk.

    A release has 1.7 million ids with boxes. Each has a position: that in the index, or a later one if it is
    not in the index. Each image that may get a datapoint has a number: the place of its datapoint.
    """

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.heads: dict[str, int] = {}  # the few different heads of datapoints, and the place of each
        self.head_places = array("I")  # by position
        self.numbers = array("i")  # by position, -1: none yet
        self.by_number = array("I")  # positions
        self.lost = bytearray()  # by position in the index: whether boxes of the classes were dropped
        self.indexed = 0
        self.entries = Spool(BUCKET)  # of several at a time a line each, by the position of the first

    def add_indexed(self, entries: Entries) -> None:
        """Add images of the index, before any other; duplicates are ignored."""
        added, first = [], self.indexed
        for image_id, head, entry in entries:
            if self.positions.setdefault(image_id, self.indexed) == self.indexed:
                self.indexed += 1
                self.numbers.append(-1)
                self.lost.append(False)
                self.head_places.append(self.heads.setdefault(head, len(self.heads)))
                added.append(entry)
        if added:
            self.entries.add([(first, b"\n".join(added))])

    def number_all(self, image_ids: Iterable[str]) -> range:
        """Give the next numbers to those of these images that have none; return the new numbers."""
        first = len(self.by_number)
        for image_id in image_ids:
            self.number(image_id)
        return range(first, len(self.by_number))

    def of_index(self) -> Iterator[str]:
        """Yield the images of the index, in its order."""
        return islice(self.positions, self.indexed)

    def add_lost(self, image_ids: Iterable[str]) -> None:
        """Note that boxes of these images were dropped, though they are of the classes."""
        for image_id in filter(self.is_indexed, image_ids):
            self.lost[self.positions[image_id]] = True

    def without_boxes(self) -> Iterator[str]:
        """Yield the images of the index that have no number and lost no box."""
        images = zip(self.positions, self.numbers, self.lost, strict=False)
        return (image_id for image_id, number, is_lost in images if number < 0 and not is_lost)

    def is_indexed(self, image_id: str) -> bool:
        return self.positions.get(image_id, self.indexed) < self.indexed

    def has_number(self, image_id: str) -> bool:
        return self.numbers[self.positions[image_id]] >= 0

    def number(self, image_id: str) -> int:
        """Return the number of an image, the next one if it has none."""
        position = self.positions.setdefault(image_id, len(self.positions))
        if position == len(self.numbers):
            self.numbers.append(-1)
        if self.numbers[position] < 0:
            self.numbers[position] = len(self.by_number)
            self.by_number.append(position)
        return self.numbers[position]


def read_index(path: str, images: Images) -> Counter[str]:
    """Add the images of an index; return counts of its rows and duplicate ids. No image is an error."""
    rows = 0
    for entries in read_rows(path, ("ImageID", "OriginalURL"), read_entries):
        rows += len(entries)
        images.add_indexed(entries)
    if not images.indexed:
        raise InputError(f"{path}: no images in it")
    return Counter(index_rows=rows, repeated_ids=rows - images.indexed)


def read_entries(header: tuple[str, ...], rows: Rows) -> Entries:
    """Return the entries of rows, empty fields left out; a reader as `read_rows` takes it."""
    encode = msgspec.json.Encoder().encode
    keys = [KEYS.get(name, name) for name in header]
    entries = []
    for row in rows:
        fields = zip(keys, row.decode().split("\0"), strict=True)
        entry: dict[str, Any] = {key: text for key, text in fields if text}
        check_id(entry.get("id", ""))
        for key, kind in KINDS.items():
            if key in entry:
                entry[key] = parse_field(key, kind, entry[key])
        head = {key: entry[key] for key in HEAD if key in entry}
        entries.append((entry["id"], encode(head)[1:-1].decode(), encode(entry)))
    return entries


def write_index(images: Images, wanted: bytearray, path: str, attribution_path: str | None) -> None:
    """Write the index entries of the wanted positions and, if asked for, their attribution as CSV."""

    def kept() -> Iterator[bytes]:
        return compress((entry for _, (lines,) in images.entries for entry in lines.split(b"\n")), wanted)

    with json_writer(path) as write:
        for entry in kept():
            write(entry)
    if attribution_path:
        decoded = map(msgspec.json.decode, kept())
        rows = ([image.get(key, "") for key in ATTRIBUTION] for image in decoded)
        write_csv(attribution_path, ATTRIBUTION, rows)
