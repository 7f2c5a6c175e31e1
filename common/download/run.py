"""A run of step 4: batches of images go out to the workers, outcomes come back.

`threads` and `max_per_host` are totals: each batch has an equal share of them. Images that have to wait, for
a pause that a host asked for or before another try, wait here and not in a batch, so a slow host delays no
other.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from heapq import heappop, heappush

from common.download.batch import fetch_batch
from common.download.types import Batch, Download, DownloadSettings, Fetched, Outcome
from common.workers.pool import Workers

FIRST = 4  # images a thread in the first batches
LARGEST = 2000  # images a batch
MOST_WAITING = 10_000  # images; with more waiting no new ones are begun
PATIENCE = 10.0  # seconds for an image; a slower one goes out again with others of its kind


def download(
    images: Iterator[Download], number: int, settings: DownloadSettings, workers: Workers
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each of at most `number` images, in no order; closing it ends all work."""
    run = _Run(images, number, settings, workers)
    most = min(settings.threads, settings.max_per_host)
    work = partial(fetch_batch, settings=settings)
    with closing(workers.map(work, run.batches(), ordered=False, spawn=True, most=most)) as results:
        for fetched in results:
            run.take_back(fetched)
            yield from fetched.outcomes


class _Run:
    """State of a run: the shares given out, the paused hosts, the waiting images."""

    def __init__(
        self, images: Iterator[Download], number: int, settings: DownloadSettings, workers: Workers
    ) -> None:
        self.name = secrets.token_hex(8)
        self.images = images
        self.number = number  # without an outcome yet, at most
        self.settings = settings
        self.workers = workers
        self.parts = self.batches_out = 0
        self.size = 0  # images of the next batch
        self.patience = PATIENCE
        self.pauses: dict[str, float] = {}  # until when, by time.monotonic(); infinite for a closed host
        self.waiting: list[tuple[float, str, Download]] = []  # a heap, by when they are due, and by id
        self.slow: deque[Download] = deque()
        self.has_more = True

    def batches(self) -> Iterator[Batch | None]:
        """Yield the tasks, None where there is none for the moment."""
        while self.has_more or self.waiting or self.slow or self.batches_out:
            yield self.next_batch()

    def next_batch(self) -> Batch | None:
        total_threads, total_connections = self.settings.threads, self.settings.max_per_host
        parts = max(1, min(self.workers.slots, total_threads, total_connections))
        # A process of this machine runs one batch at a time: a second one may wait for it.
        most_out = 2 * parts if self.workers.on_this_machine else parts
        if self.batches_out >= most_out or (self.batches_out and parts != self.parts):
            return None  # when workers join or leave, shares change once all batches are back
        self.parts = parts
        threads = total_threads // parts
        # Small ones at first, to see how many take their time, and at last, so that all end together.
        most = max(threads, min(self.size or FIRST * threads, self.number // (2 * parts)))
        downloads = self.ready(most) if len(self.slow) < threads else []
        if not downloads:
            downloads = [self.slow.popleft() for _ in range(min(most, len(self.slow)))]
        if not downloads:
            return None
        self.batches_out += 1
        now = time.monotonic()
        pauses = {host: until - now for host, until in self.pauses.items()}
        keeps_connections = self.workers.on_this_machine or self.workers.slots == parts
        share = total_connections // parts
        return Batch(self.name, downloads, threads, share, self.patience, pauses, keeps_connections)

    def ready(self, most: int) -> list[Download]:
        """Return images that need not wait: those that are due, then new ones."""
        found: list[Download] = []
        now = time.monotonic()
        while len(found) < most:
            if self.waiting and self.waiting[0][0] <= now:
                download = heappop(self.waiting)[2]
            elif len(self.waiting) >= MOST_WAITING:
                break
            elif new := next(self.images, None):
                download = new
            else:
                self.has_more = False
                break
            if download.is_slow:
                self.slow.append(download)
            else:
                found.append(download)
        return found

    def take_back(self, fetched: Fetched) -> None:
        """Take back the images that have to wait, and choose the size of the next batch."""
        self.batches_out -= 1
        self.number -= len(fetched.outcomes)
        now = time.monotonic()
        for host, seconds in fetched.pauses.items():
            self.pauses[host] = max(self.pauses.get(host, 0.0), now + seconds)
        for seconds, download in fetched.later:
            heappush(self.waiting, (now + seconds, download.id, download))
        at_once = [download.is_slow for seconds, download in fetched.later if not seconds]
        done, slow = len(fetched.outcomes), sum(at_once)
        self.size = max(1, done) if len(at_once) > slow else max(self.size, min(2 * done, LARGEST))
        if slow > done:  # the way to the internet is slow, not single images
            self.patience *= 2
