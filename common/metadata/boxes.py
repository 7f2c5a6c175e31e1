"""The box annotations of every release, their columns by name: checked, filtered, and spooled by image."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

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
ROUNDING = 1e-6  # the files have six decimals; a coordinate this little outside [0, 1] is moved to its edge
TINY = 1e-4  # a number below it, not 0, has an exponent in to_json and none in msgspec
FLAGS = {"0": 0, "1": 1, "-1": -1}  # of an attribute: no, yes, unknown

Item = tuple[str, bytes]  # image id, boxes

decode_boxes = msgspec.msgpack.Decoder(dict[bytes, bytes]).decode


@dataclass(frozen=True)
class BoxFilter:
    """The boxes to keep: of these classes, inside the image, with an area, and as the user asked for."""

    classes: frozenset[str]
    exclude: tuple[str, ...] = ()  # attributes that a box may not have
    min_side: float = 0.0  # of width and height, normalised

    def reason(self, box: Any) -> str:
        """Return why the user's flags drop a box, "" if they keep it."""
        for key in self.exclude:
            if getattr(box, key) == 1:
                return f"excluded_{key}"
        return "too_small" if min(box.x1 - box.x0, box.y1 - box.y0) < self.min_side else ""


def spool_boxes(path: str, wanted: BoxFilter, images: Images, boxes: Spool) -> Counter[str]:
    """Add the kept boxes to a spool, in items of one image; return counts of the rows dropped by reason.

    An item is a dictionary in msgpack: the digest of each box's row, which duplicates share, and the box as
    JSON. Images get their numbers in the order of their first kept row.
    """

    def open_reader(header: list[str]) -> partial[tuple[Counter[str], list[Item]]]:
        places = columns(path, header, REQUIRED)
        unknown = [key for key in wanted.exclude if ATTRIBUTES[key] not in places]
        if unknown:
            raise InputError(
                f"{path}:1: no column says which boxes are {', '.join(unknown)}, to exclude them"
            )
        return partial(read_boxes, places, wanted)

    counts: Counter[str] = Counter()
    for found, items in read_rows(path, open_reader):
        counts.update(found)
        for image_id, item in items:
            boxes.add(images.number(image_id), item)
    return counts


def read_boxes(places: dict[str, int], wanted: BoxFilter, rows: Rows) -> tuple[Counter[str], list[Item]]:
    """Return counts by reason, and items of the kept boxes; a reader as `read_rows` takes it."""
    counts = Counter(rows=len(rows))
    if not rows:
        return counts, []
    by_row = (row.split("\0") for row in rows)
    fields = _fields(dict(zip(places, zip(*by_row, strict=True), strict=True)))
    make = _box_type(tuple(fields))
    encode = msgspec.json.Encoder().encode  # what to_json returns, in a tenth of the time
    has_flags = wanted.exclude or wanted.min_side
    digest = hashlib.blake2b(digest_size=16)
    items: list[tuple[str, dict[bytes, bytes]]] = []
    corners = zip(*(fields[key] for key in COORDINATES), strict=True)
    for row, values, (x0, x1, y0, y1) in zip(rows, zip(*fields.values(), strict=True), corners, strict=True):
        if values[1] not in wanted.classes:
            counts["other_classes"] += 1
            continue
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            inside = min(x0, x1, y0, y1) >= 0 and max(x0, x1, y0, y1) <= 1
            counts["without_area" if inside else "outside_image"] += 1
            continue
        box = make(*values)
        if has_flags and (reason := wanted.reason(box)):
            counts[reason] += 1
            continue
        if not items or items[-1][0] != values[0]:
            items.append((values[0], {}))
        of_row = digest.copy()
        of_row.update(row.encode())
        is_tiny = 0 < x0 < TINY or x1 < TINY or 0 < y0 < TINY or y1 < TINY
        json = to_json(msgspec.structs.asdict(box)) if is_tiny else encode(box)
        counts["repeated_rows"] += items[-1][1].setdefault(of_row.digest(), json) is not json
    return counts, [(image_id, msgspec.msgpack.encode(boxes)) for image_id, boxes in items]


def _fields(texts: Mapping[str, Sequence[str]]) -> dict[str, Sequence[Any]]:
    """Return the values of each key of a box for all rows, in the order they have in a datapoint."""
    for image_id in dict.fromkeys(texts["ImageID"]):
        if not is_image_id(image_id):
            raise ValueError(f"ImageID {image_id!r:.80}, an image id was expected")
    fields: dict[str, Sequence[Any]] = {"id": texts["ImageID"], "label": texts["LabelName"]}
    if "Confidence" in texts:
        known = {text: _number("Confidence", text) for text in set(texts["Confidence"])}
        whole = {
            text: int(value) for text, value in known.items() if value.is_integer() and abs(value) < 1 << 53
        }
        fields["confidence"] = [whole.get(text, known[text]) for text in texts["Confidence"]]
    for key, name in COORDINATES.items():
        fields[key] = _coordinates(name, texts[name])
    for key, name in ATTRIBUTES.items():
        if name in texts:
            try:
                fields[key] = [FLAGS[text] for text in texts[name]]
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


def _coordinates(name: str, texts: Sequence[str]) -> list[float]:
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
