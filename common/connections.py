"""Connections that keep a deadline: whatever a server drips, a watchdog shuts the socket when time is up.

A socket's timeout is no deadline: it starts anew with every byte. So sockets have none here. Each attempt at
a photo is a Watch; its connection hands it the socket as soon as there is one, before connecting, so that
connecting, TLS, the proxy's answer, status line, headers and body all end when the watchdog shuts it.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

TICK = 0.1  # seconds between two looks at the clock
RESOLVED_SECONDS = 60  # for so long an address is remembered
RESOLVERS = 8  # threads that wait for name servers

_running = threading.local()  # .watch: the attempt this thread is at
_Address = tuple[Any, ...]


class RefusedAddressError(Exception):
    """A photo on the public internet sent us on to a private address."""


class _Handle:
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
        self.handle: _Handle | None = None
        self.proxied_to: str | None = None  # the host that a proxy is asked for at this hop
        self.was_public = False  # this hop, or an earlier one, is on the public internet

    def left(self) -> float:
        return max(0.01, self.until - time.monotonic())

    def use(self, handle: _Handle) -> None:
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
        _running.watch = watch
        with self.lock:
            self.watches.add(watch)
        try:
            yield watch
        finally:
            with self.lock:
                self.watches.discard(watch)
            _running.watch = None

    def _run(self) -> None:
        while not self.ended.wait(TICK):
            now = time.monotonic()
            with self.lock:
                late = [watch for watch in self.watches if watch.until <= now]
            for watch in late:
                watch.expired = True
                if handle := watch.handle:
                    handle.shut()


class _Resolver:
    """Host names to addresses, within the time of the attempt, remembered for a minute."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(RESOLVERS, "resolver")
        self.known: dict[tuple[str, int], tuple[float, list[_Address]]] = {}

    def addresses(self, host: str, port: int, seconds: float) -> list[_Address]:
        until, found = self.known.get((host, port), (0.0, []))
        if until > time.monotonic():
            return found
        future = self.pool.submit(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
        try:
            found = list(future.result(timeout=seconds))
        except FutureTimeoutError:
            raise TimeoutError(f"no answer to the look-up of {host}") from None
        self.known[host, port] = (time.monotonic() + RESOLVED_SECONDS, found)
        return found


_resolver = _Resolver()


class _Watched(HTTPConnection):
    """A connection that hands its socket to the Watch of the thread that uses it."""

    _handle: _Handle | None = None

    def _new_conn(self) -> socket.socket:
        watch: Watch = _running.watch
        problem: OSError | None = None
        for family, kind, protocol, _, address in _resolver.addresses(
            self._dns_host, self.port or 80, watch.left()
        ):
            connection = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or []:
                    connection.setsockopt(*option)
                self._handle = _Handle(connection, is_public(address[0]))
                watch.use(self._handle)
                connection.settimeout(watch.left())
                connection.connect(address)
                connection.settimeout(None)
                return connection
            except OSError as error:
                connection.close()
                problem = error
            except RefusedAddressError:
                connection.close()
                raise
        raise problem or OSError(f"{self.host} has no address")

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        if self._handle:  # a connection that was kept
            _running.watch.use(self._handle)
        super().putrequest(*arguments, **options)

    def getresponse(self) -> Any:
        if self.sock is None:  # it broke while we asked, and urllib3 takes that for an early answer
            raise ConnectionResetError("the connection broke while the request was sent")
        return super().getresponse()

    def close(self) -> None:
        super().close()
        self._handle = None


class _WatchedTLS(_Watched, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Watched


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


class Adapter(HTTPAdapter):
    """The connection pools of requests, of watched connections, with the certificates loaded once.

    requests loads them for each connection anew, 30 ms of work each.
    """

    def __init__(self, ca_bundle: str, max_per_host: int) -> None:
        folder = Path(ca_bundle).is_dir()
        self.tls = ssl.create_default_context(
            cafile=None if folder else ca_bundle, capath=ca_bundle if folder else None
        )
        # Whoever finds all connections to a host in use waits for one: redirects keep the limit too.
        super().__init__(pool_connections=64, pool_maxsize=max_per_host, pool_block=True)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self.tls, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def manager(self, proxy: str | None) -> urllib3.PoolManager:
        """Return the pools of direct connections, or of those through `proxy`."""
        if not proxy:
            manager: urllib3.PoolManager = self.poolmanager
            return manager
        manager = self.proxy_manager_for(proxy, ssl_context=self.tls, proxy_ssl_context=self.tls)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager


def is_public(host: str) -> bool:
    """Tell whether a host, by name or address, is on the public internet; a name is, but for localhost."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host.rstrip(".").lower() != "localhost" and not host.lower().endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global
