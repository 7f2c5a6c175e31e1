"""Step 5 as real processes: killed, interrupted, a worker killed, the disk full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.step5 import arguments, contents, folder, look, make_many

__all__ = ["folder"]


MANY = 600


@pytest.fixture
def many(tmp_path):
    return make_many(tmp_path, MANY)


def start(folder: Path, into: str | None, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "process_images.py"), *arguments(folder, *more, into=into)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def resized(folder: Path, into: str | None) -> int:
    """Return how many images have been written by now."""
    if into:
        return len(list((folder / into).glob("[!.]*.jpg")))
    return sum(path.stat().st_ino != path_ino for path, path_ino in INODES[folder].items())


INODES: dict[Path, dict[Path, int]] = {}


def wait_until_a_third_is_done(folder: Path, into: str | None, run: subprocess.Popen[str]) -> None:
    while resized(folder, into) < MANY // 3:
        assert run.poll() is None, run.stderr.read()


@pytest.mark.parametrize("into", ["small", None])
def test_a_killed_run_resumes_and_ends_the_same(many, into):
    INODES[many] = {path: path.stat().st_ino for path in (many / "photos").iterdir()}
    with start(many, into, "--workers", 2) as run:
        wait_until_a_third_is_done(many, into, run)
        run.kill()
        run.stdout.read()  # ends when the last worker, which holds the pipe too, has ended
    done = resized(many, into)
    assert MANY * 0.1 <= done <= MANY * 0.9
    assert not (many / "out.json").exists()
    with start(many, into, "--workers", 2) as again:
        out, err = again.communicate()
    assert again.returncode == 0, err
    counts = dict(pair.split("=") for pair in out.split())
    assert int(counts["already_there"]) > 0
    assert counts["failed"] == counts["truncated"] == "30"
    undisturbed = many.with_name("undisturbed")
    with start(undisturbed, into, "--workers", 2) as whole:
        whole.communicate()
    assert contents(many) == contents(undisturbed)


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_killed_worker_is_one_line_and_the_next_run_resumes(many):
    with start(many, "small", "--workers", 2) as run:
        wait_until_a_third_is_done(many, "small", run)
        os.kill(workers_of(run.pid)[0], signal.SIGKILL)
        out, err = run.communicate()
    assert (run.returncode, out) == (1, "")
    assert err.startswith("process_images.py: a worker process was killed")
    assert err.count("\n") == 1
    with start(many, "small", "--workers", 2) as again:
        again.communicate()
        assert again.returncode == 0
    undisturbed = many.with_name("undisturbed")
    with start(undisturbed, "small", "--workers", 1) as whole:
        whole.communicate()
    assert contents(many) == contents(undisturbed)


@pytest.mark.parametrize("into", ["small", None])
def test_an_image_that_cannot_be_written_ends_the_run_and_loses_nothing(folder, into):
    """A limit on the size of files stands in for a full disk: the write fails halfway."""
    before = contents(folder)
    command = [sys.executable, str(ROOT / "process_images.py"), *arguments(folder, "--workers", 2, into=into)]
    limited = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *command]  # 8 blocks of 512 or 1024 bytes
    run = subprocess.run(limited, capture_output=True, text=True, check=False)
    image_path = folder / (into or "photos") / "f1.jpg"
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"process_images.py: {image_path}: File too large\n"
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert not list(folder.rglob("*.part"))
    assert not (folder / "out.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout.split()[0]) == (0, "images=8")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_is_finished(many, signum):
    with start(many, "small", "--workers", 2) as run:
        wait_until_a_third_is_done(many, "small", run)
        run.send_signal(signum)
        _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (
        130, "process_images.py: interrupted; run the same command again to resume\n",
    )  # fmt: skip
    assert resized(many, "small") >= MANY // 3
    for path in (many / "small").glob("[!.]*.jpg"):
        assert look(path) == ("JPEG", 256)
