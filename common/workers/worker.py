"""What runs inside a Dask worker: it hands each task to a Python process of its own, and the answer back.

Tasks run neither in the worker nor in its multiprocessing children: under a nanny it may have none, and it
keeps every module it once imported, of whichever project or version. So each version of our code is unpacked
into a folder, and the processes that start on it know no other. They end with the worker, with the run, or
when they had nothing to do for a minute.

`prepare` and `call` travel by value. All here imports only the standard library and distributed, and between
client and process there is nothing but bytes.
"""

import multiprocessing
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

LOOK_SECONDS = 0.3  # between two looks whether a task is still wanted
IDLE_SECONDS = 60.0  # after which a process without work ends
START = "from common.workers.task import main; main()"

PROBE_BYTES = 256  # of a file that workers must see


class Needs(NamedTuple):
    """What a worker must have."""

    versions: Mapping[str, str]  # of packages, "" for any
    files: Mapping[str, bytes]  # by path, their first bytes
    folders: Sequence[str]  # to write into


# --- sent by value -------------------------------------------------------------------------------


def prepare(name: str, code: bytes, needs: tuple[Any, ...]) -> str:
    """Make a worker ready for our tasks; return what it lacks, "" where nothing.

    `code` is a zip of our modules, `name` what they are kept under; `needs` are the fields of a Needs.
    """
    import importlib.util
    import io
    import shutil
    import zipfile
    from importlib.metadata import PackageNotFoundError, version

    from distributed import get_worker

    versions, files, folders = needs
    for package, expected in versions.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            return f"{package} is not installed, {expected or 'any version'} was expected"
        if expected and found != expected:
            return f"{package} {found}, {expected} as here was expected"
    try:
        for path, first in files.items():
            with open(path, "rb") as stream:
                if stream.read(len(first)) != first:
                    return f"{path}: another file there: the folder must be one that all machines share"
        for folder in folders:
            path = os.path.join(folder, f".{name}-{secrets.token_hex(8)}.part")
            with open(path, "xb"):
                os.unlink(path)
    except OSError as error:
        return f"{path}: {error.strerror} there: the folder must be one that all machines share"
    if name not in sys.modules:
        folder = os.path.join(get_worker().local_directory, name)
        part = f"{folder}.{threading.get_ident()}.part"
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            archive.extractall(part)
        try:
            os.rename(part, folder)
        except OSError:  # another task was quicker
            shutil.rmtree(part)
        spec = importlib.util.spec_from_file_location(name, f"{folder}/common/workers/worker.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules.setdefault(name, module)
    return ""


def call(name: str, topic: str, payload: bytes) -> tuple[str, bytes]:
    """Run one task; "unprepared" where the worker was started anew since it was made ready."""
    if name not in sys.modules:
        return "unprepared", b""
    answer: tuple[str, bytes] = sys.modules[name].run(topic, payload)
    return answer


def tell(name: str, topic: str, message: bytes) -> None:
    """Pass a message on to the tasks of a run."""
    if name in sys.modules:
        sys.modules[name].tell_tasks(topic, message)


# --- as a module of the worker -------------------------------------------------------------------


class _Process:
    """A Python process that runs one task after another."""

    def __init__(self) -> None:
        folder = str(Path(__file__).parents[2])
        self.pipe, theirs = multiprocessing.Pipe()
        self.idle_since = time.monotonic()
        self.sending = threading.Lock()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH")))),
            "OPEN_IMAGES_WRITER": secrets.token_hex(4),
        }
        command = [sys.executable, "-P", "-c", START, str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(  # noqa: S603  # our own module
                command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        finally:
            theirs.close()

    def send(self, kind: str, data: bytes) -> None:
        with self.sending:
            self.pipe.send((kind, data))

    def kill(self) -> int:
        """End the process now and return its exit code."""
        self.process.kill()
        self.pipe.close()
        return self.process.wait()


_lock = threading.Lock()
_idle: list[_Process] = []
_busy: dict[_Process, str] = {}  # with the topic of its run


def run(topic: str, payload: bytes) -> tuple[str, bytes]:
    """Return the answer of a process to a task: its kind (done, error, died or unwanted) and its bytes.

    What the task has to say before goes to the client, under `topic`.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    process = _take(topic)
    done = False
    try:
        process.send("task", payload)
        while True:
            if wait([process.pipe], LOOK_SECONDS):
                kind, data = process.pipe.recv()
                if kind != "note":
                    done = True
                    return kind, data
                worker.log_event(topic, data)
            elif not _is_wanted(worker, key):
                return "unwanted", b""
    except (EOFError, OSError):
        return "died", str(process.kill()).encode()
    finally:
        with _lock:
            del _busy[process]
            if done:
                process.idle_since = time.monotonic()
                _idle.append(process)
        if not done:
            process.kill()


def tell_tasks(topic: str, message: bytes) -> None:
    """Pass a message on to the processes at work for a run."""
    with _lock:
        processes = [process for process, its_topic in _busy.items() if its_topic == topic]
    for process in processes:
        try:
            process.send("told", message)
        except OSError:
            continue  # it has just ended; its own task says so


def _take(topic: str) -> _Process:
    """Return a process without work, a new one where there is none."""
    with _lock:
        old = [process for process in _idle if time.monotonic() - process.idle_since > IDLE_SECONDS / 2]
        for process in old:
            _idle.remove(process)
        process = _idle.pop() if _idle else _Process()
        _busy[process] = topic
    for ended in old:
        ended.kill()
    return process


def _is_wanted(worker: object, key: object) -> bool:
    """Tell whether the client still waits for a task, and the worker is still part of a cluster."""
    state = worker.state.tasks.get(key)  # type: ignore[attr-defined]
    status = worker.status.name  # type: ignore[attr-defined]
    return state is not None and state.state == "executing" and status in ("running", "paused")
