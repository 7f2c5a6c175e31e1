"""The types that step 4's modules pass to each other, and to its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.files.failures import Failure
from common.images.header import BAD_IMAGE_REASONS
from common.images.settings import ImageSettings

# Why an image is missing, as counted. Another run asks again after a transient failure alone.
REFUSALS = ("gone", "forbidden", "changed", "not_an_image", "too_large", "bad_url", "no_source")
PERMANENT = frozenset(REFUSALS + BAD_IMAGE_REASONS)
TRANSIENT = ("rate_limited", "server_error", "web_page", "timeout", "connection", "tls")


class ImageSource(NamedTuple):
    """One address of an image, and what the index knows of the bytes there."""

    name: str  # mirror, original or thumbnail
    url: str
    size: int | None = None  # bytes
    md5: str | None = None  # base64


class BadFile(NamedTuple):
    """A file to be replaced, which may be missing, and why a list of failures has it."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """Settings of a download; times in seconds. With `shrink` images are shrunk as they arrive."""

    folder: Path
    threads: int  # in all
    max_per_host: int  # connections, in all
    deadline: float
    retries: int
    backoff: float
    max_pause: float
    max_bytes: int
    user_agent: str
    ignore_robots_tag: bool
    shrink: ImageSettings | None = None


@dataclass(slots=True)
class Download:
    """An image to download: its sources, of which the first is asked next, and what became of it so far."""

    id: str
    sources: list[ImageSource]
    refusal: Failure | None = None  # by a source after these, in an earlier run
    bad: BadFile | None = None  # replaced by a usable image alone
    tries: int = 0  # at the first source
    seconds: float = 0.0  # taken so far, of the deadline
    refused: str = ""  # lines of the journal of refusals
    is_slow: bool = False  # it took longer than a batch of others waits for one image


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one attempt: `data`, or the reason why there are none."""

    data: bytes = b""
    reason: str = ""
    detail: str = ""
    retry: bool = False
    busy: frozenset[str] = frozenset()  # hosts that have too much to do (429 or 503), by host_of
    wait: float | None = None  # seconds, by their Retry-After


class Outcome(NamedTuple):
    """The end of an image's download: the bytes received and how they were saved, or a failure."""

    id: str
    size: int = 0
    failure: Failure | None = None
    refused: str = ""  # lines of the journal of refusals
    how: str = ""  # it was shrunk: a key of step 5's counts
    line: str = ""  # of the journal of finished images


@dataclass(frozen=True, slots=True)
class Batch:
    """The images of one task, with its share of the threads and of the connections to a host."""

    run: str  # a name of its own for each run
    downloads: list[Download]
    threads: int
    max_per_host: int
    patience: float  # seconds for an image that is not slow
    pauses: dict[str, float]  # seconds left by host; below 0 for one that is over, infinite for a closed host
    keeps_connections: bool  # for the next batch in the same process


@dataclass(frozen=True, slots=True)
class Fetched:
    """Results of a batch: outcomes, and the images that come back to be sent again after some seconds."""

    outcomes: list[Outcome]
    later: list[tuple[float, Download]]
    pauses: dict[str, float]  # as in Batch
