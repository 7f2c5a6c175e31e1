"""A server with the faults of real ones, each under its own path, over plain sockets or TLS.

A path is `/ROUTE/NAME`: ROUTE selects the answer, NAME the image in it. A route is a function that gets an
Exchange and writes raw bytes; if the exchange's `keep` is true, the connection stays open.
"""

import gzip
import io
import random
import socket
import ssl
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from itertools import cycle
from socketserver import BaseRequestHandler, ThreadingTCPServer

from PIL import Image

DRIP_SECONDS = 0.1  # between two bytes
PLACEHOLDER = "https://s.yimg.com/pw/images/en-us/photo_unavailable.png"


@cache
def photo(name: str) -> bytes:
    """Return a real JPEG, another for each name."""
    pixels = Image.frombytes("RGB", (48, 32), random.Random(name).randbytes(48 * 32 * 3))
    stream = io.BytesIO()
    pixels.save(stream, "JPEG")
    return stream.getvalue()


@dataclass
class Exchange:
    """One request, with methods to answer it."""

    server: "FaultServer"
    connection: socket.socket
    path: str
    headers: dict[str, str]
    number: int  # of the requests for this path, from 1
    keep: bool = True

    @property
    def photo(self) -> bytes:
        return photo(self.path.rpartition("/")[2])

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self, status: str = "200 OK", *headers: str) -> None:
        self.send("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode())

    def answer(self, body: bytes = b"", status: str = "200 OK", *headers: str) -> None:
        self.head(status, f"Content-Length: {len(body)}", *headers)
        self.send(body)

    def drip(self, data: bytes, again: bytes = b"x") -> None:
        """Send `data`, then `again` for ever, a byte at a time, until the client or the test ends."""
        self.send(data)
        for byte in cycle(again):
            if self.server.stopping.wait(DRIP_SECONDS):
                return
            self.send(bytes([byte]))

    def stall(self) -> None:
        self.keep = False
        self.connection.settimeout(0.2)
        while not self.server.stopping.is_set():
            with suppress(TimeoutError):
                if not self.connection.recv(1000):
                    return

    def reset(self) -> None:
        """End the connection with a RST."""
        self.keep = False
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_in_body(e: Exchange) -> None:
    e.head("200 OK", "Content-Length: 100000")
    e.send(e.photo)
    e.reset()


def short_body(e: Exchange) -> None:
    e.head("200 OK", f"Content-Length: {len(e.photo) + 100}")
    e.send(e.photo)
    e.keep = False


def long_body(e: Exchange) -> None:
    e.head("200 OK", f"Content-Length: {len(e.photo)}")
    e.send(e.photo + b"HTTP/1.1 200 OK\r\n" * 10)


def chunked(e: Exchange) -> None:
    e.head("200 OK", "Transfer-Encoding: chunked")
    half = len(e.photo) // 2
    for piece in (e.photo[:half], e.photo[half:], b""):
        e.send(b"%x\r\n%b\r\n" % (len(piece), piece))


def chunked_cut(e: Exchange) -> None:
    e.head("200 OK", "Transfer-Encoding: chunked")
    e.send(b"%x\r\n%b\r\n" % (len(e.photo), e.photo))
    e.keep = False


def chunked_endless(e: Exchange) -> None:
    e.head("200 OK", "Transfer-Encoding: chunked")
    e.send(b"ffff\r\n" + b"\xff\xd8\xff" + b"x" * 0xFFFC + b"\r\n")
    with suppress(OSError):
        while not e.server.stopping.is_set():
            e.send(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    e.keep = False


def endless(e: Exchange) -> None:
    e.head("200 OK", "Connection: close")
    with suppress(OSError):
        while not e.server.stopping.is_set():
            e.send(b"x" * 65536)
    e.keep = False


def until_close(e: Exchange, body: bytes | None = None, *headers: str) -> None:
    """Send a body without its length: the connection ends with it."""
    e.head("200 OK", "Connection: close", *headers)
    e.send(e.photo if body is None else body)
    e.keep = False


@cache
def with_preview(name: str) -> bytes:
    """Return a JPEG that has another, with an end marker of its own, in its header."""
    preview = photo("preview")
    segment = b"\xff\xe1" + (len(preview) + 8).to_bytes(2) + b"Exif\0\0" + preview
    return photo(name)[:2] + segment + photo(name)[2:]


def drip_headers(e: Exchange) -> None:
    e.send(b"HTTP/1.1 200 OK\r\n")
    e.drip(b"X-Slow: ")


def drip_chunk_size(e: Exchange) -> None:
    e.head("200 OK", "Transfer-Encoding: chunked")
    e.drip(b"", again=b"0")


def drip_body(e: Exchange) -> None:
    e.head("200 OK", "Content-Length: 100000")
    e.drip(b"\xff\xd8\xff")


def drip_until_close(e: Exchange) -> None:
    e.head("200 OK")
    e.drip(b"\xff\xd8\xff")


def drip_redirects(e: Exchange) -> None:
    """Redirect, each time within the deadline, to an address that does the same."""
    e.server.stopping.wait(DRIP_SECONDS * 6)
    e.answer(b"", "302 Found", f"Location: /drip_redirects/{e.number}")


def busy_then_good(e: Exchange) -> None:
    e.server.busy("429 Too Many Requests", e, "Retry-After: 1")


def busy_by_date(e: Exchange) -> None:
    """Ask for a pause of a second by the server's clock, which is a year behind."""
    now = 1_700_000_000
    e.server.busy(
        "429 Too Many Requests", e,
        f"Date: {formatdate(now, usegmt=True)}", f"Retry-After: {formatdate(now + 1, usegmt=True)}",
    )  # fmt: skip


def error_then_good(e: Exchange) -> None:
    e.server.busy("500 Internal Server Error", e)


def unavailable_then_good(e: Exchange) -> None:
    e.server.busy("503 Service Unavailable", e)


def to(location: str) -> Callable[[Exchange], None]:
    def redirect(e: Exchange) -> None:
        e.answer(b"moved", "302 Found", f"Location: {location}")

    return redirect


def status(line: str, *headers: str) -> Callable[[Exchange], None]:
    def say(e: Exchange) -> None:
        e.answer(b"<html>sorry</html>", line, "Content-Type: text/html", *headers)

    return say


def continues(e: Exchange) -> None:
    e.drip(b"", again=b"HTTP/1.1 100 Continue\r\n\r\n" * 40)


def broken_gzip(e: Exchange) -> None:
    e.answer(b"no gzip at all", "200 OK", "Content-Encoding: gzip")


def bomb(e: Exchange) -> None:
    e.answer(gzip.compress(b"\xff\xd8\xff" + bytes(3_000_000)), "200 OK", "Content-Encoding: gzip")


ROUTES: dict[str, Callable[[Exchange], None]] = {
    "good": lambda e: e.answer(e.photo, "200 OK", "Content-Type: image/jpeg"),
    "good_as_html": lambda e: e.answer(e.photo, "200 OK", "Content-Type: text/html"),
    "moved": lambda e: e.answer(b"", "301 Moved Permanently", f"Location: /good/{e.path.rpartition('/')[2]}"),
    "chunked": chunked,
    "until_close": until_close,
    "padded_until_close": lambda e: until_close(e, e.photo.ljust(5000, b"\0")),
    "cut_by_close": lambda e: until_close(e, e.photo[:-2]),
    "cut_at_once": lambda e: until_close(e, b"\xff"),
    "cut_header": lambda e: until_close(e, e.photo[:100]),
    "cut_after_preview": lambda e: until_close(e, with_preview("whole")[:-500]),
    "cut_gzip": lambda e: until_close(e, gzip.compress(e.photo)[:-900], "Content-Encoding: gzip"),
    "gzip": lambda e: e.answer(gzip.compress(e.photo), "200 OK", "Content-Encoding: gzip"),
    "deflate": lambda e: e.answer(zlib.compress(e.photo), "200 OK", "Content-Encoding: deflate"),
    "raw_deflate": lambda e: e.answer(
        zlib.compress(e.photo, wbits=-15), "200 OK", "Content-Encoding: deflate"
    ),
    "to_blanks": lambda e: e.answer(b"", "302 Found", f"Location: /good/a b/{e.path.rpartition('/')[2]} "),
    "long_body": long_body,
    "404": status("404 Not Found"),
    "410": status("410 Gone"),
    "401": status("401 Unauthorized"),
    "403": status("403 Forbidden"),
    "400": status("400 Bad Request"),
    "204": lambda e: e.head("204 No Content"),
    "placeholder": to(PLACEHOLDER),
    "loop": to("/loop/again"),
    "to_file": to("file:///etc/passwd"),
    "to_ftp": to("ftp://127.0.0.1/x.jpg"),
    "to_nowhere": to("http://:80/x.jpg"),
    "html": status("200 OK"),
    "sign_in": to("/sign_in_page/x"),
    "sign_in_page": lambda e: e.answer(
        b"\xef\xbb\xbf\n<!-- Wi-Fi -->\n<!DOCTYPE html><title>Welcome</title>"
    ),
    "html_by_name": lambda e: e.answer(b"Welcome!", "200 OK", "Content-Type: text/html; charset=utf-8"),
    "text": lambda e: e.answer(b"no photo here\n", "200 OK", "Content-Type: text/plain"),
    "heic": lambda e: e.answer(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "200 OK", "Content-Type: image/heic"),
    "empty": lambda e: e.answer(b""),
    "noai": lambda e: e.answer(e.photo, "200 OK", "X-Robots-Tag: noindex, noimageai"),
    "other_bot": lambda e: e.answer(e.photo, "200 OK", "X-Robots-Tag: otherbot: noai"),
    "huge": lambda e: e.head("200 OK", "Content-Length: 99000000"),
    "bomb": bomb,
    "broken_gzip": broken_gzip,
    "broken_deflate": lambda e: e.answer(b"no deflate at all", "200 OK", "Content-Encoding: deflate"),
    "chunked_endless": chunked_endless,
    "endless": endless,
    "429": status("429 Too Many Requests", "Retry-After: 0"),
    "429_long": status("429 Too Many Requests", "Retry-After: 86400"),
    "407": status("407 Proxy Authentication Required"),
    "408": status("408 Request Timeout"),
    "425": status("425 Too Early"),
    "500": status("500 Internal Server Error"),
    "503": status("503 Service Unavailable", "Retry-After: 0"),
    "busy_then_good": busy_then_good,
    "busy_by_date": busy_by_date,
    "error_then_good": error_then_good,
    "unavailable_then_good": unavailable_then_good,
    "reset": Exchange.reset,
    "reset_in_body": reset_in_body,
    "reset_then_good": lambda e: e.reset() if e.number == 1 else e.answer(e.photo),
    "hang_up": lambda e: setattr(e, "keep", False),
    "nonsense": lambda e: e.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "short_body": short_body,
    "chunked_cut": chunked_cut,
    "stall": Exchange.stall,
    "drip_status": lambda e: e.drip(b"HTTP/1.1 2", again=b"0"),
    "drip_headers": drip_headers,
    "drip_continue": continues,
    "drip_chunk_size": drip_chunk_size,
    "drip_body": drip_body,
    "drip_until_close": drip_until_close,
    "drip_redirects": drip_redirects,
}


class _Handler(BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, FaultServer)
        with suppress(OSError):
            connection = self.request
            if server.tls:
                connection = server.tls.wrap_socket(connection, server_side=True)
            with connection, server.counting():
                self.serve(connection, server)

    def serve(self, connection: socket.socket, server: "FaultServer") -> None:
        buffer = b""
        keep = True
        while keep and not server.stopping.is_set():
            while b"\r\n\r\n" not in buffer:
                data = connection.recv(65536)
                if not data:
                    return
                buffer += data
                if buffer.startswith(b"\x16\x03"):  # TLS on a plain port
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            with server.lock:
                server.asked[path] += 1
                server.requests.append((path, headers))
                number = server.asked[path]
            if method == "CONNECT":
                server.tunnel(connection, path)
                return
            path = path.partition("//")[2].partition("/")[2] if path.startswith("http") else path
            exchange = Exchange(server, connection, "/" + path.lstrip("/"), headers, number)
            route = exchange.path.split("/")[1]
            server.routes.get(route, ROUTES["404"])(exchange)
            keep = exchange.keep


@dataclass
class _Counts:
    open: int = 0
    most_open: int = 0
    connections: int = 0


class FaultServer(ThreadingTCPServer):
    """The server: `asked` counts the requests by path, `counts` the connections."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.tls = tls
        self.routes = dict(ROUTES)
        self.asked: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.counts = _Counts()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.base = f"{'https' if tls else 'http'}://{host}:{self.server_address[1]}"

    @contextmanager
    def counting(self) -> Iterator[None]:
        with self.lock:
            self.counts.connections += 1
            self.counts.open += 1
            self.counts.most_open = max(self.counts.most_open, self.counts.open)
        try:
            yield
        finally:
            with self.lock:
                self.counts.open -= 1

    def busy(self, line: str, e: Exchange, *headers: str) -> None:
        """Answer the first request for a path with `line`, the others with the image."""
        if e.number == 1:
            e.answer(b"busy", line, *headers)
        else:
            e.answer(e.photo)

    def tunnel(self, connection: socket.socket, address: str) -> None:
        """Act as a proxy: connect to `address` and pass bytes both ways."""
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(far, connection), daemon=True)
            back.start()
            _pump(connection, far)
            back.join()

    def handle_error(self, request, client_address) -> None:
        if not self.stopping.is_set():
            super().handle_error(request, client_address)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def fault_server(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[FaultServer]:
    """Yield a running server on a port of its own."""
    with FaultServer(tls, host) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def unused_port() -> int:
    """Return a local port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
