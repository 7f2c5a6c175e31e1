"""Photos fetched by several processes of threads, each photo from the first of its sources that has it.

The processes are there since threads of one only fight for the interpreter's lock: the parent reads the index
and counts, each worker runs a ThreadPoolExecutor over a Schedule of hosts. Between them are a few hundred
photos at a time. What ends a run at once (a full disk, Ctrl-C, a kill of the parent) kills the workers.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from common.bad_image import BadImageError
from common.cli import InputError
from common.failures import Failure
from common.fetch import FOR_GOOD, Answer, Fetcher, FetchSettings, Source, host_of
from common.files import part_path
from common.hosts import Schedule
from common.images import ImageSettings
from common.openimages import image_file_name
from common.saving import Saved, save_photo
from common.storage import is_remote

BATCH = 16  # photos handed over at a time
WINDOW = 1024  # photos under way: enough that one paused host does not hold up the others
LONGEST_BACKOFF = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo to fetch, and where it may be, in the order to ask."""

    id: str
    sources: tuple[Source, ...]


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a photo: the bytes that came and how they were saved, or a failure.

    `refused` are the sources that refused it for good; `broken` says that one had it, but of no use.
    """

    id: str
    size: int = 0
    failure: Failure | None = None
    refused: tuple[Failure, ...] = ()
    broken: bool = False
    saved: Saved | None = None


@dataclass(frozen=True, slots=True)
class _Pause:
    hosts: tuple[str, ...]
    until: float  # time.monotonic(), which all processes share; infinite: for the rest of the run


@dataclass(frozen=True, slots=True)
class _Stop:
    """A file could not be written: the run is over."""

    errno: int
    text: str
    path: str


_Message = list[Photo] | Outcome | _Pause | _Stop


# --- the parent ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    photos: set[str] = field(default_factory=set)  # handed over, not back yet


def download(photos: Iterable[Photo], settings: DownloadSettings) -> Generator[Outcome, None, None]:
    """Yield what became of each photo, in no particular order; the whole ones are in the folder as <id>.jpg.

    Closing the generator ends all work at once and removes what was half-made.
    """
    source = iter(photos)
    workers = _start_workers(settings)
    room = max(BATCH, WINDOW // len(workers))
    by_pipe = {worker.pipe: worker for worker in workers}
    more = True
    try:
        while True:
            while more and len((worker := min(workers, key=lambda each: len(each.photos))).photos) < room:
                batch = list(islice(source, BATCH))
                more = len(batch) == BATCH
                worker.photos.update(photo.id for photo in batch)
                _send(worker, batch)
            if not any(worker.photos for worker in workers):
                return
            for pipe in wait(list(by_pipe)):
                assert isinstance(pipe, Connection)
                message = _receive(by_pipe[pipe])
                if isinstance(message, Outcome):
                    by_pipe[pipe].photos.discard(message.id)
                    yield message
                elif isinstance(message, _Pause):
                    for worker in workers:
                        if worker.pipe is not pipe:
                            _send(worker, message)
                elif isinstance(message, _Stop):
                    raise OSError(message.errno, message.text, message.path)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
            if not is_remote(settings.folder):
                for image_id in worker.photos:
                    part_path(settings.folder / image_file_name(image_id)).unlink(missing_ok=True)


def _start_workers(settings: DownloadSettings) -> list[_Worker]:
    """Return running workers, with the threads and the connections to a host dealt out over them."""
    spawn = multiprocessing.get_context("spawn")
    processes = min(settings.processes, settings.threads, settings.fetch.max_per_host)
    workers = []
    for number in range(processes):
        share = replace(
            settings,
            threads=_share(settings.threads, processes, number),
            fetch=replace(
                settings.fetch, max_per_host=_share(settings.fetch.max_per_host, processes, number)
            ),
        )
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_work, args=(theirs, share), daemon=True)
        process.start()
        theirs.close()
        workers.append(_Worker(process, ours))
    return workers


def _share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def _send(worker: _Worker, message: _Message) -> None:
    try:
        worker.pipe.send(message)
    except OSError:
        _died(worker)


def _receive(worker: _Worker) -> _Message:
    try:
        message: _Message = worker.pipe.recv()
    except (EOFError, OSError):
        _died(worker)
        raise
    return message


def _died(worker: _Worker) -> None:
    worker.process.join()
    raise InputError(
        f"a worker process ended with exit code {worker.process.exitcode} (-9: killed, out of memory?); "
        "run the same command again to go on"
    )


# --- a worker ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Task:
    """A photo under way: the source being asked, the tries at it, the seconds left for the whole photo."""

    photo: Photo
    left: float
    position: int = 0
    tries: int = 0
    refused: list[Failure] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return self.photo.sources[self.position]


class _Process:
    """One worker process: threads that fetch what the schedule says may be fetched."""

    def __init__(self, pipe: Connection, settings: DownloadSettings) -> None:
        self.pipe = pipe
        self.settings = settings
        self.fetcher = Fetcher(settings.fetch)
        self.schedule: Schedule[_Task] = Schedule(settings.fetch.max_per_host)
        self.sending = threading.Lock()

    def send(self, message: _Message) -> None:
        with self.sending:
            self.pipe.send(message)

    def receive(self) -> None:
        """Take what the parent sends; when the parent is gone, be it by kill -9, so are we."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self.pipe.recv()
                if isinstance(message, _Pause):
                    for host in message.hosts:
                        self.schedule.pause(host, message.until)
                    continue
                for photo in message:
                    task = _Task(photo, self.settings.deadline)
                    self.schedule.put(host_of(task.source.url), task)
        os._exit(1)

    def serve(self) -> None:
        """Fetch photos, one after another, for ever: the work of one thread."""
        while True:
            host, task = self.schedule.take()
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

    def settle(self, task: _Task, answer: Answer) -> None:
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
                self.schedule.put(host_of(task.source.url), task)
                return
        else:
            delay = self.backoff(task.tries)
            task.tries += 1
            if answer.busy:
                self.pause(answer, delay)
                delay = 0.0  # the host's pause is what it waits for
            if answer.retry and task.tries <= self.settings.retries and delay < task.left:
                task.left -= delay
                self.schedule.put(host_of(task.source.url), task, delay)
                return
        self.send(Outcome(photo.id, 0, failure, tuple(task.refused)))

    def save(self, task: _Task, data: bytes) -> Outcome | _Stop:
        """Save a photo; one that is of no use is not asked for elsewhere, as it would not be by step 5."""
        image_id, folder, refused = task.photo.id, self.settings.folder, tuple(task.refused)
        try:
            saved = save_photo(image_id, data, folder, self.settings.shrink)
        except BadImageError as bad:
            failure = Failure(image_id, bad.reason, f"{task.source.name}: {bad.detail}", task.source.url)
            return Outcome(image_id, 0, failure, refused, broken=True)
        except OSError as error:
            path = folder / image_file_name(image_id)
            return _Stop(error.errno or 0, error.strerror or str(error), str(path))
        return Outcome(image_id, len(data), None, refused, saved=saved)

    def pause(self, answer: Answer, delay: float) -> None:
        """Pause the hosts that said they are busy, here and in the other processes."""
        seconds = delay if answer.wait is None else answer.wait
        closed = seconds > self.settings.max_pause
        pause = _Pause(tuple(set(answer.hosts)), float("inf") if closed else time.monotonic() + seconds)
        for host in pause.hosts:
            self.schedule.pause(host, pause.until)
        self.send(pause)

    def backoff(self, tries: int) -> float:
        """Return the seconds before the next try: doubled each time, jittered so that few come at once."""
        seconds: float = min(self.settings.backoff * 2**tries, LONGEST_BACKOFF)
        return seconds * random.uniform(0.5, 1.5)  # noqa: S311  # no secret


def _work(pipe: Connection, settings: DownloadSettings) -> None:
    """Run a worker process, which ends only by a kill or with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    process = _Process(pipe, settings)
    threading.Thread(target=process.receive, name="receiver", daemon=True).start()
    pool = ThreadPoolExecutor(settings.threads, "photos")
    threads = [pool.submit(process.serve) for _ in range(settings.threads)]
    for thread in wait_for_futures(threads, return_when=FIRST_EXCEPTION).done:
        traceback.print_exception(thread.exception())  # a bug of ours
    os._exit(1)
