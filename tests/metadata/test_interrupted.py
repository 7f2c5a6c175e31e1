"""Step 3 as a real process: interrupted or killed at any time, it leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.step3 import CAT, INDEX_V3, TRAIN_V3, box, entry, table

IMAGES = 20_000
TITLE = "t" * 500  # bytes: with them the index is large enough for worker processes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return the folder of files that take a second, the index in worker processes."""
    folder = tmp_path_factory.mktemp("inputs")
    ids = [f"{number:016x}" for number in range(IMAGES)]
    (folder / "boxes.csv").write_text(table(TRAIN_V3, *(box(image) for image in ids)))
    (folder / "images.csv").write_text(table(INDEX_V3, *(entry(image, title=TITLE) for image in ids)))
    (folder / "classes.txt").write_text(f"{CAT}\n")
    return folder


def start(inputs, tmp_path) -> subprocess.Popen[str]:
    (tmp_path / "temporary").mkdir()
    return subprocess.Popen(
        [
            sys.executable, "process_metadata.py", "--annotations_input_path", inputs / "boxes.csv",
            "--image_index_input_path", inputs / "images.csv", "--trainable_classes_path", inputs / "classes.txt",
            "--point_output_path", tmp_path / "out/points.json", "--image_index_output_path", tmp_path / "out/images.json",
        ],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path / "temporary")}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


READ, POINTS, INDEX = "the index is read", "the datapoints are written", "the index is written"


@pytest.mark.parametrize(
    ("when", "signum"),
    [
        (READ, signal.SIGINT), (READ, signal.SIGTERM), (READ, signal.SIGKILL),
        (POINTS, signal.SIGTERM), (POINTS, signal.SIGKILL), (INDEX, signal.SIGINT), (INDEX, signal.SIGKILL),
    ],
)  # fmt: skip
def test_nothing_is_left(inputs, tmp_path, when, signum):
    out = tmp_path / "out"
    with start(inputs, tmp_path) as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        reached = {
            READ: lambda: len(children.read_text().split()) > 1,  # a worker beside what counts semaphores
            POINTS: (out / ".points.json.part").exists,
            INDEX: (out / ".images.json.part").exists,
        }[when]
        while not reached():
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.005)
        if when == READ:
            time.sleep(0.1)  # the workers start
        run.send_signal(signum)
        run.stderr.read()  # ends when the last worker, which holds the pipe too, has ended
    killed = signum == signal.SIGKILL
    assert run.returncode in ((0, -signum) if killed else (0, 130))
    assert not list((tmp_path / "temporary").iterdir())
    outputs = {path.name for path in out.glob("*")}
    parts = {name for name in outputs if name.endswith((".part", ".lock"))}
    assert run.returncode == 0 or not outputs - (parts if killed else set()) - {"points.json"}
    assert not parts or killed
