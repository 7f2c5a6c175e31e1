"""One batch of images, downloaded by the threads of one task.

The images of a batch wait by host: a host has a limit of connections, and none while it asked for a pause. An
image that has to wait for time to pass, for a pause or before another try, comes back to the run, and so do
those that a batch did not get to in its time.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from common.download.request import Requester
from common.download.sources import host_of
from common.download.types import (
    PERMANENT,
    Answer,
    Batch,
    Download,
    DownloadSettings,
    Fetched,
    Outcome,
    Saved,
)
from common.files.failures import Failure
from common.files.storage import status
from common.files.whole_files import replace_file
from common.images.finished import FinishedImage
from common.images.header import BadImageError
from common.images.process import process_bytes
from common.openimages.ids import image_file_name

BATCH_SECONDS = 2.0  # after which a batch begins no further image
LONGEST_BACKOFF = 30.0  # seconds
SAME_PAUSE = 0.5  # seconds by which two reports of one pause differ at most
# A thread that waits for the interpreter asks for it this often, in seconds. With Python's 5 ms, 16 waiting
# threads take a twentieth of the CPU; none of them holds it for long.
SWITCH_SECONDS = 0.1

# Shrinking takes a core: there are as many processes as cores, and each shrinks one image at a time.
_shrinking = threading.Lock()


@dataclass(slots=True)
class Host:
    """One host (scheme, name and port): its limit, its pause, and the images of a batch that wait for it."""

    limit: int
    allowed: float  # connections now; after a pause 1, and one more a round until the limit
    ready: deque[Download]
    active: int = 0
    asked_before: int = 0  # of those, the ones that began before the last pause
    paused_until: float = (
        0.0  # time.monotonic(); infinite for a host that asked for a longer pause than we wait
    )

    @property
    def is_closed(self) -> bool:
        return self.paused_until == float("inf")

    def may_start(self) -> bool:
        return self.active < int(self.allowed) or self.is_closed

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


class Process:
    """What a process keeps from batch to batch of a run: its connections, and what it knows of hosts."""

    def __init__(self, batch: Batch, settings: DownloadSettings) -> None:
        self.key = batch.run, batch.max_per_host
        self.requester = Requester(replace(settings.request, max_per_host=batch.max_per_host))
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        limit = self.requester.settings.max_per_host
        return self.hosts.setdefault(name, Host(limit, limit, deque()))


_kept: list[Process] = []  # one at most


def fetch_batch(batch: Batch, settings: DownloadSettings) -> Fetched:
    """Download the images of a batch: the function of a task."""
    if not _kept or _kept[0].key != (batch.run, batch.max_per_host):
        while _kept:
            _kept.pop().requester.adapter.close()
        _kept.append(Process(batch, settings))
    switch_seconds = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    work = BatchWork(_kept[0], batch, settings)
    pool = ThreadPoolExecutor(batch.threads, "images")
    try:
        threads = [pool.submit(work.serve) for _ in range(batch.threads)]
        for thread in wait(threads, return_when=FIRST_EXCEPTION).done:
            thread.result()
        return work.result()
    finally:
        work.is_over = True
        pool.shutdown(wait=False)
        sys.setswitchinterval(switch_seconds)
        if not batch.keeps_connections:
            work.process.requester.adapter.close()


class BatchWork:
    """The state of a batch that its threads share."""

    def __init__(self, process: Process, batch: Batch, settings: DownloadSettings) -> None:
        self.process = process
        self.batch = batch
        self.settings = settings
        self.outcomes: list[Outcome] = []
        self.later: list[tuple[float, Download]] = []
        self.pauses: dict[str, float] = {}
        self.changed = threading.Condition()
        self.waiting: dict[str, Host] = {}  # those with images that are ready
        self.is_over = False
        now = time.monotonic()
        self.ends = now + BATCH_SECONDS
        for host in process.hosts.values():
            host.ready.clear()
            host.active = host.asked_before = 0
        for name, seconds in batch.pauses.items():
            if now + seconds > process.host(name).paused_until + SAME_PAUSE:
                process.host(name).pause(now + seconds)
        for download in batch.downloads:
            self.put(download)

    def result(self) -> Fetched:
        now = time.monotonic()
        rest = [(0.0, download) for host in self.waiting.values() for download in host.ready]
        pauses = {name: until - now for name, until in self.pauses.items()}
        return Fetched(self.outcomes, self.later + rest, pauses, self.batch.threads, self.batch.max_per_host)

    # --- which image is next ---------------------------------------------------------------------

    def put(self, download: Download) -> None:
        """Have an image requested from the source it is at, in this batch unless its host is paused."""
        name = host_of(download.source.url)
        with self.changed:
            host = self.process.host(name)
            seconds = host.paused_until - time.monotonic()
            if 0 < seconds < float("inf"):
                self.later.append((seconds, download))
            else:
                host.ready.append(download)
                self.waiting[name] = host
                self.changed.notify()

    def take(self) -> tuple[Host, Download] | None:
        """Return the next image that may be requested, and its host; None when the batch begins no more."""
        with self.changed:
            while self.waiting and not self.is_over and (left := self.ends - time.monotonic()) > 0:
                for name, host in self.waiting.items():
                    if host.may_start():
                        download = host.ready.popleft()
                        host.active += 1
                        del self.waiting[name]
                        if host.ready:
                            self.waiting[name] = host  # to the end: hosts take turns
                        elif not self.waiting:
                            self.changed.notify_all()
                        return host, download
                self.changed.wait(left)
            return None

    def done(self, host: Host, *, well: bool) -> None:
        with self.changed:
            host.done(well=well)
            self.changed.notify()

    def pause(self, name: str, until: float) -> None:
        """Pause a host; images that wait for it come back later, or fail at once where it is closed."""
        with self.changed:
            host = self.process.host(name)
            host.pause(until)
            self.pauses[name] = host.paused_until
            if name in self.waiting and not host.is_closed:
                del self.waiting[name]
                seconds = host.paused_until - time.monotonic()
                self.later.extend((seconds, download) for download in host.ready)
                host.ready.clear()
            self.changed.notify_all()

    # --- one image -------------------------------------------------------------------------------

    def serve(self) -> None:
        """Download one image after another: the work of one thread."""
        while taken := self.take():
            host, download = taken
            if host.is_closed:
                answer = Answer(
                    reason="rate_limited", detail="the host asks for a longer pause than --max_pause"
                )
                self.done(host, well=False)
                self.settle(download, answer)
                continue
            seconds = download.left if download.is_slow else min(download.left, self.batch.patience)
            begun = time.monotonic()
            answer = self.process.requester.get(download.source, seconds)
            self.done(host, well=not answer.reason)
            if answer.is_late and seconds < download.left:
                download.is_slow = True
                self.later.append((0.0, download))
                continue
            download.left -= time.monotonic() - begun
            self.settle(download, answer)

    def settle(self, download: Download, answer: Answer) -> None:
        """Save an image, or have it requested again or from the next source, or give up."""
        image = download.image
        if not answer.reason:
            self.outcomes.append(self.save(download, answer.data))
            return
        source = download.source
        failure = Failure(image.id, answer.reason, f"{source.name}: {answer.detail}", source.url)
        if answer.reason in PERMANENT:
            download.refused.append(failure)
            if download.position + 1 < len(image.sources):
                download.position += 1
                download.tries = 0
                self.put(download)
                return
            failure = image.refusal or failure
        else:
            delay = self.backoff(download.tries)
            download.tries += 1
            if answer.is_busy:
                self.heed(answer, delay)
                delay = 0.0  # it waits for the host's pause
            if answer.retry and download.tries <= self.settings.retries and delay < download.left:
                download.left -= delay
                if delay:
                    self.later.append((delay, download))
                else:
                    self.put(download)
                return
        self.outcomes.append(Outcome(image.id, 0, failure, tuple(download.refused)))

    def save(self, download: Download, data: bytes) -> Outcome:
        """Write an image as <id>.jpg, shrunk if that is asked for: then its original is never on disk.

        One that is unusable is requested from no other source, since step 5 would not do so either.
        """
        image_id, shrink, refused = download.image.id, self.settings.shrink, tuple(download.refused)
        path = self.settings.folder / image_file_name(image_id)
        if shrink is None:
            replace_file(path, data)
            return Outcome(image_id, len(data), refused=refused)
        try:
            with _shrinking:
                shrunk, processed = process_bytes(data, shrink)
        except BadImageError as bad:
            source = download.source
            failure = Failure(image_id, bad.reason, f"{source.name}: {bad.detail}", source.url)
            return Outcome(image_id, 0, failure, refused, is_broken=True)
        replace_file(path, shrunk)
        finished = FinishedImage(image_id, status(path), 0, *processed.fit.scaled, len(shrunk))
        return Outcome(image_id, len(data), None, refused, saved=Saved(processed.how, finished.line()))

    def heed(self, answer: Answer, delay: float) -> None:
        """Pause the hosts that said they are busy."""
        seconds = delay if answer.wait is None else answer.wait
        is_long = (
            answer.wait is not None and seconds > self.settings.max_pause
        )  # no one asked for our backoff
        until = float("inf") if is_long else time.monotonic() + seconds
        for name in set(answer.hosts):
            self.pause(name, until)

    def backoff(self, tries: int) -> float:
        """Return the seconds before the next try: doubled each time, and random so that few come at once."""
        seconds: float = min(self.settings.backoff * 2**tries, LONGEST_BACKOFF)
        return seconds * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
