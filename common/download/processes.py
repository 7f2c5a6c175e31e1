"""Photos fetched by several processes of threads, each photo from the first of its sources that has it.

The processes are there since threads of one only fight for the interpreter's lock: the parent reads the index
and counts, each worker runs a ThreadPoolExecutor over a Schedule of hosts. Between them are a few hundred
photos at a time. What ends a run at once (a full disk, Ctrl-C, a kill of the parent) kills the workers.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
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
from queue import SimpleQueue

from common.cli import InputError
from common.download.fetch import Fetcher
from common.download.threads import (
    DownloadSettings,
    Message,
    Outcome,
    Pause,
    Photo,
    PhotoTask,
    PhotoThreads,
    Stop,
)
from common.files.whole_files import sweep_parts
from common.openimages.ids import image_file_name

BATCH = 16  # photos handed over at a time
WINDOW = 1024  # photos under way: enough that one paused host does not hold up the others
# A thread that waits for the interpreter asks for it this often, in seconds; 16 that wait, every 5 ms as
# Python has it, take a twentieth of the CPU. None of them holds it for long: they read, hash and write.
SWITCH_SECONDS = 0.1
GATHERED_SECONDS = 0.02  # for so long a worker gathers what its threads say, and sends it as one list


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
                for message in _receive(by_pipe[pipe]):
                    if isinstance(message, Outcome):
                        by_pipe[pipe].photos.discard(message.id)
                        yield message
                    elif isinstance(message, Pause):
                        for worker in workers:
                            if worker.pipe is not pipe:
                                _send(worker, message)
                    elif isinstance(message, Stop):
                        raise OSError(message.errno, message.text, message.path)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
        sweep_parts(settings.folder, image_file_name(""))


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


def _send(worker: _Worker, message: list[Photo] | Pause) -> None:
    try:
        worker.pipe.send(message)
    except OSError:
        _died(worker)


def _receive(worker: _Worker) -> list[Message]:
    try:
        messages: list[Message] = worker.pipe.recv()
    except (EOFError, OSError):
        _died(worker)
        raise
    return messages


def _died(worker: _Worker) -> None:
    worker.process.join()
    raise InputError(
        f"a worker process ended with exit code {worker.process.exitcode} (-9: killed, out of memory?); "
        "run the same command again to go on"
    )


# --- a worker ------------------------------------------------------------------------------------


def _receive_photos(pipe: Connection, threads: PhotoThreads) -> None:
    """Take what the parent sends; when the parent is gone, be it by kill -9, so are we."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = pipe.recv()
            if isinstance(message, Pause):
                threads.pause(message)
                continue
            for photo in message:
                threads.put(PhotoTask(photo, threads.settings.deadline))
    os._exit(1)


def _send_messages(pipe: Connection, messages: "SimpleQueue[Message]") -> None:
    """Send what the threads have to say: they do not wait for the pipe, nor for each other at it."""
    with contextlib.suppress(OSError):
        while True:
            gathered = [messages.get()]
            time.sleep(GATHERED_SECONDS)
            gathered += [messages.get() for _ in range(messages.qsize())]
            pipe.send(gathered)
    os._exit(1)


def _work(pipe: Connection, settings: DownloadSettings) -> None:
    """Run a worker process, which ends only by a kill or with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setswitchinterval(SWITCH_SECONDS)
    messages: SimpleQueue[Message] = SimpleQueue()
    threads = PhotoThreads(settings, Fetcher(settings.fetch), messages.put)
    threading.Thread(target=_send_messages, args=(pipe, messages), name="sender", daemon=True).start()
    threading.Thread(target=_receive_photos, args=(pipe, threads), name="receiver", daemon=True).start()
    pool = ThreadPoolExecutor(settings.threads, "photos")
    serving = [pool.submit(threads.serve) for _ in range(settings.threads)]
    for thread in wait_for_futures(serving, return_when=FIRST_EXCEPTION).done:
        traceback.print_exception(thread.exception())  # a bug of ours
    os._exit(1)
