"""Processing of one image's bytes: decoded to the end, made RGB in sRGB, resized, encoded.

The pixels stay in the frame they are stored in, which is the frame of the boxes, unless they are turned
together with the boxes. An EXIF orientation is never written. It is applied only with `exif_upright`, for
boxes that were drawn on the upright image.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from common.images.decode import decode_jpeg, load_image, open_image
from common.images.header import DECODE_ERRORS, BadImageError, JpegHeader, read_jpeg_header
from common.images.settings import MAX_JPEG_SIDE, Fit, ImageSettings, plan_fit

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

# What Pillow warns of and logs is in an image's result. This holds in every process that imports this module.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").addHandler(logging.NullHandler())

MAX_FILE_SIZE = 1 << 28  # bytes; the largest image of the dataset has under a tenth of this
MAX_PIXELS = 178_956_970  # half a gigabyte as RGB; above it Pillow too calls an image a decompression bomb
ORIENTATION = 0x0112  # EXIF tag
# What makes an image upright, by its EXIF orientation; from 5 on its width and height change places.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
_TURNS = {0: 1, 90: 8, 180: 3, 270: 6}  # degrees counterclockwise, as an orientation
PRECISE_MARGIN = 1.3  # with `precise`, decode at least at this multiple of the final size
NEAR = 1.3  # times the final size: below it Hamming's window blurs, above it is as good and twice as fast


@dataclass(frozen=True, slots=True)
class Processed:
    """The sizes of a processed image, and how it was made."""

    fit: Fit
    how: str  # resized, unchanged or damaged_kept
    orientation: int  # EXIF's, of the original: from 2 on it turns the image


def process_bytes(data: bytes, settings: ImageSettings, turn: int = 0) -> tuple[bytes, Processed]:
    """Return a finished image's bytes, made from a file's bytes; `turn` is in degrees counterclockwise.

    A file that already is as the settings ask (an RGB JPEG of that size, in sRGB, without an orientation tag)
    keeps its bytes. Raises BadImageError.
    """
    try:
        stored, orientation = _read(data, settings)
        size, eighths, how = stored.size, 8, "resized"
        applied = orientation if settings.exif_upright else _TURNS[turn]
        fit = plan_fit(_turned(size, applied), settings.fit, settings.max_side)
        scaled = _turned(fit.scaled, applied)
        if isinstance(stored, JpegHeader):
            eighths = _decoding_scale(size, scaled, precise=settings.precise)
            image, oddity = decode_jpeg(data, stored, eighths, keep_damaged=settings.keep_damaged)
            icc = stored.icc
            has_sizes = applied == orientation == 1 and size == fit.scaled == fit.canvas
            if oddity.startswith("damaged"):
                how = "damaged_kept"
            elif has_sizes and settings.format == "jpeg" and not oddity and stored.is_common and is_srgb(icc):
                return data, Processed(fit, "unchanged", orientation)
        else:
            image, icc = stored, stored.info.get("icc_profile") or b""
        try:
            image = to_srgb(image, icc)
        except DECODE_ERRORS as error:
            raise BadImageError("unreadable", f"{image.mode}: {error}") from None
        # Decoded in eighths, the last pixels may stand for less than a whole one.
        part = size if image.size == size else (size[0] * eighths / 8, size[1] * eighths / 8)
        image = _place(_resize(image, scaled, part, precise=settings.precise), fit, applied)
        return _encode(image, settings), Processed(fit, how, orientation)
    except MemoryError:
        raise BadImageError("too_large", "not enough memory to decode it") from None


def frame_size(data: bytes, settings: ImageSettings) -> tuple[int, int]:
    """Return width and height of an image file in the frame of its boxes; raises BadImageError."""
    stored, orientation = _read(data, settings)
    return _turned(stored.size, orientation) if settings.exif_upright else stored.size


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height with an orientation applied or undone."""
    return size if orientation < 5 else size[::-1]


# --- decoding ------------------------------------------------------------------------------------


def _read(data: bytes, settings: ImageSettings) -> tuple[JpegHeader | Image, int]:
    """Return a JPEG's header, or another file's first image as it is stored; and the EXIF orientation."""
    if len(data) > MAX_FILE_SIZE:
        raise BadImageError("too_large", f"{len(data)} bytes, at most {MAX_FILE_SIZE} are read")
    if not data:
        raise BadImageError("truncated", "an empty file")
    if data.startswith(b"\xff\xd8"):
        header = read_jpeg_header(data)
        _check_size(header.size, settings)
        return header, _read_orientation(header.exif)
    image = open_image(data)
    _check_size(image.size, settings)
    is_tiff = image.format == "TIFF"  # Pillow makes these upright as it decodes them
    orientation = _read_orientation(image) if is_tiff else 1
    load_image(image)
    if is_tiff:
        return _turn(image, {6: 8, 8: 6}.get(orientation, orientation)), orientation
    return image, _read_orientation(image)


def _check_size(size: tuple[int, int], settings: ImageSettings) -> None:
    """Raise BadImageError for an image that is too large or too small, or would become so."""
    width, height = size
    if not (width and height):
        raise BadImageError("unreadable", f"{width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height}, at most {MAX_PIXELS} pixels are decoded")
    if min(size) < settings.min_side:
        raise BadImageError("too_small", f"{width}x{height}, at least {settings.min_side} expected")
    canvas = plan_fit(size, settings.fit, settings.max_side).canvas
    if max(canvas) > MAX_JPEG_SIDE or canvas[0] * canvas[1] > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height} becomes {canvas[0]}x{canvas[1]}")


def _decoding_scale(size: tuple[int, int], scaled: tuple[int, int], *, precise: bool) -> int:
    """Return how many eighths of its size to decode a JPEG at, 1 to 8: the decoder shrinks at no cost.

    libjpeg-turbo has vector code for 1, 2, 4 and 8 eighths; the others leave less to shrink afterwards.
    """
    for eighths in range(1, 8) if precise else (1, 2, 4):
        # The decoder's half is worse than what follows, hence a margin there.
        margin = PRECISE_MARGIN if precise else 1.1 if eighths == 4 else 1
        if all(-(-side * eighths // 8) >= goal * margin for side, goal in zip(size, scaled, strict=True)):
            return eighths
    return 8


def _read_orientation(source: bytes | Image) -> int:
    """Return the orientation in an EXIF segment or an image: 1 is upright, 0 stands for an unreadable one."""
    from PIL import Image

    if not source:
        return 1
    try:
        if isinstance(source, bytes):
            tags = Image.Exif()
            tags.load(source)
        else:
            tags = source.getexif()
        orientation = tags.get(ORIENTATION, 1)
    except DECODE_ERRORS:
        return 0
    return int(orientation) if orientation in range(1, 9) else 0


# --- colours --------------------------------------------------------------------------------------


def to_srgb(image: Image, icc: bytes) -> Image:
    """Return an image of any mode as RGB in sRGB: transparent parts on white, 16 bits a sample cut to 8.

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

    if not is_srgb(icc):
        with suppress(ImageCms.PyCMSError):
            return cast("Image", ImageCms.applyTransform(image, _to_srgb_transform(icc, image.mode)))
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)  # images of one camera share their profile
def _to_srgb_transform(icc: bytes, mode: str) -> ImageCmsTransform:
    from PIL import ImageCms

    return ImageCms.buildTransform(io.BytesIO(icc), ImageCms.createProfile("sRGB"), mode, "RGB")


@lru_cache(maxsize=16)
def is_srgb(icc: bytes) -> bool:
    """Return whether colours are in sRGB: by the description of their profile, or without one."""
    from PIL import ImageCms

    try:
        return not icc or ImageCms.getProfileDescription(io.BytesIO(icc)).startswith("sRGB")
    except ImageCms.PyCMSError:
        return False


# --- pixels and bytes ----------------------------------------------------------------------------


def _resize(image: Image, size: tuple[int, int], part: tuple[float, float], *, precise: bool) -> Image:
    """Return the left upper part of an image, of this width and height, at another size."""
    from PIL import Image

    if image.size == size == part:
        return image
    if precise:
        kind = Image.Resampling.LANCZOS
    elif image.width < NEAR * size[0] and image.height < NEAR * size[1]:
        kind = Image.Resampling.BICUBIC
    else:
        kind = Image.Resampling.HAMMING
    return image.resize(size, kind, (0, 0, *part))


def _turn(image: Image, orientation: int) -> Image:
    """Return an image as a reader that applies this orientation shows it."""
    from PIL import Image

    return image.transpose(Image.Transpose[_UPRIGHT[orientation]]) if orientation > 1 else image


def _place(image: Image, fit: Fit, applied: int) -> Image:
    """Return an image with an orientation applied and, where it is padded, in the middle of black."""
    from PIL import Image

    image = _turn(image, applied)
    if fit.canvas == image.size:
        return image
    canvas = Image.new("RGB", fit.canvas)
    canvas.paste(image, fit.offset)
    return canvas


def _encode(image: Image, settings: ImageSettings) -> bytes:
    """Return an RGB image as a file without metadata: a PNG, or a baseline JPEG at full colour resolution."""
    if settings.format == "jpeg":
        import numpy
        import simplejpeg

        data: bytes = simplejpeg.encode_jpeg(numpy.asarray(image), settings.quality, "RGB", "444")
        return data
    stream = io.BytesIO()
    image.info.clear()  # Pillow would write the profile, resolution and so on
    image.save(stream, "PNG")
    return stream.getvalue()
