"""The records of one name: which go into which file, what is written, and what is read back."""

import hashlib
import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common.cli import InputError, progress, say
from common.parallel import map_batches
from common.records import RecordSettings, Shard, verify_shard, write_shard
from common.shards import deal, manifest_path, read_manifest, remove_older, shard_paths, write_manifest

RECORDS_A_PROCESS = 500  # fewer take less time than a further process takes to load TensorFlow
LAYOUT = 2  # raised when the same inputs give other records than before


@dataclass
class RecordSet:
    """The records of one name, training or evaluation, as lines of the work list."""

    path: Path
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))  # bytes into the work list
    sizes: "array[int]" = field(default_factory=lambda: array("Q"))  # about what each record takes, in bytes
    digest: Any = field(default_factory=hashlib.sha256)  # of its lines


def write_set(
    records: RecordSet, number: int | None, settings: RecordSettings, workers: int
) -> list[dict[str, Any]]:
    """Write the files of a set that are not there yet and return the entries of all."""
    stated = [LAYOUT, records.digest.hexdigest(), settings.ids, settings.texts, number, settings.compression]
    inputs = hashlib.sha256(json.dumps(stated).encode()).hexdigest()
    manifest = manifest_path(records.path)
    paths = shard_paths(records.path, number)
    finished = read_manifest(manifest, inputs)
    write_manifest(manifest, inputs, finished)
    tasks = [
        Shard(path, array("Q", [records.offsets[index] for index in dealt]))
        for path, dealt in zip(paths, deal(records.sizes, len(paths)), strict=True)
        if path.name not in finished
    ]
    with progress(len(tasks), "file", f"writing {records.path.name}") as bar:
        write = partial(write_shard, settings=settings)
        for entry in map_batches(
            write, tasks, useful_workers(workers, len(tasks), sum(len(task.offsets) for task in tasks))
        ):
            finished[entry["file"]] = entry
            write_manifest(manifest, inputs, finished)
            bar.update()
    remove_older(records.path, paths)
    return [finished[path.name] for path in paths]


def useful_workers(workers: int, files: int, records: int) -> int:
    """Return how many processes are worth their start."""
    return max(1, min(workers, files, records // RECORDS_A_PROCESS))


def number_of_shards(records: RecordSet, num_shards: int | None, shard_bytes: int | None) -> int | None:
    """Return over how many files the records go, None for one file without a number."""
    if shard_bytes is None:
        return num_shards
    return min(-(-sum(records.sizes) // shard_bytes), len(records.offsets))


def verify_set(
    records: RecordSet, shards: list[dict[str, Any]], settings: RecordSettings, workers: int
) -> Counter[str]:
    """Read back every file of a set and return the counts; InputError where one is damaged."""
    counts: Counter[str] = Counter()
    damaged = 0
    verify = partial(verify_shard, folder=records.path.parent, settings=settings)
    with progress(len(shards), "file", f"verifying {records.path.name}") as bar:
        for found, problem in map_batches(
            verify, shards, useful_workers(workers, len(shards), len(records.offsets))
        ):
            counts.update({f"verified_{name}": number for name, number in found.items()})
            if problem:
                say(problem)
                damaged += 1
            bar.update()
    if damaged:
        raise InputError(
            f"{damaged} of {len(shards)} files are damaged; remove them and run the same command again"
        )
    return counts
