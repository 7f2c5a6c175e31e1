"""Step 4 as real processes: interrupted, killed, a worker killed, the disk full."""

import os
import re
import signal
from hashlib import md5
from pathlib import Path

import pytest

from tests.support.downloads import (
    Gate,
    arguments,
    children,
    folder,
    good,
    no_file_above,
    photos,
    server,
    start,
    wait_gone,
    write_index,
)
from tests.support.fault_server import photo

__all__ = ["folder", "server"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_at_once_and_keeps_what_is_finished(server, folder, number):
    gate = Gate(server, 40)
    write_index(folder, good(server, 100))
    process = start(folder, "--processes", 2, "--threads", 8, start_new_session=True)
    assert gate.reached.wait(30)
    workers = children(process.pid)
    os.killpg(process.pid, number)  # a terminal's Ctrl-C goes to all of them
    _, error = process.communicate(timeout=2)
    gate.opened.set()
    assert process.returncode == 130
    assert error == "download_images.py: interrupted; run the same command again\n"
    assert all(wait_gone(pid, 2) for pid in workers)
    got = photos(folder)
    assert 30 <= len(got) <= 48
    assert got == {image_id: photo(image_id) for image_id in got}
    assert not list(folder.glob(".*.part"))


def test_a_killed_run_is_gone_on_with(script, server, folder):
    entries = [*good(server, 120), *({"id": f"x{n}", "url": f"{server.base}/404/x{n}"} for n in range(12))]
    entries.sort(key=lambda entry: md5(entry["id"].encode()).digest())
    write_index(folder, entries)
    undisturbed = script("download_images", *arguments(folder.with_name("undisturbed")))
    server.asked.clear()
    gate = Gate(server, 60)
    process = start(folder, "--processes", 2, "--threads", 8)
    assert gate.reached.wait(30)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert all(wait_gone(pid, 10) for pid in workers)
    killed = photos(folder)
    assert 30 <= len(killed) <= 108
    gate.opened.set()
    (folder / ".p1.jpg.part").write_bytes(b"half")
    outcome = script("download_images", *arguments(folder))
    assert outcome.code == 0
    assert outcome.counts["already_there"] == len(killed)
    assert outcome.counts["failed"] == undisturbed.counts["failed"] == 12
    assert photos(folder) == photos(folder.with_name("undisturbed"))
    listed = [
        (path / "download_failures.csv").read_bytes() for path in (folder, folder.with_name("undisturbed"))
    ]
    assert listed[0] == listed[1]
    assert {path.name for path in folder.glob(".*")} == {".download_refused"}
    twice = [
        path for path, number in server.asked.items() if number > 1 and path.rpartition("/")[2] in killed
    ]
    assert not twice


def test_a_killed_worker_is_one_line_and_the_next_run_goes_on(script, server, folder):
    gate = Gate(server, 40)
    write_index(folder, good(server, 100))
    process = start(folder, "--processes", 2, "--threads", 8)
    assert gate.reached.wait(30)
    workers = [
        pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    _, error = process.communicate(timeout=10)
    gate.opened.set()
    assert process.returncode == 1
    assert error == (
        "download_images.py: a worker process was killed (out of memory?); run the same command again to resume, "
        "with fewer workers if memory is short\n"
    )
    assert all(wait_gone(pid, 2) for pid in workers)
    outcome = script("download_images", *arguments(folder))
    assert (outcome.code, outcome.counts["failed"]) == (0, 0)
    assert len(photos(folder)) == 100


def test_a_full_disk_stops_the_run_with_one_line(script, server, folder):
    """A file may not grow beyond 1 kB here: photos cannot be written, as on a full disk."""
    write_index(folder, good(server, 1000))
    with no_file_above(1000):
        outcome = script("download_images", *arguments(folder))
    assert outcome.code == 1
    assert re.fullmatch(
        rf"download_images\.py: {re.escape(str(folder))}/p\d+\.jpg: File too large\n", outcome.err
    )
    assert not list(folder.glob("*.jpg"))
    assert not list(folder.glob(".*.part"))
    assert server.asked.total() < 300
