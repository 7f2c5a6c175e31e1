"""Processing of one image's bytes: decoded to the end, made RGB in sRGB, resized, encoded.

The pixels stay in the frame they are stored in, which is the frame of the boxes, unless they are turned
together with the boxes. An EXIF orientation is never written. It is applied only with `exif_upright`, for
boxes that were drawn on the upright image.
"""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.images.colours import is_srgb, to_srgb
from common.images.fit import Fit, plan_fit
from common.images.header import (
    COMMON_SOF,
    DECODE_ERRORS,
    BadImageError,
    JpegHeader,
    file_format,
    read_jpeg_header,
)
from common.images.jpeg import decode_jpeg, encode_jpeg
from common.images.settings import MAX_JPEG_SIDE, ImageSettings

if TYPE_CHECKING:
    from PIL.Image import Image

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
    frame: tuple[int, int]  # width and height of the original in the frame of its boxes, in pixels


def process_bytes(data: bytes, settings: ImageSettings, turn: int = 0) -> tuple[bytes, Processed]:
    """Return a finished image's bytes, made from a file's bytes; `turn` is in degrees counterclockwise.

    A file that already is as the settings ask (an RGB JPEG of that size, in sRGB, without an orientation tag)
    keeps its bytes. Raises BadImageError.
    """
    if len(data) > MAX_FILE_SIZE:
        raise BadImageError("too_large", f"{len(data)} bytes, at most {MAX_FILE_SIZE} are read")
    if not data:
        raise BadImageError("truncated", "an empty file")
    try:
        decode = _decode_jpeg_file if data.startswith(b"\xff\xd8") else _decode_other_file
        image, processed = decode(data, settings, turn)
        return (data if processed.how == "unchanged" else _encode(image, settings)), processed
    except MemoryError:
        raise BadImageError("too_large", "not enough memory to decode it") from None


def frame_size(data: bytes, settings: ImageSettings) -> tuple[int, int]:
    """Return `Processed.frame` of an image file; raises BadImageError or one of DECODE_ERRORS."""
    if data.startswith(b"\xff\xd8"):
        header = read_jpeg_header(data)
        return _frame((header.width, header.height), _read_orientation(header.exif), settings)
    image, orientation = _load_other_file(data, settings)
    return _frame(image.size, orientation, settings)


def _frame(size: tuple[int, int], orientation: int, settings: ImageSettings) -> tuple[int, int]:
    return size[::-1] if settings.exif_upright and orientation >= 5 else size


# --- decoding ------------------------------------------------------------------------------------


def _decode_jpeg_file(data: bytes, settings: ImageSettings, turn: int) -> tuple[Image, Processed]:
    """Return a JPEG as RGB, resized, turned and padded."""
    header = read_jpeg_header(data)
    size, orientation = (header.width, header.height), _read_orientation(header.exif)
    applied = orientation if settings.exif_upright else _TURNS[turn]
    fit = _checked_fit(size, settings, applied)
    scaled = fit.scaled if applied < 5 else fit.scaled[::-1]
    eighths = _decoding_scale(size, scaled, precise=settings.precise)
    image, oddity = decode_jpeg(data, header, eighths, keep_damaged=settings.keep_damaged)
    how = "damaged_kept" if oddity.startswith("damaged") else "resized"
    is_as_stored = applied == orientation == 1 and size == fit.scaled == fit.canvas
    if is_as_stored and settings.format == "jpeg" and not oddity and _is_common(header):
        how = "unchanged"
    image = to_srgb(image, header.icc)
    # Decoded in eighths, the last pixels may stand for less than a whole one.
    part = size if image.size == size else (header.width * eighths / 8, header.height * eighths / 8)
    image = _place(_resize(image, scaled, part, precise=settings.precise), fit, applied)
    return image, Processed(fit, how, orientation, _frame(size, orientation, settings))


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


def _is_common(header: JpegHeader) -> bool:
    """Return whether every reader decodes this file to the same pixels: RGB, in sRGB."""
    return (
        header.components == 3
        and header.precision == 8
        and header.process in COMMON_SOF
        and not header.has_more_images
        and (not header.icc or is_srgb(header.icc))
    )


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


def _decode_other_file(data: bytes, settings: ImageSettings, turn: int) -> tuple[Image, Processed]:
    """Return the first image of a file that is not a JPEG, like _decode_jpeg_file."""
    image, orientation = _load_other_file(data, settings)
    size = image.size
    try:
        image = to_srgb(image, image.info.get("icc_profile") or b"")
    except DECODE_ERRORS as error:
        raise BadImageError("unreadable", f"{image.mode}: {error}") from None
    applied = orientation if settings.exif_upright else _TURNS[turn]
    fit = _checked_fit(size, settings, applied)
    scaled = fit.scaled if applied < 5 else fit.scaled[::-1]
    image = _place(_resize(image, scaled, size, precise=settings.precise), fit, applied)
    return image, Processed(fit, "resized", orientation, _frame(size, orientation, settings))


def _load_other_file(data: bytes, settings: ImageSettings) -> tuple[Image, int]:
    """Return the first image of a file that is not a JPEG as it is stored, and its orientation."""
    image = _open(data)
    _checked_fit(image.size, settings, 1)
    is_tiff = image.format == "TIFF"  # Pillow makes these upright as it decodes them
    orientation = _read_orientation(image) if is_tiff else 1
    try:
        image.load()
    except DECODE_ERRORS as error:
        text = str(error) or type(error).__name__
        cut_short = "truncated" in text.lower() or isinstance(error, EOFError)
        raise BadImageError("truncated" if cut_short else "damaged", text) from None
    if is_tiff:
        return _turn(image, {6: 8, 8: 6}.get(orientation, orientation)), orientation
    return image, _read_orientation(image)


def _open(data: bytes) -> Image:
    """Return the image of a file of any format that has a decoder; it is not decoded yet."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # _checked_fit has its own limit
    kind = file_format(data)
    if not kind.decoder:
        raise BadImageError("unreadable", kind.name)
    try:
        return Image.open(io.BytesIO(data), formats=(kind.decoder,))
    except (UnidentifiedImageError, KeyError):  # KeyError: a Pillow without this decoder
        raise BadImageError("unreadable", f"{kind.name} that Pillow does not read") from None
    except DECODE_ERRORS as error:
        raise BadImageError("unreadable", f"{kind.name}: {error}") from None


def _checked_fit(size: tuple[int, int], settings: ImageSettings, applied: int) -> Fit:
    """Return the fit of an image of this size to which an orientation is applied.

    Raises BadImageError where it is too large or too small.
    """
    width, height = size
    if not (width and height):
        raise BadImageError("unreadable", f"{width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height}, at most {MAX_PIXELS} pixels are decoded")
    if min(size) < settings.min_side:
        raise BadImageError("too_small", f"{width}x{height}, at least {settings.min_side} expected")
    fit = plan_fit(size if applied < 5 else size[::-1], settings.fit, settings.max_side)
    if max(fit.canvas) > MAX_JPEG_SIDE or fit.canvas[0] * fit.canvas[1] > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height} becomes {fit.canvas[0]}x{fit.canvas[1]}")
    return fit


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
    """Return an RGB image as a file without metadata."""
    if settings.format == "jpeg":
        return encode_jpeg(image, settings.quality)
    stream = io.BytesIO()
    image.info.clear()  # Pillow would write the profile, resolution and so on
    image.save(stream, "PNG")
    return stream.getvalue()
