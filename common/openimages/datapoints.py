"""The schema of the files between the steps: datapoints, their annotations and labels, and the image index.

Step 3 writes both files, step 4 reads the index, steps 5 and 7 read the datapoints. Every step passes on the
keys that it does not know. Numbers may stand in strings: they are converted.

A field names the CSV column that step 3 reads it from. A new attribute of a box is one line in Annotation:
step 3 reads its column, --exclude takes its name, and step 7 writes it as image/object/NAME.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from common.cli import InputError
from common.files.json_files import read_json
from common.openimages.ids import IMAGE_ID

Kind = TypeVar("Kind")

ImageId = Annotated[str, Meta(pattern=f"^{IMAGE_ID.pattern}\\Z")]  # usable as a file name
Share = Annotated[float, Meta(ge=0, le=1)]
Attribute = Annotated[int, Meta(ge=-1, le=1)]  # 1 yes, 0 no, -1 unknown
Pixels = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]


class Mask(msgspec.Struct, gc=False):
    """The pixels of an object, in COCO's run-length encoding as pycocotools writes it."""

    size: tuple[Pixels, Pixels]  # height and width of the image
    counts: Annotated[str, Meta(pattern="^[0-o]+\\Z")]


class Annotation(msgspec.Struct, omit_defaults=True, gc=False):
    """One box of an image.

    Coordinates are shares of the image's width and height, origin top left. Step 3 also writes `id` (the
    image's), `confidence` and `source` (who or what drew the box), which no later step reads.
    """

    label: Annotated[str, "LabelName"]  # MID of the class
    x0: Annotated[Share, "XMin"]
    x1: Annotated[Share, "XMax"]
    y0: Annotated[Share, "YMin"]
    y1: Annotated[Share, "YMax"]
    occluded: Annotated[Attribute, "IsOccluded"] = -1  # by another object
    truncated: Annotated[Attribute, "IsTruncated"] = -1  # extends beyond the image
    group_of: Annotated[Attribute, "IsGroupOf"] = -1  # one box around several objects
    depiction: Annotated[Attribute, "IsDepiction"] = -1  # a drawing or the like, not a real object
    inside: Annotated[Attribute, "IsInside"] = -1  # taken from inside the object
    mask: Mask | str | None = None  # the file's name after step 3, the pixels after step 5

    def __post_init__(self) -> None:
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise ValueError("Expected x0 < x1 and y0 < y1")


class ImageLabel(msgspec.Struct, gc=False):
    """A class that people verified to be present in an image or absent from it."""

    label: str  # MID
    confidence: Share  # 1 present, 0 absent


class Datapoint(msgspec.Struct):
    """An image with its boxes and its verified labels."""

    id: ImageId
    annotations: list[Annotation]
    image_labels: list[ImageLabel] = []
    subset: str | None = None  # train, validation or test
    rotation: float | None = None  # degrees counterclockwise that make the image upright
    width: Pixels | None = None  # by step 5, which thereby vouches for the image file
    height: Pixels | None = None


class IndexEntry(msgspec.Struct):
    """An image to fetch. Size and MD5 are those of the original."""

    id: Annotated[ImageId, "ImageID"]
    url: Annotated[str | None, "OriginalURL"] = None
    subset: Annotated[str | None, "Subset"] = None  # the mirror's folder
    size: Annotated[Bytes | None, "OriginalSize"] = None
    md5: Annotated[str | None, "OriginalMD5"] = None  # base64 of the 16 bytes
    thumbnail_url: Annotated[str | None, "Thumbnail300KURL"] = None  # about 640 pixels
    rotation: Annotated[float | None, "Rotation"] = None  # as in Datapoint
    author: Annotated[str | None, "Author"] = None
    title: Annotated[str | None, "Title"] = None
    landing_url: Annotated[str | None, "OriginalLandingURL"] = None
    license: Annotated[str | None, "License"] = None
    author_profile_url: Annotated[str | None, "AuthorProfileURL"] = None


def _columns(struct: type, kind: Any = None) -> dict[str, str]:
    """Return the CSV column of each field that has one and, if given, is of this kind."""
    hints = get_type_hints(struct, include_extras=True)
    extras = {key: getattr(hint, "__metadata__", (None,)) for key, hint in hints.items()}
    return {
        key: extra[-1]
        for key, extra in extras.items()
        if isinstance(extra[-1], str) and (kind is None or kind.__metadata__[0] in extra)
    }


COORDINATES = _columns(Annotation, Share)  # the CSV column of each key
ATTRIBUTES = _columns(Annotation, Attribute)
INDEX_COLUMNS = _columns(IndexEntry)


def read_datapoints(path: str | Path) -> Iterator[Datapoint]:
    """Yield each datapoint of a file; a wrong one is an error. Duplicate ids are not looked for."""
    return (point for _, point in _elements(path, Datapoint))


def read_raw_datapoints(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line of each datapoint and the datapoint as a dict, for a step that passes on all keys.

    It is checked likewise. Coordinates are made floats; all else stays as it stands in the file.
    """
    for line, value in _elements(path, dict):
        point = checked(value, Datapoint, f"{path}:{line}")
        for box, annotation in zip(value["annotations"], point.annotations, strict=True):
            box.update((key, getattr(annotation, key)) for key in COORDINATES)
        yield line, value


def read_index(path: str | Path) -> Iterator[tuple[int, IndexEntry]]:
    """Yield the line and content of each entry of an image index; a wrong one is an error."""
    return _elements(path, IndexEntry)


def _elements(path: str | Path, kind: type[Kind]) -> Iterator[tuple[int, Kind]]:
    """Yield the line and value of each element, as `kind`; a file without any is an error."""
    empty = True
    for line, value in read_json(path, kind):
        empty = False
        yield line, value if isinstance(value, kind) else checked(value, kind, f"{path}:{line}")
    if empty:
        raise InputError(f"{path}: no images in it")


def checked(value: Any, kind: type[Kind], where: str) -> Kind:
    """Return a JSON value as a struct of this schema; InputError says `where` and what is wrong."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        message = str(error)
        path = re.search(r" - at `\$(.*)`", message)
        for key in re.findall(r"[^.[\]]+", path[1]) if path else ():
            value = value[int(key)] if isinstance(value, list) else value[key]
        raise InputError(f"{where}: {message}: {value!r:.80}") from None
