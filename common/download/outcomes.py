"""Counts of a download, the limits that make it fail, and the permanent refusals of sources."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from functools import cache
from operator import attrgetter
from pathlib import Path

from common.cli import InputError, print_counts, say
from common.download.types import PERMANENT, REFUSALS, TRANSIENT, Outcome
from common.files.csv_files import csv_line, read_csv
from common.files.failures import Failure, FailureLimit
from common.files.journal import Journal, read_journal
from common.images.header import BAD_IMAGE_REASONS
from common.images.settings import ImageSettings
from common.openimages.funnel import DOWNLOAD_NAME, Stage, lost_of, write_stages

FIRST = 200  # images; when all of them fail transiently, the fault is not theirs
COUNTS = ("images", "downloaded", "already_there", "failed", *REFUSALS, *TRANSIENT)
SHRINKING = ("resized", "unchanged", "damaged_kept", *BAD_IMAGE_REASONS)
UNREACHABLE = frozenset({"web_page", "timeout", "connection", "tls"})  # a host may fail so for all images
MAX_SHOWN = 200  # characters of a detail or an address in a message
REFUSED_NAME = ".download_refused"


class Tally:
    """The counts of a download, with those of shrinking if that is done, and an example of each failure."""

    def __init__(self, images: int, already_there: int, *, shrinking: bool) -> None:
        names = [*COUNTS, *(SHRINKING if shrinking else ()), "bytes"]
        self.counts = Counter(dict.fromkeys(names, 0) | {"images": images, "already_there": already_there})
        self.examples: dict[str, Failure] = {}  # by reason
        self.requested = 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome; InputError when the first images all failed transiently."""
        if outcome.failure:
            self.add_failure(outcome.failure)
        else:
            self.counts.update(downloaded=1, bytes=outcome.size)
            if outcome.how:
                self.counts[outcome.how] += 1
        self.requested += 1
        if self.requested == FIRST == sum(self.counts[reason] for reason in TRANSIENT):
            raise InputError(f"the first {FIRST} images all failed, {self.cause(TRANSIENT)}")

    def add_failure(self, failure: Failure) -> None:
        self.counts.update(("failed", failure.reason))
        example = self.examples.get(failure.reason, failure)
        self.examples[failure.reason] = min(example, failure, key=attrgetter("id"))

    def cause(self, reasons: Collection[str]) -> str:
        """Return the commonest of these reasons, with an example and what tries such images again."""
        reason = max((name for name in self.counts if name in reasons), key=self.counts.__getitem__)
        one = self.examples[reason]
        text = f"{self.counts[reason]} of them with {reason}, such as {one.id}: {one.detail[:MAX_SHOWN]}"
        text += f" ({one.url[:MAX_SHOWN]})" if one.url else ""
        return "".join(letter if letter.isprintable() else "?" for letter in text) + f"; {_remedy(one)}"

    def finish(self, folder: Path, failures_path: Path, limit: FailureLimit | None) -> None:
        """Print the counts, leave them in the folder, and report the commonest failure.

        InputError where no image exists, or more failed than allowed.
        """
        images, failed = self.counts["images"], self.counts["failed"]
        lost = lost_of(self.counts, (*REFUSALS, *TRANSIENT, *BAD_IMAGE_REASONS))
        write_stages(folder / DOWNLOAD_NAME, [Stage(4, "downloaded", images, images - failed, lost)])
        went_out = ["downloaded", "already_there"]
        print_counts(self.counts, came_in=["images"], went_out=went_out, lost=[*lost], line_only=["failed"])
        if not failed:
            return
        why = f"{self.cause(self.examples)}; see {failures_path}"
        if failed == images:
            raise InputError(f"none of the {images} images was downloaded, {why}")
        if limit:
            limit.check(failed, images, f"; {why}")
        say(f"{failed} of {images} images failed, {why}")


def _remedy(failure: Failure) -> str:
    """Return what the user can do about a failure and others with its reason."""
    if failure.reason == "no_source":
        return "--image_source may name more sources"
    if failure.reason not in TRANSIENT:
        return "--retry_failed requests these again"
    remedy = "run the same command again to retry these"
    if failure.reason == "web_page":
        remedy = f"sign in to the network if it asks for that, and {remedy}"
    if failure.reason in UNREACHABLE and failure.detail.startswith("mirror: "):
        remedy += "; if the mirror cannot be reached from here, use --mirror_url or --image_source original"
    return remedy


class Refusals(Journal):
    """The sources that refused an image permanently, in this run and earlier ones: they are not asked again.

    A journal in the folder of images: `key,reason,detail` a line, the key a hash of the image's id and the
    address. Sources that sent an unusable image are in it too; with --max_side their keys contain the
    settings, as the folder's settings file has them. With `forget` nothing is known.
    """

    def __init__(self, folder: Path, *, forget: bool, shrink: ImageSettings | None) -> None:
        super().__init__(folder / REFUSED_NAME)
        self.shrink = shrink
        self.known: dict[bytes, tuple[str, str]] = {}
        shared: dict[tuple[str, str], tuple[str, str]] = {}  # one copy of each text for all images
        for file in read_journal(self.path) if not forget else []:
            for line, row in read_csv(file):
                try:
                    key, why = bytes.fromhex(row[0]), (row[1], row[2])
                except (ValueError, IndexError):
                    key, why = b"", ("", "")
                if why[0] not in PERMANENT or len(row) != 3:
                    raise InputError(f"{file}:{line}: key, reason and detail of a refusal were expected")
                self.known[key] = shared.setdefault(why, why)

    def find(self, image_id: str, url: str, shrink: ImageSettings | None = None) -> Failure | None:
        """Return why a source refused an image or, with `shrink`, why its image could not be shrunk so."""
        why = self.known.get(_key(image_id, url, shrink))
        return Failure(image_id, *why, url) if why else None


def refusal_line(failure: Failure, shrink: ImageSettings | None) -> str:
    """Return the journal's line for a source that refused an image or, with `shrink`, one unusable so."""
    return csv_line([_key(failure.id, failure.url, shrink).hex(), failure.reason, failure.detail])


def _key(image_id: str, url: str, shrink: ImageSettings | None) -> bytes:
    text = " ".join([image_id, url, *([_remembered(shrink)] if shrink else [])])
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()


@cache
def _remembered(shrink: ImageSettings) -> str:
    return json.dumps(shrink.remembered())
