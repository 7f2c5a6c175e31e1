"""TFRecord files read back: as features, and to be verified."""

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.scratch import local_copy
from common.images.header import DECODE_ERRORS
from common.records.write import FORMATS, RecordSettings, load_tensorflow


def read_records(path: Path, compression: str) -> Iterator[dict[str, list[Any]]]:
    """Yield the features of each record of a file; InputError names the record that cannot be read."""
    with local_copy(path) as file:
        yield from _records_in(file, path, compression)


def _records_in(file: Path, path: Path, compression: str) -> Iterator[dict[str, list[Any]]]:
    """Yield the features of each record of a local file, which errors call `path`."""
    tf = load_tensorflow()
    from google.protobuf.message import DecodeError

    raws = tf.data.TFRecordDataset(str(file), compression_type=compression).as_numpy_iterator()
    number = 0
    while True:
        number += 1
        try:
            raw = next(raws, None)
            if raw is None:
                return
            features = tf.train.Example.FromString(raw).features.feature
        except tf.errors.OpError as error:
            raise InputError(f"{path}: record {number}: {_first_line(error.message)}") from None
        except DecodeError:
            raise InputError(f"{path}: record {number}: no tf.train.Example") from None
        yield {
            name: list(getattr(feature, kind).value) if (kind := feature.WhichOneof("kind")) else []
            for name, feature in features.items()
        }


def _first_line(message: str) -> str:
    """Return what TensorFlow says, without the names of its own parts around it."""
    return re.sub(r"\{\{[^{}]*\}\}", "", message.partition("\n")[0].split(" [Op:")[0]).strip()


def verify_shard(
    entry: dict[str, Any], folder: Path, settings: RecordSettings
) -> tuple[dict[str, int], str | None]:
    """Read one file back and return its counts and what is wrong with it, None where it is sound.

    Checked are the CRCs, each photo (it decodes, has the size and the hash that the record says), the
    boxes (in [0, 1], lists of one length), the classes (in the label map, number and text agreeing),
    and the file against the manifest.
    """
    path = folder / entry["file"]
    text_of = {number: settings.texts[mid].encode() for mid, number in settings.ids.items()}
    counts = {"records": 0, "boxes": 0, "bytes": 0}
    with local_copy(path) as file:
        try:
            for record in _records_in(file, path, settings.compression):
                problem = record_problem(record, text_of)
                if problem:
                    return counts, f"{path}: record {counts['records'] + 1}: {problem}"
                counts["records"] += 1
                counts["boxes"] += len(record["image/object/class/label"])
        except InputError as error:
            return counts, str(error)
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            counts["bytes"] = stream.tell()
    if counts["records"] != entry["records"]:
        return counts, f"{path}: {counts['records']} records, {entry['records']} were written"
    if digest != entry["sha256"]:
        return counts, f"{path}: not the bytes that were written, though every record can be read"
    return counts, None


def record_problem(record: dict[str, list[Any]], text_of: dict[int, bytes]) -> str | None:
    """Return what is wrong with one record, None where it is sound."""
    from PIL import Image

    try:
        (encoded,), (digest,) = record["image/encoded"], record["image/key/sha256"]
        (width,), (height,) = record["image/width"], record["image/height"]
        labels, texts = record["image/object/class/label"], record["image/object/class/text"]
        verified = [record[f"image/class/{name}"] for name in ("label", "text", "confidence")]
        corners = [record[f"image/object/bbox/{name}"] for name in ("xmin", "xmax", "ymin", "ymax")]
    except (KeyError, ValueError) as error:
        return f"a feature is missing or not single ({error})"
    if hashlib.sha256(encoded).hexdigest().encode() != digest:
        return "the photo is not the one that was written (image/key/sha256)"
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image.load()
            size = image.size
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        return f"the photo cannot be decoded ({error})"
    if size != (width, height):
        return f"the photo has {size[0]}x{size[1]} pixels, the record says {width}x{height}"
    lengths = {name: len(values) for name, values in record.items() if name.startswith("image/object/")}
    if len(set(lengths.values())) != 1:
        return f"the lists of boxes differ in length ({lengths})"
    if len(set(map(len, verified))) != 1:
        return f"the lists of image labels differ in length ({', '.join(map(str, map(len, verified)))})"
    for xmin, xmax, ymin, ymax in zip(*corners, strict=True):
        if not (0 <= xmin <= xmax <= 1 and 0 <= ymin <= ymax <= 1):
            return f"a box from ({xmin}, {ymin}) to ({xmax}, {ymax}), inside (0, 0) to (1, 1) was expected"
    for label, text in zip([*labels, *verified[0]], [*texts, *verified[1]], strict=True):
        if text_of.get(label) != text:
            return f"class {label} with the text {text!r} is not in the label map"
    return None
