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

from common.cli import InputError
from common.download.fetch import FOR_GOOD
from common.files.csv_files import read_csv
from common.files.failures import Failure
from common.files.journal import Journal, read_journal
from common.images.header import BAD_IMAGE_REASONS

NAME = ".download_refused"
FIELDS = 3
_REASONS = FOR_GOOD | {*BAD_IMAGE_REASONS}


class Refusals:
    """The refusals known so far; with `forget` none are, so that all sources are asked again.

    `asked` says what is asked of photos, "" where they are taken as they come.
    """

    def __init__(self, folder: Path, *, forget: bool, asked: str = "") -> None:
        self.journal = Journal(folder / NAME)
        self.forget = forget
        self.asked = asked
        self.known: dict[bytes, tuple[str, str]] = {}
        if not forget:
            for file in read_journal(self.journal.path):
                self._read(file)

    def _read(self, file: Path) -> None:
        shared: dict[tuple[str, str], tuple[str, str]] = {}  # one copy of each text, however many photos
        for line, row in read_csv(file):
            try:
                key = bytes.fromhex(row[0])
                why = (row[1], row[2])
            except (ValueError, IndexError):
                why = ("", "")
            if why[0] not in _REASONS or len(row) != FIELDS:
                raise InputError(f"{file}:{line}: key, reason and detail of a refusal were expected")
            self.known[key] = shared.setdefault(why, why)

    def __enter__(self) -> Self:
        if self.forget:
            self.journal.drop()
        self.journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)

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
        self.journal.add(lines.getvalue())


def _key(image_id: str, url: str, asked: str = "") -> bytes:
    text = f"{image_id} {url} {asked}" if asked else f"{image_id} {url}"
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()
