"""JPEG, read strictly: what libjpeg only warns of, most of it damage inside the picture, is an error here.

Most decoders paint over damaged parts and say nothing. libjpeg warns, and simplejpeg can raise on its first
warning, so the harmless oddities of real cameras' files are told apart here: stray bytes between header
segments and an unknown JFIF version are mended before decoding, padding before the end marker forgiven.
"""

import io
import re
from typing import TYPE_CHECKING, Any

from common.images.header import COMMON_SOF, DECODE_ERRORS, KNOWN_SOF, PROGRESSIVE, BadImageError, JpegHeader

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

MAX_STRAY_BYTES = 16  # forgiven before the end marker; some cameras pad there
END = b"\xff\xd9"
BLANK = bytes(512)  # a sector of a disk that was never written
MODES = {1: "L", 3: "RGB", 4: "CMYK"}  # by number of components
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_BEFORE_END = re.compile(r"Corrupt JPEG data: ([0-9]+) extraneous bytes before marker 0xd9")


def decode_jpeg(
    data: bytes, header: JpegHeader, eighths: int, *, keep_damaged: bool = False
) -> tuple["Image", str]:
    """Return the picture (L, RGB or CMYK) at `eighths`/8 of its size, rounded up, and what is odd about it.

    The oddity is "" for a file that any reader takes, else a short line for people. Raises BadImageError
    where the file is damaged; with `keep_damaged` what could be decoded is returned, "damaged" first in
    its oddity.
    """
    mode = MODES.get(header.components, "")
    try:
        pixels, oddity = decode_strictly(data, header, mode, eighths)
    except BadImageError as bad:
        if not keep_damaged or bad.reason != "damaged":
            raise
        pixels, oddity = decode_anyway(data, header, mode, eighths), f"damaged: {bad.detail}"
        if pixels is None:
            raise
    if pixels is None:
        return decode_with_pillow(data, header), "a sampling that few readers know"
    if mode == "CMYK" and header.has_adobe:
        pixels = ~pixels
    height, width = pixels.shape[:2]
    from PIL import Image

    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1), oddity


def decode_strictly(
    data: bytes, header: JpegHeader, mode: str, eighths: int
) -> tuple["NDArray[Any] | None", str]:
    """Return the pixels and what is odd about the file; None where only Pillow may know its sampling."""
    if place := blank_stretch(data, header):
        raise BadImageError("damaged", f"{len(BLANK)} zero bytes inside the picture, from byte {place}")
    oddity = ""
    for mend in (False, True):
        attempt = bytes(header.mended) + data[header.scan :] if mend else data
        try:
            return call_simplejpeg(attempt, header, mode, eighths, strict=True), oddity
        except (ValueError, KeyError) as error:
            text = str(error)
        if text.startswith("Premature end of JPEG file"):
            raise BadImageError("truncated", text)
        stray = _BEFORE_END.fullmatch(text)
        if stray and is_padding(attempt, int(stray[1])):
            # All of the picture lies before this, the first warning there was.
            return call_simplejpeg(attempt, header, mode, eighths, strict=False), text
        oddity = text
    if "subsampling" in text or mode == "":
        return None, text
    if header.precision != 8 or header.process not in KNOWN_SOF:
        raise BadImageError("unreadable", text)
    raise BadImageError("damaged" if END in data[header.scan :] else "truncated", text)


def blank_stretch(data: bytes, header: JpegHeader) -> int:
    """Return where in the picture zeros stand that no encoder writes, 0 where none do.

    Where the code of zeros ends a block, a large flat area is a stretch of zeros. Elsewhere they decode,
    without a warning, to blocks full of equal coefficients.
    """
    place = data.find(BLANK, header.scan)
    if place < 0 or header.process not in COMMON_SOF or 0 <= data.find(END, header.scan) < place:
        return 0
    if header.process != PROGRESSIVE:
        return 0 if header.zeros_mean_flat else place
    scan = data.rfind(b"\xff\xda", 0, place)
    components = data[scan + 4]
    # A scan of DC has a bit or two for each block, flat ones too; scans of AC count flat blocks in runs.
    return place if data[scan + 5 + 2 * components] else 0


def is_padding(data: bytes, stray: int) -> bool:
    """Tell whether the `stray` bytes before the end marker are padding: few, and all the same.

    Where bits were lost or flipped the decoder may end early, and what is left over is of all values: one
    alone has to be zero. (Up to seven bytes of any value the decoder takes in unseen.)
    """
    end = data.rfind(END)
    padding = set(data[end - stray : end])
    return stray <= MAX_STRAY_BYTES and len(padding) == 1 and (stray > 1 or padding == {0})


def decode_anyway(data: bytes, header: JpegHeader, mode: str, eighths: int) -> "NDArray[Any] | None":
    """Return whatever libjpeg makes of a damaged file, None where that is nothing."""
    try:
        return call_simplejpeg(
            bytes(header.mended) + data[header.scan :], header, mode, eighths, strict=False
        )
    except (ValueError, KeyError):
        return None


def call_simplejpeg(
    data: bytes, header: JpegHeader, mode: str, eighths: int, *, strict: bool
) -> "NDArray[Any]":
    import simplejpeg

    pixels: NDArray[Any] = simplejpeg.decode_jpeg(
        data, _SPACES[mode], strict=strict,
        min_width=-(-header.width * eighths // 8), min_height=-(-header.height * eighths // 8),
    )  # fmt: skip
    return pixels


def decode_with_pillow(data: bytes, header: JpegHeader) -> "Image":
    """Return the picture of a file whose sampling simplejpeg lacks; Pillow notices less of the damage."""
    from PIL import Image, ImageChops, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("JPEG",))
        image.load()
    except UnidentifiedImageError:
        raise BadImageError("unreadable", "a kind of JPEG that is not known here") from None
    except DECODE_ERRORS as error:
        raise BadImageError("truncated" if "truncated" in str(error) else "damaged", str(error)) from None
    if image.mode == "CMYK" and not header.has_adobe:  # Pillow takes every CMYK for inverted
        return ImageChops.invert(image)
    return image


def encode_jpeg(image: "Image", quality: int) -> bytes:
    """Return an RGB image as a baseline JPEG, its colours at full resolution, without metadata."""
    import numpy
    import simplejpeg

    data: bytes = simplejpeg.encode_jpeg(numpy.asarray(image), quality, "RGB", "444")
    return data
