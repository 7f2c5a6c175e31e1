"""The box annotations of every release, their columns by name: checked, filtered, and kept by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import compress, groupby
from operator import not_
from typing import Any
from zlib import crc32

import msgspec

from common.metadata.index import Images
from common.metadata.rows import NUMBER, ROUNDING, Columns, Rows, check_id, read_rows, typed_rows
from common.openimages.datapoints import ATTRIBUTES, COORDINATES, Attribute

REQUIRED = ("ImageID", "LabelName", *COORDINATES.values())
CLIPPED = 0.01  # with --clip_boxes an edge may be so far outside: pixels rounded before they were divided
COLUMNS: Columns = (  # in the order of a box's keys
    ("ImageID", "id", str),
    ("LabelName", "label", str),
    ("Confidence", "confidence", int | NUMBER),
    *((name, key, NUMBER) for key, name in COORDINATES.items()),
    *((name, key, Attribute) for key, name in ATTRIBUTES.items()),
    ("Source", "source", str),
)

# Rows dropped by reason; image ids with their boxes; image ids that lost boxes of the classes.
Found = tuple[Counter[str], list[tuple[str, bytes]], set[str]]


# An item: a checksum of the row of each box of an image, and the JSON of each. Boxes that agree in both have
# the same row.
_decode = msgspec.msgpack.Decoder(tuple[list[int], list[bytes]]).decode


@dataclass(frozen=True)
class BoxFilter:
    """The boxes to keep: of these classes, inside the image, with an area, and as the user asked for."""

    classes: frozenset[str]
    exclude: tuple[str, ...] = ()  # attributes that a box may not have
    min_side: float = 0.0  # of width and height, normalised
    clip: bool = False  # move edges that are up to CLIPPED outside the image

    def outcome(self, box: Any) -> str:
        """Return why a box is dropped; "" if it is kept, "clipped" if it had to be."""
        outcome = ""
        if box.label not in self.classes:
            return "other_classes"
        if not (0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1):
            if not move_to_edges(box, ROUNDING):
                if not (self.clip and move_to_edges(box, CLIPPED + ROUNDING)):
                    return "outside_image"
                outcome = "clipped"
            if box.x0 >= box.x1 or box.y0 >= box.y1:
                return "without_area"
        for key in self.exclude:
            if getattr(box, key) == 1:
                return f"excluded_{key}"
        if self.min_side and min(box.x1 - box.x0, box.y1 - box.y0) < self.min_side:
            return "too_small"
        return outcome


def read_boxes(path: str, wanted: BoxFilter, images: Images, counts: Counter[str]) -> None:
    """Keep the boxes by image; count the rows dropped by reason, and images that the index lacks.

    Images get their numbers in the order of their first kept row.
    """
    required = (*REQUIRED, *(ATTRIBUTES[key] for key in wanted.exclude))
    for found, items, lost in read_rows(path, required, partial(find_boxes, wanted)):
        counts.update(found)
        images.number_all(image_id for image_id, _ in items)
        images.add("boxes", items)
        for image_id in images.positions.keys() & lost:
            images.lost[images.positions[image_id]] = True
    counts["images_not_in_index"] = len(images.others)


def find_boxes(wanted: BoxFilter, header: tuple[str, ...], rows: Rows) -> Found:
    """Return what a slice of rows has; a reader as `read_rows` takes it."""
    boxes = typed_rows(header, COLUMNS, rows)
    for image_id in {box.id for box in boxes}:
        check_id(image_id)
    counts = Counter(rows=len(boxes))
    outcomes = list(map(wanted.outcome, boxes))
    lost = set()
    if any(outcomes):
        counts.update(filter(None, outcomes))
        is_lost = [outcome not in ("", "clipped") for outcome in outcomes]
        lost = {box.id for box in compress(boxes, is_lost) if box.label in wanted.classes}
        is_kept = list(map(not_, is_lost))
        boxes, rows = list(compress(boxes, is_kept)), list(compress(rows, is_kept))
    keys, lines = list(map(crc32, rows)), _json_lines(header, boxes)
    items, end = [], 0
    for image_id, same_image in groupby([box.id for box in boxes]):
        start, end = end, end + len(list(same_image))
        items.append((image_id, msgspec.msgpack.encode((keys[start:end], lines[start:end]))))
    return counts, items, lost


def merge_boxes(items: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Return the JSON of each box of an image, and how many more were duplicates."""
    found = list(map(_decode, items))
    keys = [key for keys, _ in found for key in keys]
    boxes = [box for _, boxes in found for box in boxes]
    if len(set(keys)) < len(keys):
        boxes = [box for box, _ in dict.fromkeys(zip(boxes, keys, strict=True))]
    return boxes, len(keys) - len(boxes)


def _json_lines(header: tuple[str, ...], boxes: Sequence[Any]) -> list[bytes]:
    """Return the JSON of each box, with the keys of the columns that the file has."""
    boxes = msgspec.convert(boxes, _boxes_type(header), from_attributes=True)
    return msgspec.json.Encoder().encode_lines(boxes).split(b"\n")[:-1]


@lru_cache
def _boxes_type(header: tuple[str, ...]) -> Any:
    keys = [key for name, key, _ in COLUMNS if name in header]
    return list[msgspec.defstruct("Box", keys, gc=False)]  # type: ignore[misc]


def move_to_edges(box: Any, far: float) -> bool:
    """Move the edges of a box into the image; return False at one that is further than `far` outside."""
    for key in COORDINATES:
        value = getattr(box, key)
        if not 0 <= value <= 1:
            if not -far <= value <= 1 + far:
                return False
            setattr(box, key, min(max(value, 0.0), 1.0))
    return True
