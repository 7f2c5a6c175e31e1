"""Conversion of every colour mode and profile to RGB in sRGB, which detectors are trained on."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform


def to_srgb(image: Image, icc: bytes) -> Image:
    """Return an image as RGB in sRGB: transparent parts on white, 16 bits a sample cut to 8.

    Raises ValueError for floating-point samples: their range is not known.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point samples, of no known range")
    if image.mode.startswith("I"):  # 16 bits a sample, in any byte order, possibly stored in 32
        image = image.convert("I").point([value >> 8 for value in range(1 << 16)], "L")
    if image.has_transparency_data:
        is_grey = image.mode in {"L", "LA"}  # and so is its profile
        image = image.convert("RGBA")
        colours = image.getchannel("R") if is_grey else image.convert("RGB")
        white = Image.new("RGB", image.size, "white")
        white.paste(_from_profile(colours, icc), mask=image.getchannel("A"))
        return white
    return _from_profile(image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB"), icc)


def _from_profile(image: Image, icc: bytes) -> Image:
    """Return an L, RGB or CMYK image as RGB in sRGB; ignore a profile that does not match its mode."""
    from PIL import ImageCms

    if icc and not is_srgb(icc):
        try:
            converted = ImageCms.applyTransform(image, _to_srgb_transform(icc, image.mode))
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)  # images of one camera share their profile
def _to_srgb_transform(icc: bytes, mode: str) -> ImageCmsTransform:
    from PIL import ImageCms

    return ImageCms.buildTransform(io.BytesIO(icc), ImageCms.createProfile("sRGB"), mode, "RGB")


@lru_cache(maxsize=16)
def is_srgb(icc: bytes) -> bool:
    """Return whether a profile's own description says sRGB."""
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(io.BytesIO(icc)).startswith("sRGB")
    except ImageCms.PyCMSError:
        return False
