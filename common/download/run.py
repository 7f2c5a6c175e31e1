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
from itertools import count

from common.download.batch import fetch_batch
from common.download.sources import host_of
from common.download.types import Batch, Download, DownloadSettings, Fetched, Outcome, WantedImage
from common.workers.window import Workers

FIRST = 4  # images a thread in the first batches
LARGEST = 2000  # images a batch
MOST_WAITING = 10_000  # images; with more waiting no new ones are begun
PATIENCE = 10.0  # seconds for an image; a slower one goes out again with others of its kind


def download(
    images: Iterator[WantedImage], number: int, settings: DownloadSettings, workers: Workers
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each of at most `number` images, in no particular order.

    Closing the generator ends all work.
    """
    run = _Run(images, number, settings, workers)
    most = min(settings.threads, settings.request.max_per_host)
    work = partial(fetch_batch, settings=settings)
    with closing(workers.map(work, run.batches(), ordered=False, spawn=True, most=most)) as results:
        for fetched in results:
            run.take_back(fetched)
            yield from fetched.outcomes


class _Run:
    """What is under way: the shares given out, the hosts that are paused, the images that wait."""

    def __init__(
        self, images: Iterator[WantedImage], number: int, settings: DownloadSettings, workers: Workers
    ) -> None:
        self.name = secrets.token_hex(8)
        self.images = images
        self.number = number  # without an outcome yet, at most
        self.settings = settings
        self.workers = workers
        self.batches_out = self.threads_out = self.connections_out = 0
        self.size = 0  # images of the next batch
        self.patience = PATIENCE
        self.pauses: dict[str, float] = {}  # until when, by time.monotonic(); infinite for a closed host
        self.waiting: list[tuple[float, int, Download]] = []  # a heap, by when they are due
        self.slow: deque[Download] = deque()
        self.order = count()
        self.has_more = True

    def batches(self) -> Iterator[Batch | None]:
        """Yield the tasks, None where there is none for the moment."""
        while self.has_more or self.waiting or self.slow or self.batches_out:
            yield self.next_batch()

    def next_batch(self) -> Batch | None:
        settings = self.settings
        parts = min(self.workers.slots, settings.threads, settings.request.max_per_host)
        threads, connections = settings.threads // parts, settings.request.max_per_host // parts
        # A process of this machine runs one batch at a time: a second one may wait for it.
        times = 2 if self.workers.on_this_machine else 1
        if (
            self.threads_out + threads > times * settings.threads
            or self.connections_out + connections > times * settings.request.max_per_host
        ):
            return None
        self.size = self.size or FIRST * threads
        most = max(threads, min(self.size, self.number // (2 * parts)))  # so all end at about the same time
        downloads = self.ready(most) if len(self.slow) < threads else []
        while self.slow and len(downloads) < most and (not downloads or downloads[-1].is_slow):
            downloads.append(self.slow.popleft())
        if not downloads:
            return None
        self.batches_out += 1
        self.threads_out += threads
        self.connections_out += connections
        now = time.monotonic()
        pauses = {host: until - now for host, until in self.pauses.items()}
        keeps_connections = self.workers.on_this_machine or self.workers.slots == parts
        return Batch(self.name, downloads, threads, connections, self.patience, pauses, keeps_connections)

    def ready(self, most: int) -> list[Download]:
        """Return images that need not wait: those that are due, then new ones."""
        found: list[Download] = []
        now = time.monotonic()
        while len(found) < most and self.waiting and self.waiting[0][0] <= now:
            self.put(heappop(self.waiting)[2], now, found)
        while len(found) < most and self.has_more and len(self.waiting) < MOST_WAITING:
            if image := next(self.images, None):
                self.put(Download(image, self.settings.deadline), now, found)
            else:
                self.has_more = False
        return found

    def put(self, download: Download, now: float, found: list[Download]) -> None:
        """Add an image to those found ready, to the slow ones, or to those that wait for their host."""
        until = self.pauses.get(host_of(download.source.url), 0.0) if self.pauses else 0.0
        if now < until < float("inf"):
            heappush(self.waiting, (until, next(self.order), download))
        elif download.is_slow:
            self.slow.append(download)
        else:
            found.append(download)

    def take_back(self, fetched: Fetched) -> None:
        """Take back a batch's shares and the images that have to wait; make the next batch last as long."""
        self.batches_out -= 1
        self.threads_out -= fetched.threads
        self.connections_out -= fetched.max_per_host
        self.number -= len(fetched.outcomes)
        now = time.monotonic()
        for host, seconds in fetched.pauses.items():
            self.pauses[host] = max(self.pauses.get(host, 0.0), now + seconds)
        for seconds, download in fetched.later:
            heappush(self.waiting, (now + seconds, next(self.order), download))
        at_once = [download.is_slow for seconds, download in fetched.later if not seconds]
        slow = sum(at_once)
        done = len(fetched.outcomes)
        self.size = (
            max(fetched.threads, done) if len(at_once) > slow else max(self.size, min(2 * done, LARGEST))
        )
        if slow > done:  # the way to the internet is slow, not single images
            self.patience *= 2
