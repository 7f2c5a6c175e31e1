"""Temporary files for what is too large for memory. They have no name, so nothing is left even by kill -9."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from struct import Struct
from typing import IO

import msgspec

from common.cli import InputError

BUFFER = 1 << 18  # bytes that wait in memory for each temporary file

_LENGTH = Struct("<Q")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, bytes]]).decode


class Spool:
    """Items of bytes, each with a number, added in any order and read back by number.

    Each temporary file, a bucket, holds the items of `bucket_size` numbers; one is in memory at a time.
    """

    def __init__(self, bucket_size: int) -> None:
        self.bucket_size = bucket_size
        self.buckets: list[IO[bytes]] = []

    def add(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Add items with their numbers; a full disk is an InputError that names the folder."""
        by_place: dict[int, list[tuple[int, bytes]]] = {}
        for item in items:
            by_place.setdefault(item[0] // self.bucket_size, []).append(item)
        try:
            for place, some in by_place.items():
                while len(self.buckets) <= place:
                    self.buckets.append(tempfile.TemporaryFile(buffering=BUFFER))  # noqa: SIM115  # see close
                data = _encode(some)
                self.buckets[place].write(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise _no_room(error) from None

    def bucket(self, place: int) -> dict[int, list[bytes]]:
        """Return the items of a bucket by number, those of one number in the order they were added."""
        items: dict[int, list[bytes]] = {}
        if place >= len(self.buckets):
            return items
        try:
            self.buckets[place].seek(0)  # writes what is left in the buffer
        except OSError as error:
            raise _no_room(error) from None
        while head := self.buckets[place].read(_LENGTH.size):
            for number, item in _decode(self.buckets[place].read(*_LENGTH.unpack(head))):
                items.setdefault(number, []).append(item)
        return items

    def __iter__(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield each number with its items, by number."""
        for place in range(len(self.buckets)):
            yield from sorted(self.bucket(place).items())

    def close(self) -> None:
        for file in self.buckets:
            with suppress(OSError):  # on a full disk, what waits in memory is no longer needed
                file.close()


def _no_room(error: OSError) -> InputError:
    return InputError(f"{tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a folder with more room")
