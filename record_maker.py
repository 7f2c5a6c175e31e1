#!/usr/bin/env python3
r"""Write the TFRecords that TensorFlow's object detectors train on.

    python3 record_maker.py \
        --points_path dataset/train/points-resized.json \
        --saved_images_directory dataset/train/resized \
        --trainable_classes_path dataset/classes-trainable.txt \
        --record_save_path dataset/train/records/train.tfrecord --num_shards 10

Reads the datapoints that process_images.py left, their photos, and the class list that the label map was
made from. Writes one tf.train.Example for each photo: the file as it is, its size, and its boxes; about 20 kB
each. They are in one file at --record_save_path, or dealt evenly over --num_shards N files
NAME-00000-of-000NN, or over as many of about --shard_bytes 100M as it takes.

With --eval_record_save_path some images are kept out for evaluation: those that --eval_fraction 0.1 picks by
a hash of the id, so that an image never changes sides when the data grow, or all of --eval_subset validation.
--verify reads back every file, also those of earlier runs, and names what is damaged.

--preview_path draws some records with their boxes and names on one sheet; --report_path writes a page with
counts, charts and a gallery, in one HTML file made from the records, with the names of
--class_description_path and the losses that the --failures_path of earlier steps list, where these are given.

Photos that are missing or no RGB JPEG (or PNG) are counted and left out, as are boxes and image labels of
classes that are not in the list, and photos without a box or a verified label of one.
NAME.manifest.json says what the files were made from: run again with the same inputs, what is missing is
made; with others, all is made anew and, when the new set is whole, shards of an older one are removed.
"""

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from common.cli import InputError, make_parser, print_counts, progress, run, say, whole_number
from common.examples import record_bytes
from common.failures import parse_failure_limit, read_failures
from common.files import scratch_file
from common.json_files import to_json
from common.openimages import SPLITS, class_ids, class_texts, describe, read_classes, read_datapoints
from common.openimages import image_file_name as file_name
from common.parallel import usable_cores
from common.preview import PHOTOS, write_preview
from common.record_sets import RecordSet, number_of_shards, verify_set, write_set
from common.records import RecordSettings, read_records
from common.report import gather, write_report

FORMATS = ("jpeg", "png")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
LOSSES = ("missing", "not_rgb", "without_boxes", "other_classes", "other_labels", "repeated_ids")


# --- what goes into the records ------------------------------------------------------------------------


def find_image(folder: Path, image_id: str) -> Path | None:
    for image_format in FORMATS:
        path = folder / file_name(image_id, image_format)
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
        labels = point.get("image_labels", [])
        counts["other_labels"] += sum(label["label"] not in ids for label in labels)
        if not boxes and not any(label["label"] in ids for label in point.get("image_labels", [])):
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
    stream: BinaryIO, points: Iterator[dict[str, Any]], choose: Callable[[dict[str, Any]], RecordSet]
) -> None:
    """Write a line for each record and note it in the set that it belongs to."""
    position = 0
    with progress(None, "image", "looking at photos") as bar:
        for point in points:
            line = to_json(point) + b"\n"
            stream.write(line)
            chosen = choose(point["point"])
            chosen.digest.update(line)
            chosen.offsets.append(position)
            chosen.sizes.append(record_bytes(point["boxes"], point["bytes"]))
            position += len(line)
            bar.update()
    stream.flush()


# --- training or evaluation ------------------------------------------------------------------------------


def in_fraction(image_id: str, fraction: float) -> bool:
    """Tell whether an image is in this share of all, by its id alone; a larger share holds the smaller."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8]) < fraction * 2**64


def is_for_evaluation(point: dict[str, Any], fraction: float | None, subset: str | None) -> bool:
    if fraction is not None:
        return in_fraction(point["id"], fraction)
    return subset is not None and point.get("subset") == subset


# --- command line ----------------------------------------------------------------------------------------


def byte_count(text: str) -> int:
    """Return the bytes that `100M` and the like stand for: an argparse type."""
    match = re.fullmatch(r"([0-9]{1,9})([KMG]?)B?", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes such as 500K, 100M or 2G")
    return int(match[1]) * UNITS[match[2]]


def share(text: str) -> float:
    """Return a number between 0 and 1: an argparse type."""
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1, such as 0.1")
    return float(text)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    for flag, text in (
        ("points_path", "datapoints of the resized photos, JSON"),
        ("record_save_path", "file of records to write; with several, what their names begin with"),
        ("trainable_classes_path", "class list the label map was made from, one MID a line, or its folder"),
        ("saved_images_directory", "folder of the resized photos"),
    ):
        parser.add_argument(f"--{flag}", required=True, metavar=flag.upper(), help=text)
    flags = parser.add_argument
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--num_shards",
        type=whole_number(1, 10000),
        help="deal the records over this many files (default: one)",
    )
    how_many.add_argument(
        "--shard_bytes",
        type=byte_count,
        metavar="BYTES",
        help="or over files of about this size, such as 100M",
    )
    flags("--compression", choices=("none", "gzip"), default="none", help="(default: %(default)s)")
    flags(
        "--eval_record_save_path", metavar="PATH", help="where the records for evaluation go, named likewise"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--eval_fraction", type=share, metavar="SHARE", help="share of the images, by hash of the id"
    )
    which.add_argument("--eval_subset", choices=SPLITS, help="or the images of this subset")
    flags(
        "--class_text", choices=("mid", "name"), default="mid",
        help="what image/object/class/text says; names need --class_description_path and a label map made "
        "with --name_field name (default: %(default)s)",
    )  # fmt: skip
    flags(
        "--class_description_path",
        metavar="PATH",
        help="class descriptions, CSV of MID and name, or its folder",
    )
    flags("--verify", action="store_true", help="read back every file of records and check all that is in it")
    flags("--preview_path", metavar="PATH", help="contact sheet of some records to write, JPEG")
    flags("--report_path", metavar="PATH", help="page on what is in the records to write, HTML")
    flags(
        "--failures_path", action="append", default=[], metavar="PATH",
        help="failures of an earlier step to show in the report; may be given again",
    )  # fmt: skip
    flags(
        "--workers", type=whole_number(1, 1000), default=usable_cores(),
        help="processes that write a file each, 500 MB a process (default: one a core, %(default)s here)",
    )  # fmt: skip
    flags(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="fail where more images than this are missing or no RGB (default: any number may)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if (args.eval_record_save_path is None) != (args.eval_fraction is None and args.eval_subset is None):
        parser.error("--eval_record_save_path goes with --eval_fraction or --eval_subset")
    if args.class_text == "name" and args.class_description_path is None:
        parser.error("--class_text name needs --class_description_path")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    classes = read_classes(args.trainable_classes_path)
    ids = class_ids(classes)
    names = classes
    if args.class_description_path is not None:
        names = describe(classes, args.trainable_classes_path, args.class_description_path)
    texts = (
        class_texts(classes, names) if args.class_text == "name" else dict(zip(classes, classes, strict=True))
    )
    earlier = {path: Counter(row.reason for row in read_failures(path)) for path in args.failures_path}
    folder = Path(args.saved_images_directory)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, the resized photos were expected")
    sets = [RecordSet(Path(path)) for path in (args.record_save_path, args.eval_record_save_path) if path]
    for records in sets:
        if records.path.is_dir():
            raise InputError(f"{records.path}: a folder, a file name for the records was expected")
    if len({records.path.resolve() for records in sets}) < len(sets):
        raise InputError(f"{sets[0].path}: training and evaluation records need different names")

    def choose(point: dict[str, Any]) -> RecordSet:
        return sets[is_for_evaluation(point, args.eval_fraction, args.eval_subset)]

    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        streams = []
        for records in sets:
            busy = f"{records.path}: another run is writing these records"
            streams.append(stack.enter_context(scratch_file(work_path(records.path), busy)))
        write_work_list(streams[0], usable_points(args.points_path, folder, ids, counts), choose)
        check_enough(sets, counts, args)
        compression = {"none": "", "gzip": "GZIP"}[args.compression]
        settings = RecordSettings(work_path(sets[0].path), folder, ids, texts, compression)
        written = []
        for records in sets:
            number = number_of_shards(records, args.num_shards, args.shard_bytes)
            written.append(write_set(records, number, settings, args.workers))
        verified: Counter[str] = Counter()
        for records, shards in zip(sets, written, strict=True):
            if args.verify:
                verified += verify_set(records, shards, settings, args.workers)
    shards = [shard for shards in written for shard in shards]
    total = {
        "records": sum(shard["records"] for shard in shards),
        "boxes": counts["boxes"],
        "files": len(shards),
    }
    if len(sets) > 1:
        total["eval_records"] = len(sets[1].offsets)
    total["bytes"] = sum(shard["bytes"] for shard in shards)
    losses = {name: counts[name] for name in LOSSES}
    if args.preview_path:
        write_preview(args.preview_path, sample(sets[0], written[0], compression), dict(enumerate(names, 1)))
    if args.report_path:
        read = (
            record
            for records, shards in zip(sets, written, strict=True)
            for shard in shards
            for record in read_records(records.path.with_name(shard["file"]), compression)
        )
        lost = {name: dict(reasons) for name, reasons in earlier.items()} | {"record_maker.py": losses}
        pairs = list(zip(classes, names, strict=True))
        write_report(args.report_path, gather(read, len(classes)), total, pairs, lost)
    print_counts(total | losses | verified)


def sample(
    records: RecordSet, shards: Sequence[dict[str, Any]], compression: str
) -> Iterator[dict[str, list[Any]]]:
    """Yield records from all over the first files, which are dealt evenly: enough for a preview."""
    step = max(1, shards[0]["records"] // PHOTOS)
    paths = (records.path.with_name(shard["file"]) for shard in shards)
    return islice(chain.from_iterable(read_records(path, compression) for path in paths), 0, None, step)


def work_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.work.part")


def check_enough(sets: Sequence[RecordSet], counts: Counter[str], args: argparse.Namespace) -> None:
    """Raise InputError where there is nothing to write, or more is missing than the user allows."""
    failed = counts["missing"] + counts["not_rgb"]
    if counts["not_rgb"]:
        say(f"{counts['not_rgb']} photos are no RGB JPEG or PNG: run process_images.py first")
    if not any(records.offsets for records in sets):
        raise InputError(
            f"{args.points_path}: no record can be made of its {counts['images']} images: {failed} are "
            f"missing in {args.saved_images_directory} or no RGB JPEG (run process_images.py first), "
            f"{counts['without_boxes']} have no box of the classes in {args.trainable_classes_path}"
        )
    for records in sets:
        if not records.offsets:
            raise InputError(
                f"{records.path}: all images are on the other side of the split, none would be here"
            )
    if args.max_failures:
        args.max_failures.check(failed, counts["images"])


if __name__ == "__main__":
    run(main)
