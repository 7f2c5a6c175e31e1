"""The process in which a worker of a cluster runs tasks.

Its argument is the descriptor of a pipe. Tasks come over it, pickled, one at a time; their answers, and what
they have to say before, go back.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from common.workers.worker import IDLE_SECONDS

_sending = threading.Lock()
_pipes: list[Connection] = []  # the one to the worker
_listeners: list[Callable[[bytes], None]] = []


def note(message: bytes) -> None:
    """Tell the client something, from within a task."""
    _send("note", message)


def listen(listener: Callable[[bytes], None]) -> None:
    """Have the listener of a task called, in a thread of its own, with what the client tells all tasks."""
    _listeners[:] = [listener]


def _send(kind: str, data: bytes) -> None:
    with _sending:
        _pipes[0].send((kind, data))


def _receive(pipe: Connection, tasks: "queue.SimpleQueue[bytes]") -> None:
    """Take what the worker sends; when it is gone, be it by kill -9, so are we."""
    try:
        while True:
            kind, data = pipe.recv()
            if kind == "task":
                tasks.put(data)
            else:
                for listener in list(_listeners):
                    listener(data)
    except (EOFError, OSError):
        os._exit(1)


def _answer(payload: bytes) -> tuple[str, bytes]:
    try:
        function, task = pickle.loads(payload)  # noqa: S301  # from our own client
        return "done", pickle.dumps(function(task))
    except Exception as error:  # noqa: BLE001  # handed to the client, which raises it
        text = traceback.format_exc()
        try:
            return "error", pickle.dumps((error, text))
        except (pickle.PicklingError, TypeError, AttributeError):
            return "error", pickle.dumps((RuntimeError(repr(error)), text))
    finally:
        _listeners.clear()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's
    _pipes.append(Connection(int(sys.argv[1])))
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(_pipes[0], tasks), daemon=True).start()
    while True:
        try:
            payload = tasks.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        _send(*_answer(payload))
