"""The image index of every release, read by column name, and who is to be named for its photos."""

import csv
from codecs import getwriter
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from common.cli import InputError
from common.files.csv_files import columns, parse_number, read_csv
from common.files.json_files import to_json
from common.files.whole_files import open_output
from common.openimages.ids import is_image_id

NUMBERS: dict[str, type[int] | type[float]] = {"size": int, "rotation": float}  # bytes, degrees
MOST_SETS = 16  # a bit each
ATTRIBUTION = ("id", "author", "title", "landing_url", "license", "author_profile_url", "url")

Fact = tuple[str | None, float | None]  # subset, rotation in degrees
Kept = tuple[bytes | memoryview, Iterator[Sequence[str]]]  # images as JSON, and of each the ATTRIBUTION


class ImageIds:
    """The images of an index: what datapoints take from it, and sets of them, in 150 bytes an image.

    A release has 1.7 million ids. Each is held once, with a small number: which pair of subset and
    rotation it has, and a bit for each set it is in.
    """

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.facts: list[dict[str, Any]] = []  # subset and rotation in degrees, where they are known
        self.places: dict[Fact, int] = {}  # of facts
        self.sets = 0

    def update(self, images: Iterable[tuple[str, Fact]]) -> None:
        """Take in images of the index; before the first set is made."""
        for image_id, fact in images:
            place = self.places.get(fact)
            if place is None:
                place = self.places[fact] = len(self.facts)
                subset, rotation = fact
                known = {"subset": subset, "rotation": rotation}
                self.facts.append({key: value for key, value in known.items() if value is not None})
            self.codes.setdefault(image_id, place << MOST_SETS)

    def fact(self, image_id: str) -> dict[str, Any]:
        return self.facts[self.codes[image_id] >> MOST_SETS]

    def fact_places(self, image_ids: Iterable[str]) -> list[int]:
        """Return the place in `facts` of each image's."""
        return [self.codes[image_id] >> MOST_SETS for image_id in image_ids]

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

    def contain(self, image_ids: Iterable[str]) -> list[bool]:
        """Tell of each id whether it is in the set."""
        codes, bit, strangers = self.codes, self.bit, self.strangers
        if strangers:
            return [image_id in self for image_id in image_ids]
        return [bool(codes.get(image_id, 0) & bit) for image_id in image_ids]

    def update(self, image_ids: Iterable[str]) -> str | None:
        """Add ids up to the first that is in the set already; return that one, None where all are new."""
        codes, bit, strangers = self.codes, self.bit, self.strangers
        for image_id in image_ids:
            code = codes.get(image_id)
            if code is None:
                if image_id in strangers:
                    return image_id
                strangers.add(image_id)
            elif code & bit:
                return image_id
            else:
                codes[image_id] = code | bit
        return None

    def take(self, image_id: str) -> bool:
        """Take an id of the index out of the set, and tell whether it was in it."""
        code = self.codes[image_id]
        self.codes[image_id] = code & ~self.bit
        return bool(code & self.bit)


def read_images(path: str, counts: Counter[str]) -> ImageIds:
    """Return the images of an index, and count its rows and repeated ids."""
    images = ImageIds()
    for image in read_index(path):
        images.update([(image["id"], (image.get("subset"), image.get("rotation")))])
        counts["index_rows"] += 1
    counts["repeated_ids"] += counts["index_rows"] - len(images.codes)
    return images


def kept_images(path: str, wanted: ImageSet) -> Iterator[Kept]:
    """Yield the images that are in `wanted`, each once and taken out of it."""
    for image in read_index(path):
        if wanted.take(image["id"]):
            yield to_json(image), iter([[image.get(key, "") for key in ATTRIBUTION]])


def read_index(path: str) -> Iterator[dict[str, Any]]:
    """Yield each row of the index, its columns under our keys, empty ones left out; ids may be repeated."""
    rows = read_csv(path)
    header = next(rows, (1, []))[1]
    yield from checked_images(path, index_columns(path, header), rows)


def index_columns(path: str, header: list[str]) -> dict[int, str]:
    """Return our key for the column at each place; one that is needed and missing is an error."""
    from common.openimages.datapoints import INDEX_COLUMNS

    places = columns(path, header, ("ImageID", "OriginalURL"))
    keys = {column: key for key, column in INDEX_COLUMNS.items()}
    return {place: keys.get(name, name) for name, place in places.items()}


def checked_images(
    path: str, keys: dict[int, str], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[dict[str, Any]]:
    """Yield the same of rows whose columns have these keys; a wrong one is an error."""
    for line, row in rows:
        image: dict[str, Any] = {key: row[place] for place, key in keys.items() if row[place]}
        if not is_image_id(image.get("id")):
            raise InputError(f"{path}:{line}: ImageID {image.get('id')!r:.80}, an image id was expected")
        for key in NUMBERS:
            if key in image:
                value = number_of(key, image[key])
                if value is None:
                    raise InputError(f"{path}:{line}: {key} is {image[key]!r:.80}, a number was expected")
                image[key] = value
        yield image


def number_of(key: str, text: str) -> float | int | None:
    """Return the value of one of NUMBERS, None where it has none."""
    value = parse_number(text)
    if value is None or value < 0 or NUMBERS[key](value) != value:
        return None
    return NUMBERS[key](value)


@contextmanager
def attribution_writer(path: str) -> Iterator[Callable[[Iterable[Sequence[str]]], None]]:
    """Yield a function that adds rows of ATTRIBUTION to a CSV file: who is to be named for each image."""
    with open_output(path) as stream:
        writer = csv.writer(getwriter("utf-8")(stream), lineterminator="\n")
        writer.writerow(ATTRIBUTION)
        yield writer.writerows
