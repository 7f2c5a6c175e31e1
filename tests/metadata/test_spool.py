"""Temporary files for what is too large for memory: nothing of them outlives the run, however it ends."""

import os
import random
import signal
import subprocess
import sys
import tempfile
from contextlib import closing

import pytest

from common.metadata.index import Spool
from common.workers.pool import batches
from tests.conftest import ROOT


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return the folder that TMPDIR names to this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_items_come_back_by_number_in_the_order_they_were_added(temporary, monkeypatch):
    monkeypatch.setattr("common.metadata.index.BUCKET", 64)
    numbers = [number % 1000 for number in range(5000)]
    random.Random(1).shuffle(numbers)
    wanted: dict[int, list[bytes]] = {}
    with closing(Spool()) as spool:
        items = [(number, b"%d" % place * (place % 50)) for place, number in enumerate(numbers)]
        for number, item in items:
            wanted.setdefault(number, []).append(item)
        for some in batches(items, 70):
            spool.add("boxes", some)
        assert not list(temporary.iterdir())
        found = [(number, items["boxes"]) for number, items in spool]
    assert found == sorted(wanted.items())


def test_nothing_is_left_after_kill_9(temporary):
    code = (
        "import os, signal\nfrom common.metadata.index import Spool\nspool = Spool()\n"
        "for number in range(100): spool.add('boxes', [(number, bytes(100_000))])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not list(temporary.iterdir())
