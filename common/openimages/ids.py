"""Image ids, the names of their files, and the splits of a release."""

import hashlib
import re
from typing import Any

SPLITS = ("train", "validation", "test")
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ENDING = re.compile(r"\.(jpe?g|png)\Z", re.IGNORECASE)
_OFFICIAL = re.compile(r"[0-9A-Fa-f]{16}\Z")
GUESSES = (  # at what is wrong with an id, if the ids of another file look otherwise
    (re.compile(r".+\.(jpe?g|png)", re.IGNORECASE), "(a file name?)"),
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
    return stem.lower() if _OFFICIAL.match(stem) else stem


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
