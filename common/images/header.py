"""What a file says before its picture, and why a picture cannot be used."""

import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

SOI, EOI, SOS, DHT, APP0, APP1, APP2, APP14, COM = 0xD8, 0xD9, 0xDA, 0xC4, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame: size, components
PROGRESSIVE = 0xC2
KNOWN_SOF = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
COMMON_SOF = {0xC0, 0xC1, PROGRESSIVE}  # Huffman-coded, baseline to progressive: what every reader knows
LONELY = {0x01, *range(0xD0, 0xD8)}  # markers without a length

# Pillow's decoders raise these, and nothing else was seen, on files that are not what they say they are.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    IndexError, KeyError, TypeError, OverflowError, AttributeError, ZeroDivisionError,
)  # fmt: skip


# Why a photo whose bytes are there cannot be used.
REASONS = ("truncated", "damaged", "unreadable", "too_large", "too_small")


class BadImageError(Exception):
    """This photo cannot be used: `reason` is one of REASONS or missing, `detail` a short line for people.

    `in_passing`: not for a fault of its bytes; the next run looks at it again.
    """

    def __init__(self, reason: str, detail: str = "", *, in_passing: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.in_passing = in_passing


@dataclass(slots=True)
class JpegHeader:
    """What stands before a JPEG's picture."""

    width: int = 0
    height: int = 0
    components: int = 0
    precision: int = 8  # bits a sample
    process: int = 0  # the SOF marker
    has_adobe: bool = False  # CMYK is stored inverted
    has_more_images: bool = False  # a multi-picture file
    zeros_mean_flat: bool = True  # by the Huffman tables, zero bits can stand for blocks of one colour
    exif: bytes = b""
    icc: bytes = b""
    mended: bytearray = field(default_factory=bytearray)  # the header without what decoders trip over
    scan: int = 0  # where the picture begins


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Return what the segments before the picture say; stray bytes between them are passed over.

    Raises BadImageError where the file ends before its picture. Source: ITU-T T.81, annex B.
    """
    header = JpegHeader()
    header.mended += data[:2]
    profile: dict[int, bytes] = {}
    position = 2
    while True:
        start = data.find(b"\xff", position)
        position = start + 1
        while data[position : position + 1] == b"\xff":  # fill bytes
            position += 1
        if start < 0 or position + 3 > len(data):
            raise BadImageError("truncated", "the file ends before its picture")
        marker = data[position]
        position += 1
        if marker == 0 or marker == SOI or marker in LONELY:
            continue
        if marker == SOS:
            header.scan = position - 2
            break
        if marker == EOI:
            raise BadImageError("damaged", "no picture between start and end marker")
        length = int.from_bytes(data[position : position + 2])
        if length < 2:
            raise BadImageError("damaged", f"a header segment of length {length}")
        if position + length > len(data):
            raise BadImageError("truncated", "the file ends inside its header")
        read_segment(header, profile, marker, data[position + 2 : position + length])
        position += length
    header.icc = b"".join(profile[number] for number in sorted(profile))
    return header


def read_segment(header: JpegHeader, profile: dict[int, bytes], marker: int, body: bytes) -> None:
    """Take from one segment what matters, and keep it in the mended header where the picture needs it."""
    if marker in SOF and len(body) >= 6:
        header.process = marker
        header.precision, header.components = body[0], body[5]
        header.height, header.width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    elif marker == DHT:
        header.zeros_mean_flat &= zeros_are_short(body)
    elif marker == APP1 and body.startswith(b"Exif\0\0"):
        header.exif = header.exif or body
    elif marker == APP2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
        profile[body[12]] = body[14:]
    elif marker == APP2 and body.startswith(b"MPF\0"):
        header.has_more_images = True
    elif marker == APP14 and body.startswith(b"Adobe"):
        header.has_adobe = True
    elif marker == APP0 and body.startswith(b"JFIF\0"):
        body = body[:5] + b"\1\1" + body[7:]
    # APP0 and APP14 say which colours the components are.
    if marker in {APP0, APP14} or not (APP0 <= marker <= APP0 + 15 or marker == COM):
        header.mended += bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def zeros_are_short(tables: bytes) -> bool:
    """Tell whether in each AC table of a DHT segment the code of zeros is "end of block"."""
    position = 0
    while position + 17 <= len(tables):
        values = position + 17
        if tables[position] >> 4 and tables[values : values + 1] != b"\0":
            return False
        position = values + sum(tables[position + 1 : values])
    return True


def rgb_size(photo: Path | bytes) -> tuple[int, int] | None:
    """Return width and height of an RGB JPEG or PNG in pixels, by its header; None for any other."""
    import simplejpeg
    from PIL import Image

    if isinstance(photo, bytes):
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(photo)
            if space in ("YCbCr", "RGB"):
                return width, height
        except ValueError:
            pass  # a PNG, or a JPEG with what libjpeg's header reader stops at
    try:
        with Image.open(
            io.BytesIO(photo) if isinstance(photo, bytes) else photo, formats=("JPEG", "PNG")
        ) as image:
            return image.size if image.mode == "RGB" else None
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return None
