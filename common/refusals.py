"""Which source refused which photo for good, in earlier runs: not asked again, while other sources are.

A journal in the photos' folder, `.download_refused`: `key,reason,detail` a line, the key from id and address.
Photos that came but could not be shrunk are in it too; as that depends on what was asked, so do their keys.
"""

import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from common.bad_image import REASONS
from common.cli import InputError
from common.failures import Failure
from common.fetch import FOR_GOOD
from common.files import drop_cut_line, read_csv

NAME = ".download_refused"
FIELDS = 3
_REASONS = FOR_GOOD | {*REASONS}


class Refusals:
    """The refusals known so far; with `forget` none are, so that all sources are asked again.

    `asked` says what is asked of photos, "" where they are taken as they come.
    """

    def __init__(self, folder: Path, *, forget: bool, asked: str = "") -> None:
        self.path = folder / NAME
        self.forget = forget
        self.asked = asked
        self.known: dict[bytes, tuple[str, str]] = {}
        if not forget and self.path.exists():
            drop_cut_line(self.path)
            self._read()

    def _read(self) -> None:
        shared: dict[tuple[str, str], tuple[str, str]] = {}  # one copy of each text, however many photos
        for line, row in read_csv(self.path):
            try:
                key = bytes.fromhex(row[0])
                why = (row[1], row[2])
            except (ValueError, IndexError):
                why = ("", "")
            if why[0] not in _REASONS or len(row) != FIELDS:
                raise InputError(f"{self.path}:{line}: key, reason and detail of a refusal were expected")
            self.known[key] = shared.setdefault(why, why)

    def __enter__(self) -> Self:
        self.stream = open(self.path, "wb" if self.forget else "ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def find(self, image_id: str, url: str) -> Failure | None:
        """Return why this source refused this photo, None where it did not."""
        why = self.known.get(_key(image_id, url))
        return Failure(image_id, *why, url) if why else None

    def find_broken(self, image_id: str, url: str) -> Failure | None:
        """Return why the photo that this source has could not be used, None where it was not found so."""
        why = self.known.get(_key(image_id, url, self.asked)) if self.asked else None
        return Failure(image_id, *why, url) if why else None

    def add(self, refused: Iterable[Failure], broken: Failure | None = None) -> None:
        """Note sources that refused a photo, and one whose photo could not be used, in one write."""
        lines = io.StringIO()
        rows = csv.writer(lines, lineterminator="\n")
        keyed = [(_key(failure.id, failure.url), failure) for failure in refused]
        if broken:
            keyed.append((_key(broken.id, broken.url, self.asked), broken))
        for key, failure in keyed:
            detail = " ".join(failure.detail.replace("\0", " ").split())
            rows.writerow([key.hex(), failure.reason, detail])
        if text := lines.getvalue():
            self.stream.write(text.encode(errors="backslashreplace"))


def _key(image_id: str, url: str, asked: str = "") -> bytes:
    text = f"{image_id} {url} {asked}" if asked else f"{image_id} {url}"
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()
