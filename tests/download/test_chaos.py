"""Step 4 killed again and again among faults of all kinds: in the end it is as if nothing had been."""

import json
import random
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest

from common.files.failures import read_failures
from tests.conftest import ROOT
from tests.support.downloads import children, wait_gone
from tests.support.fault_server import ROUTES, Exchange, fault_server, photo

FAULTS = ("500", "503", "reset", "reset_in_body", "hang_up", "short_body", "chunked_cut", "nonsense")
SHARE = 0.2  # of the requests meet a fault
GONE = 0.05  # of the photos are gone for good


class Chaos:
    """A route that draws a fault or the photo for each request; after so many photos it stops halfway."""

    def __init__(self) -> None:
        self.left = 0  # photos
        self.lock = threading.Lock()
        self.reached = threading.Event()  # one is held halfway
        self.killed = threading.Event()

    def __call__(self, e: Exchange) -> None:
        if is_gone(e.path.rpartition("/")[2]):
            ROUTES["404"](e)
        elif (draw := random.Random(f"{e.path} {e.number}")).random() < SHARE:
            ROUTES[draw.choice(FAULTS)](e)
        else:
            with self.lock:
                self.left -= 1
                is_over, reached, killed = self.left < 0, self.reached, self.killed  # of this run
            if is_over:
                e.head("200 OK", f"Content-Length: {len(e.photo)}")
                e.send(e.photo[:100])
                reached.set()
                killed.wait(60)
                e.send(e.photo[100:])
            else:
                e.answer(e.photo)

    def stop_after(self, number: int) -> None:
        """Serve so many photos more."""
        self.killed.set()
        with self.lock:
            self.left = number
            self.reached, self.killed = threading.Event(), threading.Event()


def is_gone(name: str) -> bool:
    return random.Random(name).random() < GONE


def start(folder) -> "subprocess.Popen[str]":
    command: list[Any] = [
        sys.executable, "download_images.py", "--images_path", folder.parent / "index.json",
        "--images_output_directory", folder, "--processes", 2, "--threads", 16, "--backoff", 0.01, "--retries", 30,
    ]  # fmt: skip
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "kills"), [(400, 3), pytest.param(10_000, 5, marks=pytest.mark.system)])
def test_killed_again_and_again_among_faults_it_ends_whole(tmp_path, number, kills):
    folder = tmp_path / "photos"
    ids = [f"c{n:05}" for n in range(number)]
    with fault_server() as server:
        chaos = server.routes["chaos"] = Chaos()
        index = [{"id": image_id, "url": f"{server.base}/chaos/{image_id}"} for image_id in ids]
        (tmp_path / "index.json").write_text(json.dumps(index))
        finished_before: set[str] = set()
        draw = random.Random(number)
        for _ in range(kills):
            chaos.stop_after(draw.randrange(number // 20, number // 6))
            process = start(folder)
            assert chaos.reached.wait(60)
            workers = children(process.pid)
            assert len(workers) >= 2
            process.kill()
            process.communicate()
            assert all(wait_gone(pid, 10) for pid in workers)
            finished = {path.stem for path in folder.glob("*.jpg")}
            assert finished_before < finished
            assert len(finished) < number * 0.95
            finished_before = finished
            # What is finished is never asked for again: the server forgets what it was asked, and none comes back.
            for image_id in finished:
                server.asked.pop(f"/chaos/{image_id}", None)
            for journal in (".download_failures.csv.journal", ".download_refused"):
                with suppress(FileNotFoundError), open(folder / journal, "ab") as stream:
                    stream.write(b"half a li")
        chaos.stop_after(number)
        process = start(folder)
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert not [image_id for image_id in finished_before if f"/chaos/{image_id}" in server.asked]
    gone = {image_id for image_id in ids if is_gone(image_id)}
    assert {path.stem: path.read_bytes() for path in folder.glob("*.jpg")} == {
        image_id: photo(image_id) for image_id in ids if image_id not in gone
    }
    rows = [(f.id, f.reason) for f in read_failures(folder / "download_failures.csv")]
    assert rows == [(image_id, "gone") for image_id in ids if image_id in gone]
    assert {path.name for path in folder.iterdir()} == {
        *(f"{image_id}.jpg" for image_id in ids if image_id not in gone),
        "download_failures.csv",
        "download_counts.json",
        ".download_refused",
    }
    assert f"already_there={len(finished_before)} " in out
