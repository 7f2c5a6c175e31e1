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
With --tfds_metadata, tfds.builder_from_directory reads the folder; the splits are called train and eval where
the records are train.tfrecord and eval.tfrecord.
--verify reads back every file, also those of earlier runs, and names what is damaged.

--preview_path draws some records with their boxes and names on one sheet; --report_path writes a page with
counts, charts and a gallery, in one HTML file made from the records, with the names of
--class_description_path and the losses that the --failures_path of earlier steps list, where these are given.

Photos that are missing or no RGB JPEG (or PNG) are counted and left out, as are boxes and image labels of
classes that are not in the list, and photos without a box or a verified label of one.
NAME.manifest.json says what the files were made from: run again with the same inputs, what is missing is
made; with others, all is made anew and, when the new set is whole, shards of an older one are removed.
Photos, datapoints and records may be on an object store, by an address such as s3://bucket/records/train.

Exit codes: 0 done, the counts say what was left out; 1 bad input, no record at all, a damaged file, or more
than --max_failures; 2 wrong flags; 130 interrupted.
"""

import argparse
from collections import Counter
from collections.abc import Sequence

from common.cli import InputError, make_parser, print_counts, run, say, whole_number
from common.files.failures import parse_failure_limit, read_failures
from common.files.storage import is_folder, parse_path
from common.openimages.classes import class_ids, class_texts, describe, read_classes
from common.openimages.ids import SPLITS
from common.records.preview import PHOTOS, write_preview
from common.records.report import gather, write_report
from common.records.sets import RecordSet, make_sets, read_set, sample_set, verify_set, write_set
from common.records.shards import byte_count
from common.records.split import Split, share
from common.records.tfds import check_tfds_names, write_tfds_metadata
from common.records.work_list import LOSSES, open_work_list, usable_points, work_path, write_work_list
from common.records.write import RecordSettings
from common.workers.batches import add_scheduler_flag, open_workers, usable_cores

PACKAGES = ("msgspec", "pillow", "protobuf", "tensorflow")  # of workers: the bytes of records depend on them


def add_set_flags(parser: argparse.ArgumentParser) -> None:
    """Add which files the records go to, and which of them are for evaluation."""
    add = parser.add_argument
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
    add("--compression", choices=("none", "gzip"), default="none", help="(default: %(default)s)")
    add("--eval_record_save_path", metavar="PATH", help="where the records for evaluation go, named likewise")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--eval_fraction", type=share, metavar="SHARE", help="share of the images, by hash of the id"
    )
    which.add_argument("--eval_subset", choices=SPLITS, help="or the images of this subset")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    for flag, text in (
        ("points_path", "datapoints of the resized photos, JSON"),
        ("record_save_path", "file of records to write; with several, what their names begin with"),
        ("trainable_classes_path", "class list the label map was made from, one MID a line, or its folder"),
        ("saved_images_directory", "folder of the resized photos"),
    ):
        parser.add_argument(f"--{flag}", required=True, metavar=flag.upper(), help=text)
    add = parser.add_argument
    add_set_flags(parser)
    add(
        "--class_text", choices=("mid", "name"), default="mid",
        help="what image/object/class/text says; names need --class_description_path and a label map made "
        "with --name_field name (default: %(default)s)",
    )  # fmt: skip
    add(
        "--class_description_path", metavar="PATH",
        help="class descriptions, CSV of MID and name, or its folder",
    )  # fmt: skip
    add("--verify", action="store_true", help="read back every file of records and check all that is in it")
    add(
        "--tfds_metadata", action="store_true",
        help="write dataset_info.json and features.json beside the records, for tfds.builder_from_directory",
    )  # fmt: skip
    add("--preview_path", metavar="PATH", help="contact sheet of some records to write, JPEG")
    add("--report_path", metavar="PATH", help="page on what is in the records to write, HTML")
    add(
        "--failures_path", action="append", default=[], metavar="PATH",
        help="failures of an earlier step to show in the report; may be given again",
    )  # fmt: skip
    add(
        "--workers", type=whole_number(1), default=usable_cores(), metavar="N",
        help="processes on this machine that write a file each, 500 MB a process (default: one a core, "
        "%(default)s here)",
    )  # fmt: skip
    add_scheduler_flag(parser)
    add(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="exit 1 when more images than this are missing or no RGB (default: no limit)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if (args.eval_record_save_path is None) != (args.eval_fraction is None and args.eval_subset is None):
        parser.error("--eval_record_save_path goes with --eval_fraction or --eval_subset")
    if args.class_text == "name" and args.class_description_path is None:
        parser.error("--class_text name needs --class_description_path")
    if args.tfds_metadata and (args.compression != "none" or not (args.num_shards or args.shard_bytes)):
        parser.error("--tfds_metadata needs --num_shards or --shard_bytes, and no --compression")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    classes = read_classes(args.trainable_classes_path)
    names = classes
    if args.class_description_path is not None:
        names = describe(classes, args.trainable_classes_path, args.class_description_path)
    texts = class_texts(classes, names, args.class_text)
    earlier = {path: Counter(row.reason for row in read_failures(path)) for path in args.failures_path}
    folder = parse_path(args.saved_images_directory)
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder, the resized photos were expected")
    sets = make_sets(args.record_save_path, args.eval_record_save_path)
    if args.tfds_metadata:
        check_tfds_names(sets)
    split = Split(args.eval_fraction, args.eval_subset)
    compression = {"none": "", "gzip": "GZIP"}[args.compression]
    if args.dask_scheduler:  # whose workers stand in other folders
        folder = folder.absolute()
        for records in sets:
            records.path = records.path.absolute()
    settings = RecordSettings(work_path(sets[0].path), folder, class_ids(classes), texts, compression)

    counts: Counter[str] = Counter()
    verified: Counter[str] = Counter()
    with open_work_list(sets) as stream:
        points = usable_points(args.points_path, folder, settings.ids, counts)
        write_work_list(stream, points, lambda point: sets[split.is_for_evaluation(point)])
        check_enough(sets, counts, args)
        outputs = [records.path.parent for records in sets]
        with open_workers(args.workers, args.dask_scheduler, PACKAGES, [folder], outputs) as workers:
            for records in sets:
                write_set(records, args.num_shards, args.shard_bytes, settings, workers)
            if args.tfds_metadata:
                write_tfds_metadata(sets)
            if args.verify:
                for records in sets:
                    verified += verify_set(records, settings, workers)

    total = count_records(sets, counts["boxes"])
    losses = {name: counts[name] for name in LOSSES}
    if args.preview_path:
        write_preview(args.preview_path, sample_set(sets[0], PHOTOS, compression), dict(enumerate(names, 1)))
    if args.report_path:
        read = (record for records in sets for record in read_set(records, compression))
        lost = {name: dict(reasons) for name, reasons in earlier.items()} | {"record_maker.py": losses}
        pairs = list(zip(classes, names, strict=True))
        write_report(args.report_path, gather(read, len(classes)), total, pairs, lost)
    print_counts(total | losses | verified)


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


def count_records(sets: Sequence[RecordSet], boxes: int) -> dict[str, int]:
    """Return what was written, as the last line says it."""
    shards = [shard for records in sets for shard in records.shards]
    total = {"records": sum(shard["records"] for shard in shards), "boxes": boxes, "files": len(shards)}
    if len(sets) > 1:
        total["eval_records"] = len(sets[1].offsets)
    return total | {"bytes": sum(shard["bytes"] for shard in shards)}


if __name__ == "__main__":
    run(main)
