"""Every colour mode and profile as RGB in sRGB, which is what detectors are trained on."""

import io
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform


def to_srgb(image: "Image", icc: bytes) -> "Image":
    """Return an image as RGB in sRGB: what is transparent on white, 16 bits cut to 8.

    Raises ValueError for samples that no rule makes 8 bits of.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point samples, of no known range")
    if image.mode.startswith("I"):  # 16 bits a sample, whatever their order and the room they are given
        image = image.convert("I").point([value >> 8 for value in range(1 << 16)], "L")
    if image.has_transparency_data:
        is_grey = image.mode in {"L", "LA"}  # and so is its profile
        image = image.convert("RGBA")
        colours = image.getchannel("R") if is_grey else image.convert("RGB")
        white = Image.new("RGB", image.size, "white")
        white.paste(from_profile(colours, icc), mask=image.getchannel("A"))
        return white
    return from_profile(image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB"), icc)


def from_profile(image: "Image", icc: bytes) -> "Image":
    """Return an L, RGB or CMYK image as RGB in sRGB; a profile that does not fit it is passed over."""
    from PIL import ImageCms

    if icc and not is_srgb(icc):
        try:
            converted = ImageCms.applyTransform(image, to_srgb_transform(icc, image.mode))
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)  # photos of one camera share theirs
def to_srgb_transform(icc: bytes, mode: str) -> "ImageCmsTransform":
    from PIL import ImageCms

    return ImageCms.buildTransform(io.BytesIO(icc), ImageCms.createProfile("sRGB"), mode, "RGB")


@lru_cache(maxsize=16)
def is_srgb(icc: bytes) -> bool:
    """Tell whether a profile calls itself sRGB."""
    from PIL import ImageCms

    try:
        return ImageCms.getProfileDescription(io.BytesIO(icc)).startswith("sRGB")
    except ImageCms.PyCMSError:
        return False
