"""One photo, verified and resized: decoded to its end, made RGB in sRGB, fitted, written whole.

The pixels stay in the frame they are stored in, which is the frame of the boxes, unless they are turned along
with the boxes: an EXIF orientation is neither applied nor written out again.
"""

import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.files.whole_files import replace_file
from common.images.colours import is_srgb, to_srgb
from common.images.fit import Fit, plan_fit
from common.images.header import COMMON_SOF, DECODE_ERRORS, BadImageError, JpegHeader, read_jpeg_header
from common.images.jpeg import decode_jpeg, encode_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE_SIZE = 1 << 28  # bytes; the largest photo of the dataset is under a tenth of this
MAX_JPEG_SIDE = 65_500  # pixels, libjpeg's limit
MAX_PIXELS = 178_956_970  # half a gigabyte as RGB; beyond it Pillow too speaks of a decompression bomb
# What photos are found to be under the name .jpg. Others stay closed: some decoders run programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
QUIET = logging.NullHandler()
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
PRECISE = 1.3  # times the size asked for, decoded at least, where precision is
NEAR = 1.3  # times the size asked for; below it Hamming's window blurs, above it is as good and twice as fast


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """What is asked of a photo; the folder of the finished ones remembers it."""

    max_side: int = 256  # pixels; of which side, says `fit`
    # With the colours at full resolution 85 takes the bytes of 90 with them halved, and is 1 dB closer.
    quality: int = 85  # of the JPEG, 1 to 100
    min_side: int = 1  # pixels; photos whose shorter side has fewer are left out
    fit: str = "longer"  # one of fit.FITS
    format: str = "jpeg"  # or png
    precise: bool = False
    keep_damaged: bool = False
    rotate_upright: bool = False


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of a photo that is there now."""

    fit: Fit
    how: str  # resized, unchanged or damaged_kept


def process_image(source: Path, target: Path, settings: ImageSettings, turn: int = 0) -> Processed:
    """Write the photo `source`, turned counterclockwise by `turn` degrees, to `target` as the settings ask.

    `source` and `target` may be the same file. One that already is what is asked for (an RGB JPEG of that
    size, in sRGB, without an orientation tag) keeps its bytes. Raises BadImageError; OSError where writing
    fails.
    """
    data, processed = process_bytes(read_photo(source), settings, turn)
    if processed.how != "unchanged" or source != target:
        # In place the disk has it before the original goes: there is no other copy.
        replace_file(target, data, sync=source == target)
    return processed


def process_bytes(data: bytes, settings: ImageSettings, turn: int = 0) -> tuple[bytes, Processed]:
    """Return the bytes of a photo as `process_image` writes them, and what became of it."""
    check_file_size(len(data))
    if not data:
        raise BadImageError("truncated", "an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on oddities in metadata; what matters is an outcome
            decode = decode_from_jpeg if data.startswith(b"\xff\xd8") else decode_other
            image, fit, how = decode(data, settings, turn)
            encoded = data if how == "unchanged" else encode(place(image, fit, turn), settings)
    except MemoryError:
        raise BadImageError("too_large", "not enough memory to decode it", in_passing=True) from None
    return encoded, Processed(fit, how)


def image_size(photo: Path | bytes) -> tuple[int, int] | None:
    """Return width and height from the header of a photo, None where there is none."""
    from PIL import Image

    try:
        if isinstance(photo, bytes):
            head = photo
        else:
            with open(photo, "rb", buffering=0) as stream:
                head = stream.read(1 << 12)
        if head.startswith(b"\xff\xd8"):
            header = read_jpeg_header(head)
            return header.width, header.height
    except FileNotFoundError:
        return None
    except BadImageError:
        pass  # a header longer than what was read, or none
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(photo) if isinstance(photo, bytes) else photo
            with Image.open(file, formats=FORMATS) as image:
                return image.size
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return None


def read_photo(path: Path) -> bytes:
    """Return the bytes of a photo's file."""
    try:
        check_file_size(path.stat().st_size)
        return path.read_bytes()
    except FileNotFoundError:
        raise BadImageError("missing") from None
    except OSError as error:
        raise BadImageError("unreadable", error.strerror or str(error), in_passing=True) from None


def check_file_size(size: int) -> None:
    if size > MAX_FILE_SIZE:
        raise BadImageError("too_large", f"{size} bytes, at most {MAX_FILE_SIZE} are read")


# --- decoding ------------------------------------------------------------------------------------


def decode_from_jpeg(data: bytes, settings: ImageSettings, turn: int) -> tuple["Image", Fit, str]:
    """Return a JPEG as RGB, at its fitted size or somewhat more, where it goes, and what became of it."""
    header = read_jpeg_header(data)
    fit = checked_fit((header.width, header.height), settings, turn)
    scaled = fit.scaled if turn % 180 == 0 else fit.scaled[::-1]
    eighths = decoding_scale(header, scaled, precise=settings.precise)
    image, oddity = decode_jpeg(data, header, eighths, keep_damaged=settings.keep_damaged)
    how = "damaged_kept" if oddity.startswith("damaged") else "resized"
    if not oddity and not turn and settings.format == "jpeg" and is_common(header) and fits_already(fit):
        how = "unchanged"
    image = to_srgb(image, header.icc)
    # The last pixels may stand for less than a whole eighth; image.size is without them no exact scale.
    exact = (0.0, 0.0, header.width * eighths / 8, header.height * eighths / 8)
    part = exact if image.size != (header.width, header.height) else None
    return scale(image, scaled, part, precise=settings.precise), fit, how


def decoding_scale(header: JpegHeader, scaled: tuple[int, int], *, precise: bool) -> int:
    """Return at how many eighths of its size a JPEG is decoded, at most 8: the decoder shrinks it for free.

    libjpeg-turbo has vector code for 1, 2, 4 and 8 eighths; with the others there is less left to shrink.
    """
    width, height = header.width, header.height
    for eighths in range(1, 8) if precise else (1, 2, 4):
        # The decoder's half is not as good as what follows, hence a margin there.
        margin = PRECISE if precise else 1.1 if eighths == 4 else 1
        if -(-width * eighths // 8) >= scaled[0] * margin and -(-height * eighths // 8) >= scaled[1] * margin:
            return eighths
    return 8


def is_common(header: JpegHeader) -> bool:
    """Tell whether every reader sees in this file what is asked for: RGB, in sRGB, the right way up."""
    return (
        header.components == 3
        and header.precision == 8
        and header.process in COMMON_SOF
        and not header.has_more_images
        and not is_turned(header.exif)
        and (not header.icc or is_srgb(header.icc))
    )


def is_turned(exif: bytes) -> bool:
    """Tell whether a reader that applies EXIF orientation would turn the photo away from its boxes."""
    from PIL import Image

    if not exif:
        return False
    tags = Image.Exif()
    try:
        tags.load(exif)
        return bool(tags.get(ORIENTATION, 1) != 1)
    except DECODE_ERRORS:
        return True  # EXIF that cannot be read is better not handed on


def decode_other(data: bytes, settings: ImageSettings, turn: int) -> tuple["Image", Fit, str]:
    """Return the first image of a file that is no JPEG as RGB, fitted, and where it goes."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # checked_fit has a limit of its own
    logging.getLogger("PIL").addHandler(QUIET)  # what it would log is in the outcome
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except DECODE_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)
        raise BadImageError("unreadable", "not an image" if unknown else str(error)) from None
    fit = checked_fit(image.size, settings, turn)
    try:
        image.load()
    except DECODE_ERRORS as error:
        text = str(error) or type(error).__name__
        cut_short = "truncated" in text.lower() or isinstance(error, EOFError)
        raise BadImageError("truncated" if cut_short else "damaged", text) from None
    try:
        image = to_srgb(image, image.info.get("icc_profile") or b"")
    except DECODE_ERRORS as error:
        raise BadImageError("unreadable", f"{image.mode}: {error}") from None
    scaled = fit.scaled if turn % 180 == 0 else fit.scaled[::-1]
    return scale(image, scaled, precise=settings.precise), fit, "resized"


def checked_fit(size: tuple[int, int], settings: ImageSettings, turn: int) -> Fit:
    """Return where a photo of this size goes, unless it is too large or too small."""
    width, height = size
    if not (width and height):
        raise BadImageError("unreadable", f"{width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height}, at most {MAX_PIXELS} pixels are decoded")
    if min(size) < settings.min_side:
        raise BadImageError("too_small", f"{width}x{height}, at least {settings.min_side} expected")
    fit = plan_fit(size, turn, settings.fit, settings.max_side)
    if max(fit.canvas) > MAX_JPEG_SIDE or fit.canvas[0] * fit.canvas[1] > MAX_PIXELS:
        raise BadImageError("too_large", f"{width}x{height} becomes {fit.canvas[0]}x{fit.canvas[1]}")
    return fit


def fits_already(fit: Fit) -> bool:
    return fit.turned == fit.scaled == fit.canvas


# --- pixels and bytes ----------------------------------------------------------------------------


def scale(
    image: "Image",
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    *,
    precise: bool = True,
) -> "Image":
    """Return the part `box` of an image at another size."""
    from PIL import Image

    if image.size == size and (box is None or box[2:] == size):
        return image
    if precise:
        kind = Image.Resampling.LANCZOS
    elif image.width < NEAR * size[0] and image.height < NEAR * size[1]:
        kind = Image.Resampling.BICUBIC
    else:
        kind = Image.Resampling.HAMMING
    return image.resize(size, kind, box)


def place(image: "Image", fit: Fit, turn: int) -> "Image":
    """Return an image turned counterclockwise, in the middle of a black canvas where it does not fill it."""
    from PIL import Image

    if turn:
        image = image.transpose(
            {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}[
                turn
            ]
        )
    if fit.canvas == image.size:
        return image
    canvas = Image.new("RGB", fit.canvas)
    canvas.paste(image, fit.offset)
    return canvas


def encode(image: "Image", settings: ImageSettings) -> bytes:
    """Return an RGB image as a file without any metadata."""
    if settings.format == "jpeg":
        return encode_jpeg(image, settings.quality)
    stream = io.BytesIO()
    image.info.clear()  # profile, resolution and the like would be handed on
    image.save(stream, "PNG")
    return stream.getvalue()
