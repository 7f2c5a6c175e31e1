"""The counts of a download, and what makes it fail: nothing comes, or more is lost than is allowed."""

from collections import Counter
from pathlib import Path

from common.cli import InputError
from common.download.fetch import IN_PASSING
from common.download.threads import Outcome
from common.files.failures import Failure, FailureLimit
from common.images import header

FIRST = 200  # photos; when all of them fail in passing, the fault is not theirs
REASONS = (
    "gone", "forbidden", "changed", "not_an_image", "too_large", "bad_url", "no_source",
    "rate_limited", "server_error", "timeout", "connection", "tls",
)  # fmt: skip
COUNTS = ("images", "downloaded", "already_there", "failed", *REASONS, "bytes")
SHRINKING = ("resized", "unchanged", "damaged_kept", *header.BAD_IMAGE_REASONS)


class Tally:
    """The counts of a download, those of shrinking among them where that is done."""

    def __init__(self, *, shrinking: bool) -> None:
        names = [*COUNTS[:-1], *SHRINKING, "bytes"] if shrinking else COUNTS
        self.counts = Counter(dict.fromkeys(names, 0))
        self.asked = 0
        self.first: list[Failure] = []  # the photos asked for first, as long as all failed in passing

    def add(self, outcome: Outcome) -> None:
        """Count what came of a photo asked for; InputError when the first ones all failed in passing."""
        failure = outcome.failure
        if failure and failure.reason in IN_PASSING and self.asked == len(self.first) < FIRST:
            self.first.append(failure)
        self.asked += 1
        if failure:
            self.add_failure(failure)
        else:
            self.counts.update(downloaded=1, bytes=outcome.size)
            if outcome.saved:
                self.counts[outcome.saved.how] += 1
        if self.asked == len(self.first) == FIRST:
            raise InputError(f"the first {FIRST} photos all failed, {self.cause()}")

    def add_failure(self, failure: Failure) -> None:
        """Count a photo that is not there."""
        self.counts.update(("failed", failure.reason))

    def short(self) -> str:
        """Return what stands beside the progress bar."""
        return f"{self.counts['bytes'] / 1e9:.2f} GB, {self.counts['failed']} failed"

    def cause(self) -> str:
        """Return the fault that most of the first photos have, by way of an example."""
        (reason, number), *_ = Counter(failure.reason for failure in self.first).most_common(1)
        one = next(failure for failure in self.first if failure.reason == reason)
        return f"{number} of them with {reason}: {one.detail} ({one.url})"

    def check_end(self, failures_path: Path, limit: FailureLimit | None) -> None:
        """Raise InputError where nothing is there, or more failed than the user allows."""
        images, failed = self.counts["images"], self.counts["failed"]
        if failed == images:
            why = f", {self.cause()}" if len(self.first) == failed else ""
            raise InputError(f"none of the {images} photos is there{why}; see {failures_path}")
        if limit:
            limit.check(failed, images)
