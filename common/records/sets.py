"""The records of one name: which go into which file, what is written, and what is read back."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from common.cli import InputError, progress, say
from common.files.storage import is_folder, is_remote, parse_path
from common.records.shards import (
    deal,
    manifest_path,
    read_manifest,
    remove_older,
    shard_paths,
    write_manifest,
)
from common.records.verify import read_records, verify_shard
from common.records.write import RecordSettings, Shard, with_lines, write_shard
from common.workers.window import Workers

RECORDS_A_PROCESS = 2000  # fewer take less time than a further process takes to load TensorFlow
LAYOUT = 3  # raised when the same inputs give other records than before


@dataclass
class RecordSet:
    """The records of one name, training or evaluation, as lines of the work list."""

    path: Path
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))  # bytes into the work list
    sizes: "array[int]" = field(default_factory=lambda: array("Q"))  # about what each record takes, in bytes
    digest: Any = field(default_factory=hashlib.sha256)  # of its lines
    shards: list[dict[str, Any]] = field(default_factory=list)  # when written: their entries in the manifest


def make_sets(path: str, eval_path: str | None) -> list[RecordSet]:
    """Return the set for training and, where it has a name, the one for evaluation, both empty."""
    sets = [RecordSet(parse_path(name)) for name in (path, eval_path) if name]
    for records in sets:
        if is_folder(records.path):
            raise InputError(f"{records.path}: a folder, a file name for the records was expected")
    if len({records.path.resolve() for records in sets}) < len(sets):
        raise InputError(f"{sets[0].path}: training and evaluation records need different names")
    return sets


# --- writing -------------------------------------------------------------------------------------------


def write_set(
    records: RecordSet,
    num_shards: int | None,
    shard_bytes: int | None,
    settings: RecordSettings,
    workers: Workers,
) -> None:
    """Write the files of a set that are not there yet, and note the entries of all in `records.shards`."""
    number = number_of_shards(records, num_shards, shard_bytes)
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
    work: Iterable[Shard] = tasks
    if not workers.on_this_machine and is_remote(records.path):  # no worker sees the work list
        work = (with_lines(task, settings.work_list) for task in tasks)
    with progress(len(tasks), "file", f"writing {records.path.name}") as bar:
        most = useful_processes(sum(len(task.offsets) for task in tasks), len(tasks))
        for entry in workers.map(partial(write_shard, settings=settings), work, most=most):
            finished[entry["file"]] = entry
            write_manifest(manifest, inputs, finished)
            bar.update()
    remove_older(records.path, paths)
    records.shards = [finished[path.name] for path in paths]


def useful_processes(records: int, files: int) -> int:
    """Return how many processes are worth their start."""
    return max(1, min(files, records // RECORDS_A_PROCESS))


def number_of_shards(records: RecordSet, num_shards: int | None, shard_bytes: int | None) -> int | None:
    """Return over how many files the records go, None for one file without a number."""
    if shard_bytes is None:
        return num_shards
    return min(-(-sum(records.sizes) // shard_bytes), len(records.offsets))


# --- reading back --------------------------------------------------------------------------------------


def read_set(records: RecordSet, compression: str) -> Iterator[dict[str, list[Any]]]:
    """Yield the features of each record of a set that is written."""
    for shard in records.shards:
        yield from read_records(records.path.with_name(shard["file"]), compression)


def sample_set(records: RecordSet, number: int, compression: str) -> Iterator[dict[str, list[Any]]]:
    """Yield records from all over the first files, which are dealt evenly; `number` of them or more."""
    step = max(1, records.shards[0]["records"] // number)
    return islice(read_set(records, compression), 0, None, step)


def verify_set(records: RecordSet, settings: RecordSettings, workers: Workers) -> Counter[str]:
    """Read back every file of a set and return the counts; InputError where one is damaged."""
    counts: Counter[str] = Counter()
    shards = records.shards
    damaged = 0
    verify = partial(verify_shard, folder=records.path.parent, settings=settings)
    with progress(len(shards), "file", f"verifying {records.path.name}") as bar:
        most = useful_processes(len(records.offsets), len(shards))
        for found, problem in workers.map(verify, shards, most=most):
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
