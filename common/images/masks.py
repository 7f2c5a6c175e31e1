"""Instance masks: PNGs from a release's zips or a folder, resized, turned and padded as their images are.

A release has 2.7 million masks of 1.7 kB in sixteen zips a split, so they are read where they are. Their size
is not their image's: width and height are scaled each by itself. What goes in is an object on black; what
comes out is COCO's run-length encoding at exactly the size of the finished image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

from common.cli import InputError
from common.files.folders import Status
from common.files.places import folder_of, is_folder, is_remote, status
from common.images.header import DECODE_ERRORS
from common.images.process import MAX_FILE_SIZE, MAX_PIXELS
from common.images.settings import Fit

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL.Image import Image

# Why a mask is left out.
MASK_REASONS = ("missing", "unreadable", "empty", "other_shape", "vanished")
MAX_DIFFERENCE = 0.02  # between the ratios of width to height of a mask and its image
_ERRORS = (*DECODE_ERRORS, BadZipFile, MemoryError)  # what damaged zips and PNGs raise
_MOST = (1 << 32) - 1
_ROW = "u8, u4, u4, u4, u2, u2"  # of a member: offset, sizes packed and unpacked, CRC, compression, flags


class FoundMask(NamedTuple):
    """A mask as it comes out, or why it is left out."""

    reason: str  # one of MASK_REASONS, "" for a mask that can be used
    counts: str = ""  # COCO's run-length encoding


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The zips of a folder or, where it has none, the folder's PNGs."""

    folder: Path
    zips: dict[str, list[tuple[str, Status]]]  # names, by the first digit of the ids of their images

    def versions(self, image_id: str, names: tuple[str, ...]) -> list[Status | None]:
        """Return the status of each file that these masks are read from."""
        if not self.zips:
            return [status(self.folder / name) for name in names]
        digit = image_id[0].lower()
        if digit in "0123456789abcdef" and digit not in self.zips:
            raise InputError(f"{self.folder}/*-masks-{digit}.zip: no such file, it holds masks of {image_id}")
        return [version for _, version in self.zips.get(digit, ())]

    def read(self, image_id: str, name: str) -> bytes | None:
        """Return the bytes of a PNG, None where it is missing; raises one of _ERRORS for a damaged member."""
        if not self.zips:
            return folder_of(self.folder).read(name)
        for zip_name, version in self.zips.get(image_id[0].lower(), ()):
            data = _open_zip(self.folder / zip_name, version).read(name)
            if data is not None:
                return data
        return None


def find_mask_files(folder: Path) -> MaskFiles:
    """Return the mask files of a folder; InputError where it has none, or a zip that was cut short."""
    if is_remote(folder):
        raise InputError(f"{folder}: masks are not read from a store: copy the zips to a folder on disk")
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder, one with masks was expected")
    zips: dict[str, list[tuple[str, Status]]] = {}
    for path in sorted(folder.glob("*-masks-[0-9a-f].zip")):
        if found := status(path):
            if not is_zipfile(path):
                raise InputError(f"{path}: damaged zip file (its end is missing)")
            zips.setdefault(path.stem[-1], []).append((path.name, found))
    if not zips and not next(folder.glob("*.png"), None):
        raise InputError(f"{folder}: no masks in it, *-masks-[0-9a-f].zip or *.png were expected")
    return MaskFiles(folder, zips)


class _Zip:
    """An open zip and where its members are, in 32 bytes each: zipfile's own list takes 600."""

    def __init__(self, path: Path) -> None:
        import numpy

        try:
            self.file = ZipFile(path)
        except _ERRORS as error:
            if isinstance(error, OSError) and error.filename:
                raise
            raise InputError(f"{path}: damaged zip file ({error})") from None
        infos = self.file.filelist
        keys = numpy.fromiter((hash(info.filename) for info in infos), "i8", len(infos))
        rows = numpy.fromiter(map(_row, infos), _ROW, len(infos))
        order = numpy.argsort(keys, kind="stable")
        self.keys, self.rows = keys[order], rows[order]
        self.file.filelist, self.file.NameToInfo = [], {}

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a member, None where it is missing."""
        place = self.keys.searchsorted(hash(name))
        if place == len(self.keys) or self.keys[place] != hash(name):
            return None
        info = ZipInfo(name)
        info.header_offset, info.compress_size, info.file_size, *others = self.rows[place].tolist()
        info.CRC, info.compress_type, info.flag_bits = others
        if info.file_size > MAX_FILE_SIZE:
            raise BadZipFile(f"{name}: {info.file_size} bytes")
        with self.file.open(info) as stream:  # which checks the name and, at the end, the CRC
            return stream.read(MAX_FILE_SIZE)


def _row(info: ZipInfo) -> tuple[int, ...]:
    sizes = min(info.compress_size, _MOST), min(info.file_size, _MOST)
    return info.header_offset, *sizes, info.CRC, info.compress_type, info.flag_bits


@lru_cache(maxsize=64)  # a release has 48; a zip that was replaced has another version
def _open_zip(path: Path, version: Status) -> _Zip:
    return _Zip(path)


def make_mask(
    files: MaskFiles, image_id: str, name: str, size: tuple[int, int], fit: Fit, turn: int
) -> FoundMask:
    """Return the mask of this name in the frame of its finished image.

    `size` is that of the stored image, which the mask covers; `fit` and `turn` are what became of it. A pixel
    belongs to the object if at least half of its area does.
    """
    try:
        data = files.read(image_id, name)
        if data is None:
            return FoundMask("missing")
        whole = decode_mask(data)
    except _ERRORS:
        return FoundMask("unreadable")
    if not whole.getbbox():
        return FoundMask("empty")
    here, there = whole.width * size[1], whole.height * size[0]
    if abs(here - there) > MAX_DIFFERENCE * there:
        return FoundMask("other_shape")
    pixels = fit_mask(whole, fit, turn)
    return FoundMask("", encode_mask(pixels)) if pixels.any() else FoundMask("vanished")


def fit_mask(whole: Image, fit: Fit, turn: int) -> NDArray[numpy.uint8]:
    """Return a decoded mask as 0 and 1 in the frame of its finished image."""
    import numpy
    from PIL import Image

    image = whole.resize(fit.scaled if turn % 180 == 0 else fit.scaled[::-1], Image.Resampling.BOX)
    if turn:
        image = image.transpose(Image.Transpose[f"ROTATE_{turn}"])
    pixels = numpy.zeros(fit.canvas[::-1], numpy.uint8, order="F")  # as COCO's encoder expects them
    left, top = fit.offset
    pixels[top : top + image.height, left : left + image.width] = numpy.asarray(image) >= 128
    return pixels


def encode_mask(pixels: NDArray[numpy.uint8]) -> str:
    """Return COCO's run-length encoding of a mask."""
    from pycocotools import mask as coco_mask

    return str(coco_mask.encode(pixels)["counts"].decode())


def decode_mask(data: bytes) -> Image:
    """Return a PNG as 8-bit grey: 255 for each pixel that is neither black nor transparent, else 0."""
    import numpy
    from PIL import Image

    if len(data) > MAX_FILE_SIZE:
        raise ValueError(f"{len(data)} bytes")
    Image.MAX_IMAGE_PIXELS = None  # here is a limit of our own
    image: Image.Image = Image.open(io.BytesIO(data), formats=("PNG",))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels")
    image.load()
    if image.mode == "1":  # as in the releases
        return image.convert("L")
    if image.mode in ("P", "PA", "LA", "RGB", "RGBA"):
        colours = numpy.asarray(image.convert("RGBA"))
        is_object = colours[..., :3].any(axis=2) & (colours[..., 3] > 0)
    else:  # grey, of 8 or 16 bits
        is_object = numpy.asarray(image) > 0
    return Image.fromarray(is_object.astype(numpy.uint8) * 255)
