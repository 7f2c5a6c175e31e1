"""Image ids, the names of their files, and the splits of a release."""

import hashlib
import re
from typing import Any

SPLITS = ("train", "validation", "test")
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_image_id(text: Any) -> bool:
    """Report whether `text` is an id that can be a file name; official ids are 16 hexadecimal digits."""
    return isinstance(text, str) and IMAGE_ID.fullmatch(text) is not None


def image_number(image_id: str) -> int:
    """Return the number of an image where a reader wants numbers for ids: 53 bits of a hash of its id.

    It is the same whatever else is in a data set, and a double, JavaScript's and many a JSON reader's number,
    holds it exactly. Of 1.7 million images two share a number with a probability of 1 in 6,000.
    """
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") >> 11


def image_file_name(image_id: str, image_format: str = "jpeg") -> str:
    """Return the name of an image's file, here and on the mirror; `image_format` is jpeg or png."""
    return image_id + {"jpeg": ".jpg", "png": ".png"}[image_format]
