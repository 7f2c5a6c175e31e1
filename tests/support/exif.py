"""Images as cameras store them that are turned by EXIF."""

import numpy as np
from PIL import Image


def as_stored(upright: Image.Image, orientation: int) -> Image.Image:
    """Return the stored pixels of an upright image, by the definition of the tag in EXIF 2.3."""
    pixels = np.asarray(upright)
    stored = {  # the first row and the first column are at the upright image's ...
        1: pixels,  # top, left
        2: pixels[:, ::-1],  # top, right
        3: pixels[::-1, ::-1],  # bottom, right
        4: pixels[::-1],  # bottom, left
        5: pixels.swapaxes(0, 1),  # left, top
        6: pixels[:, ::-1].swapaxes(0, 1),  # right, top
        7: pixels[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: pixels[::-1].swapaxes(0, 1),  # left, bottom
    }
    return Image.fromarray(np.ascontiguousarray(stored[orientation]))
