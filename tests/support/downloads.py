"""Servers, folders, indexes, runs and results of step 4, for all its tests."""

import json
import os
import resource
import select
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from common.download.types import DownloadSettings
from common.files.failures import read_failures
from tests.conftest import ROOT
from tests.support.fault_server import fault_server

REASONS = ("gone", "forbidden", "changed", "not_an_image", "too_large", "bad_url", "no_source", "rate_limited",
           "server_error", "web_page", "timeout", "connection", "tls")  # fmt: skip


@pytest.fixture
def server():
    with fault_server() as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "photos"


def arguments(folder, *more):
    return (
        "--images_path", folder.parent / "index.json", "--images_output_directory", folder,
        "--backoff", 0.05, "--retries", 2, "--processes", 1, *more,
    )  # fmt: skip


def download_settings(folder) -> DownloadSettings:
    """Return settings for a test of what is within a run."""
    return DownloadSettings(
        folder, threads=8, max_per_host=8, deadline=20.0, retries=2, backoff=0.05, max_pause=300.0, max_bytes=10**6,
        user_agent="tests/1", ignore_robots_tag=False,
    )  # fmt: skip


def write_index(folder, entries) -> None:
    (folder.parent / "index.json").write_text(json.dumps(entries))


def good(server, number: int) -> list[dict[str, str]]:
    return [{"id": f"p{n}", "url": f"{server.base}/good/p{n}"} for n in range(number)]


def photos(folder) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.jpg")}


def failures(folder) -> dict[str, tuple[str, str]]:
    return {f.id: (f.reason, f.detail) for f in read_failures(folder / "download_failures.csv")}


def counts(**given: int) -> dict[str, int]:
    return {
        "images": 0,
        "downloaded": 0,
        "already_there": 0,
        "failed": 0,
        **dict.fromkeys(REASONS, 0),
        "bytes": 0,
    } | given


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def start(folder, *more, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "download_images.py", *map(str, arguments(folder, *more))]
    environment = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as stream:
        return [int(child) for child in stream.read().split()]


def wait_gone(pid: int, seconds: float) -> bool:
    """Return whether a process that is not our child ends within that time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


@contextmanager
def no_file_above(size: int):
    """Let no process that starts meanwhile, nor this one, write a larger file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Gate:
    """A route that serves `number` images and then holds the others until it is opened."""

    def __init__(self, server, number: int) -> None:
        self.left = number
        self.lock = threading.Lock()
        self.reached = threading.Event()
        self.opened = threading.Event()
        server.routes["good"] = self

    def __call__(self, e) -> None:
        with self.lock:
            self.left -= 1
            held = self.left < 0
        if held:
            # A partial image, as a kill finds it.
            e.head("200 OK", f"Content-Length: {len(e.photo)}")
            e.send(e.photo[:100])
            self.reached.set()
            self.opened.wait(30)
            e.send(e.photo[100:])
        else:
            e.answer(e.photo)
