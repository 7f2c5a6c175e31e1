"""Step 5 on a cluster in tasks of 8 images, disturbed in the middle and compared with an undisturbed run."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import process_images
from tests.conftest import ROOT
from tests.support.dask_cluster import Cluster, wait_until
from tests.support.step5 import arguments, contents, linked, make_many

MANY = 160
# 8 photos a task, so that there is a middle to be killed in.
STEP = """
import sys, process_images
from common.cli import run
process_images.BATCH_IMAGES = 1
sys.argv[0] = "process_images.py"
run(process_images.main)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return a folder of images and what a run that nobody disturbs made of them."""
    folder = make_many(tmp_path_factory.mktemp("many"), MANY)
    process_images.main(arguments(folder))
    return folder


@pytest.fixture
def many(undisturbed, tmp_path):
    """Return a folder of the same images, not resized yet."""
    return linked(undisturbed, tmp_path / "disturbed")


def start(folder: Path, address: str, into: str | None = "small") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STEP, *arguments(folder, "--dask_scheduler", address, into=into)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def number_done(folder: Path) -> int:
    """Return how many images a run has written."""
    return len(list((folder / "small").glob("[!.]*.jpg")))


def freeze(found: Cluster, many: Path) -> None:
    """Wait until a run has done some more tasks, and stop its workers in one, so that it cannot end."""
    before = number_done(many)
    wait_until(lambda: number_done(many) > before + 24)
    found.signal_workers(signal.SIGSTOP)
    assert number_done(many) < MANY, "the run is not in the middle"


def wait_until_done(folder: Path, run: subprocess.Popen[str], number: int) -> None:
    """Wait until a run has written more than this number of images."""

    def is_done() -> bool:
        assert run.poll() is None, run.stderr.read()
        return number_done(folder) > number

    wait_until(is_done)


def assert_like_undisturbed(many: Path, undisturbed: Path) -> None:
    assert contents(many) == contents(undisturbed)
    assert not list(many.rglob("*.part"))
