"""The image index of every release, read by column name, and who is to be named for its photos."""

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

from common.boxes import columns
from common.cli import InputError
from common.files import read_csv, write_csv
from common.openimages import is_image_id, parse_number

INDEX_KEYS = {
    "ImageID": "id", "OriginalURL": "url", "Subset": "subset", "OriginalSize": "size", "OriginalMD5": "md5",
    "Thumbnail300KURL": "thumbnail_url", "Rotation": "rotation", "OriginalLandingURL": "landing_url",
    "License": "license", "AuthorProfileURL": "author_profile_url", "Author": "author", "Title": "title",
}  # fmt: skip
ATTRIBUTION = ("id", "author", "title", "landing_url", "license", "author_profile_url", "url")


def read_index(path: str, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield each image of the index once, its columns under our keys, empty ones left out."""
    rows = read_csv(path)
    places = columns(path, next(rows, (1, []))[1], ("ImageID", "OriginalURL"))
    keys = [(place, INDEX_KEYS.get(name, name)) for name, place in places.items()]
    seen: set[str] = set()
    for line, row in rows:
        counts["index_rows"] += 1
        image: dict[str, Any] = {key: row[place] for place, key in keys if row[place]}
        if not is_image_id(image.get("id")):
            raise InputError(f"{path}:{line}: ImageID {image.get('id')!r:.80}, an image id was expected")
        for key, kind in (("size", int), ("rotation", float)):
            if key in image:
                value = parse_number(image[key])
                if value is None or value < 0 or kind(value) != value:
                    raise InputError(f"{path}:{line}: {key} is {image[key]!r:.80}, a number was expected")
                image[key] = kind(value)
        if image["id"] in seen:
            counts["repeated_ids"] += 1
            continue
        seen.add(image["id"])
        yield image


def write_attribution(index: str, image_ids: Container[str], path: str) -> None:
    """Write who made each of these images, what it is called, where it is and under which licence."""
    images = (image for image in read_index(index, Counter()) if image["id"] in image_ids)
    rows = ([image.get(key, "") for key in ATTRIBUTION] for image in images)
    write_csv(path, ATTRIBUTION, rows)
