r"""Serve a sample on this machine: the release, the mirror and the originals, each on its own port.

    python3 -m sample.serve demo/sample                          prints the three addresses, runs until Ctrl-C
    python3 -m sample.serve demo/sample -- sh make_dataset.sh    runs the command with the addresses in its
                                                                 environment, and exits with its code

The addresses are lines that a shell can evaluate:
    OPEN_IMAGES_URL=http://127.0.0.1:40001
    MIRROR_URL=http://127.0.0.1:40002
    ORIGINALS_URL=http://127.0.0.1:8652

The image index holds the addresses of the originals, so ORIGINALS_URL has the port that the sample was made
for. If that port is in use, another is taken and the release is rewritten for it.
The server speaks HTTP/1.1 with keep-alive, ETag, Last-Modified, Range and If-Range. An empty file is an image
that is gone: it redirects to the placeholder, as Flickr does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from common.cli import InputError, make_parser, run, whole_number
from common.files.whole_files import locked_folder
from sample.make import PLACEHOLDER_FOLDER, PLACEHOLDERS, read_truth, write_release

HOST = "127.0.0.1"
CHUNK = 1 << 18  # bytes written at a time
IDLE_SECONDS = 60  # a connection without a request is closed after this
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".csv": "text/csv", ".json": "application/json"}
BYTE_RANGE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))")


@dataclass(frozen=True)
class Addresses:
    """Addresses of the three hosts of a served sample."""

    open_images_url: str
    mirror_url: str
    originals_url: str

    def environment(self) -> dict[str, str]:
        return {name.upper(): url for name, url in vars(self).items()}


class Handler(BaseHTTPRequestHandler):
    """Serve the files of the server's folder."""

    protocol_version = "HTTP/1.1"
    server_version = "sample"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = CHUNK  # head and body leave together, with no wait for an acknowledgement between them
    disable_nagle_algorithm = True
    server: FolderServer

    def do_GET(self) -> None:
        path = self.server.file_at(urlsplit(self.path).path)
        if path is None:
            self.head(HTTPStatus.NOT_FOUND, 0)
            return
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_size == 0:
                where = f"{self.server.url}/{PLACEHOLDER_FOLDER}/{PLACEHOLDERS[-1]}"
                self.head(HTTPStatus.FOUND, 0, Location=where)
                return
            headers = {
                "Content-Type": TYPES.get(path.suffix, "application/octet-stream"),
                "Last-Modified": formatdate(status.st_mtime, usegmt=True),
                "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
                "Accept-Ranges": "bytes",
            }
            self.answer(stream, status.st_size, headers)

    do_HEAD = do_GET  # noqa: N815

    def answer(self, stream: BinaryIO, size: int, headers: dict[str, str]) -> None:
        """Send the complete file, or the one range of it that is requested."""
        wanted = BYTE_RANGE.fullmatch(self.headers.get("Range", ""))
        unless = self.headers.get("If-Range")
        if wanted is None or unless not in (None, headers["ETag"], headers["Last-Modified"]):
            self.head(HTTPStatus.OK, size, **headers)
            self.body(stream, 0, size)
            return
        first, last, tail = wanted.groups()
        start = max(size - int(tail), 0) if tail else int(first)
        end = min(int(last) + 1, size) if last else size
        if start >= end:
            self.head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, **{"Content-Range": f"bytes */{size}"})
            return
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self.head(HTTPStatus.PARTIAL_CONTENT, end - start, **headers)
        self.body(stream, start, end)

    def head(self, status: HTTPStatus, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def body(self, stream: BinaryIO, start: int, end: int) -> None:
        if self.command == "HEAD":
            return
        stream.seek(start)
        left = end - start
        while left and (chunk := stream.read(min(CHUNK, left))):
            self.wfile.write(chunk)
            left -= len(chunk)

    def log_message(self, *_: Any) -> None:
        pass


class FolderServer(ThreadingHTTPServer):
    """Serve one folder on a local port, each connection in a thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.folder = folder.resolve()
        self.url = f"http://{HOST}:{self.server_port}"

    def file_at(self, path: str) -> Path | None:
        """Return the file of a URL's path, None if it is missing or outside the folder."""
        file = (self.folder / unquote(path).lstrip("/")).resolve()
        return file if file.is_file() and file.is_relative_to(self.folder) else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # a client may leave at any time
            super().handle_error(request, client_address)


@contextmanager
def serving(directory: str | Path, port: int = 0) -> Iterator[Addresses]:
    """Serve the sample in `directory`: the release at `port`, the mirror at the next; 0: free ports."""
    with ExitStack() as stack:
        folder = stack.enter_context(sample_folder(directory))
        settings = json.loads((folder / "settings.json").read_text("utf-8"))
        try:
            originals = start(stack, folder / "photos", urlsplit(settings["originals_url"]).port or 0)
        except InputError:
            originals = start(stack, folder / "photos", 0)
        if originals.url != settings["originals_url"]:
            write_release(folder, read_truth(folder), {**settings, "originals_url": originals.url})
        release = start(stack, folder / "release", port)
        mirror = start(stack, folder / "mirror", port + 1 if port else 0)
        yield Addresses(release.url, mirror.url, originals.url)


@contextmanager
def sample_folder(directory: str | Path) -> Iterator[Path]:
    """Lock the folder of a sample, so that no other process serves or replaces it."""
    if not (Path(directory) / "settings.json").is_file():
        raise InputError(f"{directory}: no sample; python3 -m sample.make --directory {directory} makes one")
    with locked_folder(directory) as folder:
        yield folder


def start(stack: ExitStack, folder: Path, port: int, kind: type[FolderServer] = FolderServer) -> FolderServer:
    """Serve a folder until the stack is closed."""
    try:
        server = kind(folder, port)
    except OSError as error:
        raise InputError(f"port {port} of {HOST}: {error.strerror}") from None
    stack.callback(server.server_close)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    stack.callback(server.shutdown)
    return server


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("directory", metavar="DIR", help="the folder that sample.make wrote")
    parser.add_argument(
        "--port", type=whole_number(0), default=0,
        help="port of the release; the mirror has the next one (default: free ports)",
    )  # fmt: skip
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="command to run meanwhile, after --")
    args = parser.parse_args(argv)
    with serving(args.directory, args.port) as addresses:
        if args.command:
            environment = os.environ | addresses.environment()
            sys.exit(subprocess.run(args.command, check=False, env=environment).returncode)
        print(*(f"{name}={url}" for name, url in addresses.environment().items()), sep="\n", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    run(main)
