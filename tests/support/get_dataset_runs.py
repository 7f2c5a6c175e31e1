"""Runs of step 1 for its tests, with each shell and tool of this machine, against a server with faults."""

import os
import random
import shutil
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAMS = {
    shell: os.path.realpath(found)
    for shell in ("sh", "dash", "bash", "busybox")
    if (found := shutil.which(shell))
}
SHELLS = [shell for shell in PROGRAMS if shell != "dash" or PROGRAMS["dash"] != PROGRAMS["sh"]]
TOOLS = [tool for tool in ("curl", "wget", "python3") if shutil.which(tool)]
UNIX_TOOLS = [
    "sh", "cat", "head", "tail", "sed", "tr", "awk", "wc", "grep", "mkdir", "mv",
    "rm", "rmdir", "tar", "gzip", "kill", "sleep", "printf", "dirname", "env", "cp", "ls",
]  # fmt: skip
CUT = 20_000  # bytes until a fault cuts the body; more than the tools keep in their buffers
DESCRIPTIONS = "/v7/oidv7-class-descriptions-boxable.csv"
BOXES = "/v5/validation-annotations-bbox.csv"
MASKS_ZIP = "/v5/validation-masks/validation-masks-1.zip"
TARBALL = "/2017_11/annotations_human_bbox_2017_11.tar.gz"
V7 = ("--release", "v7", "--split", "validation")
V3 = ("--release", "v3", "--split", "validation")
V7_MASKS = (*V7, "--masks")


class Handler(BaseHTTPRequestHandler):
    """Serve a folder, with the fault that a test has set for a path."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        fault = self.server.faults.get(self.path, "")
        self.server.requests.append((self.path, self.headers.get("Range")))
        file = self.server.folder / self.path.lstrip("/")
        if fault.isdigit() or not file.is_file():
            self.answer(int(fault or 404), b"<html>no</html>")
            return
        data = b"<html>all is well</html>" if fault == "not a tarball" else file.read_bytes()
        version = self.server.versions.get(self.path, "1")
        if version != "1":
            data = data.replace(b"0", b"9")  # the same size, other bytes
        wanted, tag = self.headers.get("Range"), f'"v{version}"'
        start = 0
        if wanted and fault != "no ranges" and self.headers.get("If-Range") in (None, tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if "no tag" not in fault:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if fault == "two writers":  # one asks for the whole file, the other for its rest
            sent = 0 if start else CUT
            self.wfile.write(body[:sent])
            self.wfile.flush()
            self.server.hanging.set()
            (self.server.second_go_on if start else self.server.go_on).wait(30)
            self.wfile.write(body[sent : sent + CUT])
            self.close_connection = True
            return
        if fault.startswith("cut") or fault == "hang":
            if fault == "cut once":
                del self.server.faults[self.path]
            self.wfile.write(body[:CUT])
            self.wfile.flush()
            if fault == "hang":
                self.server.hanging.set()
                self.server.go_on.wait(30)
            self.close_connection = True
            return
        self.wfile.write(body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """The server, its faults and the requests it had."""

    daemon_threads = True

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.hanging, self.go_on, self.second_go_on = (threading.Event() for _ in range(3))
        self.url = f"http://127.0.0.1:{self.server_port}"
        if tls:
            self.url = f"https://localhost:{self.server_port}"
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request, client_address) -> None:
        pass  # clients that leave early are part of these tests


@contextmanager
def serving(folder: Path, tls: ssl.SSLContext | None = None):
    with Server(folder, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.second_go_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def release(sample_directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(sample_directory / "release", folder, dirs_exist_ok=True)
    boxes = folder / BOXES.lstrip("/")
    header, rest = boxes.read_bytes().split(b"\n", 1)
    boxes.write_bytes(header + b"\n" + rest * (4 * CUT // len(rest)))
    masks = folder / MASKS_ZIP.lstrip("/")
    masks.write_bytes(random.Random(7).randbytes(4 * CUT) + masks.read_bytes())  # still a zip
    return folder


@pytest.fixture
def server(release):
    with serving(release) as server:
        yield server


@pytest.fixture(scope="module")
def path_with(tmp_path_factory):
    """Return `path_with(tool)`, a PATH with that tool alone to fetch with."""

    def make(tool: str) -> str:
        folder = tmp_path_factory.mktemp(f"bin-{tool}")
        for name in UNIX_TOOLS:
            if found := shutil.which(name):
                (folder / name).symlink_to(found)
        name = "wget" if tool == "busybox" else tool
        # A shim in place of python3 would need more of the machine than this PATH has.
        target = os.path.realpath(sys.executable) if tool == "python3" else shutil.which(tool)
        (folder / name).symlink_to(target)
        return str(folder)

    return make


def command(shell: str) -> list[str]:
    return ["busybox", "sh"] if shell == "busybox" else [shell]


def start(
    server: Server,
    *arguments: object,
    shell: str = "sh",
    path: str | None = None,
    script: Path = ROOT / "get_dataset.sh",
    stderr: int = subprocess.PIPE,
) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OPEN_IMAGES_URL": server.url + "/", "PATH": path or os.environ["PATH"]}
    whole = [
        shutil.which(command(shell)[0]) or shell,
        *command(shell)[1:],
        str(script),
        *map(str, arguments),
    ]
    return subprocess.Popen(
        whole,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def get(server: Server, *arguments: object, **options) -> tuple[int, str, str]:
    process = start(server, *arguments, **options)
    out, err = process.communicate(timeout=60)
    errors = [line for line in err.splitlines() if ": fetching " not in line]
    return process.returncode, out, "\n".join(errors)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(data: bytes) -> int:
    return data.count(b"\n")


def wait_until(condition) -> None:
    """Wait until another process has done something, for at most 30 seconds."""
    pause = threading.Event()
    for _ in range(600):
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        pause.wait(0.05)
    raise AssertionError("it did not happen within 30 seconds")
