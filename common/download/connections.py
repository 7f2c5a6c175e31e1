"""Connections that are kept, watched, and used with little more work than http.client's own.

requests has the certificates and the proxies, urllib3 keeps the connections, http.client alone sends and
reads. What urllib3 does for each request beyond that (finding the pool, timeouts, retries, decoders, headers
of its own) took nearly half of the interpreter's time, and threads share one interpreter.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, cast

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from common.download.deadline import Handle, RefusedAddressError, Watch, is_public, running

RESOLVED_SECONDS = 60  # for so long an address is remembered
RESOLVERS = 8  # threads that wait for name servers
HOSTS = 64  # whose connections are kept
MAX_REST = 1 << 16  # bytes read of an answer we have no use for, to keep its connection

_Address = tuple[Any, ...]


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


class Response(http.client.HTTPResponse):
    """An answer; urllib3's pool sets where its connection goes back to."""

    retries: Any
    _connection: HTTPConnection
    _pool: Any

    @property
    def length_remaining(self) -> int | None:
        """Bytes of the body still to be read, None where that is not known."""
        return self.length

    @property
    def version_string(self) -> str:
        return f"HTTP/{self.version / 10}"

    def leave(self) -> None:
        """Give the connection back: kept where the answer is read to its end or nearly, closed otherwise."""
        try:
            if self.length is not None and self.length <= MAX_REST:
                self.read()
        except (http.client.HTTPException, OSError):
            self.will_close = True
        if self.will_close or self.length or not self.isclosed() or self._says_more():
            self.close()
            self._connection.close()
        self._pool.take_back(self._connection)

    def _says_more(self) -> bool:
        """Tell whether more came than was promised, or may yet: it would be taken for the next answer.

        urllib3 looks whether a kept socket has anything to read; what TLS has decrypted it cannot see.
        """
        pending = getattr(self._connection.sock, "pending", None)
        return self.status in (204, 304) or bool(pending and pending())


class _Watched(HTTPConnection):
    """A connection that hands its socket to the Watch of the thread that uses it."""

    _handle: Handle | None = None
    response_class = Response

    def _new_conn(self) -> socket.socket:
        watch: Watch = running.watch
        problem: OSError | None = None
        for family, kind, protocol, _, address in _resolver.addresses(
            self._dns_host, self.port or 80, watch.left()
        ):
            connection = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or []:
                    connection.setsockopt(*option)
                self._handle = Handle(connection, is_public(address[0]))
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
            running.watch.use(self._handle)
        super().putrequest(*arguments, **options)

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Send a request without a body; `headers` say all that is to be said, but for the host."""
        headers = headers or {}
        self.putrequest(method, url, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders()

    def getresponse(self) -> Any:
        if self.sock is None:  # it broke while we asked, and urllib3 takes that for an early answer
            raise ConnectionResetError("the connection broke while the request was sent")
        return http.client.HTTPConnection.getresponse(self)

    def close(self) -> None:
        super().close()
        self._handle = None


class _WatchedTLS(_Watched, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Watched

    def take_back(self, connection: HTTPConnection) -> None:
        self._put_conn(connection)


class _TLSPool(urllib3.HTTPSConnectionPool, _Pool):
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
        super().__init__(pool_connections=HOSTS, pool_maxsize=max_per_host, pool_block=True)
        self.pools: dict[str, urllib3.HTTPConnectionPool] = {}

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self.tls, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def ask(
        self, host: str, url: str, proxy: str | None, headers: Mapping[str, str], seconds: float
    ) -> Response:
        """Return the answer to a GET, whose body is still to be read; `host` is the URL's, by host_of.

        Wait at most `seconds` for a connection, where all that a host may have are in use.
        """
        options: dict[str, Any] = {
            "headers": headers, "redirect": False, "retries": False, "preload_content": False,
            "timeout": None, "pool_timeout": seconds,
        }  # fmt: skip
        if proxy:
            manager = self.proxy_manager_for(proxy, ssl_context=self.tls, proxy_ssl_context=self.tls)
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
            response: Any = manager.urlopen("GET", url, **options)
        else:
            response = self._pool(host, url).urlopen("GET", parse_url(url).request_uri, **options)
        return cast(Response, response)

    def _pool(self, host: str, url: str) -> urllib3.HTTPConnectionPool:
        """Return the connections to a host; to find those among all of urllib3's takes as long as to ask."""
        pool = self.pools.get(host)
        if pool is None or pool.pool is None:  # urllib3 has closed it since
            if len(self.pools) >= HOSTS:
                self.pools.clear()
            pool = self.pools[host] = self.poolmanager.connection_from_url(url)
        return pool
