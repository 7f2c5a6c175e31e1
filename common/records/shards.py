"""The shards of a set of records: dealt, written, and listed in a manifest with a hash of their inputs.

A shard is a TFRecord file, written completely or not at all, with one tf.train.Example for each image.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.cli import InputError, progress, say
from common.files.places import folder_of, read_small, replace_file
from common.images.header import rgb_size
from common.records.examples import example_features, feature_kind
from common.records.types import RecordSet, RecordSettings, ShardTask, Work
from common.workers.pool import Workers

LEGACY_KERAS = "TF_USE_LEGACY_KERAS"
RECORDS_A_PROCESS = 2000  # fewer take less time than a further process takes to load TensorFlow
LAYOUT = 3  # raised when the same inputs give other records than before
MANIFEST = ".manifest.json"


def write_set(records: RecordSet, settings: RecordSettings, workers: Workers) -> None:
    """Write the missing shards of a set, remove those of an older set, and fill `records.shards`."""
    number = settings.num_shards
    if settings.shard_bytes:
        number = min(-(-sum(records.sizes) // settings.shard_bytes), len(records.offsets))
    endings = [""] if number is None else [f"-{index:05d}-of-{number:05d}" for index in range(number)]
    paths = [records.path.with_name(f"{records.path.name}{ending}") for ending in endings]
    stated = [LAYOUT, records.digest.hexdigest(), settings.ids, settings.texts, number]
    stated += [settings.compression, settings.source_id]
    if settings.missing_masks:
        stated.append({"missing_masks": settings.missing_masks})
    inputs = hashlib.sha256(json.dumps(stated).encode()).hexdigest()
    finished = read_manifest(records.path, inputs)
    classes = list(settings.ids)
    write_manifest(records.path, inputs, classes, finished)
    tasks = [
        ShardTask(path.absolute(), array("Q", [records.offsets[index] for index in dealt]))
        for path, dealt in zip(paths, deal(records.sizes, len(paths)), strict=True)
        if path.name not in finished
    ]
    work: Iterable[ShardTask] = tasks
    if not (workers.on_this_machine or folder_of(records.path.parent).mounts):  # none can read the work list
        work = (replace(task, lines=zlib.compress(b"".join(read_lines(task, settings)), 1)) for task in tasks)
    wanted = sum(len(task.offsets) for task in tasks)
    most = useful_processes(wanted, len(tasks))
    with progress(wanted, "record", f"writing {records.path.name}") as bar:
        for entry in workers.map(partial(write_shard, settings=settings), work, most=most):
            finished[entry["file"]] = entry
            write_manifest(records.path, inputs, classes, finished)
            bar.update(entry["records"])
    remove_older(records.path, paths)
    records.shards = [finished[path.name] for path in paths]


def useful_processes(records: int, files: int) -> int:
    """Return the number of processes that are worth their start."""
    return max(1, min(files, records // RECORDS_A_PROCESS))


def deal(sizes: Sequence[int], number: int) -> list[NDArray[np.intp]]:
    """Return the records of each of `number` shards, in the order of the input.

    Counts differ by at most 1. Records are dealt in rounds, the largest first; in each round the largest goes
    to the shard with the fewest bytes, so that bytes differ by about the size of the smallest records.
    """
    bytes_of = np.asarray(sizes, dtype=np.int64)
    largest_first = np.argsort(-bytes_of, kind="stable")
    totals = np.zeros(number, dtype=np.int64)
    shard_of = np.empty(len(bytes_of), dtype=np.int32)
    for start in range(0, len(bytes_of), number):
        dealt = largest_first[start : start + number]
        emptiest = np.argsort(totals, kind="stable")[: len(dealt)]
        shard_of[dealt] = emptiest
        totals[emptiest] += bytes_of[dealt]
    ends = np.cumsum(np.bincount(shard_of, minlength=number))
    return list(np.split(np.argsort(shard_of, kind="stable"), ends[:-1]))


# --- the manifest ----------------------------------------------------------------------------------------


def manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}{MANIFEST}")


def read_manifest(path: Path, inputs: str) -> dict[str, dict[str, Any]]:
    """Return the entries, by name, of the shards that exist and were made from the same inputs."""
    data = read_small(manifest_path(path))
    if data is None:
        return {}
    try:
        manifest = json.loads(data)
        shards = manifest["shards"] if manifest["inputs"] == inputs else []
        sizes = {name: found.size for name, found in folder_of(path.parent).list(path.name).items()}
        return {shard["file"]: shard for shard in shards if sizes.get(shard["file"]) == shard["bytes"]}
    except (ValueError, KeyError, TypeError):
        say(f"{manifest_path(path)}: not a manifest of record_maker.py, all records are written again")
        return {}


def write_manifest(path: Path, inputs: str, classes: list[str], shards: dict[str, dict[str, Any]]) -> None:
    """Write the hash of the inputs, the classes in the order of ids, and the entries of finished shards."""
    manifest = {"inputs": inputs, "classes": classes, "shards": [shards[name] for name in sorted(shards)]}
    replace_file(manifest_path(path), json.dumps(manifest, indent=1).encode() + b"\n", sync=True)


def remove_older(path: Path, kept: Sequence[Path]) -> None:
    """Remove shards of this name that are not in `kept`, and half-written files of a killed run."""
    name = re.escape(path.name) + r"(-[0-9]{5}-of-[0-9]{5})?"
    folder = folder_of(path.parent)
    for found in folder.list(path.name):
        if re.fullmatch(name, found) and path.with_name(found) not in kept:
            folder.remove(found)
    folder.sweep(rf"{name}({re.escape(MANIFEST)})?")


# --- one shard -------------------------------------------------------------------------------------------


def load_tensorflow() -> Any:
    """Import TensorFlow without what its C++ code writes to stderr, GPUs and Keras.

    Keras takes half of the time and a fifth of the memory of the import. The legacy Keras is not installed,
    so none is loaded; a later tf.keras is the usual one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    before = os.environ.get(LEGACY_KERAS)
    os.environ[LEGACY_KERAS] = "1"
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        import tensorflow
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        del os.environ[LEGACY_KERAS]
        if before is not None:
            os.environ[LEGACY_KERAS] = before
    return tensorflow


def write_shard(task: ShardTask, settings: RecordSettings) -> dict[str, Any]:
    """Write one file of records and return its entry in the manifest."""
    tf = load_tensorflow()
    options = tf.io.TFRecordOptions(compression_type=settings.compression)
    with folder_of(task.path.parent).complete(task.path.name, locked=False) as part:
        try:
            with tf.io.TFRecordWriter(str(part), options) as writer:
                works = map(msgspec.json.Decoder(Work).decode, read_lines(task, settings))
                for work, image in read_images(works, settings.images):
                    writer.write(make_record(tf, work, image, settings))
        except tf.errors.OpError as error:  # a full disk, among others; the system's reason ends its text
            raise OSError(errno.EIO, error.message.rpartition("; ")[2], str(task.path)) from None
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    return {"file": task.path.name, "records": len(task.offsets), "bytes": size, "sha256": digest}


def read_lines(task: ShardTask, settings: RecordSettings) -> Iterator[bytes]:
    """Yield the lines of one shard, from its task or else from the work list."""
    if task.lines:
        yield from zlib.decompress(task.lines).splitlines()
        return
    with open(settings.work_list, "rb") as stream:
        for offset in task.offsets:
            stream.seek(offset)
            yield stream.readline()


def read_images(works: Iterator[Work], folder: Path) -> Iterator[tuple[Work, bytes | None]]:
    """Yield each work with the bytes of its image, None if the file is missing; the next are read ahead."""
    works, ahead = tee(works)
    images = folder_of(folder).read_many(work.file for work in ahead)
    for work, image in zip(works, images, strict=True):
        if isinstance(image, OSError):
            raise image
        yield work, image


def make_record(tf: Any, work: Work, image: bytes | None, settings: RecordSettings) -> bytes:
    """Return the serialized tf.train.Example of one image."""
    path = f"{settings.images}/{work.file}"
    if image is None or len(image) != work.bytes:
        raise InputError(f"{path}: changed while the records were made; run the same command again")
    size = rgb_size(image)
    if size != work.size:
        found = f"{size[0]}x{size[1]} pixels" if size else "not an RGB JPEG or PNG"
        raise InputError(
            f"{path}: {found}, but its datapoint has {work.size[0]}x{work.size[1]}; run process_images.py "
            "again, and give the datapoints and images of one run"
        )
    named = settings.ids, settings.texts, settings.source_id
    features = example_features(work, image, *named, settings.missing_masks)
    example = tf.train.Example()
    feature = example.features.feature
    for name, values in features.items():  # a quarter less time than the constructor takes with a dict
        getattr(feature[name], feature_kind(name)).value.extend(values)
    # Without this the order of a protobuf map varies.
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized
