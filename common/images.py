"""One photo, verified and resized: decoded to its end, made RGB, shrunk, written whole.

The pixels stay in the frame they are stored in, which is the frame of the boxes: an EXIF orientation is
neither applied nor written out again.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import replace_file

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE_SIZE = 1 << 28  # bytes; the largest photo of the dataset is under a tenth of this
MAX_JPEG_SIDE = 65_500  # pixels, libjpeg's limit
MAX_PIXELS = 178_956_970  # half a gigabyte as RGB; beyond it Pillow too speaks of a decompression bomb
# What photos are found to be under the name .jpg. Others stay closed: some decoders run programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
# Pillow's decoders raise these, and nothing else was seen, on files that are not what they say they are.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    IndexError, KeyError, TypeError, OverflowError, AttributeError, ZeroDivisionError,
)  # fmt: skip


class BadImageError(Exception):
    """This photo cannot be used: `reason` is one of step 5's, `detail` a short line for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """What is asked of a photo; the folder of the finished ones remembers it."""

    max_side: int = 256  # pixels of the longer side at most; smaller photos stay as they are
    quality: int = 90  # of the JPEG, 1 to 100
    min_side: int = 1  # pixels; photos whose shorter side has fewer are left out


def process_image(source: Path, target: Path, settings: ImageSettings) -> tuple[int, int, bool]:
    """Write the photo `source` to `target` as the settings ask; return width, height and whether it changed.

    `source` and `target` may be the same file. One that already is what is asked for (an RGB JPEG, small
    enough, without an orientation tag) keeps its bytes. Raises BadImageError; OSError where writing fails.
    """
    data = read_photo(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on oddities in metadata; what matters is an outcome
        image, as_asked = decode(data, settings)
    if not as_asked:
        # The disk has it before the original goes: in place there is no other copy.
        replace_file(target, encode(image, settings), sync=source == target)
    elif source != target:
        replace_file(target, data)
    return *image.size, not as_asked


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height from the header of a finished photo, None where there is none."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except DECODE_ERRORS:
        return None


def read_photo(path: Path) -> bytes:
    """Return the bytes of a photo's file."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_SIZE:
            raise BadImageError("too_large", f"{size} bytes, at most {MAX_FILE_SIZE} are read")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadImageError("missing") from None
    except OSError as error:
        raise BadImageError("unreadable", error.strerror or str(error)) from None
    if not data:
        raise BadImageError("truncated", "an empty file")
    return data


def decode(data: bytes, settings: ImageSettings) -> tuple["Image", bool]:
    """Return the RGB image in a file's bytes, shrunk, and whether the file already is what is asked for."""
    from PIL import Image

    try:
        image = open_image(data)
        small_enough = max(image.size) <= settings.max_side
        as_asked = small_enough and image.format == "JPEG" and image.mode == "RGB" and not is_turned(image)
        if min(image.size) < settings.min_side:
            width, height = image.size
            raise BadImageError("too_small", f"{width}x{height}, at least {settings.min_side} expected")
        size = shrunk_size(*image.size, settings.max_side)
        if image.mode == "RGB":
            image.draft("RGB", size)  # JPEG alone: decoded to its end, at an eighth to all of its size
        image.load()
    except MemoryError:
        raise BadImageError("too_large", "not enough memory to decode it") from None
    except DECODE_ERRORS as error:
        raise BadImageError(*what_is_wrong(error)) from None
    try:
        image = to_rgb(image)
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)
    except DECODE_ERRORS as error:
        raise BadImageError("unreadable", f"{type(error).__name__}: {error}") from None
    return image, as_asked


def open_image(data: bytes) -> "Image":
    """Return the image in these bytes, its header read and its pixels not."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the check below takes its place
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except DECODE_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)
        raise BadImageError("unreadable", "not an image" if unknown else str(error)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height}, at most {MAX_PIXELS} pixels are decoded")
    return image


def is_turned(image: "Image") -> bool:
    """Tell whether a reader that applies EXIF orientation would turn the image away from its boxes."""
    try:
        return bool(image.getexif().get(ORIENTATION, 1) != 1)
    except DECODE_ERRORS:
        return True  # EXIF that cannot be read is better not handed on


def what_is_wrong(error: BaseException) -> tuple[str, str]:
    """Return the reason and detail for what a decoder raised."""
    text = str(error) or type(error).__name__
    cut_short = "truncated" in text.lower() or isinstance(error, EOFError)
    return ("truncated" if cut_short else "damaged"), text


def shrunk_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return the size with the longer side at most `max_side`, never larger, no side below 1."""
    longer = max(width, height)
    if longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


def to_rgb(image: "Image") -> "Image":
    """Return any image as RGB: the first frame, what is transparent on white, 16 bits cut to 8."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a sample, whatever their order and the room they are given
        image = image.convert("I").point([value >> 8 for value in range(1 << 16)], "L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image if image.mode == "RGB" else image.convert("RGB")


def encode(image: "Image", settings: ImageSettings) -> bytes:
    """Return an RGB image as a baseline JPEG without any metadata."""
    stream = io.BytesIO()
    image.info.clear()  # comment, resolution and the like would be handed on
    image.save(stream, "JPEG", quality=settings.quality)
    return stream.getvalue()
