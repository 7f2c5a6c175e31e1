"""Step 5 as real processes: killed, interrupted, a worker killed, the disk full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import process_images
from tests.conftest import ROOT
from tests.support.downloads import no_file_above
from tests.support.running import wait_in_run
from tests.support.step5 import arguments, contents, folder, linked, look, make_many

__all__ = ["folder"]


MANY = 400  # in batches of 64


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_many(tmp_path_factory.mktemp("many") / "images", MANY)


@pytest.fixture
def many(images, tmp_path):
    return linked(images, tmp_path / "disturbed")


@pytest.fixture(scope="module")
def undisturbed(images):
    """Return what a run that nobody disturbs leaves, by the folder that it writes to."""
    found = {}
    for into in ("small", None):
        folder = linked(images, images.with_name(f"undisturbed {into}"))
        process_images.main(arguments(folder, into=into))
        found[into] = contents(folder)
    return found


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
    """Wait for a third of the images, and for a batch in the journal, without which the next run makes all again."""
    journal = folder / (into or "photos") / ".process_finished"
    wait_in_run(
        run, lambda: resized(folder, into) >= MANY // 3 and journal.exists() and journal.stat().st_size > 0
    )


@pytest.mark.parametrize("into", ["small", None])
def test_a_killed_run_resumes_and_ends_the_same(script, undisturbed, many, into):
    INODES[many] = {path: path.stat().st_ino for path in (many / "photos").iterdir()}
    with start(many, into, "--workers", 2) as run:
        wait_until_a_third_is_done(many, into, run)
        run.kill()
        run.stdout.read()  # ends when the last worker, which holds the pipe too, has ended
    done = resized(many, into)
    assert MANY * 0.1 <= done <= MANY * 0.9
    assert not (many / "out.json").exists()
    again = script("process_images", *arguments(many, into=into))
    assert again.code == 0, again.err
    assert again.counts["already_there"] > 0
    assert again.counts["failed"] == again.counts["truncated"] == MANY // 20
    assert contents(many) == undisturbed[into]


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_killed_worker_is_one_line_and_the_next_run_resumes(script, undisturbed, many):
    with start(many, "small", "--workers", 2) as run:
        wait_until_a_third_is_done(many, "small", run)
        os.kill(workers_of(run.pid)[0], signal.SIGKILL)
        out, err = run.communicate()
    assert (run.returncode, out) == (1, "")
    assert err.startswith("process_images.py: a worker process was killed")
    assert err.count("\n") == 1
    assert script("process_images", *arguments(many)).code == 0
    assert contents(many) == undisturbed["small"]


@pytest.mark.parametrize("into", ["small", None])
def test_an_image_that_cannot_be_written_ends_the_run_and_loses_nothing(script, folder, into):
    """A limit on the size of files stands in for a full disk: the write fails halfway."""
    before = contents(folder)
    with no_file_above(4096):
        run = script("process_images", *arguments(folder, "--workers", 2, into=into))
    image_path = folder / (into or "photos") / "f1.jpg"
    assert (run.code, run.out) == (1, "")
    assert run.err == f"process_images.py: {image_path}: File too large\n"
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert not list(folder.rglob("*.part"))
    assert not (folder / "out.json").exists()
    again = script("process_images", *arguments(folder, into=into))
    assert (again.code, again.counts["images"]) == (0, 8)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_is_finished(many, signum):
    with start(many, "small", "--workers", 2) as run:
        wait_until_a_third_is_done(many, "small", run)
        run.send_signal(signum)
        _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (
        130, "process_images.py: interrupted; run the same command again\n",
    )  # fmt: skip
    assert resized(many, "small") >= MANY // 3
    for path in (many / "small").glob("[!.]*.jpg"):
        assert look(path) == ("JPEG", 256)
