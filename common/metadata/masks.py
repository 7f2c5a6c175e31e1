"""The instance masks: checked, spooled by image, and joined to the kept boxes without a common key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import msgspec

from common.cli import InputError
from common.files.csv_files import columns, read_csv
from common.metadata.index import Images
from common.metadata.points import BUCKET, Point, Tables, read_points
from common.metadata.rows import SHARE, Columns, Rows, read_rows, typed_rows
from common.metadata.spool import Spool
from common.openimages.datapoints import COORDINATES

CORNERS = ("BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")
REQUIRED = ("MaskPath", "ImageID", "LabelName", *CORNERS)
COLUMNS: Columns = (
    *zip(REQUIRED, ("mask", "id", "label"), (str, str, str), strict=False),
    *((name, key, SHARE) for name, key in zip(CORNERS, COORDINATES, strict=True)),
)
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,250}\.png")
NEAR = 0.005 + 1e-9  # largest difference of a coordinate between a mask and its box, and a float's rounding


class Region(msgspec.Struct, gc=False):
    """Class and coordinates of a box; `mask` is a mask's file, or "" for a box of the annotations."""

    label: str
    x0: float
    x1: float
    y0: float
    y1: float
    mask: str = ""


_decode_box = msgspec.json.Decoder(Region).decode
_decode_mask = msgspec.msgpack.Decoder(Region).decode


@dataclass(frozen=True)
class MaskRules:
    """The files, for the error of no match, and what happens to boxes without a mask."""

    annotations_path: str
    masks_path: str
    boxes_without_mask: str = "keep"  # or drop_box, drop_image
    keep_labels_only: bool = False  # images that lose all boxes stay if they have labels


def spool_masks(path: str, classes: frozenset[str], images: Images, masks: Spool) -> Counter[str]:
    """Add the masks of these classes to a spool, an item each, as far as their image has a number.

    All masks of the classes and of the index's images count as `masks_without_box`, until they are joined.
    """
    counts: Counter[str] = Counter()
    for items in read_rows(path, REQUIRED, partial(read_masks, classes)):
        found = [(one, item) for one, item in items if images.is_indexed(one)]
        counts["masks_without_box"] += len(found)
        masks.add((images.number(one), item) for one, item in found if images.has_number(one))
    return counts


def read_masks(classes: frozenset[str], header: tuple[str, ...], rows: Rows) -> list[tuple[str, bytes]]:
    """Return the image id of each mask of these classes, and the mask; a reader as `read_rows` takes it."""
    masks = typed_rows(header, COLUMNS, rows)
    for mask in masks:
        if not FILE_NAME.fullmatch(mask.mask):
            raise ValueError(f"MaskPath is {mask.mask!r:.80}, a file name that ends in .png was expected")
    encode = msgspec.msgpack.Encoder().encode
    kept = [mask for mask in masks if mask.label in classes]
    regions = msgspec.convert(kept, list[Region], from_attributes=True)
    return [(mask.id, encode(region)) for mask, region in zip(kept, regions, strict=True)]


def join_masks(tables: Tables, masks: Spool, rules: MaskRules, counts: Counter[str]) -> Iterator[Point]:
    """Yield the points of `read_points` with their masks; no mask that matches any box is an error."""
    place = -1
    items: dict[int, list[bytes]] = {}
    example = ""  # of a kept box
    has_match = False
    for point in read_points(tables, counts):
        number = tables.images.numbers[point.position]
        if place != number // BUCKET:
            place = number // BUCKET
            items = masks.bucket(place)
        if point.boxes:
            if not example:
                box = _decode_box(point.boxes.partition(b"\n")[0])
                example = f"{point.id} {box.label} {box.x0} {box.x1} {box.y0} {box.y1}"
            of_image = [_decode_mask(item) for item in items.get(number, ())]
            is_kept = _add_masks(point, of_image, tables.ancestors, rules, counts)
            has_match = has_match or point.mask_count > 0
            if not is_kept:
                counts["images_without_mask"] += 1
                continue
        yield point
    if example and not has_match:
        rows = read_csv(rules.masks_path)
        places = columns(rules.masks_path, next(rows)[1], REQUIRED)
        mask = " ".join(row[places[name]] for _, row in islice(rows, 1) for name in REQUIRED[1:])
        raise InputError(
            f"{rules.masks_path}: no mask matches a box of {rules.annotations_path}: the first mask is "
            f"{mask or 'missing'}, the first kept box {example}; the masks of the same split were expected"
        )


def _add_masks(
    point: Point,
    masks: Sequence[Region],
    ancestors: Mapping[str, Sequence[str]],
    rules: MaskRules,
    counts: Counter[str],
) -> bool:
    """Add the masks of an image to its boxes, and drop boxes without one; return whether the image stays."""
    keep = rules.boxes_without_mask == "keep"
    if keep and not masks:
        return True
    groups = list(_with_copies(point.boxes.split(b"\n"), ancestors))
    found = match([box for box, _ in groups], masks)
    point.mask_count = len(found)
    counts["masks_without_box"] -= len(found)
    if rules.boxes_without_mask == "drop_image" and len(found) < len(groups):
        return False
    boxes: list[bytes] = []
    for place, (_, copies) in enumerate(groups):
        if place in found:
            boxes += [b'%b,"mask":"%b"}' % (box[:-1], found[place].encode()) for box in copies]
        elif keep:
            boxes += copies
    counts["boxes_without_mask"] += point.box_count - len(boxes)
    point.boxes, point.box_count = b"\n".join(boxes), len(boxes)
    return bool(boxes or (rules.keep_labels_only and point.labels))


def _with_copies(
    boxes: Sequence[bytes], ancestors: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Region, list[bytes]]]:
    """Yield each box, with its JSON and that of its copies for ancestors, which follow it."""
    rest = iter(boxes)
    for json in rest:
        box = _decode_box(json)
        yield box, [json, *islice(rest, len(ancestors.get(box.label, ())))]


def match(boxes: Sequence[Region], masks: Sequence[Region]) -> dict[int, str]:
    """Return the file of each box's mask, by the box's place: the nearest pairs first, each once."""
    pairs = (
        (_distance(box, mask), place, mask.mask)
        for place, box in enumerate(boxes)
        for mask in masks
        if box.label == mask.label and _distance(box, mask) <= NEAR
    )
    found: dict[int, str] = {}
    taken = set()
    for _, place, path in sorted(pairs):
        if place not in found and path not in taken:
            found[place] = path
            taken.add(path)
    return found


def _distance(a: Region, b: Region) -> float:
    return max(abs(a.x0 - b.x0), abs(a.x1 - b.x1), abs(a.y0 - b.y0), abs(a.y1 - b.y1))
