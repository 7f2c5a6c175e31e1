"""A deadline for each attempt at a photo: whatever a server drips, its socket is shut when time is up.

A socket's timeout is no deadline: it starts anew with every byte. So sockets have none here. Each attempt at
a photo is a Watch; its connection hands it the socket as soon as there is one, before connecting, so that
connecting, TLS, the proxy's answer, status line, headers and body all end when the watchdog shuts it.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TICK = 0.1  # seconds between two looks at the clock

running = threading.local()  # .watch: the attempt this thread is at


class RefusedAddressError(Exception):
    """A photo on the public internet sent us on to a private address."""


class Handle:
    """A second descriptor of a connection's socket: shutting it works through TLS and while connecting."""

    def __init__(self, connection: socket.socket, public: bool) -> None:
        self.socket = connection.dup()
        self.public = public

    def shut(self) -> None:
        with suppress(OSError):  # not connected, or not any more: nothing to end
            self.socket.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        self.socket.close()


class Watch:
    """One attempt at a photo: when it must be over, and the socket it is using."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.expired = False
        self.handle: Handle | None = None
        self.proxied_to: str | None = None  # the host that a proxy is asked for at this hop
        self.was_public = False  # this hop, or an earlier one, is on the public internet

    def left(self) -> float:
        return max(0.01, self.until - time.monotonic())

    def use(self, handle: Handle) -> None:
        """Take over the socket of this hop; refuse one that leads from a public to a private host."""
        public = is_public(self.proxied_to) if self.proxied_to else handle.public
        if self.was_public and not public:
            raise RefusedAddressError
        self.was_public = public
        self.handle = handle
        if self.expired:
            handle.shut()


class Watchdog:
    """A thread that shuts the sockets of the attempts whose time is up."""

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watch(self, seconds: float) -> Iterator[Watch]:
        """Yield this thread's Watch, over after `seconds`."""
        watch = Watch(seconds)
        running.watch = watch
        with self.lock:
            self.watches.add(watch)
        try:
            yield watch
        finally:
            with self.lock:
                self.watches.discard(watch)
            running.watch = None

    def _run(self) -> None:
        while not self.ended.wait(TICK):
            now = time.monotonic()
            with self.lock:
                late = [watch for watch in self.watches if watch.until <= now]
            for watch in late:
                watch.expired = True
                if handle := watch.handle:
                    handle.shut()


def is_public(host: str) -> bool:
    """Tell whether a host, by name or address, is on the public internet; a name is, but for localhost."""
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))  # 127.1 and 2130706433 are 127.0.0.1 too
        except OSError:
            return name != "localhost" and not name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global
