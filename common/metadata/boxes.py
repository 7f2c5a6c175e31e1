"""The box annotations of every release, read by column name, checked, and grouped by image."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.csv_files import columns, parse_number, read_csv
from common.metadata.image_index import ImageSet
from common.metadata.scratch_database import scratch_database
from common.openimages.ids import is_image_id

ROUNDING = 1e-6  # the files have six decimals; a coordinate this little outside [0, 1] is moved to its edge
# Images whose boxes are sorted in one call of SQLite, in which Python hears no signal: half a second of it.
TABLE_IMAGES = 32_768

Group = tuple[str, list[dict[str, Any]]]
Row = tuple[str, tuple[str, ...], dict[str, Any]]  # image id, raw fields, box


@dataclass(frozen=True)
class BoxFilter:
    """Which boxes are kept: of these classes, inside the image, with an area, and as the user asked for."""

    classes: frozenset[str]
    exclude: tuple[str, ...] = ()  # attributes that a box may not have
    min_side: float = 0.0  # of width and height, normalised

    def keeps(self, box: dict[str, Any], counts: Counter[str]) -> bool:
        """Tell whether a box is kept, and count by reason where it is not.

        Coordinates are moved to the edge that they are a rounding beyond.
        """
        reason = self._reason(box)
        if reason:
            counts[reason] += 1
        return not reason

    def _reason(self, box: dict[str, Any]) -> str:
        if box["label"] not in self.classes:
            return "other_classes"
        if not (0 <= box["x0"] <= 1 and 0 <= box["x1"] <= 1 and 0 <= box["y0"] <= 1 and 0 <= box["y1"] <= 1):
            for key in ("x0", "x1", "y0", "y1"):
                if not -ROUNDING <= box[key] <= 1 + ROUNDING:
                    return "outside_image"
                box[key] = min(max(box[key], 0.0), 1.0)
        width, height = box["x1"] - box["x0"], box["y1"] - box["y0"]
        if width <= 0 or height <= 0:
            return "without_area"
        for name in self.exclude:
            if box[name] == 1:
                return f"excluded_{name}"
        return "too_small" if min(width, height) < self.min_side else ""


class ImageReturnedError(Exception):
    """The rows of an image do not follow each other."""


def box_columns(path: str | Path, header: list[str], wanted: BoxFilter) -> dict[str, int]:
    """Return the place of each column of the annotations; one that is needed and missing is an error."""
    from common.openimages.datapoints import ATTRIBUTES, COORDINATES

    places = columns(path, header, ("ImageID", "LabelName", *COORDINATES.values()))
    unknown = [key for key, name in ATTRIBUTES.items() if key in wanted.exclude and name not in places]
    if unknown:
        raise InputError(f"{path}:1: no column says which boxes are {', '.join(unknown)}, to exclude them")
    return places


def box_rows(path: str | Path, wanted: BoxFilter, counts: Counter[str]) -> Iterator[Row]:
    """Yield image id, raw fields and box of each kept row."""
    rows = read_csv(path)
    header = next(rows, (1, []))[1]
    yield from checked_rows(path, box_columns(path, header, wanted), rows, wanted, counts)


def checked_rows(
    path: str | Path,
    places: dict[str, int],
    rows: Iterator[tuple[int, list[str]]],
    wanted: BoxFilter,
    counts: Counter[str],
) -> Iterator[Row]:
    """Yield the same of rows whose columns stand at `places`; a wrong one is an error."""
    from common.openimages.datapoints import ATTRIBUTES, COORDINATES

    image, label = places["ImageID"], places["LabelName"]
    coordinates = [(places[name], name, key) for key, name in COORDINATES.items()]
    attributes = [(places[name], name, key) for key, name in ATTRIBUTES.items() if name in places]
    confidence, source = places.get("Confidence"), places.get("Source")
    current = ""
    for line, row in rows:
        counts["rows"] += 1
        if row[image] != current and not is_image_id(current := row[image]):
            raise InputError(f"{path}:{line}: ImageID {row[image]!r:.80}, an image id was expected")
        box: dict[str, Any] = {"id": row[image], "label": row[label]}
        if confidence is not None:
            box["confidence"] = _number(path, line, "Confidence", row[confidence])
        for place, name, key in coordinates:
            box[key] = _number(path, line, name, row[place])
        for place, name, key in attributes:
            if row[place] not in ("0", "1", "-1"):
                raise InputError(f"{path}:{line}: {name} is {row[place]!r:.80}, 1, 0 or -1 was expected")
            box[key] = int(row[place])
        if source is not None:
            box["source"] = row[source]
        if wanted.keeps(box, counts):
            yield row[image], tuple(row), box


def _number(path: str | Path, line: int, name: str, text: str) -> float | int:
    value = parse_number(text)
    if value is None:
        raise InputError(f"{path}:{line}: {name} is {text!r:.80}, a number was expected")
    return int(value) if name == "Confidence" and value.is_integer() else value


def grouped_boxes(
    path: str | Path, wanted: BoxFilter, counts: Counter[str], ended: ImageSet
) -> Iterator[Group]:
    """Yield the image id and kept boxes of each image, as a stream over a file that has them together.

    What is dropped is added to `counts` by reason; rows equal in every column count once. Raises
    ImageReturnedError at an image whose rows are apart; `ended` holds those that are done.
    """
    current = ""
    boxes: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    for image_id, fields, box in box_rows(path, wanted, counts):
        if image_id != current:
            if boxes:
                yield current, boxes
                ended.add(current)
            if image_id in ended:
                raise ImageReturnedError(image_id)
            current, boxes, seen = image_id, [], set()
        if fields in seen:
            counts["repeated_rows"] += 1
            continue
        seen.add(fields)
        boxes.append(box)
    if boxes:
        yield current, boxes


def scattered_boxes(path: str | Path, wanted: BoxFilter, counts: Counter[str]) -> Iterator[Group]:
    """Yield the same for a file in any order, images in the order of their first kept row.

    The kept rows go through a temporary database on disk, so memory stays bounded.
    """
    with scratch_database() as database:
        database.execute("CREATE TABLE images (number INTEGER PRIMARY KEY, id TEXT UNIQUE)")
        images = tables = 0
        for image_id, fields, box in box_rows(path, wanted, counts):
            known = database.execute("SELECT number FROM images WHERE id = ?", (image_id,)).fetchone()
            number = known[0] if known else images
            if not known:
                database.execute("INSERT INTO images VALUES (?, ?)", (number, image_id))
                images += 1
            table = number // TABLE_IMAGES
            if table == tables:
                database.execute(f"CREATE TABLE boxes_{table} (image INTEGER, fields TEXT, box TEXT)")
                tables += 1
            database.execute(
                f"INSERT INTO boxes_{table} VALUES (?, ?, ?)",  # noqa: S608  # a number of ours
                (number, json.dumps(fields), json.dumps(box)),
            )
        for table in range(tables):
            rows = database.execute(
                f"""SELECT id, fields, box FROM boxes_{table} JOIN images ON number = image
                ORDER BY image, boxes_{table}.rowid"""  # noqa: S608  # a number of ours
            )
            yield from _by_image(rows, counts)


def _by_image(rows: Iterable[tuple[str, str, str]], counts: Counter[str]) -> Iterator[Group]:
    """Yield the boxes of each image out of rows of image id, fields and box that are sorted by image."""
    for image_id, same_image in groupby(rows, key=itemgetter(0)):
        boxes: dict[str, str] = {}
        for _, fields, box in same_image:
            counts["repeated_rows"] += fields in boxes
            boxes.setdefault(fields, box)
        yield image_id, [json.loads(box) for box in boxes.values()]
