"""Addresses, and connections on which one attempt at an image has one deadline.

The timeout of a socket starts again with every byte, so it is no deadline. Here a socket is given what is
left of the attempt before each read: connecting, TLS, a proxy's answer, headers and body end in time, however
slowly a server drips. Only a name look-up takes as long as the system's resolver lets it.

requests passes an attempt to urllib3 as the timeout of a request, and urllib3 sets it on the connection. The
one private name of urllib3 used here is `_new_conn`; requirements.txt has the versions that were tried.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

from common.cli import InputError

ADDRESS_SECONDS = 3.0  # for a connection to each address of a host but the last
SLACK = 0.1  # seconds by which a deadline may be missed: each change of a timeout is a system call
HOSTS = 64  # whose connections are kept
MAX_REST = 1 << 16  # bytes read of an answer without an image, to keep its connection
MAX_URL = 8000  # characters; servers take less

_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]")


class RefusedAddressError(Exception):
    """A public server redirected to a private address."""


class Attempt(Timeout):
    """One attempt at an image, redirects included, that ends after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.until = time.monotonic() + seconds
        self.was_public = False

    def left(self) -> float:
        """Return the seconds left; TimeoutError when there are none."""
        seconds = self.until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("not complete within the deadline")
        return seconds

    def enter(self, *, public: bool) -> None:
        """Note the host of the next request; RefusedAddressError if it is private after a public one."""
        if self.was_public and not public:
            raise RefusedAddressError
        self.was_public = public

    # urllib3 copies a timeout for each request and sets its parts on the connection: all are the attempt.
    connect_timeout = read_timeout = property(lambda self: self)

    def clone(self) -> Attempt:
        return self

    def start_connect(self) -> float:
        return 0.0


class TimedSocket:
    """A socket whose reads end with the attempt that its connection is used for."""

    owner: DeadlineConnection | None = None

    def limit(self: Any) -> None:
        if self.owner:
            left = self.owner.attempt.left()
            if abs((self.gettimeout() or 0.0) - left) > SLACK:
                self.settimeout(left)

    def recv(self, *arguments: Any) -> Any:
        self.limit()
        return super().recv(*arguments)  # type: ignore[misc]

    def recv_into(self, *arguments: Any) -> Any:
        self.limit()
        return super().recv_into(*arguments)  # type: ignore[misc]


class _Socket(TimedSocket, socket.socket):
    pass


class _TLSSocket(TimedSocket, ssl.SSLSocket):
    pass


class _Context(ssl.SSLContext):
    sslsocket_class = _TLSSocket

    def wrap_socket(self, sock: Any, *arguments: Any, **options: Any) -> Any:
        sock.limit()  # a handshake takes no longer in all than the timeout of the socket under it
        wrapped: Any = super().wrap_socket(sock, *arguments, **options)
        wrapped.owner = sock.owner
        return wrapped


_worked: dict[tuple[str, int], Any] = {}  # the last address of a host and port that a connection was made to


class DeadlineConnection(HTTPConnection):
    """A connection whose sockets and addresses are held to the attempt that it is used for."""

    attempt: Attempt
    is_public = False

    @property
    def timeout(self) -> Any:
        return self.attempt.left()

    @timeout.setter
    def timeout(self, value: Any) -> None:
        if isinstance(value, Attempt):
            self.attempt = value

    def _new_conn(self) -> socket.socket:
        """Return a connected socket, to the address that worked before if there is one."""
        place = self.host.strip("[]"), self.port or 0
        problem: OSError | None = None
        try:
            found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
            found.sort(key=lambda each: each[4] != _worked.get(place))
            for number, (family, kind, protocol, _, address) in enumerate(found, 1):
                self.is_public = is_public(str(address[0]))
                self._enter()
                connection = _Socket(family, kind, protocol)
                try:
                    for option in self.socket_options or []:
                        connection.setsockopt(*option)
                    left = self.attempt.left()
                    connection.settimeout(left if number == len(found) else min(left, ADDRESS_SECONDS))
                    connection.connect(address)
                except OSError as error:
                    connection.close()
                    problem = error
                else:
                    _worked[place] = address
                    connection.owner = self
                    return connection
            raise problem or OSError("the host has no address")
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:
            self._enter()
        super().request(*arguments, **options)

    def _enter(self) -> None:
        if not self.proxy:
            self.attempt.enter(public=self.is_public)

    @property
    def is_connected(self) -> bool:
        """Tell whether the connection can be used again: not with bytes left, which would pass for an answer.

        urllib3 checks the socket, but not what TLS has decrypted already.
        """
        pending = getattr(self.sock, "pending", None)
        return super().is_connected and not (pending and pending())


class _TLSConnection(DeadlineConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    """The connections to one host. One more request than it may have waits, as long as its attempt lasts."""

    ConnectionCls = DeadlineConnection

    def urlopen(self, *arguments: Any, **options: Any) -> Any:
        options["pool_timeout"] = options["timeout"].left()
        return super().urlopen(*arguments, **options)


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _Pool, "https": _TLSPool}


class Connections(HTTPAdapter):
    """The connections of one process: an adapter of requests that is called directly.

    At most `max_per_host` to a host are open. The proxies and certificates of the environment are read once:
    requests loads the certificates for each connection, 30 ms of work.
    """

    def __init__(self, max_per_host: int, user_agent: str) -> None:
        bundles = map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
        bundle = next(filter(None, bundles), DEFAULT_CA_BUNDLE_PATH)
        if not os.path.exists(bundle):
            raise InputError(f"{bundle}: no such file, REQUESTS_CA_BUNDLE names certificates")
        self.tls = _Context(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
        for name, proxy in getproxies().items():
            if name in ("http", "https", "all") and not proxy.lower().startswith(("http://", "https://")):
                expected = "an http:// or https:// address was expected"
                raise InputError(f"{name.upper()}_PROXY is {proxy!r}, {expected}")
        accept = {"Accept": "image/jpeg,*/*;q=0.5", "Accept-Encoding": "identity"}
        self.headers = CaseInsensitiveDict(accept | {"User-Agent": user_agent})
        self.proxies_of = cache(_proxies_of)  # reading the environment takes 0.2 ms
        super().__init__(HOSTS, max_per_host, pool_block=True)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self.tls, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        options |= {"ssl_context": self.tls, "proxy_ssl_context": self.tls}
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, *arguments: Any) -> None:
        """Leave the certificates to the context above."""

    def build_response(self, request: Any, raw: Any) -> Response:
        """Return a response of which `raw` is used: cookies and encodings cost as much as a third of all."""
        response = Response()
        response.raw = raw
        return response

    @contextmanager
    def get(self, url: str, attempt: Attempt) -> Iterator[Any]:
        """Yield the answer to one request, as urllib3 has it, its body to be read.

        Its connection is kept if the answer was read to its end or nearly.
        """
        proxies = self.proxies_of(host_of(url))
        if proxies:
            attempt.enter(public=is_public(urlsplit(url).hostname or ""))
        request = PreparedRequest()
        request.prepare_url(url, None)
        request.method, request.headers = "GET", self.headers
        answer = self.send(request, stream=True, timeout=attempt, proxies=proxies).raw  # type: ignore[arg-type]
        try:
            yield answer
        finally:
            left = answer.length_remaining  # None where it is not known
            if left is not None and left <= MAX_REST and answer.status not in (204, 304):
                answer.drain_conn()
            else:  # what follows a 204 would pass for the next answer
                answer.close()
            answer.release_conn()

    def close(self) -> None:
        """Close all connections at once: a pool that an exception still refers to would keep them open."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  # it has no iterator
                manager.pools[key].close()
            manager.clear()


def _proxies_of(host: str) -> dict[str, str]:
    """Return the proxy of a host, as `host_of` returns it, in the form that requests takes."""
    proxy = select_proxy(host, get_environ_proxies(host))
    return {"all": proxy} if proxy else {}


# --- addresses -------------------------------------------------------------------------------------------


def host_of(url: str) -> str:
    """Return scheme, host and port of a URL: limits and pauses hold for these."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}".lower()


def without_blanks(url: str) -> str:
    """Return an address without white space around it, and with its blanks percent-encoded."""
    return url.strip().replace(" ", "%20")


def url_problem(url: str) -> str:
    """Return why a URL is never requested, "" where it may be."""
    if len(url) > MAX_URL:
        return f"an address of {len(url)} characters"
    if _BAD_IN_URL.search(url):
        return "white space or control characters in the address"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme.lower() not in ("http", "https"):
        return f"{parts.scheme[:20] or 'no scheme'}: only http and https addresses are downloaded"
    if not parts.hostname or port == 0:
        return "no host in the address"
    if parts.username is not None or parts.password is not None:
        return "user name or password in the address"
    return ""


def is_public(host: str) -> bool:
    """Tell whether a host, by name or address, is on the public internet; a name is, except localhost."""
    name = host.strip("[]").rstrip(".").lower()
    try:  # 127.1 and 2130706433 are 127.0.0.1 too
        numeric = socket.getaddrinfo(name, None, flags=socket.AI_NUMERICHOST)[0][4][0]
    except (OSError, UnicodeError):
        return name != "localhost" and not name.endswith(".localhost")
    address = ipaddress.ip_address(str(numeric).partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_global
