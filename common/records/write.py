"""TFRecord files: one tf.train.Example for each photo, each file written whole."""

import errno
import hashlib
import os
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import InputError
from common.files.storage import is_remote, read_objects
from common.files.whole_files import atomic_path
from common.images.header import rgb_size
from common.records.examples import example_features, feature_kind
from common.workers.batches import batches

if TYPE_CHECKING:
    from common.records.types import Work

FORMATS = ("jpeg", "png")
PHOTOS_AHEAD = 64
KERAS = "TF_USE_LEGACY_KERAS"  # 1: the old one


@dataclass(frozen=True)
class RecordSettings:
    """What holds for every file of records."""

    work_list: Path
    images: Path
    ids: dict[str, int]  # of the trainable classes, by MID, from 1
    texts: dict[str, str]  # what image/object/class/text says, by MID
    compression: str  # GZIP or nothing, as TensorFlow names it


@dataclass(frozen=True)
class Shard:
    """The work of one file: which lines of the work list go into it, or these, where it cannot be read."""

    path: Path
    offsets: Sequence[int]  # bytes into the work list, one for each record
    lines: bytes = b""  # compressed


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what TensorFlow's C++ says on being loaded from the user."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_tensorflow() -> Any:
    """Return the module tensorflow, loaded without a word, a look for GPUs, or Keras."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # records need no GPU, and looking for one takes time
    # TensorFlow loads Keras along with itself, half of the time and a fifth of the memory. Of the old one it
    # takes none where there is none. Whoever asks for tf.keras afterwards gets the one that is meant.
    asked = os.environ.get(KERAS)
    os.environ[KERAS] = "1"
    try:
        with quiet_stderr():
            import tensorflow

            return tensorflow
    finally:
        del os.environ[KERAS]
        if asked is not None:
            os.environ[KERAS] = asked


def write_shard(shard: Shard, settings: RecordSettings) -> dict[str, Any]:
    """Write one file of records, whole or not at all, and return its entry in the manifest."""
    tf = load_tensorflow()
    options = tf.io.TFRecordOptions(compression_type=settings.compression)
    with atomic_path(shard.path, locked=False) as part:
        try:
            with tf.io.TFRecordWriter(str(part), options) as writer:
                for work, photo in read_ahead(shard, settings):
                    writer.write(make_record(tf, work, photo, settings))
        except (
            tf.errors.OpError
        ) as error:  # on a full disk; no OSError, and the system's reason ends its text
            raise OSError(errno.EIO, error.message.rpartition("; ")[2], str(shard.path)) from None
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    return {"file": shard.path.name, "records": len(shard.offsets), "bytes": size, "sha256": digest}


def read_ahead(shard: Shard, settings: RecordSettings) -> Iterator[tuple["Work", bytes | None]]:
    """Yield the lines of a file's work, each with its photo, None where it is gone; the next are coming."""
    work_list = read_work(shard, settings)
    if is_remote(settings.images):
        for some in batches(work_list, PHOTOS_AHEAD):
            photos = read_objects(settings.images, [work.file for work in some])
            yield from zip(some, photos, strict=True)
        return
    waiting: deque[tuple[Work, int | None]] = deque()
    try:
        for work in work_list:
            waiting.append((work, fetch_soon(f"{settings.images}/{work.file}")))
            if len(waiting) > PHOTOS_AHEAD:
                yield read_photo(*waiting.popleft())
        while waiting:
            yield read_photo(*waiting.popleft())
    finally:
        for _, descriptor in waiting:
            if descriptor is not None:
                os.close(descriptor)


def read_work(shard: Shard, settings: RecordSettings) -> Iterator["Work"]:
    """Yield the lines of a file's work."""
    import msgspec

    from common.records.types import Work

    decode = msgspec.json.Decoder(Work).decode
    if shard.lines:
        yield from map(decode, zlib.decompress(shard.lines).splitlines())
        return
    with open(settings.work_list, "rb") as lines:
        for offset in shard.offsets:
            lines.seek(offset)
            yield decode(lines.readline())


def with_lines(shard: Shard, work_list: Path) -> Shard:
    """Return a file's work with its lines in it."""
    with open(work_list, "rb") as stream:
        packed = zlib.compressobj(1)
        parts = []
        for offset in shard.offsets:
            stream.seek(offset)
            parts.append(packed.compress(stream.readline()))
    return replace(shard, lines=b"".join((*parts, packed.flush())))


def fetch_soon(path: str) -> int | None:
    """Open a photo and ask the system to read it into memory, since disks serve many reads at a time.

    Returns its descriptor, None where it is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    return descriptor


def read_photo(work: "Work", descriptor: int | None) -> tuple["Work", bytes | None]:
    """Return the work and the bytes of its photo, whose descriptor is closed."""
    if descriptor is None:
        return work, None
    try:
        # One call for nearly all; a byte more than there should be, so that a longer file is noticed.
        photo = os.read(descriptor, work.bytes + 1)
        while len(photo) < work.bytes and (more := os.read(descriptor, work.bytes)):
            photo += more
        return work, photo
    finally:
        os.close(descriptor)


def make_record(tf: Any, work: "Work", image: bytes | None, settings: RecordSettings) -> bytes:
    """Return the serialized tf.train.Example of one line of the work list and its photo."""
    path = f"{settings.images}/{work.file}"
    if image is None or len(image) != work.bytes:
        raise InputError(f"{path}: changed while the records were made; run the same command again")
    size = rgb_size(image)
    if size is None:
        raise InputError(
            f"{path}: no RGB JPEG or PNG, though its datapoint has the width and height that step 5 gives to "
            "such; run process_images.py again"
        )
    if work.size not in (None, size):
        raise InputError(
            f"{path}: {size[0]}x{size[1]} pixels, its datapoint says {work.size[0]}x{work.size[1]}; run "
            "process_images.py again, and give its datapoints together with its photos"
        )
    features = example_features(work, image, size, settings.ids, settings.texts)
    example = tf.train.Example()
    feature = example.features.feature
    for name, values in features.items():  # a quarter less time than the constructor takes with a dict of all
        getattr(feature[name], feature_kind(name)).value.extend(values)
    # The order of a protobuf map is not stable otherwise.
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized
