"""Step 1 interrupted by its server, its user, a kill, another run, a full disk."""

import os
import pty
import re
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.get_dataset_runs import (
    BOXES,
    CUT,
    MASKS_ZIP,
    TOOLS,
    V7,
    V7_MASKS,
    get,
    start,
    tree,
    wait_until,
)
from tests.support.get_dataset_runs import path_with as path_with
from tests.support.get_dataset_runs import release as release
from tests.support.get_dataset_runs import server as server

CUTS = {
    "a connection that breaks off once": ("cut once", "1", ["whole", "rest"]),
    "a server without ranges": ("no ranges", "1", ["whole", "rest", "whole"]),
    "a file that changed": ("", "2", ["whole", "rest", "whole"]),
}


@pytest.mark.parametrize(
    ("case", "tool"), [(case, tool) for case in CUTS for tool in (TOOLS[:1] if "ranges" in case else TOOLS)]
)
def test_a_partial_file_is_continued_or_started_over(server, tmp_path, path_with, case, tool):
    """To a tool, a file that changed is one from a server without ranges."""
    (fault, version, ranges), path = CUTS[case], path_with(tool)
    if fault != "cut once":
        server.faults[BOXES] = "hang"
        process = start(server, *V7, "--directory", tmp_path, path=path)
        assert server.hanging.wait(30)
        wait_until(lambda: (tmp_path / "validation/boxes.csv.part").stat().st_size >= CUT // 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "validation/boxes.csv").exists()
        server.go_on.set()
    server.faults[BOXES], server.versions[BOXES] = fault, version
    code, _, err = get(server, *V7, "--directory", tmp_path, path=path)
    assert code == 0, err
    official = (server.folder / BOXES.lstrip("/")).read_bytes()
    expected = official if version == "1" else official.replace(b"0", b"9")
    assert (tmp_path / "validation/boxes.csv").read_bytes() == expected
    asked = ["rest" if wanted else "whole" for path, wanted in server.requests if path == BOXES]
    assert asked == ranges


@pytest.mark.parametrize("tool", TOOLS)
def test_a_short_file_is_never_taken_for_complete(server, tmp_path, path_with, tool):
    """Without a tag no file can be resumed, and every try is cut at the same byte."""
    program = (ROOT / "get_dataset.sh").read_text()
    assert "\nTRIES=20 " in program
    (tmp_path / "get_dataset.sh").write_text(program.replace("\nTRIES=20 ", "\nTRIES=3 "))
    server.faults[BOXES] = "cut, no tag"
    code, _, err = get(
        server, *V7, "--directory", tmp_path, path=path_with(tool), script=tmp_path / "get_dataset.sh"
    )
    assert code == 1
    assert [path for path, _ in server.requests].count(BOXES) == 3
    assert err.startswith(f"get_dataset.sh: {server.url}{BOXES}: connection lost after {CUT} of ")
    assert not (tmp_path / "validation/boxes.csv").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_resumes(server, tmp_path, signum):
    server.faults[BOXES] = "hang"
    process = start(server, *V7, "--directory", tmp_path)
    assert server.hanging.wait(30)
    wait_until(lambda: (tmp_path / "validation/boxes.csv.part").stat().st_size >= CUT // 2)
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "get_dataset.sh: interrupted; run the same command again to resume"
    server.go_on.set()
    server.faults.clear()
    assert get(server, *V7, "--directory", tmp_path)[0] == 0
    assert [bool(wanted) for path, wanted in server.requests if path == BOXES] == [False, True]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_terminal_shows_the_share_of_a_large_file(server, tmp_path, path_with, tool):
    server.faults[BOXES] = "hang"
    size = len((server.folder / BOXES.lstrip("/")).read_bytes())
    ours, theirs = pty.openpty()
    with start(server, *V7, "--directory", tmp_path, path=path_with(tool), stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b" MB/s" not in shown:
            shown += os.read(ours, 1000)
        server.faults.clear()
        server.go_on.set()
        process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rf"\r  \d+ % of {size / 1e6:.1f} MB, \d\.\d MB/s, \d+:\d\d left", shown.decode())


def test_two_runs_in_one_folder_are_refused(server, tmp_path):
    server.faults[BOXES] = "hang"
    process = start(server, *V7, "--directory", tmp_path)
    assert server.hanging.wait(30)
    code, _, err = get(server, *V7, "--directory", tmp_path)
    assert code == 1
    assert err == (
        f"get_dataset.sh: {tmp_path}: another run (process {process.pid}) is using it; "
        f"if that process is something else, remove {tmp_path}/.get_dataset.lock"
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    server.faults.clear()
    assert get(server, *V7, "--directory", tmp_path)[0] == 0  # the lock of a killed run stops no one


def test_the_lock_of_a_killed_run_with_our_own_number_stops_no_one(server, tmp_path):
    """In a container every run has the same process number."""
    lock = tmp_path / ".get_dataset.lock"
    lock.mkdir()
    result = subprocess.run(
        ["sh", "-c", f"echo $$ >{lock}/pid; exec sh {ROOT}/get_dataset.sh {' '.join(V7)} --directory {tmp_path}"],
        env={**os.environ, "OPEN_IMAGES_URL": server.url}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not lock.exists()


def test_a_run_that_has_only_just_started_is_another_run(server, tmp_path):
    """Its lock holds no process number yet."""
    lock = tmp_path / ".get_dataset.lock"
    lock.mkdir()
    process = start(server, *V7, "--directory", tmp_path)
    time.sleep(0.2)
    (lock / "pid").write_text(f"{os.getpid()}\n")
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"another run (process {os.getpid()}) is using it" in err


def test_of_many_runs_that_find_the_lock_of_a_killed_one_only_one_runs(server, tmp_path):
    server.faults[BOXES] = "hang"
    killed = start(server, *V7, "--directory", tmp_path)
    assert server.hanging.wait(30)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    runs = [start(server, *V7, "--directory", tmp_path) for _ in range(6)]
    wait_until(lambda: sum(run.poll() is not None for run in runs) == 5)
    (last,) = (run for run in runs if run.poll() is None)
    refused = [run.communicate()[1] for run in runs if run is not last]
    assert all(run.returncode == 1 for run in runs if run is not last)
    assert all("another run" in text and text.count("\n") == 1 for text in refused)
    server.faults.clear()
    server.go_on.set()
    _, err = last.communicate(timeout=30)
    assert last.returncode == 0, err
    assert not (tmp_path / ".get_dataset.lock").exists()


TWO_WRITERS = {
    "boxes": (V7, BOXES, "validation/boxes.csv"),
    "masks": (V7_MASKS, MASKS_ZIP, "validation/masks/validation-masks-1.zip"),
}


@pytest.mark.parametrize(("what", "tool"), [*(("boxes", tool) for tool in TOOLS), ("masks", TOOLS[0])])
def test_a_tool_that_outlives_its_killed_run_writes_into_no_file_of_the_next(
    server, tmp_path, path_with, what, tool
):
    """A kill of the shell alone leaves its curl or wget, which gets more bytes while the next run resumes."""
    flags, url, name = TWO_WRITERS[what]
    path, file = path_with(tool), tmp_path / name
    part = file.with_name(file.name + ".part")
    server.faults[url] = "two writers"
    killed = start(server, *flags, "--directory", tmp_path, path=path)
    assert server.hanging.wait(30)
    wait_until(lambda: part.stat().st_size >= CUT // 2)
    killed.kill()
    killed.wait()
    part.with_name(part.name + ".copy").write_text("of a run killed while it copied")
    process = start(server, *flags, "--directory", tmp_path, path=path)
    wait_until(lambda: [bool(wanted) for path, wanted in server.requests if path == url] == [False, True])
    server.go_on.set()
    killed.communicate(timeout=30)  # until the tool, which has its pipes, has ended
    del server.faults[url]
    server.second_go_on.set()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert file.read_bytes() == (server.folder / url.lstrip("/")).read_bytes()
    assert {path.suffix for path in part.parent.iterdir()} == {file.suffix}


@pytest.mark.parametrize(("copy", "signum"), [("exit 1", None), ("exec sleep 60", signal.SIGTERM)])
def test_a_copy_that_cannot_be_made_is_made_by_the_next_run(server, tmp_path, path_with, copy, signum):
    path, folder = path_with(TOOLS[0]), tmp_path / "d"
    server.faults[BOXES] = "hang"
    killed = start(server, *V7, "--directory", folder)
    assert server.hanging.wait(30)
    part = folder / "validation/boxes.csv.part"
    wait_until(lambda: part.stat().st_size >= CUT // 2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    server.faults.clear()
    number, size = part.stat().st_ino, part.stat().st_size
    cp = Path(path) / "cp"
    cp.unlink()
    cp.write_text(f"#!/bin/sh\n: >{tmp_path}/copying\nhead -c 9 $1 >$2\n{copy}\n")
    cp.chmod(0o755)
    process = start(server, *V7, "--directory", folder, path=path)
    wait_until((tmp_path / "copying").exists)
    if signum:
        process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert process.returncode == (130 if signum else 1)
    assert len(err.splitlines()) == 1
    assert ("interrupted" if signum else f"{part}: a killed run may still be writing it") in err
    assert (part.stat().st_ino, part.stat().st_size) == (number, size)
    with part.open("rb") as stream:
        process = start(server, *V7, "--directory", folder)
        assert process.communicate(timeout=30)[0]
        assert os.fstat(stream.fileno()).st_nlink == 0
    assert sorted(path.name for path in part.parent.iterdir()) == ["boxes.csv", "images.csv"]
    assert [bool(wanted) for path, wanted in server.requests if path == BOXES] == [False, True]


class BreakingProxy(BaseHTTPRequestHandler):
    """Accept a client's CONNECT and close the connection."""

    def do_CONNECT(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("tool", TOOLS)
def test_the_answer_of_a_proxy_is_not_taken_for_the_servers(server, tmp_path, path_with, monkeypatch, tool):
    """Its 200 would mean that the file cannot be resumed."""
    path, part = path_with(tool), tmp_path / "validation/boxes.csv.part"
    server.faults[BOXES] = "hang"
    process = start(server, *V7, "--directory", tmp_path, path=path)
    assert server.hanging.wait(30)
    wait_until(lambda: part.stat().st_size >= CUT // 2)
    process.terminate()
    process.communicate(timeout=10)
    before, direct = part.read_bytes(), server.url
    with ThreadingHTTPServer(("127.0.0.1", 0), BreakingProxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        server.url = "https://localhost:1"
        code, _, err = get(server, *V7, "--directory", tmp_path, path=path)
        proxy.shutdown()
        thread.join()
    assert code == 1
    assert f"{server.url}{BOXES}: connection lost after {len(before)} of " in err
    assert "\n" not in err
    assert part.read_bytes() == before
    server.url = direct
    server.faults.clear()
    server.go_on.set()
    assert get(server, *V7, "--directory", tmp_path, path=path)[0] == 0
    assert [bool(wanted) for path, wanted in server.requests if path == BOXES] == [False, True]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_does_not_wait_until_a_tarball_is_unpacked(server, tmp_path, path_with, signum):
    """A tar that takes a minute acts as a large tarball on a slow disk."""
    path = path_with(TOOLS[0])
    tar = Path(path.split(os.pathsep)[0]) / "tar"
    tar.unlink()
    tar.write_text(f"#!/bin/sh\n: >{tmp_path}/unpacking\nexec sleep 60\n")
    tar.chmod(0o755)
    process = start(
        server, "--release", "v3", "--split", "validation", "--directory", tmp_path / "d", path=path
    )
    wait_until((tmp_path / "unpacking").exists)
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "get_dataset.sh: interrupted; run the same command again to resume"
    assert get(server, "--release", "v3", "--split", "validation", "--directory", tmp_path / "d")[0] == 0


def test_another_release_in_the_same_folder_is_an_error(server, tmp_path):
    assert get(server, "--release", "v3", "--directory", tmp_path)[0] == 0
    before = tree(tmp_path)
    code, _, err = get(server, "--release", "v7", "--directory", tmp_path)
    assert (code, err) == (
        1, f"get_dataset.sh: {tmp_path}: holds release v3, not v7; give each release its own --directory",
    )  # fmt: skip
    assert tree(tmp_path) == before


def test_a_full_disk_is_one_line_and_nothing_half_made(server, tmp_path):
    """A limit on the size of files acts as a full disk, which would need root."""
    script = (
        f"ulimit -f 1; trap '' XFSZ; exec sh {ROOT}/get_dataset.sh --split validation --directory {tmp_path}"
    )
    environment = {**os.environ, "OPEN_IMAGES_URL": server.url}
    result = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if ": fetching " not in line]
    assert len(errors) == 1
    assert errors[0].endswith("cannot be written (disk full?)")
    assert not any(path.stat().st_size > 1024 for path in tmp_path.rglob("*") if path.is_file())
