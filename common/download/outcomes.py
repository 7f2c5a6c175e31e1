"""Counts of a download, the limits that make it fail, and the permanent refusals of sources."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from common.cli import InputError
from common.download.types import PERMANENT, TRANSIENT, Outcome
from common.files.csv_files import read_csv
from common.files.failures import Failure, FailureLimit
from common.files.journal import Journal, read_journal
from common.images.header import BAD_IMAGE_REASONS
from common.images.settings import ImageSettings

FIRST = 200  # images; when all of them fail transiently, the fault is not theirs
COUNTS = (
    "images", "downloaded", "already_there", "failed",
    "gone", "forbidden", "changed", "not_an_image", "too_large", "bad_url", "no_source",
    "rate_limited", "server_error", "timeout", "connection", "tls",
)  # fmt: skip
SHRINKING = ("resized", "unchanged", "damaged_kept", *BAD_IMAGE_REASONS)
REFUSED_NAME = ".download_refused"


class Tally:
    """The counts of a download, with those of shrinking if that is done."""

    def __init__(self, *, shrinking: bool) -> None:
        names = [*COUNTS, *(SHRINKING if shrinking else ()), "bytes"]
        self.counts = Counter(dict.fromkeys(names, 0))
        self.requested = 0
        self.first: list[Failure] = []  # the first images, as long as all of them failed transiently

    def add(self, outcome: Outcome) -> None:
        """Count an outcome; InputError when the first images all failed transiently."""
        failure = outcome.failure
        if failure and failure.reason in TRANSIENT and self.requested == len(self.first) < FIRST:
            self.first.append(failure)
        self.requested += 1
        if failure:
            self.counts.update(("failed", failure.reason))
        else:
            self.counts.update(downloaded=1, bytes=outcome.size)
            if outcome.how:
                self.counts[outcome.how] += 1
        if self.requested == len(self.first) == FIRST:
            raise InputError(f"the first {FIRST} images all failed, {self.cause()}")

    def cause(self) -> str:
        """Return the fault that most of the first images have, with an example."""
        (reason, number), *_ = Counter(failure.reason for failure in self.first).most_common(1)
        one = next(failure for failure in self.first if failure.reason == reason)
        return f"{number} of them with {reason}: {one.detail} ({one.url})"

    def check_end(self, failures_path: Path, limit: FailureLimit | None) -> None:
        """Raise InputError where no image exists, or more failed than the user allows."""
        images, failed = self.counts["images"], self.counts["failed"]
        if failed == images:
            why = f", {self.cause()}" if len(self.first) == failed else ""
            raise InputError(f"none of the {images} images was downloaded{why}; see {failures_path}")
        if limit:
            limit.check(failed, images)


class Refusals(Journal):
    """The sources that refused an image permanently, in this run and earlier ones: they are not asked again.

    A journal in the folder of images: `key,reason,detail` a line, the key a hash of the image's id and the
    address. Images that were received but could not be shrunk are in it too, with the settings of shrinking
    in their keys, as the folder's settings file has them. With `forget` nothing is known.
    """

    def __init__(self, folder: Path, *, forget: bool, shrink: ImageSettings | None) -> None:
        super().__init__(folder / REFUSED_NAME)
        self.shrinking = json.dumps(asdict(shrink)) if shrink else ""
        self.known: dict[bytes, tuple[str, str]] = {}
        shared: dict[tuple[str, str], tuple[str, str]] = {}  # one copy of each text for all images
        for file in read_journal(self.path) if not forget else []:
            for line, row in read_csv(file):
                try:
                    key, why = bytes.fromhex(row[0]), (row[1], row[2])
                except (ValueError, IndexError):
                    key, why = b"", ("", "")
                if why[0] not in PERMANENT.union(BAD_IMAGE_REASONS) or len(row) != 3:
                    raise InputError(f"{file}:{line}: key, reason and detail of a refusal were expected")
                self.known[key] = shared.setdefault(why, why)

    def find(self, image_id: str, url: str) -> Failure | None:
        """Return why a source refused an image, None where it did not."""
        why = self.known.get(_key(image_id, url))
        return Failure(image_id, *why, url) if why else None

    def find_broken(self, image_id: str, url: str) -> Failure | None:
        """Return why an image from this source could not be shrunk, None where that is not known."""
        why = self.known.get(_key(image_id, url, self.shrinking)) if self.shrinking else None
        return Failure(image_id, *why, url) if why else None

    def note(self, outcome: Outcome) -> None:
        """Write down the sources that refused an image, and the one whose image could not be shrunk."""
        keyed = [(_key(failure.id, failure.url), failure) for failure in outcome.refused]
        if outcome.is_broken and (broken := outcome.failure):
            keyed.append((_key(broken.id, broken.url, self.shrinking), broken))
        lines = io.StringIO()
        rows = csv.writer(lines, lineterminator="\n")
        for key, failure in keyed:
            detail = " ".join(failure.detail.replace("\0", " ").split())
            rows.writerow([key.hex(), failure.reason, detail])
        self.add(lines.getvalue())


def _key(image_id: str, url: str, *more: str) -> bytes:
    text = " ".join((image_id, url, *more))
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()
