"""Tasks for tests of worker processes, in a module that a spawned process imports in no time."""

import os
import signal
import time

from common.cli import InputError


def square(number: int) -> int:
    return number * number


def kill_self(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise InputError(f"item {number}")


def process_id(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def first_sleeps(number: int) -> int:
    time.sleep(1 if number == 0 else 0)
    return number


def large(_: int) -> bytes:
    return bytes(1 << 25)
