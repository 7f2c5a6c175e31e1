"""COCO's instances format (cocodataset.org/#format-data) of what is in the records.

One file for each set, written as a stream, an element a line. Image ids are numbers (`image_number`),
category ids are the records' class ids, lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from common.cli import InputError
from common.files.csv_files import columns, read_csv
from common.files.places import parse_path
from common.files.whole_files import open_output
from common.images.masks import encode_mask
from common.openimages.classes import class_texts, read_ancestors, read_descriptions
from common.openimages.datapoints import Annotation, Mask
from common.openimages.ids import image_number
from common.records.examples import mask_pixels
from common.records.types import RecordSet, Work, read_work

CREDITS = ("author", "title", "landing_url", "author_profile_url")  # columns of the attribution
DIGITS = 4  # of a length in pixels


@dataclass(frozen=True)
class CocoSettings:
    """Path of each set's file, and its content besides the records."""

    paths: Sequence[Path]
    categories: Sequence[dict[str, Any]]
    attribution_path: str | None  # CSV of step 3: who made each image, under which licence

    def __post_init__(self) -> None:
        if self.attribution_path is not None:
            next(read_attribution(self.attribution_path), None)  # a fault is found before the work


def coco_paths(path: str, eval_records: str | None) -> list[Path]:
    """Return where the file of each set goes: that of evaluation beside `path`, named like its records."""
    paths = [parse_path(path)]
    if eval_records is not None:
        stem, _, ending = paths[0].name.partition(".")
        name = parse_path(eval_records).name.partition(".")[0]
        if name == stem:
            raise InputError(f"{path}: the COCO file of the evaluation records would have this name too")
        paths.append(paths[0].with_name(f"{name}.{ending}" if ending else name))
    return paths


def make_categories(
    classes: Sequence[str], names: Sequence[str], descriptions: str | None, hierarchy: str | None
) -> list[dict[str, Any]]:
    """Return COCO's categories, no two of one name.

    With a hierarchy the supercategory is the nearest ancestor or, as in COCO, the class itself without one.
    """
    texts = class_texts(classes, names, "name")
    found: list[dict[str, Any]] = [
        {"id": number, "name": texts[mid], "mid": mid} for number, mid in enumerate(classes, start=1)
    ]
    if hierarchy is not None:
        ancestors = read_ancestors(hierarchy)
        described = read_descriptions(descriptions) if descriptions is not None else {}
        for category in found:
            above = sorted(ancestors.get(category["mid"], ()))
            nearest = max(above, key=lambda mid: len(ancestors[mid]), default=category["mid"])
            category["supercategory"] = described.get(nearest, nearest)
    return found


def read_attribution(path: str) -> Iterator[dict[str, str]]:
    """Yield each row of step 3's attribution, by column."""
    rows = read_csv(path)
    _, header = next(rows, (1, []))
    places = columns(path, header, ("id", "author", "license"))
    for _, row in rows:
        yield {name: row[place] for name, place in places.items()}


def write_coco(
    sets: Sequence[RecordSet], work_list: Path, settings: CocoSettings, missing_masks: str | None = None
) -> None:
    """Write the file of each set, whose records are written with this mask for a box without one."""
    for path, records in zip(settings.paths, sets, strict=True):
        with open(work_list, "rb") as lines, open_output(path) as stream:
            licenses: dict[str, int] = {}
            stream.write(b'{"info":{"description":"Open Images"}')
            _write_array(stream, "categories", settings.categories)
            _write_array(stream, "images", _images(records, lines, settings.attribution_path, licenses))
            annotations = _annotations(records, lines, settings.categories, missing_masks)
            _write_array(stream, "annotations", annotations)
            named = ({"id": number, "name": url, "url": url} for url, number in licenses.items())
            _write_array(stream, "licenses", named)
            stream.write(b"}\n")


def _write_array(stream: BinaryIO, name: str, elements: Iterable[dict[str, Any]]) -> None:
    stream.write(f',\n"{name}":['.encode())
    for place, element in enumerate(elements):
        stream.write((b",\n" if place else b"\n") + msgspec.json.encode(element))
    stream.write(b"\n]")


def _images(
    records: RecordSet, lines: BinaryIO, attribution_path: str | None, licenses: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield each image, first those of the attribution in its order; `licenses` gets their numbers."""
    left = {image_number(read_work(lines, offset).id): offset for offset in records.offsets}
    for row in read_attribution(attribution_path) if attribution_path else ():
        number = image_number(row["id"])
        if number in left and (work := read_work(lines, left[number])).id == row["id"]:
            del left[number]
            license_number = licenses.setdefault(row["license"], len(licenses) + 1)
            named = {name: row[name] for name in CREDITS if row.get(name)}
            yield _image(work) | {"license": license_number} | named
    yield from (_image(read_work(lines, offset)) for offset in left.values())


def _image(work: Work) -> dict[str, Any]:
    width, height = work.size
    names = {"file_name": work.file, "open_images_id": work.id}
    return {"id": image_number(work.id), **names, "width": width, "height": height}


def _annotations(
    records: RecordSet, lines: BinaryIO, categories: Sequence[dict[str, Any]], missing_masks: str | None
) -> Iterator[dict[str, Any]]:
    """Yield each box. Ids count from 1: COCO's evaluation takes 0 for no match."""
    ids = {category["mid"]: category["id"] for category in categories}
    works = (read_work(lines, offset) for offset in records.offsets)
    boxes = ((work, box) for work in works for box in work.boxes)
    for number, (work, box) in enumerate(boxes, start=1):
        names = {"id": number, "image_id": image_number(work.id), "category_id": ids[box.label]}
        yield names | _shape(box, work, missing_masks)


def _shape(box: Annotation, work: Work, missing_masks: str | None) -> dict[str, Any]:
    """Return a box and, in a run with masks, its mask; the area is that of its own mask, if it has one."""
    width, height = work.size
    sides = (box.x0 * width, box.y0 * height, (box.x1 - box.x0) * width, (box.y1 - box.y0) * height)
    bbox, area = [round(side, DIGITS) for side in sides], round(sides[2] * sides[3], DIGITS)
    shape = {"bbox": bbox, "area": area, "iscrowd": int(box.group_of == 1)}
    if isinstance(box.mask, Mask):
        from pycocotools import mask as coco_mask

        segmentation = msgspec.to_builtins(box.mask)
        shape |= {"segmentation": segmentation, "area": int(coco_mask.area(segmentation))}
    elif missing_masks:  # COCOeval("segm") stops at a box without this key
        counts = encode_mask(mask_pixels(box, work, missing_masks))
        shape["segmentation"] = {"size": (height, width), "counts": counts}
    return shape
