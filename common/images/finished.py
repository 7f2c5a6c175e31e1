"""Finished images of a folder: complete, and made from the same originals with the same settings.

process_settings.json in the folder holds the settings. The journal .process_finished has a line for each
image: size and time of its original, its turn, its own width, height and size, and the original's EXIF
orientation if that turns it. With these, a run over a finished folder opens no image. In place the original
is the finished image itself.

The journal .process_masks has a line for each image whose masks were asked for: a hash of all that they
depend on, and the masks. So masks may be asked for later, or made again, without making the images again.
"""

from __future__ import annotations

import io
import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Self

from common.cli import InputError
from common.files.folders import Status
from common.files.journal import Journal, read_journal
from common.files.places import folder_of, read_small, replace_file
from common.files.whole_files import read_lines
from common.images.masks import FoundMask, MaskFiles
from common.images.settings import Fit, ImageSettings
from common.openimages.ids import SETTINGS_NAME, image_file_name

JOURNAL_NAME = ".process_finished"
MASKS_NAME = ".process_masks"
TAKEN = -1
# Numbers of a line: size and time of the original, turn; width, height and size of the image; orientation.
_LINE = re.compile(
    r"([A-Za-z0-9._-]+) ([0-9]{1,9}) (-?[0-9]{1,20}) ([0-9]{1,3})"
    r"(?: ([0-9]{1,9}) ([0-9]{1,9}) ([0-9]{1,9})(?: ([2-8]))?)?"
)
_ROW = "u4, i8, u2, u4, u4, u4, u1"
_MASKS_LINE = re.compile(rb"([0-9a-f]{16}) (\[.*\])\n")


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """A line of the journal."""

    id: str
    original: Status | None  # the file it was made from; in place, the image itself
    turn: int  # degrees counterclockwise
    width: int  # pixels, without padding
    height: int
    size: int  # bytes
    orientation: int = 0  # EXIF's, of the file it was made from: from 2 on it turns the image

    def line(self) -> str:
        """Return the line, "" for an original that was missing when it was looked up."""
        if self.original is None:
            return ""
        numbers = (self.original.size, self.original.version, self.turn, self.width, self.height, self.size)
        turned = f" {self.orientation}" if self.orientation > 1 else ""
        return f"{self.id} {' '.join(map(str, numbers))}{turned}\n"

    def fit(self, settings: ImageSettings) -> Fit:
        """Return its sizes without and with padding."""
        scaled = (self.width, self.height)
        return Fit(scaled, (settings.max_side, settings.max_side) if settings.fit == "pad" else scaled)


def has_other_settings(folder: Path, settings: ImageSettings, *, overwrite: bool) -> bool:
    """Return whether a folder has other settings or none; InputError if it has and not `overwrite`."""
    path = folder / SETTINGS_NAME
    data, after = read_small(path), asdict(settings)
    if data is None:
        return True
    try:
        before = json.loads(data)
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{path}: not the settings of a folder of images; remove it to make them again")
    before = {"exif_upright": False} | before  # an older version's folder lacks it
    others = [name for name in before | after if before.get(name) != after.get(name)]
    if others and not overwrite:
        differences = ", ".join(f"{name} {before.get(name)}, not {after.get(name)}" for name in others)
        raise InputError(
            f"{path}: the images in this folder were made with {differences}; --overwrite makes them again"
        )
    return bool(others)


def replace_settings(folder: Path, settings: ImageSettings, *, keep_stale: bool = False) -> None:
    """Write a folder's settings; none of its images counts as finished any more.

    With `keep_stale` the images made with the settings before stay in the journal, with zeros for numbers.
    """
    lines = [f"{image_id} 0 0 0\n" for image_id, _ in read_finished(folder)] if keep_stale else []
    replace_file(folder / JOURNAL_NAME, "".join(lines).encode())
    folder_of(folder).remove(MASKS_NAME)
    text = json.dumps(settings.remembered(), indent=2) + "\n"
    replace_file(folder / SETTINGS_NAME, text.encode(), sync=True)


def read_finished(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield id and numbers of each line of a folder's journal.

    Lines of an earlier version end after the turn: the last numbers are 0, and the image is made again.
    """
    for journal in read_journal(folder / JOURNAL_NAME):
        for line, text in read_lines(journal):
            match = _LINE.fullmatch(text.rstrip("\n"))
            if not match:
                expected = "id, size, time, turn, width, height and size were expected"
                raise InputError(f"{journal}:{line}: {text.rstrip()[:80]!r}, {expected}")
            image_id, *numbers = match.groups("0")
            yield image_id, tuple(map(int, numbers))


class FinishedImages(Journal):
    """A locked folder's finished images, under 200 bytes of memory each, and the journal to add more to."""

    def __init__(self, folder: Path, settings: ImageSettings, *, overwrite: bool) -> None:
        import numpy

        super().__init__(folder / JOURNAL_NAME)
        if has_other_settings(folder, settings, overwrite=overwrite):
            replace_settings(folder, settings)
        self.folder = folder
        self.settings = settings
        self.status = folder_of(folder).statuses()  # of a file, by name
        self.row_of: dict[str, int] = {}  # by id; TAKEN once it was asked for
        self.rows = numpy.fromiter(self._read_rows(), _ROW)

    def _read_rows(self) -> Iterator[tuple[int, ...]]:
        for row, (image_id, (size, time, *others)) in enumerate(read_finished(self.folder)):
            self.row_of[image_id] = row
            yield size, time if abs(time) < 1 << 63 else 0, *others  # an image of after 2262 is made again

    def take(self, image_id: str, original: Status | None, turn: int) -> FinishedImage | None:
        """Return an image that is finished: made from this original with this turn. Mark it as TAKEN."""
        row = self.row_of.get(image_id)
        self.row_of[image_id] = TAKEN
        found = self.status(image_file_name(image_id, self.settings.format))
        if row is None or not original or not found or not found.size:
            return None
        size, version, turned, width, height, own_size, orientation = self.rows[row].tolist()
        if (size, version, turned, own_size) != (original.size, original.version, turn, found.size):
            return None
        return FinishedImage(image_id, original, turn, width, height, own_size, orientation)


class FinishedMasks(Journal):
    """Masks of a locked folder's images, 16 bytes of memory an image, and the journal to add more to."""

    def __init__(self, folder: Path, settings: ImageSettings, files: MaskFiles) -> None:
        super().__init__(folder / MASKS_NAME)
        self.settings = settings
        self.files = files
        self.stack = ExitStack()
        self.lines: BinaryIO = io.BytesIO()

    def __enter__(self) -> Self:
        import numpy

        for path in read_journal(self.path):
            self.lines = self.stack.enter_context(folder_of(path.parent).open(path.name))
        keys, offsets, offset = array("Q"), array("Q"), 0
        for line in self.lines:
            if match := _MASKS_LINE.fullmatch(line):
                keys.append(int(match[1], 16))
                offsets.append(offset)
            offset += len(line)
        order = numpy.argsort(keys)
        self.keys, self.offsets = numpy.asarray(keys)[order], numpy.asarray(offsets)[order]
        return super().__enter__()

    def _key(self, image: FinishedImage, names: tuple[str, ...]) -> str:
        """Return a hash of all that the masks of these names depend on."""
        canvas, versions = image.fit(self.settings).canvas, self.files.versions(image.id, names)
        everything = [image.line(), canvas, names, versions]
        return blake2b(json.dumps(everything).encode(), digest_size=8).hexdigest()

    def find(self, image: FinishedImage, names: tuple[str, ...]) -> tuple[FoundMask, ...] | None:
        """Return the masks of an image as an earlier run made them from the same files, or None."""
        key = int(self._key(image, names), 16)
        place = bisect_left(self.keys, key)
        if place == len(self.keys) or self.keys[place] != key:
            return None
        self.lines.seek(self.offsets[place])
        return tuple(FoundMask(*mask) for mask in json.loads(self.lines.readline()[17:]))

    def note(self, image: FinishedImage, names: tuple[str, ...], masks: tuple[FoundMask, ...]) -> None:
        """Add the masks of an image."""
        if names and image.original:
            self.add(f"{self._key(image, names)} {json.dumps(masks, separators=(',', ':'))}\n")

    def close(self) -> None:
        self.stack.close()
        super().close()
