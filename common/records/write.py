"""TFRecord files: one tf.train.Example for each image, each file written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any

import msgspec

from common.cli import InputError
from common.files.places import folder_of
from common.images.header import rgb_size
from common.records.examples import example_features, feature_kind
from common.records.types import RecordSettings, ShardTask, Work

LEGACY_KERAS = "TF_USE_LEGACY_KERAS"


def load_tensorflow() -> Any:
    """Import TensorFlow without its start-up messages, GPUs and Keras.

    Keras takes half of the time and a fifth of the memory of the import. The legacy Keras is not installed,
    so none is loaded; a later tf.keras is the usual one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    before = os.environ.get(LEGACY_KERAS)
    os.environ[LEGACY_KERAS] = "1"
    try:
        with quiet_stderr():
            import tensorflow
    finally:
        del os.environ[LEGACY_KERAS]
        if before is not None:
            os.environ[LEGACY_KERAS] = before
    return tensorflow


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what C++ code writes to stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def write_shard(task: ShardTask, settings: RecordSettings) -> dict[str, Any]:
    """Write one file of records and return its entry in the manifest."""
    tf = load_tensorflow()
    options = tf.io.TFRecordOptions(compression_type=settings.compression)
    with folder_of(task.path.parent).complete(task.path.name, locked=False) as part:
        try:
            with tf.io.TFRecordWriter(str(part), options) as writer:
                for work, image in read_images(read_work(task, settings), settings.images):
                    writer.write(make_record(tf, work, image, settings))
        except tf.errors.OpError as error:  # a full disk, among others; the system's reason ends its text
            raise OSError(errno.EIO, error.message.rpartition("; ")[2], str(task.path)) from None
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    return {"file": task.path.name, "records": len(task.offsets), "bytes": size, "sha256": digest}


def read_work(task: ShardTask, settings: RecordSettings) -> Iterator[Work]:
    """Return the work of one shard, from the lines of its task or else from the work list."""
    if task.lines:
        lines = iter(zlib.decompress(task.lines).splitlines())
    else:
        lines = read_lines(settings.work_list, task.offsets)
    return map(msgspec.json.Decoder(Work).decode, lines)


def read_lines(work_list: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """Yield the lines of the work list at these offsets."""
    with open(work_list, "rb") as stream:
        for offset in offsets:
            stream.seek(offset)
            yield stream.readline()


def with_lines(task: ShardTask, work_list: Path) -> ShardTask:
    """Return a task that carries its lines of the work list."""
    packer = zlib.compressobj(1)
    parts = [packer.compress(line) for line in read_lines(work_list, task.offsets)]
    return replace(task, lines=b"".join((*parts, packer.flush())))


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
    if size is None:
        raise InputError(
            f"{path}: not an RGB JPEG or PNG, but its datapoint has width and height, as step 5 writes them; "
            "run process_images.py again"
        )
    if work.size != size:
        raise InputError(
            f"{path}: {size[0]}x{size[1]} pixels, but its datapoint has {work.size[0]}x{work.size[1]}; run "
            "process_images.py again, and give the datapoints and images of one run"
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
