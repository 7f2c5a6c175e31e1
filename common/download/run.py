"""A run of step 4: batches of images go out to the workers, whose threads download them; outcomes come back.

`threads` and `max_per_host` are totals: each batch has an equal share of them. In a batch the images wait by
host: a host has a limit of connections, and none while it asked for a pause. Images that have to wait, for a
pause or before another try, wait in the run and not in a batch, so a slow host delays no other; and so do
those that a batch did not get to in its time.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush

from common.download.connections import Connections, host_of
from common.download.outcomes import refusal_line
from common.download.request import get_image
from common.download.types import PERMANENT, Answer, Batch, Download, DownloadSettings, Fetched, Outcome
from common.files.failures import Failure
from common.files.places import read_small, replace_file, status
from common.images.finished import FinishedImage
from common.images.header import BadImageError
from common.images.process import process_bytes
from common.images.settings import ImageSettings
from common.openimages.ids import image_file_name
from common.workers.pool import Workers

FIRST = 4  # images a thread in the first batches
LARGEST = 2000  # images a batch
MOST_WAITING = 10_000  # images; with more waiting no new ones are begun
PATIENCE = 10.0  # seconds for an image; a slower one goes out again with others of its kind
BATCH_SECONDS = 2.0  # after which a batch begins no further image
LONGEST_BACKOFF = 30.0  # seconds
SAME_PAUSE = 0.5  # seconds by which two reports of one pause differ at most


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
            (self.slow if download.is_slow else found).append(download)
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


# --- in a worker -----------------------------------------------------------------------------------------

# Shrinking takes a core: there are as many processes as cores, and each shrinks one image at a time.
_shrinking = threading.Lock()

CLOSED = Answer(reason="rate_limited", detail="the host asks for a longer pause than --max_pause")
LATE = Answer(reason="timeout", detail="not complete within the deadline")

# What a process keeps from batch to batch of one run: its connections, and what it knows of hosts.
_kept: dict[tuple[str, int], tuple[Connections, defaultdict[str, Host]]] = {}


@dataclass(slots=True)
class Host:
    """One host (scheme, name and port): its limit, its pause, and the images of a batch that wait for it."""

    limit: int
    allowed: float  # connections now; after a pause 1, and one more a round until the limit
    active: int = 0
    asked_before: int = 0  # of those, the ones that began before the last pause
    paused_until: float = 0.0  # time.monotonic(); infinite where the host asked for too long a pause
    ready: deque[Download] = field(default_factory=deque)

    @property
    def is_closed(self) -> bool:
        return self.paused_until == float("inf")

    def may_start(self, now: float) -> bool:
        return self.is_closed or (self.active < int(self.allowed) and now >= self.paused_until)

    def done(self, *, well: bool) -> None:
        """Let the rate come back: one connection more after each round of good answers."""
        self.active -= 1
        if self.asked_before:
            self.asked_before -= 1
        elif well:
            self.allowed = min(self.limit, self.allowed + 1 / self.allowed)

    def pause(self, until: float) -> None:
        """Request nothing until then, and begin again with a single connection."""
        self.paused_until = max(self.paused_until, until)
        self.allowed = 1.0
        self.asked_before = self.active


def fetch_batch(batch: Batch, settings: DownloadSettings) -> Fetched:
    """Download the images of a batch: the function of a task."""
    work = BatchWork(batch, settings)
    pool = ThreadPoolExecutor(batch.threads, "images")
    try:
        threads = [pool.submit(work.serve) for _ in range(batch.threads)]
        for thread in wait(threads, return_when=FIRST_EXCEPTION).done:
            thread.result()
        return work.result()
    finally:
        work.is_over = True
        pool.shutdown(wait=False)
        if not batch.keeps_connections:
            work.connections.close()


class BatchWork:
    """The state of a batch that its threads share."""

    def __init__(self, batch: Batch, settings: DownloadSettings) -> None:
        key, most = (batch.run, batch.max_per_host), batch.max_per_host
        if key not in _kept:
            while _kept:
                _kept.popitem()[1][0].close()
            _kept[key] = Connections(most, settings.user_agent), defaultdict(partial(Host, most, most))
        self.connections, self.hosts = _kept[key]
        self.batch = batch
        self.settings = settings
        self.outcomes: list[Outcome] = []
        self.later: list[tuple[float, Download]] = []
        self.changed = threading.Condition()
        self.waiting: dict[str, Host] = {}  # those with images that are ready
        self.is_over = False
        now = time.monotonic()
        self.ends = now + BATCH_SECONDS
        for name, seconds in batch.pauses.items():
            if now + seconds > self.hosts[name].paused_until + SAME_PAUSE:
                self.hosts[name].pause(now + seconds)
        for download in batch.downloads:
            self.put(download)

    def result(self) -> Fetched:
        """Return what became of the images, with those that were not begun."""
        now = time.monotonic()
        for host in self.waiting.values():
            seconds = 0.0 if host.is_closed else max(0.0, host.paused_until - now)
            self.later.extend((seconds, download) for download in host.ready)
            host.ready.clear()
        pauses = {name: host.paused_until - now for name, host in self.hosts.items() if host.paused_until}
        return Fetched(self.outcomes, self.later, pauses)

    def put(self, download: Download) -> None:
        """Have an image requested from the source it is at, in this batch if its host may be asked."""
        name = host_of(download.sources[0].url)
        with self.changed:
            self.waiting[name] = self.hosts[name]
            self.hosts[name].ready.append(download)
            self.changed.notify()

    def take(self) -> tuple[Host, Download] | None:
        """Return the next image that may be requested, and its host; None when the batch begins no more."""
        with self.changed:
            while self.waiting and not self.is_over and (now := time.monotonic()) < self.ends:
                for name, host in self.waiting.items():
                    if host.may_start(now):
                        host.active += 1
                        download = host.ready.popleft()
                        del self.waiting[name]
                        if host.ready:
                            self.waiting[name] = host  # to the end: hosts take turns
                        return host, download
                if not any(host.active for host in self.hosts.values()):
                    break
                self.changed.wait(self.ends - now)
            self.changed.notify_all()
            return None

    def serve(self) -> None:
        """Download one image after another: the work of one thread."""
        while taken := self.take():
            host, download = taken
            left = self.settings.deadline - download.seconds
            seconds = left if download.is_slow else min(left, self.batch.patience)
            begun = time.monotonic()
            answer = CLOSED
            if not host.is_closed:
                answer = get_image(download.sources[0], seconds, self.connections, self.settings)
            spent = time.monotonic() - begun
            with self.changed:
                host.done(well=not answer.reason)
                self.changed.notify()
            if answer.reason and seconds <= spent < left:
                download.is_slow = True
                self.later.append((0.0, download))
            else:
                download.seconds += spent
                self.settle(download, LATE if answer.reason and spent >= seconds else answer)

    def settle(self, download: Download, answer: Answer) -> None:
        """Save an image, or have it requested again or from the next source, or give up."""
        source, shrink, asks_next = download.sources[0], None, True
        if not answer.reason:
            try:
                self.outcomes.append(self.save(download, answer.data))
                return
            except BadImageError as bad:
                answer = Answer(reason=bad.reason, detail=bad.detail)
                # Step 5 would leave this image out: another source is asked only to replace a bad file.
                shrink, asks_next = self.settings.shrink, download.bad is not None
        failure = Failure(download.id, answer.reason, f"{source.name}: {answer.detail}", source.url)
        if answer.reason in PERMANENT:
            download.refused += refusal_line(failure, shrink)
            if asks_next and len(download.sources) > 1:
                download.sources, download.tries = download.sources[1:], 0
                self.put(download)
                return
            if asks_next:
                failure = download.refusal or failure
        else:
            longest = min(self.settings.backoff * 2**download.tries, LONGEST_BACKOFF)
            delay = longest * random.uniform(0.5, 1.5)  # noqa: S311  # so that few come at once
            download.tries += 1
            if answer.busy:  # it waits for the pause of its hosts
                self.pause(answer, delay)
                delay = 0.0
            left = self.settings.deadline - download.seconds
            if answer.retry and download.tries <= self.settings.retries and delay < left:
                download.seconds += delay
                if delay:
                    self.later.append((delay, download))
                else:
                    self.put(download)
                return
        self.outcomes.append(Outcome(download.id, 0, failure, download.refused))

    def save(self, download: Download, data: bytes) -> Outcome:
        """Write an image, shrunk if that is asked for: then its original is never on disk.

        Raises BadImageError for an image that is unusable, or no better than the bad file it would replace.
        """
        bad, shrink, made, how, line = download.bad, self.settings.shrink, data, "", ""
        path = self.settings.folder / (bad.name if bad else image_file_name(download.id))
        if shrink or bad:
            with _shrinking:
                made, done = process_bytes(data, shrink or ImageSettings())
        # By --min_side of step 5, which is not known here.
        if bad and bad.reason == "too_small" and data == read_small(path):
            raise BadImageError("too_small", "the file that it would replace")
        replace_file(path, made if shrink else data)
        if shrink:
            size = (*done.fit.scaled, len(made))
            how, line = done.how, FinishedImage(download.id, status(path), 0, *size, done.orientation).line()
        return Outcome(download.id, len(data), None, download.refused, how, line)

    def pause(self, answer: Answer, delay: float) -> None:
        """Pause the hosts that are busy, for as long as they ask, or else for our own delay."""
        seconds = delay if answer.wait is None else answer.wait
        if answer.wait is not None and seconds > self.settings.max_pause:
            seconds = float("inf")
        with self.changed:
            for name in answer.busy:
                self.hosts[name].pause(time.monotonic() + seconds)
            self.changed.notify_all()
