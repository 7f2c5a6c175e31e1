"""The faults of a server and the reasons that step 4 gives for them."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import repeat

import trustme

from tests.support.fault_server import DRIP_SECONDS

DEADLINE = 2.0  # seconds
SETTINGS = ("--image_source", "original", "--backoff", 0.05, "--retries", 2, "--max_megabytes", 1, "--processes", 1,
            "--threads", 64, "--max_per_host", 64)  # fmt: skip
GOOD = ("good", "good_as_html", "moved", "chunked", "until_close", "gzip", "deflate", "raw_deflate", "to_blanks", "long_body", "other_bot",
        "busy_then_good", "busy_by_date", "error_then_good", "unavailable_then_good", "reset_then_good")  # fmt: skip
FAULTS = {  # route: reason, a part of the detail
    "404": ("gone", "404 Not Found"),
    "410": ("gone", "410 Gone"),
    "placeholder": ("gone", "redirected to the placeholder"),
    "401": ("forbidden", "401 Unauthorized"),
    "403": ("forbidden", "403 Forbidden"),
    "noai": ("forbidden", "X-Robots-Tag: noindex, noimageai"),
    "html": ("web_page", "HTML page, 18 bytes of text/html"),
    "sign_in": ("web_page", "HTML page"),
    "html_by_name": ("web_page", "not an image, 8 bytes of text/html; charset=utf-8"),
    "empty": ("server_error", "200 OK, an empty body"),
    "text": ("not_an_image", "not an image, 14 bytes of text/plain"),
    "heic": ("not_an_image", "HEIC image, 24 bytes of image/heic"),
    "204": ("not_an_image", "204 No Content"),
    "broken_gzip": ("not_an_image", "damaged gzip"),
    "broken_deflate": ("not_an_image", "damaged deflate encoding"),
    "huge": ("too_large", "99000000 bytes, --max_megabytes allows 1000000"),
    "bomb": ("too_large", "more than the 1000000 bytes of --max_megabytes"),
    "endless": ("too_large", "more than the 1000000 bytes of --max_megabytes"),
    "chunked_endless": ("too_large", "more than the 1000000 bytes of --max_megabytes"),
    "400": ("bad_url", "400 Bad Request"),
    "loop": ("bad_url", "more than 5 redirects"),
    "to_file": ("bad_url", "file: only http and https"),
    "to_ftp": ("bad_url", "ftp: only http and https"),
    "to_nowhere": ("bad_url", "no host"),
    "429": ("rate_limited", "429 Too Many Requests"),
    "500": ("server_error", "500 Internal Server Error"),
    "503": ("server_error", "503 Service Unavailable"),
    "425": ("server_error", "425 Too Early"),
    "408": ("timeout", "408 Request Timeout"),
    "407": ("connection", "407 Proxy Authentication Required"),
    "reset": ("connection", ""),
    "reset_in_body": ("connection", ""),
    "hang_up": ("connection", "without response"),
    "nonsense": ("connection", ""),
    "short_body": ("connection", ""),
    "chunked_cut": ("connection", ""),
    **dict.fromkeys(
        ("cut_by_close", "cut_at_once", "cut_header", "cut_after_preview", "cut_gzip"),
        ("connection", "closed before the end of the image"),
    ),
    "stall": ("timeout", "deadline"),
    "drip_status": ("timeout", "deadline"),
    "drip_headers": ("timeout", "deadline"),
    "drip_continue": ("timeout", "deadline"),
    "drip_chunk_size": ("timeout", "deadline"),
    "drip_body": ("timeout", "deadline"),
    "drip_until_close": ("timeout", "deadline"),
    "drip_redirects": ("timeout", "deadline"),
}


def write_index(path, urls: dict[str, str]) -> None:
    path.write_text(json.dumps([{"id": image_id, "url": url} for image_id, url in urls.items()]))


def server_context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


TLS_RECORD = b"\x16\x03\x03\x40\x00"  # the head of one that is 16 kB long


@contextmanager
def listener(greeting: bytes, *, drips: bool = False) -> Iterator[int]:
    """Yield the port of a server that says `greeting` and nothing else, or then a byte at a time."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as connections:

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    connection, _ = server.accept()
                    connections.enter_context(connection)
                    threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with suppress(OSError):
                connection.sendall(greeting)
                for byte in repeat(b"x") if drips else ():
                    if over.wait(DRIP_SECONDS):
                        return
                    connection.sendall(byte)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
