"""What a record is made of, in types that msgspec checks as it reads: a photo, its boxes, its labels.

Nearly every datapoint is as step 5 writes it, and read and checked at once, in half of the time that it takes
to read dicts and look at each. All others (numbers in strings, an error) are read by `check_datapoint`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from common.openimages.datapoints import check_datapoint, read_elements
from common.openimages.ids import is_image_id

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Attribute = Annotated[int, msgspec.Meta(ge=-1, le=1)]  # 1 yes, 0 no, -1 unknown

ATTRIBUTES = ("occluded", "truncated", "group_of", "depiction", "inside")


class Box(msgspec.Struct, omit_defaults=True, gc=False):
    """A box: the class by its MID, the sides normalised, the attributes as annotated."""

    label: str
    x0: Share
    x1: Share
    y0: Share
    y1: Share
    occluded: Attribute = -1
    truncated: Attribute = -1
    group_of: Attribute = -1
    depiction: Attribute = -1
    inside: Attribute = -1


class Label(msgspec.Struct, gc=False):
    """A class verified present in the image (confidence 1) or absent from it (0)."""

    label: str
    confidence: Share


class Point(msgspec.Struct):
    """What step 7 takes of a datapoint; `width` and `height` are there where step 5 has seen the photo."""

    id: str
    annotations: list[Box]
    image_labels: list[Label] = []
    subset: Any = None
    width: Any = None
    height: Any = None


class Work(msgspec.Struct):
    """A line of the work list: an image, the boxes and labels whose class is trained on, the photo's file."""

    id: str
    file: str
    bytes: int
    boxes: list[Box]
    image_labels: list[Label]
    size: tuple[int, int] | None = None  # width and height in pixels by the datapoint, where it has them


def read_points(path: str | Path) -> Iterator[Point]:
    """Yield each datapoint of a file that step 3 or step 5 wrote; a faulty one is an error.

    A repeated id is not looked for. A file without datapoints is an error.
    """
    for line, value in read_elements(path, Point):
        if (
            isinstance(value, Point)
            and is_image_id(value.id)
            and all(box.x0 < box.x1 and box.y0 < box.y1 for box in value.annotations)
        ):
            yield value
        else:
            yield make_point(check_datapoint(msgspec.to_builtins(value), f"{path}:{line}"))


def make_point(point: dict[str, Any]) -> Point:
    """Return what step 7 takes of a datapoint that was checked."""
    boxes = [
        Box(
            box["label"], box["x0"], box["x1"], box["y0"], box["y1"],
            **{name: _attribute(box[name]) for name in ATTRIBUTES if name in box},
        )
        for box in point["annotations"]
    ]  # fmt: skip
    labels = [Label(each["label"], float(each["confidence"])) for each in point.get("image_labels", [])]
    return Point(point["id"], boxes, labels, point.get("subset"), point.get("width"), point.get("height"))


def _attribute(value: Any) -> int:
    if type(value) is int and -1 <= value <= 1:
        return value
    return {"0": 0, "1": 1}.get(str(value), -1)
