#!/usr/bin/env python3
r"""Write the TFRecords that TensorFlow's object detectors train on.

    python3 record_maker.py \
        --points_path dataset/train/points-resized.json \
        --saved_images_directory dataset/train/resized \
        --trainable_classes_path dataset/classes-trainable.txt \
        --record_save_path dataset/train/records/train.tfrecord --num_shards 10

Reads the datapoints that process_images.py wrote, their images, and the class list of the label map. Writes
one tf.train.Example for each image: the image file unchanged, its size, and its boxes; about 20 kB each. They
are in one file at --record_save_path, or dealt evenly over --num_shards N files NAME-00000-of-000NN, or over
as many files of about --shard_bytes 100M as needed.

With --eval_record_save_path some images are held out for evaluation: those that --eval_fraction 0.1 chooses
by a hash of the id, so that an image never changes sides when the data grow, or those of --eval_subset.
With --tfds_metadata, tfds.builder_from_directory reads the folder; the splits are called train and eval if
the records are train.tfrecord and eval.tfrecord.
--verify reads back every file, also those of earlier runs, and names what is damaged.

--coco_path also writes the content of the records in COCO's format, for evaluation and other trainers; the
file of the evaluation records is beside it, named like them. COCO's image ids are numbers: --source_id number
writes them into image/source_id too, for Model Garden's evaluation. --label_map_path stops the run if a label
map has other ids or names than the records would have.

--preview_path draws some records with their boxes and names on one sheet. --report_path writes one HTML
file, made from the records: a funnel of what each step kept, charts and a gallery. It uses the names of
--class_description_path, and the --failures_path of steps that left no counts beside their outputs.

Datapoints with masks, from process_images.py --masks_directory, give records with a mask for each box.

Left out and counted: images that are missing or not an RGB JPEG (or PNG), boxes and image labels of classes
that are not in the list, and images without a box or a verified label of a class in the list. With
--keep_without_boxes such images are written too, as background with empty lists, whatever else they show.

If the run is interrupted, run the same command again: it writes the missing files. NAME.manifest.json lists
the files, with a hash of the inputs. With other inputs all files are written, then older shards are removed.
Images, datapoints and records can be on an object store, at an address such as s3://bucket/records/train.

Exit codes: 0 done, the counts list what was left out; 1 bad input, no record at all, a damaged file, or more
failures than --max_failures; 2 wrong flags; 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from common.cli import InputError, byte_count, fraction, make_parser, print_counts, run, whole_number
from common.files.failures import FailureLimit, read_failures
from common.files.places import is_folder, parse_path
from common.openimages import funnel
from common.openimages.classes import class_ids, class_texts, describe, read_classes
from common.openimages.ids import SPLITS
from common.openimages.label_map import check_label_map
from common.openimages.outputs import check_outputs
from common.workers.pool import Workers, usable_cores
from common.workers.scheduler import add_scheduler_flag, open_workers

if TYPE_CHECKING:
    from pathlib import Path

    from common.records.coco import CocoSettings
    from common.records.types import RecordSet, RecordSettings

# Of workers: the bytes of records depend on them.
PACKAGES = ("msgspec", "pillow", "protobuf", "pycocotools", "tensorflow")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    from common.records import report, tfds, types, verify, work_list  # no package for --help

    classes, descriptions = read_classes(args.trainable_classes_path), args.class_description_path
    names = describe(classes, args.trainable_classes_path, descriptions) if descriptions else classes
    failures = {path: Counter(row.reason for row in read_failures(path)) for path in args.failures_path}
    folder = parse_path(args.saved_images_directory)
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder, the resized images were expected")
    paths = [path for path in (args.record_save_path, args.eval_record_save_path) if path]
    record_sets = [types.RecordSet(parse_path(path)) for path in paths]
    if args.tfds_metadata:
        tfds.check_names(record_sets)
    settings = record_settings(args, classes, names, work_list.work_path(record_sets[0].path))
    if args.label_map_path:
        check_label_map(args.label_map_path, settings.texts.values(), args.trainable_classes_path)
    coco_settings = read_coco_settings(args, classes, names) if args.coco_path else None

    with work_list.open_work_list(record_sets) as stream:
        counts = work_list.write_work_list(stream, record_sets, args.points_path, settings)
        work_list.check_enough(record_sets, counts, args.points_path, args.max_failures)
        if not counts["masks"]:
            settings = replace(settings, missing_masks=None)
        outputs = [records.path.parent for records in record_sets]
        with open_workers(args.workers, args.dask_scheduler, PACKAGES, [folder], outputs) as workers:
            write_all(record_sets, settings, coco_settings, workers, tfds_metadata=args.tfds_metadata)
            verified = verify.verify_sets(record_sets if args.verify else (), settings, workers)

    total, lost = count_records(record_sets, counts), funnel.lost_of(counts, work_list.LOST_IMAGES)
    last = funnel.Stage(7, "records", counts["images"], total["records"], lost)
    stages = funnel.add_stage(funnel.read_stages(args.points_path, folder), last)
    if args.preview_path:
        sample = verify.sample_set(record_sets[0], report.IMAGES, settings.compression)
        report.write_preview(args.preview_path, sample, dict(enumerate(names, 1)))
    if args.report_path:
        others = failures | {"record_maker.py": funnel.lost_of(counts, work_list.LOST_OTHERS)}
        records, named = verify.read_sets(record_sets, settings.compression), zip(classes, names, strict=True)
        report.write_report(args.report_path, records, list(named), total, stages, others)
    funnel.write_stages(funnel.counts_path(args.record_save_path), stages)
    losses = {name: counts[name] for name in work_list.LOSSES}
    print_counts(
        {"images": counts["images"]} | total | losses | verified, lost=work_list.LOSSES,
        came_in=["images"], went_out=["records", "records_without_boxes", "boxes", "masks", "files"],
    )  # fmt: skip
    funnel.say_funnel(stages)


def write_all(
    record_sets: Sequence[RecordSet], settings: RecordSettings, coco_settings: CocoSettings | None,
    workers: Workers, *, tfds_metadata: bool,
) -> None:  # fmt: skip
    """Write all records, and what is asked for beside them."""
    from common.records import coco, shards, tfds

    for records in record_sets:
        shards.write_set(records, settings, workers)
    if tfds_metadata:
        tfds.write_metadata(record_sets, settings.missing_masks)
    if coco_settings:
        coco.write_coco(record_sets, settings.work_list, coco_settings, settings.missing_masks)


def count_records(sets: Sequence[RecordSet], counts: Counter[str]) -> dict[str, int]:
    """Return the counts of what was written, for the last line."""
    shards = [shard for records in sets for shard in records.shards]
    total = {"records": sum(shard["records"] for shard in shards), "boxes": counts["boxes"]}
    total |= {name: counts[name] for name in ("masks", "records_without_boxes") if counts[name]}
    total["files"] = len(shards)
    if len(sets) > 1:
        total["eval_records"] = len(sets[1].offsets)
    return total | {"bytes": sum(shard["bytes"] for shard in shards)}


# --- the command line ------------------------------------------------------------------------------------


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    for flag, text in (
        ("points_path", "datapoints of the resized images, JSON"),
        ("record_save_path", "file of records to write, or the beginning of the names of several"),
        ("trainable_classes_path", "class list of the label map, one MID a line, or its folder"),
        ("saved_images_directory", "folder of the resized images"),
    ):
        add(f"--{flag}", required=True, metavar=flag.upper(), help=text)
    shards = parser.add_mutually_exclusive_group()
    shards.add_argument("--num_shards", type=whole_number(1, 10000), help="number of files (default: one)")
    shards.add_argument("--shard_bytes", type=byte_count, metavar="BYTES", help="or their size, such as 100M")
    add("--compression", choices=("none", "gzip"), default="none", help="(default: %(default)s)")
    add("--eval_record_save_path", metavar="PATH", help="records for evaluation to write, named likewise")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--eval_fraction", type=fraction, help="fraction to hold out, by hash of the id")
    split.add_argument("--eval_subset", choices=SPLITS, help="or subset to hold out")
    for flag, choices, text in (
        ("class_text", ("mid", "name"), "content of image/object/class/text; name needs "
         "--class_description_path and a label map made with --name_field name"),
        ("missing_masks", ("empty", "box"), "mask of a box without one, if others have masks: empty, with "
         "weight 0, or the whole box, for Model Garden, which knows no weights"),
        ("source_id", ("id", "number"),
         "content of image/source_id: the image's id, or its number in COCO files"),
    ):  # fmt: skip
        add(f"--{flag}", choices=choices, default=choices[0], help=f"{text} (default: %(default)s)")
    add("--keep_without_boxes", action="store_true", help="write images without a box too, as background")
    add("--verify", action="store_true", help="read back every file of records and check its content")
    add("--tfds_metadata", action="store_true", help="write metadata for tfds.builder_from_directory")
    for flag, text in (
        ("class_description_path", "class descriptions, CSV of MID and name, or its folder"),
        ("label_map_path", "label map to compare with the class list"),
        ("coco_path", "content of the records in COCO's format to write, JSON"),
        ("hierarchy_path", "class hierarchy: supercategories for --coco_path"),
        ("attribution_path", "step 3's attribution: author and licence for --coco_path"),
        ("preview_path", "contact sheet of some records to write, JPEG"),
        ("report_path", "report on the records to write, HTML"),
    ):
        add(f"--{flag}", metavar="PATH", help=text)
    add("--failures_path", action="append", default=[], metavar="PATH",
        help="failures of an earlier step that left no counts, for the report; can be repeated")  # fmt: skip
    add("--workers", type=whole_number(1), default=usable_cores(), metavar="N",
        help="worker processes here, 500 MB each (default: one a core, %(default)s here)")  # fmt: skip
    add_scheduler_flag(parser)
    add("--max_failures", type=FailureLimit, metavar="N|P%",
        help="exit 1 when more images than this are missing or not RGB (default: no limit)")  # fmt: skip
    args = parser.parse_args(argv)
    if (args.eval_record_save_path is None) != (args.eval_fraction is None and args.eval_subset is None):
        parser.error("--eval_record_save_path goes with --eval_fraction or --eval_subset")
    if args.class_text == "name" and args.class_description_path is None:
        parser.error("--class_text name needs --class_description_path")
    if args.tfds_metadata and (args.compression != "none" or not (args.num_shards or args.shard_bytes)):
        parser.error("--tfds_metadata needs --num_shards or --shard_bytes, and no --compression")
    if args.coco_path is None and (args.hierarchy_path or args.attribution_path):
        parser.error("--hierarchy_path and --attribution_path go with --coco_path")
    inputs = [args.points_path, args.trainable_classes_path, args.class_description_path, args.label_map_path]
    inputs += [args.hierarchy_path, args.attribution_path, *args.failures_path]
    outputs = [args.record_save_path, args.eval_record_save_path, args.coco_path, args.preview_path]
    check_outputs(parser, inputs, [*outputs, args.report_path])
    return args


def record_settings(
    args: argparse.Namespace, classes: Sequence[str], names: Sequence[str], work_list: Path
) -> RecordSettings:
    from common.records.types import RecordSettings

    return RecordSettings(  # with full paths: workers of a cluster run in other folders
        work_list=work_list.absolute(), images=parse_path(args.saved_images_directory).absolute(),
        ids=class_ids(classes), texts=class_texts(classes, names, args.class_text),
        keep_without_boxes=args.keep_without_boxes, eval_fraction=args.eval_fraction,
        eval_subset=args.eval_subset, is_numbered=bool(args.coco_path) or args.source_id == "number",
        compression={"none": "", "gzip": "GZIP"}[args.compression], source_id=args.source_id,
        missing_masks=args.missing_masks, num_shards=args.num_shards, shard_bytes=args.shard_bytes,
    )  # fmt: skip


def read_coco_settings(
    args: argparse.Namespace, classes: Sequence[str], names: Sequence[str]
) -> CocoSettings:
    from common.records import coco

    paths = coco.coco_paths(args.coco_path, args.eval_record_save_path)
    categories = coco.make_categories(classes, names, args.class_description_path, args.hierarchy_path)
    return coco.CocoSettings(paths, categories, args.attribution_path)


if __name__ == "__main__":
    run(main)
