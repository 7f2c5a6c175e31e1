"""The image index of every release, read by column name, and who is to be named for its photos."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from common.cli import InputError
from common.files import columns, read_csv, write_csv
from common.openimages import is_image_id, parse_number

INDEX_KEYS = {
    "ImageID": "id", "OriginalURL": "url", "Subset": "subset", "OriginalSize": "size", "OriginalMD5": "md5",
    "Thumbnail300KURL": "thumbnail_url", "Rotation": "rotation", "OriginalLandingURL": "landing_url",
    "License": "license", "AuthorProfileURL": "author_profile_url", "Author": "author", "Title": "title",
}  # fmt: skip
MOST_SETS = 16  # a bit each
ATTRIBUTION = ("id", "author", "title", "landing_url", "license", "author_profile_url", "url")


class ImageIds:
    """The images of an index: what datapoints take from it, and sets of them, in 150 bytes an image.

    A release has 1.7 million ids. Each is held once, with a small number: which pair of subset and
    rotation it has, and a bit for each set it is in.
    """

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.facts: list[tuple[str | None, float | None]] = []  # subset, rotation in degrees
        self.sets = 0

    def add(self, image_id: str, fact: tuple[str | None, float | None]) -> None:
        """Take in an image of the index; before the first set is made."""
        if fact not in self.facts:
            self.facts.append(fact)
        self.codes.setdefault(image_id, self.facts.index(fact) << MOST_SETS)

    def fact(self, image_id: str) -> tuple[str | None, float | None]:
        return self.facts[self.codes[image_id] >> MOST_SETS]

    def new_set(self) -> "ImageSet":
        """Return an empty set for these ids; ids that are not in the index are held apart."""
        assert self.sets < MOST_SETS
        self.sets += 1
        return ImageSet(self, 1 << (self.sets - 1))


class ImageSet:
    """A set of image ids, a bit each."""

    def __init__(self, images: ImageIds, bit: int) -> None:
        self.codes = images.codes
        self.bit = bit
        self.strangers: set[str] = set()

    def __contains__(self, image_id: str) -> bool:
        code = self.codes.get(image_id)
        return image_id in self.strangers if code is None else bool(code & self.bit)

    def add(self, image_id: str) -> None:
        if image_id in self.codes:
            self.codes[image_id] |= self.bit
        else:
            self.strangers.add(image_id)


def read_images(path: str) -> ImageIds:
    """Return the images of an index; one without any is an error."""
    images = ImageIds()
    for image in read_index(path, Counter()):
        images.add(image["id"], (image.get("subset"), image.get("rotation")))
    if not images.codes:
        raise InputError(f"{path}: no images in it")
    return images


def read_index(path: str, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield each row of the index, its columns under our keys, empty ones left out; ids may be repeated."""
    rows = read_csv(path)
    places = columns(path, next(rows, (1, []))[1], ("ImageID", "OriginalURL"))
    keys = [(place, INDEX_KEYS.get(name, name)) for name, place in places.items()]
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
        yield image


def unique(rows: Iterator[dict[str, Any]], seen: ImageSet, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the first row of each image and count the others."""
    for image in rows:
        if image["id"] in seen:
            counts["repeated_ids"] += 1
            continue
        seen.add(image["id"])
        yield image


def write_attribution(images: Iterator[dict[str, Any]], path: str) -> None:
    """Write who made each image, what it is called, where it is and under which licence."""
    write_csv(path, ATTRIBUTION, ([image.get(key, "") for key in ATTRIBUTION] for image in images))
