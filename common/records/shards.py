"""Files of records that belong together, and the manifest that says what they were made from."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import say
from common.files.folders import folder_of, remove
from common.files.whole_files import open_output, read_small

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = ".manifest.json"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def byte_count(text: str) -> int:
    """Return the bytes that `100M` and the like stand for: an argparse type."""
    match = re.fullmatch(r"([0-9]{1,9})([KMG]?)B?", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes such as 500K, 100M or 2G")
    return int(match[1]) * UNITS[match[2]]


def shard_paths(path: Path, number: int | None) -> list[Path]:
    """Return the paths NAME-00000-of-00010 and so on, or `path` itself where no number is given."""
    if number is None:
        return [path]
    return [path.with_name(f"{path.name}-{index:05d}-of-{number:05d}") for index in range(number)]


def deal(sizes: Sequence[int], number: int) -> "list[NDArray[np.intp]]":
    """Return which records go into each of `number` shards, in the order of the input.

    Counts differ by at most 1. Records are dealt a round at a time, the largest first, and in each round the
    largest goes to the shard with the fewest bytes, so that bytes differ by about the smallest records' size.
    """
    import numpy as np

    bytes_of = np.asarray(sizes, dtype=np.int64)
    largest_first = np.argsort(-bytes_of, kind="stable")
    totals = np.zeros(number, dtype=np.int64)
    shard_of = np.empty(len(bytes_of), dtype=np.int32)
    for start in range(0, len(bytes_of), number):
        dealt = largest_first[start : start + number]
        emptiest = np.argsort(totals, kind="stable")[: len(dealt)]
        shard_of[dealt] = emptiest
        totals[emptiest] += bytes_of[dealt]
    by_shard = np.argsort(shard_of, kind="stable")
    ends = np.cumsum(np.bincount(shard_of, minlength=number))
    return list(np.split(by_shard, ends[:-1]))


def manifest_path(path: Path) -> Path:
    """Return where the manifest of the records `path` is."""
    return path.with_name(f"{path.name}{MANIFEST}")


def read_manifest(path: Path, inputs: str) -> dict[str, dict[str, Any]]:
    """Return the finished files of a run on the same inputs, by name."""
    data = read_small(path)
    if data is None:
        return {}
    try:
        manifest = json.loads(data)
        if manifest["inputs"] != inputs:
            return {}
        shards = {shard["file"]: shard for shard in manifest["shards"]}
        there = folder_of(path.parent).list(path.name.removesuffix(MANIFEST))
        return {
            name: shard
            for name, shard in shards.items()
            if name in there and there[name].size == shard["bytes"]
        }
    except (ValueError, KeyError, TypeError):
        say(f"{path}: no manifest of ours, the records are made anew")
        return {}


def write_manifest(path: Path, inputs: str, shards: dict[str, dict[str, Any]]) -> None:
    """Write the hash of what the records are made from, and the files that are finished."""
    manifest = {"inputs": inputs, "shards": [shards[name] for name in sorted(shards)]}
    with open_output(path) as stream:
        stream.write(json.dumps(manifest, indent=1).encode() + b"\n")


def remove_older(path: Path, kept: Sequence[Path]) -> None:
    """Remove the shards of this name that are not of the set just finished, and what is half-written."""
    name = re.escape(path.name) + r"(-[0-9]{5}-of-[0-9]{5})?"
    for found in folder_of(path.parent).list(path.name):
        if re.fullmatch(name, found) and path.with_name(found) not in kept:
            remove(path.with_name(found))
    folder_of(path.parent).sweep(name)
