"""Image ids, the files of images, and the splits of a release."""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.folders import Status
from common.files.places import folder_of, is_remote, is_same_place

SETTINGS_NAME = "process_settings.json"  # in a folder of finished images
SPLITS = ("train", "validation", "test")
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ENDING = re.compile(r"\.(jpe?g|png)\Z", re.IGNORECASE)
GUESSES = (  # at what is wrong with an id, if the ids of another file look otherwise
    (re.compile(f".+{_ENDING.pattern}", re.IGNORECASE), "(a file name?)"),
    (re.compile(r"[0-9]{1,15}"), "(a decimal number, or leading zeros lost?)"),
    (re.compile(r"[0-9A-Fa-f]{8,15}"), "(leading zeros lost?)"),
    (re.compile(r"(?=.*[A-F])[0-9A-F]{16}"), "(upper case?)"),
)


def is_image_id(text: Any) -> bool:
    """Report whether `text` is an id that can be a file name; official ids are 16 hexadecimal digits."""
    return isinstance(text, str) and IMAGE_ID.fullmatch(text) is not None


def list_key(image_id: str) -> str:
    """Return an id as lists are compared by: without an image ending, an official id in lower case."""
    stem = _ENDING.sub("", image_id)
    return stem.lower() if re.fullmatch("[0-9A-Fa-f]{16}", stem) else stem


def one_of_each(file: str, image_id: str, other_file: str, other_id: str) -> str:
    """Return text that shows one id of each of two files without a common id, and guesses what is wrong."""
    shown = []
    for name, one, other in ((file, image_id, other_id), (other_file, other_id, image_id)):
        fitting = [guess for form, guess in GUESSES if form.fullmatch(one) and not form.fullmatch(other)]
        shown.append(" ".join(("the", name, "has", one[:80], *fitting[:1])))
    return ", ".join(shown)


def image_number(image_id: str) -> int:
    """Return the number of an image where a reader wants numbers for ids: 53 bits of a hash of its id.

    It is the same whatever else is in a data set, and a double, JavaScript's and many a JSON reader's number,
    holds it exactly. Of 1.7 million images two share a number with a probability of 1 in 6,000.
    """
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") >> 11


def image_file_name(image_id: str, image_format: str = "jpeg") -> str:
    """Return the name of an image's file, here and on the mirror; `image_format` is jpeg or png."""
    return image_id + {"jpeg": ".jpg", "png": ".png"}[image_format]


def image_files(folder: Path) -> Iterator[tuple[str, str, Status | None]]:
    """Yield id, name, and status if the listing has it, of each file that may be an image of a folder.

    On disk also of those with other endings and in sub-folders (train/<id>.jpg), except in finished folders.
    """
    on_disk = not is_remote(folder)
    for name, found in folder_of(folder).files(SETTINGS_NAME):
        stem = _ENDING.sub("", name)
        if name == image_file_name(stem) or (on_disk and name != stem):
            yield stem.rpartition("/")[2], name, found


class ImageFiles:
    """The files of a folder's images; some 50 bytes for each that is not <id>.jpg directly in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others: Any = ()  # an array of `id/name`, ordered; names of sub-folders are in it
        if longest := 0 if is_remote(folder) else max(map(len, self._list()), default=0):
            import numpy

            self.others = numpy.fromiter(self._list(), f"S{longest}")
            self.others.sort()

    def _list(self) -> Iterator[bytes]:
        for image_id, name, _ in image_files(self.folder):
            if name != image_file_name(image_id):
                yield os.fsencode(f"{image_id}/{name}")

    def find(self, image_id: str) -> str:
        """Return the name of an image's file, <id>.jpg where it is missing; InputError for two files."""
        names = [image_file_name(image_id)]
        start = bisect_left(self.others, f"{image_id}/".encode())
        end = bisect_left(self.others, f"{image_id}0".encode(), start)  # 0 is next to / in ASCII
        if start == end:
            return names[0]
        names += [os.fsdecode(other).removeprefix(f"{image_id}/") for other in self.others[start:end]]
        status = folder_of(self.folder).status
        name, *more = [name for name in names if (found := status(name)) and found.size] or names[:1]
        for other in more:
            if not is_same_place(self.folder / name, self.folder / other):  # a link, or a disk without cases
                both = f"{name} and {other} are files of one image"
                raise InputError(f"{self.folder}: {both}; move one of them out of the folder")
        return name
