#!/usr/bin/env python3
r"""Write the TFRecords that TensorFlow's object detectors train on.

    python3 record_maker.py \
        --points_path dataset/train/points-resized.json \
        --saved_images_directory dataset/train/resized \
        --trainable_classes_path dataset/classes-trainable.txt \
        --record_save_path dataset/train/records/train.tfrecord --num_shards 10

Reads the datapoints that process_images.py left, their photos, and the class list that the label map was
made from. Writes one tf.train.Example for each photo: the file as it is, its size, and its boxes; about 20 kB
each. With --num_shards N the records are dealt in turn over NAME-00000-of-000NN and so on; without, they are
in one file at --record_save_path.

Photos that are missing or no RGB JPEG (or PNG) are counted and left out, as are boxes of classes that are not
in the list and photos without a box of one: run process_images.py first. NAME.manifest.json says what the
files were made from: run again with the same inputs, what is missing is made; with others, all is made anew
and, when the new set is whole, shards of an older one are removed.
"""

import hashlib
import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from common.cli import InputError, make_parser, print_counts, progress, run, say, whole_number
from common.examples import example_features
from common.failures import parse_failure_limit
from common.files import atomic_path, scratch_file
from common.json_files import to_json
from common.openimages import class_ids, image_file_name, read_classes, read_datapoints
from common.parallel import map_batches, usable_cores
from common.shards import read_manifest, remove_older, shard_paths, write_manifest

FORMATS = ("jpeg", "png")
LAYOUT = 1  # raised when the same inputs give other records than before


@dataclass(frozen=True)
class Shard:
    """The work of one file: which lines of the work list go into it."""

    path: Path
    work_list: Path
    images: Path
    offsets: Sequence[int]  # bytes into the work list, one for each record


# --- what goes into the records ------------------------------------------------------------------------


def find_image(folder: Path, image_id: str) -> Path | None:
    for image_format in FORMATS:
        path = folder / image_file_name(image_id, image_format)
        if path.is_file():
            return path
    return None


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of an RGB JPEG or PNG, in pixels; None for any other file."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size if image.mode == "RGB" else None
    except (OSError, Image.DecompressionBombError):
        return None


def usable_points(
    path: str, folder: Path, ids: dict[str, int], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yield what each record is made of: datapoint, kept boxes, and the photo's file, size and bytes."""
    seen: set[str] = set()
    for point in read_datapoints(path):
        counts["images"] += 1
        if point["id"] in seen:
            counts["repeated_ids"] += 1
            continue
        seen.add(point["id"])
        boxes = [box for box in point["annotations"] if box["label"] in ids]
        counts["other_classes"] += len(point["annotations"]) - len(boxes)
        if not boxes:
            counts["without_boxes"] += 1
            continue
        file = find_image(folder, point["id"])
        if file is None:
            counts["missing"] += 1
            continue
        size = image_size(file)
        if size is None:
            counts["not_rgb"] += 1
            continue
        yield {
            "point": point, "boxes": boxes, "file": file.name, "size": size,
            "bytes": file.stat().st_size,
        }  # fmt: skip
        counts["boxes"] += len(boxes)


def write_work_list(
    stream: BinaryIO, points: Iterator[dict[str, Any]], total: str
) -> tuple[Sequence[int], str]:
    """Write a line for each record; return where each begins, and the hash of them all."""
    offsets, digest = array("Q"), hashlib.sha256()
    position = 0
    with progress(None, "image", total) as bar:
        for point in points:
            line = to_json(point) + b"\n"
            stream.write(line)
            digest.update(line)
            offsets.append(position)
            position += len(line)
            bar.update()
    stream.flush()
    return offsets, digest.hexdigest()


# --- writing -------------------------------------------------------------------------------------------


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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # records need no GPU, and looking for one takes time
    with quiet_stderr():
        import tensorflow

        return tensorflow


def write_shard(shard: Shard, ids: dict[str, int]) -> dict[str, Any]:
    """Write one file of records, whole or not at all, and return its entry in the manifest."""
    tf = load_tensorflow()
    with atomic_path(shard.path) as part:
        with open(shard.work_list, "rb") as lines, tf.io.TFRecordWriter(str(part)) as writer:
            for offset in shard.offsets:
                lines.seek(offset)
                writer.write(make_record(tf, json.loads(lines.readline()), shard.images, ids))
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    return {"file": shard.path.name, "records": len(shard.offsets), "bytes": size, "sha256": digest}


def make_record(tf: Any, work: dict[str, Any], folder: Path, ids: dict[str, int]) -> bytes:
    """Return the serialized tf.train.Example of one line of the work list."""
    path = folder / work["file"]
    try:
        image = path.read_bytes()
    except FileNotFoundError:
        image = b""
    if len(image) != work["bytes"]:
        raise InputError(f"{path}: changed while the records were made; run the same command again")
    features = {}
    for name, values in example_features(
        work["point"], work["boxes"], image, tuple(work["size"]), ids
    ).items():
        features[name] = make_feature(tf, name, values)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def make_feature(tf: Any, name: str, values: Any) -> Any:
    """Return a tf.train.Feature; an empty list has the type its name calls for."""
    train = tf.train
    if name.endswith(("/text", "/encoded", "/format", "/filename", "/source_id", "/sha256")):
        return train.Feature(bytes_list=train.BytesList(value=values))
    if "/bbox/" in name or name.endswith(("/area", "/weight", "/confidence")):
        return train.Feature(float_list=train.FloatList(value=values))
    return train.Feature(int64_list=train.Int64List(value=values))


# --- shards and their manifest ---------------------------------------------------------------------------


def write_shards(
    args: Any, work_list: Path, offsets: Sequence[int], inputs: str, ids: dict[str, int]
) -> list[dict[str, Any]]:
    """Write the files that are not there yet and return the entries of all."""
    path = Path(args.record_save_path)
    manifest = path.with_name(f"{path.name}.manifest.json")
    paths = shard_paths(path, args.num_shards)
    finished = read_manifest(manifest, inputs)
    write_manifest(manifest, inputs, finished)
    tasks = [
        Shard(shard, work_list, Path(args.saved_images_directory), offsets[index :: len(paths)])
        for index, shard in enumerate(paths)
        if shard.name not in finished
    ]
    with progress(len(tasks), "file", "writing records") as bar:
        for entry in map_batches(partial(write_shard, ids=ids), tasks, min(args.workers, max(len(tasks), 1))):
            finished[entry["file"]] = entry
            write_manifest(manifest, inputs, finished)
            bar.update()
    remove_older(path, paths)
    return [finished[shard.name] for shard in paths]


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    flags = parser.add_argument
    flags(
        "--points_path", required=True, metavar="POINTS_PATH", help="datapoints of the resized photos, JSON"
    )
    flags(
        "--record_save_path", required=True, metavar="RECORD_SAVE_PATH",
        help="file of records to write; with --num_shards what its files' names begin with",
    )  # fmt: skip
    flags(
        "--trainable_classes_path", required=True, metavar="TRAINABLE_CLASSES_PATH",
        help="class list the label map was made from, one MID a line, or its folder",
    )  # fmt: skip
    flags(
        "--saved_images_directory", required=True, metavar="SAVED_IMAGES_DIRECTORY",
        help="folder of the resized photos",
    )  # fmt: skip
    flags(
        "--num_shards",
        type=whole_number(1, 10000),
        help="deal the records over this many files (default: one)",
    )
    flags(
        "--workers", type=whole_number(1, 1000), default=usable_cores(),
        help="processes that write a file each, 500 MB a process (default: one a core, %(default)s here)",
    )  # fmt: skip
    flags(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="fail where more images than this are missing or no RGB (default: any number may)",
    )  # fmt: skip
    args = parser.parse_args(argv)

    ids = class_ids(read_classes(args.trainable_classes_path))
    folder = Path(args.saved_images_directory)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, the resized photos were expected")
    path = Path(args.record_save_path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, a file name for the records was expected")
    counts: Counter[str] = Counter()
    work_list = path.with_name(f".{path.name}.work.part")
    with scratch_file(work_list, busy=f"{path}: another run is writing these records") as stream:
        points = usable_points(args.points_path, folder, ids, counts)
        offsets, digest = write_work_list(stream, points, "looking at photos")
        failed = counts["missing"] + counts["not_rgb"]
        if counts["not_rgb"]:
            say(f"{counts['not_rgb']} photos are no RGB JPEG or PNG: run process_images.py first")
        if not offsets:
            raise InputError(
                f"{args.points_path}: no record can be made of its {counts['images']} images: {failed} are "
                f"missing in {folder} or no RGB JPEG (run process_images.py first), "
                f"{counts['without_boxes']} have no box of the classes in {args.trainable_classes_path}"
            )
        if args.max_failures:
            args.max_failures.check(failed, counts["images"])
        settings = json.dumps([LAYOUT, digest, list(ids), args.num_shards])
        inputs = hashlib.sha256(settings.encode()).hexdigest()
        shards = write_shards(args, work_list, offsets, inputs, ids)
    names = ("missing", "not_rgb", "without_boxes", "other_classes", "repeated_ids")
    print_counts(
        {"records": len(offsets), "boxes": counts["boxes"], "files": len(shards)}
        | {"bytes": sum(shard["bytes"] for shard in shards)}
        | {name: counts[name] for name in names}
    )


if __name__ == "__main__":
    run(main)
