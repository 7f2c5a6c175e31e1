"""Strict decoding: what libjpeg only warns of, mostly damage inside the image, is an error here.

Most decoders paint over damaged parts without an error. libjpeg warns, and simplejpeg can raise on its first
warning, so harmless oddities of real cameras' files are handled here: stray bytes between header segments and
an unknown JFIF version are mended before decoding, and padding before the end marker is accepted. Pillow
decodes the JPEGs that simplejpeg does not know, and the files of all other formats.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from common.images.header import COMMON_SOF, DECODE_ERRORS, END, BadImageError, JpegHeader, file_format

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

PROGRESSIVE = 0xC2
KNOWN_SOF = {0xC0, 0xC1, PROGRESSIVE, 0xC9, 0xCA}  # what libjpeg-turbo decodes
MAX_STRAY_BYTES = 16  # accepted before the end marker: some cameras pad there
BLANK = bytes(512)  # a disk sector that was never written
MODES = {1: "L", 3: "RGB", 4: "CMYK"}  # by number of components
_BEFORE_END = re.compile(r"Corrupt JPEG data: ([0-9]+) extraneous bytes before marker 0xd9")


def decode_jpeg(
    data: bytes, header: JpegHeader, eighths: int, *, keep_damaged: bool = False
) -> tuple[Image, str]:
    """Decode an image (L, RGB or CMYK) at `eighths`/8 of its size, rounded up; return it and its oddity.

    The oddity is "" for a file that every reader decodes, else a short line for people. Raises BadImageError
    where the file is damaged; with `keep_damaged` returns what could be decoded, and the oddity begins with
    "damaged". A truncated file is kept only if no more than its end marker is missing.
    """
    import simplejpeg
    from PIL import Image, ImageChops

    mode = MODES.get(header.components, "")
    width, height = (-(-side * eighths // 8) for side in header.size)
    space = "GRAY" if mode == "L" else mode
    decode = partial(simplejpeg.decode_jpeg, colorspace=space, min_width=width, min_height=height)
    try:
        pixels, oddity = _decode_strictly(data, header, decode)
    except BadImageError as bad:
        if not keep_damaged or bad.reason not in ("damaged", "truncated"):
            raise
        try:
            if bad.reason == "truncated":
                pixels, _ = _decode_strictly(data.rstrip(b"\xff") + END, header, decode)
            else:
                pixels = decode(_mended(data, header), strict=False)
        except (ValueError, KeyError, BadImageError):
            raise bad from None
        oddity = f"damaged: {bad.detail}"
    if pixels is not None:
        if mode == "CMYK" and header.has_adobe:
            pixels = ~pixels
        return Image.frombuffer(mode, pixels.shape[1::-1], pixels, "raw", mode, 0, 1), oddity
    image = open_image(data)
    load_image(image)  # Pillow notices less of the damage
    if image.mode == "CMYK" and not header.has_adobe:  # Pillow takes every CMYK for inverted
        image = ImageChops.invert(image)
    return image, "a sampling that few readers decode"


def open_image(data: bytes) -> Image:
    """Return the image of a file of any format that has a decoder; it is not decoded yet."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # process.MAX_PIXELS is the limit
    kind = file_format(data)
    if not kind.decoder:
        raise BadImageError("unreadable", kind.name)
    try:
        return Image.open(io.BytesIO(data), formats=(kind.decoder,))
    except (UnidentifiedImageError, KeyError):  # KeyError: a Pillow without this decoder
        raise BadImageError("unreadable", f"{kind.name} that Pillow does not read") from None
    except DECODE_ERRORS as error:
        raise BadImageError("unreadable", f"{kind.name}: {error}") from None


def load_image(image: Image) -> None:
    """Decode an opened image to its end."""
    try:
        image.load()
    except DECODE_ERRORS as error:
        text = str(error) or type(error).__name__
        cut_short = "truncated" in text.lower() or isinstance(error, EOFError)
        raise BadImageError("truncated" if cut_short else "damaged", text) from None


def _decode_strictly(
    data: bytes, header: JpegHeader, decode: Callable[..., NDArray[Any]]
) -> tuple[NDArray[Any] | None, str]:
    """Return the pixels and the file's oddity; None where only Pillow may decode its sampling."""
    if place := _find_blank(data, header):
        raise BadImageError("damaged", f"{len(BLANK)} zero bytes inside the image data, from byte {place}")
    oddity = ""
    for mend in (False, True):
        attempt = _mended(data, header) if mend else data
        try:
            return decode(attempt, strict=True), oddity
        except (ValueError, KeyError) as error:
            oddity = str(error)
        if oddity.startswith("Premature end of JPEG file"):
            raise BadImageError("truncated", oddity)
        stray = _BEFORE_END.fullmatch(oddity)
        if stray and _is_padding(attempt, int(stray[1])):
            # It is the first warning, so the whole image was decoded before it.
            return decode(attempt, strict=False), oddity
    if "subsampling" in oddity or header.components not in MODES:
        return None, oddity
    if header.precision != 8 or header.process not in KNOWN_SOF:
        raise BadImageError("unreadable", oddity)
    raise BadImageError("damaged" if END in data[header.scan :] else "truncated", oddity)


def _mended(data: bytes, header: JpegHeader) -> bytes:
    return bytes(header.mended) + data[header.scan :]


def _find_blank(data: bytes, header: JpegHeader) -> int:
    """Return the position of zeros in the image data that no encoder writes, 0 where there are none.

    libjpeg decodes them without a warning, to blocks of equal coefficients. Only where zero bits end a block
    can a flat area be a run of zeros.
    """
    place = data.find(BLANK, header.scan)
    if place < 0 or header.process not in COMMON_SOF or 0 <= data.find(END, header.scan) < place:
        return 0
    if header.process != PROGRESSIVE:
        return 0 if header.zeros_end_blocks else place
    scan = data.rfind(b"\xff\xda", 0, place)
    # DC scans have a bit or two for each block, flat ones too; AC scans count flat blocks in runs.
    return place if data[scan + 5 + 2 * data[scan + 4]] else 0


def _is_padding(data: bytes, stray: int) -> bool:
    """Return whether the `stray` bytes before the end marker are padding: few, and all the same.

    After lost or flipped bits the decoder may end early, and the rest has all values: a single byte must
    be zero. (The decoder reads up to seven bytes of any value without a warning.)
    """
    end = data.rfind(END)
    padding = set(data[end - stray : end])
    return stray <= MAX_STRAY_BYTES and len(padding) == 1 and (stray > 1 or padding == {0})
