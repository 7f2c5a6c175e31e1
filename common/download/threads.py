"""The threads of one process that fetch photos, each photo from the first of its sources that has it.

They take what the schedule of hosts says may be asked for now, and send what comes of it to whoever runs
them. What goes between processes for each photo is named tuples, which pickle in a third of the time.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from common.download.fetch import FOR_GOOD, Answer, Fetcher, FetchSettings, Source, host_of
from common.download.hosts import Schedule
from common.download.saving import Saved, save_photo
from common.files.failures import Failure
from common.images.header import BadImageError
from common.images.settings import ImageSettings
from common.openimages.ids import image_file_name

LONGEST_BACKOFF = 30.0  # seconds


class Photo(NamedTuple):
    """One photo to fetch, and where it may be, in the order to ask."""

    id: str
    sources: tuple[Source, ...]
    refusal: Failure | None = None  # of a source behind these, in an earlier run


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """How photos are fetched; times in seconds, `max_per_host` of `fetch` for the whole run.

    With `shrink` they are verified and shrunk as they come in.
    """

    folder: Path
    processes: int
    threads: int
    deadline: float
    retries: int
    backoff: float
    max_pause: float
    fetch: FetchSettings
    shrink: ImageSettings | None = None


class Outcome(NamedTuple):
    """What became of a photo: the bytes that came and how they were saved, or a failure.

    `refused` are the sources that refused it for good; `broken` says that one had it, but of no use.
    """

    id: str
    size: int = 0
    failure: Failure | None = None
    refused: tuple[Failure, ...] = ()
    broken: bool = False
    saved: Saved | None = None


@dataclass(slots=True)
class PhotoTask:
    """A photo under way: the source being asked, the tries at it, the seconds left for the whole photo."""

    photo: Photo
    left: float
    position: int = 0
    tries: int = 0
    refused: list[Failure] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return self.photo.sources[self.position]


@dataclass(frozen=True, slots=True)
class Later:
    """A photo that has to wait, for so many seconds, and does so elsewhere."""

    task: PhotoTask
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Hosts that are not to be asked until then."""

    hosts: tuple[str, ...]
    until: float  # time.monotonic(), which a machine's processes share; infinite: for the rest of the run


@dataclass(frozen=True, slots=True)
class Stop:
    """A file could not be written: the run is over."""

    errno: int
    text: str
    path: str


Message = Outcome | Later | Pause | Stop


class PhotoThreads:
    """What the threads of one process share.

    With `hands_back` no photo waits here for a pause or a retry: it is sent back as Later.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        fetcher: Fetcher,
        send: Callable[[Message], None],
        *,
        hands_back: bool = False,
    ) -> None:
        self.settings = settings
        self.fetcher = fetcher
        self.send = send
        self.hands_back = hands_back
        self.schedule: Schedule[PhotoTask] = Schedule(settings.fetch.max_per_host)

    def put(self, task: PhotoTask, delay: float = 0.0) -> None:
        """Have a photo fetched, from the source it is at, after `delay` seconds at the earliest."""
        seconds = self.schedule.put(host_of(task.source.url), task, delay, only_now=self.hands_back)
        if seconds:
            self.send(Later(task, seconds))

    def pause(self, pause: Pause) -> None:
        """Pause hosts, here."""
        for host in pause.hosts:
            self.schedule.pause(host, pause.until)
            if self.hands_back:
                for task in self.schedule.take_paused(host):
                    self.put(task)

    def serve(self) -> None:
        """Fetch photos, one after another, until the schedule is closed: the work of one thread."""
        while taken := self.schedule.take():
            host, task = taken
            begun = time.monotonic()
            if host.closed:
                answer = Answer(
                    reason="rate_limited", detail="the host asks for a longer pause than --max_pause"
                )
            else:
                answer = self.fetcher.fetch(task.source, task.left)
            self.schedule.done(host, well=not answer.reason)
            task.left -= time.monotonic() - begun
            self.settle(task, answer)

    def settle(self, task: PhotoTask, answer: Answer) -> None:
        """Save the photo, try again, ask the next source, or give up."""
        photo = task.photo
        if not answer.reason:
            self.send(self.save(task, answer.data))
            return
        failure = Failure(photo.id, answer.reason, f"{task.source.name}: {answer.detail}", task.source.url)
        if answer.reason in FOR_GOOD:
            task.refused.append(failure)
            if task.position + 1 < len(photo.sources):
                task.position += 1
                task.tries = 0
                self.put(task)
                return
            failure = photo.refusal or failure
        else:
            delay = self.backoff(task.tries)
            task.tries += 1
            if answer.busy:
                self.heed(answer, delay)
                delay = 0.0  # the host's pause is what it waits for
            if answer.retry and task.tries <= self.settings.retries and delay < task.left:
                task.left -= delay
                self.put(task, delay)
                return
        self.send(Outcome(photo.id, 0, failure, tuple(task.refused)))

    def save(self, task: PhotoTask, data: bytes) -> Outcome | Stop:
        """Save a photo; one that is of no use is not asked for elsewhere, as it would not be by step 5."""
        image_id, folder, refused = task.photo.id, self.settings.folder, tuple(task.refused)
        try:
            saved = save_photo(image_id, data, folder, self.settings.shrink)
        except BadImageError as bad:
            failure = Failure(image_id, bad.reason, f"{task.source.name}: {bad.detail}", task.source.url)
            return Outcome(image_id, 0, failure, refused, broken=True)
        except OSError as error:
            path = folder / image_file_name(image_id)
            return Stop(error.errno or 0, error.strerror or str(error), str(path))
        return Outcome(image_id, len(data), None, refused, saved=saved)

    def heed(self, answer: Answer, delay: float) -> None:
        """Pause the hosts that said they are busy, here and in the other processes."""
        seconds = delay if answer.wait is None else answer.wait
        closed = answer.wait is not None and seconds > self.settings.max_pause  # no one asked for our backoff
        pause = Pause(tuple(set(answer.hosts)), float("inf") if closed else time.monotonic() + seconds)
        self.pause(pause)
        self.send(pause)

    def backoff(self, tries: int) -> float:
        """Return the seconds before the next try: doubled each time, jittered so that few come at once."""
        seconds: float = min(self.settings.backoff * 2**tries, LONGEST_BACKOFF)
        return seconds * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
