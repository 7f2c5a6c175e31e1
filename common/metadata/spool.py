"""Temporary files for what is too large for memory. They have no name, so nothing is left even by kill -9."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import IO

from common.cli import InputError

BUFFER = 1 << 18  # bytes that wait in memory for each temporary file

_HEAD = Struct("<IQ")  # number, length


class Spool:
    """Items of bytes, each with a number, added in any order and read back by number.

    Each temporary file, a bucket, holds the items of so many numbers. One bucket is in memory at a time.
    """

    def __init__(self, bucket_size: int) -> None:
        self.bucket_size = bucket_size
        self.buckets: list[IO[bytes]] = []

    def add(self, number: int, item: bytes) -> None:
        """Add an item; a full disk is an InputError that names the folder."""
        place = number // self.bucket_size
        try:
            while len(self.buckets) <= place:
                self.buckets.append(tempfile.TemporaryFile(buffering=BUFFER))  # noqa: SIM115  # closed by close
            self.buckets[place].write(_HEAD.pack(number, len(item)) + item)
        except OSError as error:
            raise _no_room(error) from None

    def bucket(self, place: int) -> dict[int, list[memoryview]]:
        """Return the items of a bucket by number, those of one number in the order they were added."""
        items: dict[int, list[memoryview]] = {}
        if place >= len(self.buckets):
            return items
        try:
            self.buckets[place].seek(0)  # writes what is left in the buffer
        except OSError as error:
            raise _no_room(error) from None
        data = memoryview(self.buckets[place].read())
        start = 0
        while start < len(data):
            key, length = _HEAD.unpack_from(data, start)
            start += _HEAD.size
            items.setdefault(key, []).append(data[start : start + length])
            start += length
        return items

    def __iter__(self) -> Iterator[tuple[int, list[memoryview]]]:
        """Yield each number with its items, by number."""
        for place in range(len(self.buckets)):
            yield from sorted(self.bucket(place).items())

    def close(self) -> None:
        for file in self.buckets:
            with suppress(OSError):  # on a full disk, what waits in memory is not wanted any more
                file.close()


def _no_room(error: OSError) -> InputError:
    return InputError(f"{tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a folder with more room")
