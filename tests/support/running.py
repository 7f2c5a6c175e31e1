"""Runs that a test disturbs, and a limit that stands in for a full disk."""

import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def wait_in_run(run: subprocess.Popen[Any], condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, which must be before the run ends."""
    while not condition():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)  # without it this process would take the core that the run needs


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let writes past this many bytes of a file fail, here and in processes that are started meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
