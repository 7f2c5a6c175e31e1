"""The instance masks: checked, kept by image, and matched to boxes without a common key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from common.metadata.index import Images
from common.metadata.rows import SHARE, Columns, Rows, read_rows, typed_rows
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


decode_region = msgspec.json.Decoder(Region).decode


def read_masks(path: str, classes: frozenset[str], images: Images, counts: Counter[str]) -> None:
    """Keep the masks of these classes, an item each, as far as their image has a number.

    All masks of the classes and of the index's images count as `masks_without_box`, until they are matched.
    """
    for items in read_rows(path, REQUIRED, partial(find_masks, classes)):
        images.add("masks", items)
        counts["masks_without_box"] += sum(image_id in images.positions for image_id, _ in items)


def find_masks(classes: frozenset[str], header: tuple[str, ...], rows: Rows) -> list[tuple[str, bytes]]:
    """Return the image id of each mask of these classes, and the mask; a reader as `read_rows` takes it."""
    masks = typed_rows(header, COLUMNS, rows)
    for mask in masks:
        if not FILE_NAME.fullmatch(mask.mask):
            raise ValueError(f"MaskPath is {mask.mask!r:.80}, a file name that ends in .png was expected")
    kept = [mask for mask in masks if mask.label in classes]
    regions = msgspec.convert(kept, list[Region], from_attributes=True)
    return [(mask.id, msgspec.json.encode(region)) for mask, region in zip(kept, regions, strict=True)]


def match_masks(boxes: Sequence[bytes], masks: Iterable[bytes]) -> dict[int, bytes]:
    """Return the file of each box's mask, by the box's place: the nearest pairs first, each once."""
    regions = list(map(decode_region, masks))
    pairs = [
        (_distance(box, mask), place, mask.mask)
        for place, box in enumerate(map(decode_region, boxes if regions else ()))
        for mask in regions
        if box.label == mask.label and _distance(box, mask) <= NEAR
    ]
    found: dict[int, bytes] = {}
    taken = set()
    for _, place, file in sorted(pairs):
        if place not in found and file not in taken:
            found[place] = file.encode()
            taken.add(file)
    return found


def _distance(a: Region, b: Region) -> float:
    return max(abs(a.x0 - b.x0), abs(a.x1 - b.x1), abs(a.y0 - b.y0), abs(a.y1 - b.y1))
