"""Formats and headers of image files, and the reasons why an image cannot be used."""

from __future__ import annotations

import io
import re
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

EOI, SOS, DHT, APP0, APP1, APP2, APP14, COM = 0xD9, 0xDA, 0xC4, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame: size, number of components
COMMON_SOF = {0xC0, 0xC1, 0xC2}  # what every reader decodes: Huffman-coded, baseline to progressive
END = bytes((0xFF, EOI))
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD9)}  # with the start of an image, and what is no marker

# All that Pillow's decoders were seen to raise on damaged files and on files of other kinds.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    IndexError, KeyError, TypeError, OverflowError, AttributeError, ZeroDivisionError, RuntimeError,
)  # fmt: skip
# Why an image that exists cannot be used.
BAD_IMAGE_REASONS = ("truncated", "damaged", "unreadable", "too_large", "too_small")


@dataclass(eq=False)
class BadImageError(Exception):
    """An image that cannot be used."""

    reason: str  # one of BAD_IMAGE_REASONS, or missing
    detail: str = ""  # a short line for people


class FileFormat(NamedTuple):
    """A format of files. Those without a decoder are never opened: some decoders run programs."""

    name: str  # for people
    decoder: str = ""  # Pillow's name of it


HTML = FileFormat("HTML page")
UNKNOWN = FileFormat("not an image")
_FIRST_BYTES = 1024  # that a file is recognised by
_MARKUP = rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*+"
_FORMATS = (
    (rb"\xff\xd8", FileFormat("JPEG image", "JPEG")),
    (rb"\x89PNG\r\n\x1a\n", FileFormat("PNG image", "PNG")),
    (rb"GIF8[79]a", FileFormat("GIF image", "GIF")),
    (rb"RIFF....WEBP", FileFormat("WebP image", "WEBP")),
    (rb"BM", FileFormat("BMP image", "BMP")),
    (rb"(?:II|MM)(?:[*+]\0|\0[*+])", FileFormat("TIFF image", "TIFF")),
    (rb"\0\0..ftyp(?:....){0,20}?avi[fs]", FileFormat("AVIF image", "AVIF")),
    (rb"\0\0..ftyp(?:....){0,20}?(?:hei|hev|mif1|msf1)", FileFormat("HEIC image")),
    (rb"\0\0..ftyp", FileFormat("MP4 or QuickTime video")),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", FileFormat("JPEG 2000 image", "JPEG2000")),
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", FileFormat("JPEG XL image")),
    (rb"8BPS", FileFormat("Photoshop image")),
    (rb"%PDF-", FileFormat("PDF document")),
    (rb"%!PS", FileFormat("PostScript file")),
    (rb"PK\x03\x04", FileFormat("zip file")),
    (rb"\x1f\x8b", FileFormat("gzip file")),
    (_MARKUP + rb"<(?:!doctype\s+html|html|head|title|meta|script|body)\b", HTML),
    (_MARKUP + rb"(?:<!doctype[^>]*>\s*)?<svg\b", FileFormat("SVG drawing")),
    (rb"(?:\xef\xbb\xbf)?\s*<\?xml\b", FileFormat("XML document")),
)


def file_format(data: bytes) -> FileFormat:
    """Return the format of a file by its first bytes, whatever its name; UNKNOWN for any other."""
    start = data[:_FIRST_BYTES]
    return next((kind for pattern, kind in _FORMATS if re.match(pattern, start, re.DOTALL)), UNKNOWN)


@dataclass(slots=True)
class JpegHeader:
    """The segments of a JPEG before its image data."""

    size: tuple[int, int] = (0, 0)  # width and height in pixels
    components: int = 0
    precision: int = 8  # bits a sample
    process: int = 0  # the SOF marker
    has_adobe: bool = False  # CMYK is stored inverted
    has_more_images: bool = False  # a multi-picture file
    zeros_end_blocks: bool = True  # zero bits are the Huffman code for "end of block"
    exif: bytes = b""
    icc: bytes = b""
    mended: bytearray = field(default_factory=bytearray)  # the header without what stops decoders
    scan: int = 0  # position of the image data

    @property
    def is_common(self) -> bool:
        """Report whether it is RGB and every reader decodes it to the same pixels."""
        is_rgb = self.components == 3 and self.precision == 8
        return is_rgb and self.process in COMMON_SOF and not self.has_more_images


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Read the segments before the image data; skip stray bytes between them.

    Raises BadImageError where the file ends before its image data. Source: ITU-T T.81, annex B.
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
            raise BadImageError("truncated", "the file ends before its image data")
        marker = data[position]
        position += 1
        if marker in WITHOUT_LENGTH:
            continue
        if marker == SOS:
            header.scan = position - 2
            break
        if marker == EOI:
            raise BadImageError("damaged", "no image data between start and end marker")
        length = int.from_bytes(data[position : position + 2])
        if length < 2:
            raise BadImageError("damaged", f"a header segment of length {length}")
        if position + length > len(data):
            raise BadImageError("truncated", "the file ends inside its header")
        _read_segment(header, profile, marker, data[position + 2 : position + length])
        position += length
    header.icc = b"".join(profile[number] for number in sorted(profile))
    return header


def has_end(data: bytes) -> bool:
    """Return whether a JPEG has its end marker (not only that of a preview in its header)."""
    try:
        return data.find(END, read_jpeg_header(data).scan) > 0
    except BadImageError:
        return False


def _read_segment(header: JpegHeader, profile: dict[int, bytes], marker: int, body: bytes) -> None:
    """Add one segment to the header and, where decoding needs it, to the mended header."""
    if marker in SOF and len(body) >= 6:
        header.process = marker
        header.precision, header.components = body[0], body[5]
        header.size = int.from_bytes(body[3:5]), int.from_bytes(body[1:3])
    elif marker == DHT:
        tables = body
        while len(tables) > 17:  # class and id; 16 counts of codes by length; values of the codes by length
            header.zeros_end_blocks &= not (tables[0] >> 4 and tables[17])  # in each table for AC
            tables = tables[17 + sum(tables[1:17]) :]
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
    # APP0 and APP14 tell decoders which colours the components are.
    if marker in {APP0, APP14} or not (APP0 <= marker <= APP0 + 15 or marker == COM):
        header.mended += bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def rgb_size(image: BinaryIO | bytes) -> tuple[int, int] | None:
    """Return width and height in pixels of an RGB JPEG or PNG, by its header; None for any other file."""
    import simplejpeg
    from PIL import Image

    if isinstance(image, bytes):
        with suppress(ValueError):  # of a PNG, or a JPEG whose header libjpeg does not read
            height, width, space, _ = simplejpeg.decode_jpeg_header(image)
            if space in ("YCbCr", "RGB"):
                return width, height
    try:
        file = io.BytesIO(image) if isinstance(image, bytes) else image
        with Image.open(file, formats=("JPEG", "PNG")) as opened:
            return opened.size if opened.mode == "RGB" else None
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return None
