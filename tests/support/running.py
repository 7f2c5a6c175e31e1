"""Processes that a test disturbs while they run."""

import subprocess
import time
from collections.abc import Callable
from typing import Any


def wait_in_run(run: subprocess.Popen[Any], condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, which must be before the run ends."""
    while not condition():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)  # without it this process would take the core that the run needs
