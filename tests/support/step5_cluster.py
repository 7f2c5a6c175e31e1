"""Step 5 on a cluster in tasks of 8 images, killed in the middle and compared with an undisturbed run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.dask_cluster import wait_until
from tests.support.step5 import arguments, contents, make_many

MANY = 300
# 8 photos a task, so that there is a middle to be killed in.
STEP = """
import sys, process_images
from common.cli import run
process_images.BATCH_IMAGES = 1
sys.argv[0] = "process_images.py"
run(process_images.main)
"""


@pytest.fixture
def many(tmp_path):
    return make_many(tmp_path, MANY)


def start(folder: Path, address: str, into: str | None = "small") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STEP, *arguments(folder, "--dask_scheduler", address, into=into)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_done(folder: Path, run: subprocess.Popen[str], number: int) -> None:
    """Wait until a run has written more than this number of images."""

    def is_done() -> bool:
        assert run.poll() is None, run.stderr.read()
        return len(list((folder / "small").glob("[!.]*.jpg"))) > number

    wait_until(is_done)


def assert_like_undisturbed(script, many: Path) -> None:
    undisturbed = many.with_name("undisturbed")
    assert script("process_images", *arguments(undisturbed)).code == 0
    assert contents(many) == contents(undisturbed)
    assert not list(many.rglob("*.part"))
