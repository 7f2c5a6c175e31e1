"""The box annotations of every release, their columns by name: checked, filtered, and spooled by image."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import compress, groupby
from operator import not_
from typing import Any
from zlib import crc32

import msgspec

from common.cli import InputError
from common.files.csv_files import columns, parse_number
from common.files.json_files import to_json
from common.metadata.index import Images
from common.metadata.rows import Rows, read_rows
from common.metadata.spool import Spool
from common.openimages.datapoints import ATTRIBUTES, COORDINATES
from common.openimages.ids import is_image_id

REQUIRED = ("ImageID", "LabelName", *COORDINATES.values())
COLUMNS = (*REQUIRED, "Confidence", "Source", *ATTRIBUTES.values())
ROUNDING = 1e-6  # the files have six decimals; a coordinate this little outside [0, 1] is moved to its edge
CLIPPED = 0.01  # with --clip_boxes this little: pixels that were rounded before they were divided
TINY = 1e-4  # a number below it, not 0, has an exponent in to_json and none or another in msgspec
FLAGS = {"0": 0, "1": 1, "-1": -1}  # of an attribute: no, yes, unknown
# As other programs write them: pandas, spreadsheets.
FLAGS |= {"0.0": 0, "1.0": 1, "-1.0": -1, "False": 0, "True": 1, "FALSE": 0, "TRUE": 1, "": -1}

# Rows dropped by reason; image ids with their boxes; image ids that lost boxes of the classes.
Found = tuple[Counter[str], list[tuple[str, bytes]], set[str]]


# An item of the spool: a key of 4 bytes for each box of an image, of its row, and the JSON of each in a line.
# Boxes with the same key and the same JSON have the same row.
_decode = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class BoxFilter:
    """The boxes to keep: of these classes, inside the image, with an area, and as the user asked for."""

    classes: frozenset[str]
    exclude: tuple[str, ...] = ()  # attributes that a box may not have
    min_side: float = 0.0  # of width and height, normalised
    clip: bool = False  # move edges that are up to CLIPPED outside the image

    def reason(self, box: Any) -> str:
        """Return why a box is dropped, "" if it is not."""
        if box.label not in self.classes:
            return "other_classes"
        if not (0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1):
            is_inside = min(box.x0, box.x1, box.y0, box.y1) >= 0 and max(box.x0, box.x1, box.y0, box.y1) <= 1
            return "without_area" if is_inside else "outside_image"
        for key in self.exclude:
            if getattr(box, key) == 1:
                return f"excluded_{key}"
        return "too_small" if min(box.x1 - box.x0, box.y1 - box.y0) < self.min_side else ""


def spool_boxes(path: str, wanted: BoxFilter, images: Images, boxes: Spool) -> Counter[str]:
    """Add the kept boxes to a spool, in items of one image; return counts of the rows dropped by reason.

    Images get their numbers in the order of their first kept row.
    """

    def open_reader(header: list[str]) -> partial[Found]:
        places = columns(path, header, REQUIRED)
        unknown = [key for key in wanted.exclude if ATTRIBUTES[key] not in places]
        if unknown:
            raise InputError(
                f"{path}:1: no column says which boxes are {', '.join(unknown)}, to exclude them"
            )
        return partial(read_boxes, places, wanted)

    counts: Counter[str] = Counter()
    for found, items, lost in read_rows(path, open_reader):
        counts.update(found)
        images.add_lost(lost)
        boxes.add((images.number(image_id), item) for image_id, item in items)
    return counts


def read_boxes(places: dict[str, int], wanted: BoxFilter, rows: Rows) -> Found:
    """Return what a slice of rows has; a reader as `read_rows` takes it."""
    counts = Counter(rows=len(rows))
    last = max(places[name] for name in COLUMNS if name in places)
    columns = zip(*(row.split("\0", last + 1) for row in rows), strict=True)
    fields = _fields(dict(zip(places, columns, strict=False)))
    boxes: list[Any] = list(map(_box_type(tuple(fields)), *fields.values()))
    sides = zip(fields["label"], *(fields[key] for key in COORDINATES), strict=True)
    classes = wanted.classes  # what reason() checks, in a third of the time
    is_kept = [mid in classes and 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for mid, x0, x1, y0, y1 in sides]
    if wanted.exclude or wanted.min_side:
        is_kept = [kept and not wanted.reason(box) for kept, box in zip(is_kept, boxes, strict=True)]
    if wanted.clip and not all(is_kept):
        dropped = compress(boxes, map(not_, is_kept))
        clipped = [box for box in dropped if wanted.reason(box) == "outside_image" and _clip(box)]
        is_kept = [not wanted.reason(box) for box in boxes]
        counts["clipped"] = sum(not wanted.reason(box) for box in clipped)
    lost = set()
    if not all(is_kept):
        counts.update(map(wanted.reason, compress(boxes, map(not_, is_kept))))
        lost = {box.id for box in compress(boxes, map(not_, is_kept)) if box.label in classes}
        boxes, rows = list(compress(boxes, is_kept)), list(compress(rows, is_kept))
    keys = array("I", map(crc32, map(str.encode, rows)))
    lines = _json_lines(boxes)
    items, end = [], 0
    for image_id, same_image in groupby([box.id for box in boxes]):
        start, end = end, end + len(list(same_image))
        items.append((image_id, _encode((keys[start:end].tobytes(), b"\n".join(lines[start:end])))))
    return counts, items, lost


def _clip(box: Any) -> bool:
    """Move the edges of a box into the image; report whether none was further than CLIPPED outside."""
    sides = {key: min(max(getattr(box, key), 0.0), 1.0) for key in COORDINATES}
    if any(abs(getattr(box, key) - side) > CLIPPED + ROUNDING for key, side in sides.items()):
        return False
    for key, side in sides.items():
        setattr(box, key, side)
    return True


def merge(items: Iterable[bytes]) -> tuple[bytes, int, int]:
    """Return the JSON of an image's boxes, a line each, their number, and how many more were duplicates."""
    found = list(map(_decode, items))
    keys = array("I", b"".join([keys for keys, _ in found]))
    json = b"\n".join([json for _, json in found])
    if len(set(keys)) == len(keys):
        return json, len(keys), 0
    lines = [line for line, _ in dict.fromkeys(zip(json.split(b"\n"), keys, strict=True))]
    return b"\n".join(lines), len(lines), len(keys) - len(lines)


def _json_lines(boxes: Sequence[Any]) -> list[bytes]:
    """Return what to_json returns for each box, in a tenth of the time."""
    lines = msgspec.json.Encoder().encode_lines(boxes).split(b"\n")[:-1]
    for place, box in enumerate(boxes):
        if (box.x0 < TINY or box.y0 < TINY) and re.search(rb":0\.0000|[0-9]e-", lines[place]):
            lines[place] = to_json(msgspec.structs.asdict(box))
    return lines


def _fields(texts: Mapping[str, Sequence[str]]) -> dict[str, Sequence[Any]]:
    """Return the values of each key of a box for all rows, in the order they have in a datapoint."""
    for image_id in dict.fromkeys(texts["ImageID"]):
        if not is_image_id(image_id):
            raise ValueError(f"ImageID {image_id!r:.80}, an image id was expected")
    fields: dict[str, Sequence[Any]] = {"id": texts["ImageID"], "label": texts["LabelName"]}
    if "Confidence" in texts:
        known = {text: _number("Confidence", text) for text in set(texts["Confidence"])}
        for text, value in known.items():
            if value.is_integer() and abs(value) < 1 << 53:
                known[text] = int(value)
        fields["confidence"] = list(map(known.__getitem__, texts["Confidence"]))
    for key, name in COORDINATES.items():
        fields[key] = coordinates(name, texts[name])
    for key, name in ATTRIBUTES.items():
        if name in texts:
            try:
                fields[key] = list(map(FLAGS.__getitem__, texts[name]))
            except KeyError as text:
                raise ValueError(f"{name} is {text.args[0]!r:.80}, 1, 0 or -1 was expected") from None
    if "Source" in texts:
        fields["source"] = texts["Source"]
    return fields


def _number(name: str, text: str) -> float:
    value = parse_number(text)
    if value is None:
        raise ValueError(f"{name} is {text!r:.80}, a number was expected")
    return value


def coordinates(name: str, texts: Sequence[str]) -> list[float]:
    """Return coordinates as numbers, those that are a rounding outside [0, 1] moved to its edge."""
    try:
        # Of these characters float() takes what parse_number takes, but for numbers that are infinite.
        if "".join(texts).encode().translate(None, b"0123456789.+-eE"):
            raise ValueError
        values = list(map(float, texts))
        if not math.isfinite(sum(values)):
            raise ValueError
    except ValueError:
        values = [_number(name, text) for text in texts]
    if min(values) < 0 or max(values) > 1:
        inside = -ROUNDING, 1 + ROUNDING
        return [min(max(value, 0.0), 1.0) if inside[0] <= value <= inside[1] else value for value in values]
    return values


@lru_cache
def _box_type(keys: tuple[str, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct("Box", keys, gc=False)
