"""TFRecord files read back: as features, as images with boxes and masks, and to verify them."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from common.cli import InputError, progress, say
from common.files.places import folder_of
from common.images.header import DECODE_ERRORS
from common.records.shards import load_tensorflow, useful_processes
from common.records.types import RecordSet, RecordSettings
from common.workers.pool import Workers

CORNERS = ("xmin", "xmax", "ymin", "ymax")

Record = dict[str, list[Any]]  # features by name
Box = tuple[int, float, float, float, float]  # class id, xmin, xmax, ymin, ymax


def read_set(records: RecordSet, compression: str) -> Iterator[Record]:
    """Yield the features of each record of a set; InputError names a record that cannot be read."""
    for shard in records.shards:
        with folder_of(records.path.parent).local_copy(shard["file"]) as file:
            yield from read_records(file, records.path.with_name(shard["file"]), compression)


def read_sets(sets: Sequence[RecordSet], compression: str) -> Iterator[Record]:
    """Yield the same of all sets, with progress."""
    with progress(sum(len(records.offsets) for records in sets), "record", "reading records") as bar:
        for records in sets:
            for record in read_set(records, compression):
                yield record
                bar.update()


def sample_set(records: RecordSet, number: int, compression: str) -> list[Record]:
    """Return up to `number` records, spread evenly over the first file."""
    step = max(1, records.shards[0]["records"] // number)
    return list(islice(read_set(records, compression), 0, number * step, step))


def read_records(file: Path, path: Path, compression: str) -> Iterator[Record]:
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
            # Without names of TensorFlow's parts.
            problem = re.sub(r"\{\{[^{}]*\}\}| \[Op:.*|\n.*", "", error.message, flags=re.DOTALL).strip()
            raise InputError(f"{path}: record {number}: {problem}") from None
        except DecodeError:
            raise InputError(f"{path}: record {number}: not a tf.train.Example") from None
        yield {
            name: list(getattr(feature, kind).value) if (kind := feature.WhichOneof("kind")) else []
            for name, feature in features.items()
        }


def record_id(record: Record) -> str:
    """Return the id of a record's image; image/source_id can be its number."""
    name: bytes = record["image/filename"][0]
    return name.decode().rpartition(".")[0]


def record_image(record: Record) -> Image.Image:
    """Return a record's image, RGB."""
    return decode_image(record["image/encoded"][0], f"image {record_id(record)}").convert("RGB")


def decode_image(encoded: bytes, name: str, formats: tuple[str, ...] = ("JPEG", "PNG")) -> Image.Image:
    """Return an image or mask of a record; InputError, with its name, for one that cannot be decoded."""
    try:
        image: Image.Image = Image.open(io.BytesIO(encoded), formats=formats)
        image.load()
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(f"{name} cannot be decoded ({error}); run process_images.py") from None
    return image


def record_boxes(record: Record) -> list[Box]:
    corners = (record[f"image/object/bbox/{name}"] for name in CORNERS)
    return list(zip(record["image/object/class/label"], *corners, strict=True))


def record_masks(record: Record, size: tuple[int, int]) -> list[Image.Image | None]:
    """Return the mask of each box, 0 and 1 at this size, None for an empty one or a record without masks."""
    masks: list[Image.Image | None] = [None] * len(record["image/object/class/label"])
    for place, encoded in enumerate(record.get("image/object/mask", ())):
        mask = decode_image(encoded, "a mask", ("PNG",)).resize(size, Image.Resampling.NEAREST)
        if mask.getbbox():
            masks[place] = mask
    return masks


def verify_sets(sets: Sequence[RecordSet], settings: RecordSettings, workers: Workers) -> Counter[str]:
    """Read back every file and return the counts; InputError if one is damaged."""
    counts: Counter[str] = Counter()
    for records in sets:
        damaged, total = 0, len(records.shards)
        verify = partial(verify_shard, folder=records.path.parent.absolute(), settings=settings)
        most = useful_processes(len(records.offsets), total)
        with progress(total, "file", f"verifying {records.path.name}") as bar:
            for found, problem in workers.map(verify, records.shards, most=most):
                counts.update({f"verified_{name}": number for name, number in found.items()})
                if problem:
                    say(problem)
                    damaged += 1
                bar.update()
        if damaged:
            raise InputError(
                f"{damaged} of {total} files are damaged; remove them and run the same command again"
            )
    return counts


def verify_shard(
    entry: dict[str, Any], folder: Path, settings: RecordSettings
) -> tuple[dict[str, int], str | None]:
    """Read one file back and return its counts and its first problem, None if it is sound.

    Checks the CRCs, each image (it decodes, and size and hash are those in the record), the boxes (in [0, 1],
    lists of one length), the masks (one a box, 0 and 1, of the image's size), the classes (number and text
    agree with the label map), and the file's own hash.
    """
    path = folder / entry["file"]
    text_of = {number: settings.texts[mid].encode() for mid, number in settings.ids.items()}
    counts = {"records": 0, "boxes": 0, "bytes": 0}
    with folder_of(folder).local_copy(path.name) as file:
        try:
            for record in read_records(file, path, settings.compression):
                problem = record_problem(record, text_of, masked=settings.missing_masks is not None)
                if problem:
                    return counts, f"{path}: record {counts['records'] + 1}: {problem}"
                counts["records"] += 1
                counts["boxes"] += len(record["image/object/class/label"])
        except InputError as error:
            return counts, str(error)
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            counts["bytes"] = stream.tell()
    if digest != entry["sha256"]:
        return counts, f"{path}: not the bytes that were written, though every record can be read"
    return counts, None


def record_problem(record: Record, text_of: dict[int, bytes], *, masked: bool = False) -> str | None:
    """Return the first problem of one record, None if it is sound; `text_of` is the label map."""
    try:
        (encoded,), (digest,) = record["image/encoded"], record["image/key/sha256"]
        (width,), (height,) = record["image/width"], record["image/height"]
        labels, texts = record["image/object/class/label"], record["image/object/class/text"]
        verified = [record[f"image/class/{name}"] for name in ("label", "text", "confidence")]
        corners = [record[f"image/object/bbox/{name}"] for name in CORNERS]
        masks = record["image/object/mask"] if masked else []
        if hashlib.sha256(encoded).hexdigest().encode() != digest:
            return "the image is not the one that was written (image/key/sha256)"
        size = decode_image(encoded, "the image").size
        mask_problem = next(mask_problems(masks, size), None)
    except InputError as error:
        return str(error)
    except (KeyError, ValueError) as error:
        return f"a feature is missing or not single ({error})"
    if size != (width, height):
        return f"the image has {size[0]}x{size[1]} pixels, the record says {width}x{height}"
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
    return mask_problem


def mask_problems(masks: Sequence[bytes], size: tuple[int, int]) -> Iterator[str]:
    """Yield the problems of the masks of one record."""
    for number, encoded in enumerate(masks, start=1):
        mask = decode_image(encoded, f"mask {number}", ("PNG",))
        if mask.size != size:
            yield f"mask {number} has {mask.width}x{mask.height} pixels, the image {size[0]}x{size[1]}"
        if mask.mode != "L" or any(mask.histogram()[2:]):
            yield f"mask {number} is not 8-bit grey of 0 and 1"
