"""One run at a time on a name of an object store, which has no locks: a sign of life that others can see.

A run puts an object `.NAME.lock-TOKEN` and puts it anew every BEAT seconds. Who comes later and finds one
watches it: while it changes, its run lives, and the second is refused; when it has stood still for PATIENCE
seconds, its run was killed. Whoever begins first puts its own and then lists them all: of two runs that begin
at the same moment at least one sees the other, and gives way. No clocks are compared. A run that hangs for
longer than PATIENCE, or has lost its network, may lose its name to another; it stops when it sees that.
"""

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.cli import InputError, say
from common.files.storage import list_objects, put_bytes, remove

BEAT = 5.0  # seconds; a put and a list each, half a cent an hour
PATIENCE = 20.0  # seconds


@contextmanager
def store_lock(folder: Path, name: str, busy: str) -> Iterator[None]:
    """Hold `name`, in a folder of a store, alone; InputError(busy) when another run holds it."""
    prefix = f".{name}.lock-"
    dead = _wait_for_death(folder, prefix, busy)
    own = folder / f"{prefix}{secrets.token_hex(8)}"
    try:
        _beat(own, 0)
        if set(list_objects(folder, prefix)) - dead - {own.name}:
            raise InputError(busy)
        for other in dead:
            remove(folder / other)
        with _heart(own, prefix) as lost:
            try:
                yield
            except KeyboardInterrupt:
                if not lost.is_set():
                    raise
                raise InputError(
                    f"{busy}: it took over since this one gave no sign of life for {PATIENCE:.0f} seconds"
                ) from None
    finally:
        remove(own)


def _wait_for_death(folder: Path, prefix: str, busy: str) -> set[str]:
    """Return the locks of runs that are dead; InputError(busy) when one lives."""
    begun = list_objects(folder, prefix)
    if begun:
        say(f"{busy}, or was killed: looking for {PATIENCE:.0f} seconds whether it lives")
    until = time.monotonic() + PATIENCE
    found = begun
    while found and time.monotonic() < until:
        time.sleep(BEAT / 2)
        found = list_objects(folder, prefix)
        if any(begun.get(name) != status for name, status in found.items()):
            raise InputError(busy)
    return set(found)


@contextmanager
def _heart(own: Path, prefix: str) -> Iterator[threading.Event]:
    """Give signs of life while the block runs; yield what says that another run has taken over."""
    ended, lost = threading.Event(), threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(BEAT):
            number += 1
            try:
                if set(list_objects(own.parent, prefix)) - {own.name}:
                    lost.set()
                    os.kill(os.getpid(), signal.SIGTERM)  # as the user would stop it, blocked or not
                    return
                _beat(own, number)
            except OSError:
                continue  # the network is away; when it is back, so are we, or another run is there

    thread = threading.Thread(target=beat, name="heart", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()


def _beat(own: Path, number: int) -> None:
    """Put the lock, other bytes each time, so that it is seen to change."""
    put_bytes(own, f"{socket.gethostname()} process {os.getpid()}, beat {number}\n".encode())
