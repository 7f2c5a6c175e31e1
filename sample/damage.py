"""Damage to the image data of a JPEG, at places drawn from a seed."""

import random
from collections.abc import Callable

HEAD = 20  # bytes after the scan's marker that stay intact
TAIL = 50  # bytes before the end of the file that stay intact


def in_scan(data: bytes, size: int, rng: random.Random) -> int:
    """Return a place in the image data with at least `size` bytes after it."""
    return rng.randrange(data.index(b"\xff\xda") + HEAD, len(data) - size - TAIL)


def random_bytes(data: bytes, rng: random.Random) -> bytes:
    place = in_scan(data, 500, rng)
    return data[:place] + rng.randbytes(500) + data[place + 500 :]


def zeros(data: bytes, rng: random.Random) -> bytes:
    place = in_scan(data, 2000, rng)
    return data[:place] + bytes(2000) + data[place + 2000 :]


def flipped_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(16):
        changed[in_scan(data, 0, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def deleted(data: bytes, rng: random.Random) -> bytes:
    place = in_scan(data, 100, rng)
    return data[:place] + data[place + 100 :]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(2, len(data) - 1)]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "500 random bytes": random_bytes,
    "2,000 zero bytes": zeros,
    "16 flipped bits": flipped_bits,
    "100 bytes deleted": deleted,
    "cut off": cut_off,
}
