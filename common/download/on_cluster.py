"""Photos fetched by the workers of a cluster, some hundreds a task.

`threads` and `max_per_host` are totals: each task has its share of them, and none begins while all are given
out. Photos that have to wait, for a pause that a host asks for or before another try, do so here and not in a
task, so that a slow host holds up no worker. A task heeds the pauses that it is asked for itself, and those
that earlier tasks were asked for.
"""

import queue
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from common.download.environment import ca_bundle, read_proxies
from common.download.fetch import Fetcher, host_of
from common.download.threads import (
    DownloadSettings,
    Later,
    Message,
    Outcome,
    Pause,
    Photo,
    PhotoTask,
    PhotoThreads,
    Stop,
)

if TYPE_CHECKING:
    from common.workers.cluster import Cluster  # which a task has no use for

LARGEST, SMALLEST = 400, 16  # photos a task: some seconds of work
ROUNDS = 4  # tasks a thread at least, so that all end at about the same time
MOST_WAITING = 10_000  # photos; beyond it no further ones are begun


@dataclass(frozen=True, slots=True)
class Batch:
    """The photos of a task, its share of threads and connections, and the hosts that asked for a pause."""

    tasks: list[PhotoTask]
    threads: int
    max_per_host: int
    pauses: dict[str, float]  # seconds left; below 0 for one that is over


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of a batch."""

    outcomes: list[Outcome]
    later: list[Later]
    pauses: dict[str, float]  # seconds left
    threads: int
    max_per_host: int


# --- the client ----------------------------------------------------------------------------------


def download_on(
    cluster: "Cluster", photos: Iterable[Photo], number: int, settings: DownloadSettings
) -> Generator[Outcome, None, None]:
    """Yield what became of each of about `number` photos, in no particular order, as `download` does."""
    run = _Run(cluster, photos, number, settings)
    work = cluster.map(partial(fetch_batch, settings=settings), run.batches(), ordered=False)
    assert isinstance(work, Generator)
    with closing(work) as results:
        for fetched in results:
            run.take_back(fetched)
            yield from fetched.outcomes


class _Run:
    """What is under way: shares given out, hosts that are paused, photos that wait."""

    def __init__(
        self, cluster: "Cluster", photos: Iterable[Photo], number: int, settings: DownloadSettings
    ) -> None:
        self.cluster = cluster
        self.photos = iter(photos)
        self.number = number
        self.settings = settings
        self.threads = settings.threads  # not given out
        self.connections = settings.fetch.max_per_host
        self.tasks = 0
        self.pauses: dict[str, float] = {}  # until when, by time.monotonic(); infinite: closed
        self.waiting: list[tuple[float, int, PhotoTask]] = []  # a heap
        self.numbers = count()
        self.has_more = True

    def batches(self) -> Iterator[Batch | None]:
        """Yield the work of tasks, None where there is none for the moment."""
        while True:
            free = max(1, self.cluster.slots - self.tasks)
            threads, connections = _share(self.threads, free), _share(self.connections, free)
            tasks = self.ready() if threads and connections else []
            if tasks:
                self.tasks += 1
                self.threads -= threads
                self.connections -= connections
                now = time.monotonic()
                pauses = {host: until - now for host, until in self.pauses.items()}
                yield Batch(tasks, threads, connections, pauses)
            elif self.has_more or self.waiting or self.tasks:
                yield None
            else:
                return

    def ready(self) -> list[PhotoTask]:
        """Return photos that need not wait: those whose time has come, then new ones."""
        size = max(SMALLEST, min(LARGEST, self.number // max(1, ROUNDS * self.cluster.slots)))
        found: list[PhotoTask] = []
        now = time.monotonic()
        while len(found) < size and self.waiting and self.waiting[0][0] <= now:
            self.put(heappop(self.waiting)[2], now, found)
        while len(found) < size and self.has_more and len(self.waiting) < MOST_WAITING:
            if photo := next(self.photos, None):
                self.put(PhotoTask(photo, self.settings.deadline), now, found)
            else:
                self.has_more = False
        return found

    def put(self, task: PhotoTask, now: float, found: list[PhotoTask]) -> None:
        """Add a photo to those that are found ready, or to those that wait for their host."""
        until = self.pauses.get(host_of(task.source.url), 0.0)
        if now < until < float("inf"):
            heappush(self.waiting, (until, next(self.numbers), task))
        else:
            found.append(task)

    def take_back(self, fetched: Fetched) -> None:
        """Take back a task's share and the photos that have to wait."""
        self.tasks -= 1
        self.threads += fetched.threads
        self.connections += fetched.max_per_host
        now = time.monotonic()
        for later in fetched.later:
            heappush(self.waiting, (now + later.seconds, next(self.numbers), later.task))
        for host, seconds in fetched.pauses.items():
            self.pauses[host] = max(now + seconds, self.pauses.get(host, 0.0))


def _share(total: int, parts: int) -> int:
    """Return a fair share of what is left, at least 1 of it."""
    return min(total, max(1, total // parts))


# --- a task --------------------------------------------------------------------------------------


def fetch_batch(batch: Batch, settings: DownloadSettings) -> Fetched:
    """Fetch the photos of a batch, with the proxies and certificates of this machine; run in a worker."""
    fetch = replace(
        settings.fetch, max_per_host=batch.max_per_host, proxies=read_proxies(), ca_bundle=ca_bundle()
    )
    share = replace(settings, threads=batch.threads, fetch=fetch)
    messages: queue.SimpleQueue[Message | Future[None]] = queue.SimpleQueue()
    fetcher = Fetcher(fetch)
    threads = PhotoThreads(share, fetcher, messages.put, hands_back=True)

    def pause(hosts: Iterable[str], seconds: float) -> None:
        threads.pause(Pause(tuple(hosts), time.monotonic() + seconds))

    for host, seconds in batch.pauses.items():
        pause([host], seconds)
    fetched = Fetched([], [], {}, batch.threads, batch.max_per_host)
    pool = ThreadPoolExecutor(batch.threads, "photos")
    try:
        for _ in range(batch.threads):
            pool.submit(threads.serve).add_done_callback(messages.put)
        for task in batch.tasks:
            threads.put(task)
        while len(fetched.outcomes) + len(fetched.later) < len(batch.tasks):
            _take(messages.get(), fetched)
    finally:
        threads.schedule.close()
        pool.shutdown(wait=False)
        fetcher.close()  # a connection that is kept here counts against no other task's share
    return fetched


def _take(message: "Message | Future[None]", fetched: Fetched) -> None:
    """Sort what the threads say."""
    if isinstance(message, Outcome):
        fetched.outcomes.append(message)
    elif isinstance(message, Later):
        fetched.later.append(message)
    elif isinstance(message, Pause):
        fetched.pauses.update(dict.fromkeys(message.hosts, message.until - time.monotonic()))
    elif isinstance(message, Stop):
        raise OSError(message.errno, message.text, message.path)
    else:
        message.result()  # a thread ends before its time by a bug of ours alone
