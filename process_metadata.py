#!/usr/bin/env python3
r"""Turn a release's annotations into datapoints, boxes grouped by image, and list the images to fetch.

    python3 process_metadata.py \
        --annotations_input_path data/validation/boxes.csv \
        --image_index_input_path data/validation/images.csv \
        --trainable_classes_path data/classes/classes-trainable.txt \
        --classes "Cat,Dog" --class_description_path data/classes/class-descriptions.csv \
        --trainable_classes_output_path dataset/classes-trainable.txt --max_images 200 \
        --point_output_path dataset/validation/points.json \
        --image_index_output_path dataset/validation/images.json

Reads the box annotations and the image index of V2 to V7; columns are found by name. Keeps the boxes of the
trainable classes, or of those that --classes or --classes_path names; the list of these is written for the
later steps. Writes two JSON arrays with one element a line. Both hold the same images: the datapoints in the
order of the annotations, the index in its own order, without duplicate ids.

These are dropped and counted: boxes of other classes, outside [0, 1] or without area, rows that repeat
another in every column, what the flags exclude, and images with boxes that are not in the index. If no box is
left, that is an error.

With --hierarchy_path, an image-level label verified present also counts for the class's kept ancestors, and
one verified absent for its kept subclasses.

With --keep_images_without_boxes, images of the index in which no box of these classes is annotated are kept
as background, whatever else they show. An image that lost such boxes to a filter is no background, nor is one
with a label of these classes verified present.

With --masks_input_path (V5 to V7), a box gets the mask of its image and class with the same coordinates, or
else the nearest within 0.005. --boxes_without_mask drops what has none, before images are chosen.

All cores read the files: the train split of V7 takes some two minutes on two cores, and 1 GB of memory. What
was read is kept in temporary files without a name (5 GB for that split) in the folder that TMPDIR names. The
rows of an image may be anywhere in a file.

Exit codes: 0 done, the counts say what was dropped; 1 bad input, or no box left; 2 wrong flags;
130 interrupted.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import closing

from common.cli import InputError, make_parser, run, whole_number
from common.files.csv_files import parse_number
from common.files.json_files import json_writer
from common.files.whole_files import open_output
from common.openimages.class_choice import asked_classes, choose_classes
from common.openimages.classes import descendants, read_ancestors, read_classes
from common.openimages.outputs import check_outputs

ALL = 10**9  # images


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    from common.metadata.boxes import BoxFilter, read_boxes
    from common.metadata.index import Images, read_index, read_listed, write_index
    from common.metadata.labels import read_labels
    from common.metadata.losses import nothing_kept, report
    from common.metadata.masks import read_masks
    from common.metadata.points import ImageChoice, PointRules, read_points, write_points

    annotations, index = args.annotations_input_path, args.image_index_input_path
    masks, labels = args.masks_input_path, args.image_labels_input_path
    ancestors = read_ancestors(args.hierarchy_path) if args.hierarchy_path else {}
    classes = read_classes(args.trainable_classes_path)
    if args.classes is not None or args.classes_path is not None:
        asked = asked_classes(args.classes, args.classes_path)
        paths = args.trainable_classes_path, args.class_description_path
        classes = choose_classes(asked, classes, *paths, ancestors)
    wanted = BoxFilter(frozenset(classes), args.exclude, args.min_box_side, args.clip_boxes)
    present, absent = (kept_relatives(classes, each) for each in (ancestors, descendants(ancestors)))
    copies = {mid: sorted(present[mid] - {mid}) for mid in classes} if args.expand_hierarchy else {}
    rules = PointRules(annotations, masks, args.boxes_without_mask, labels, args.keep_labels_only, copies)
    counts: Counter[str] = Counter(classes=len(classes))
    with closing(Images()) as images:
        read_index(index, images, counts)
        listed = read_listed(args.image_ids_path, index, images, counts) if args.image_ids_path else None
        choice = ImageChoice(listed, args.max_images_per_class, args.max_images, args.seed)
        read_boxes(annotations, wanted, images, counts)
        if masks:
            read_masks(masks, wanted.classes, images, counts)
        if args.keep_images_without_boxes:
            choice.add_background(images, args.keep_images_without_boxes)
        if args.keep_labels_only:
            images.number_all(images.positions)
        if labels:
            read_labels(labels, (absent, present), images, counts)
        chosen = choice.choose(read_points(images, rules, Counter()), counts)
        with json_writer(args.point_output_path) as write:
            written = write_points(images, rules, chosen, write, counts)
            if counts["images"] == counts["images_without_boxes"]:
                raise InputError(nothing_kept(annotations, index, classes, images, counts))
        write_index(images, written, args.image_index_output_path, args.attribution_output_path)
    if args.trainable_classes_output_path:
        with open_output(args.trainable_classes_output_path) as stream:
            stream.writelines(f"{mid}\n".encode() for mid in classes)
    report(counts, annotations, args.point_output_path)


def kept_relatives(classes: Sequence[str], relatives: Mapping[str, Set[str]]) -> dict[str, Set[str]]:
    """Return of each class those of itself and its relatives that are kept."""
    kept = frozenset(classes)
    return {mid: kept & {mid, *relatives.get(mid, ())} for mid in {*classes, *relatives}}


# --- the command line ------------------------------------------------------------------------------------


def parse_attributes(text: str) -> tuple[str, ...]:
    """Return the attributes of a comma-separated list: an argparse type."""
    from common.openimages.datapoints import ATTRIBUTES

    names = tuple(text.split(","))
    for name in names:
        if name not in ATTRIBUTES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(ATTRIBUTES)}")
    return names


def parse_side(text: str) -> float:
    value = parse_number(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--annotations_input_path", required=True, metavar="ANNO_PATH", help="box annotations, CSV")
    add("--image_index_input_path", required=True, metavar="INDEX_IN_PATH", help="image index, CSV")
    add("--point_output_path", required=True, metavar="POINT_PATH", help="datapoints to write, JSON")
    add("--image_index_output_path", required=True, metavar="INDEX_OUT_PATH", help="index to write, JSON")
    add("--trainable_classes_path", required=True, metavar="TRAINABLE_PATH", help="class list, or its folder")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--classes", help="names or MIDs to keep, separated by commas (default: all)")
    chosen.add_argument("--classes_path", help="file of names or MIDs to keep, one a line")
    add("--class_description_path", help="class descriptions, CSV: needed to choose by name")
    add("--trainable_classes_output_path", help="chosen classes to write, for the later steps")
    add("--hierarchy_path", help="class hierarchy, JSON: subclasses of the chosen classes are kept too")
    add("--expand_hierarchy", action="store_true", help="add a copy of each box for every kept ancestor")
    add("--exclude", type=parse_attributes, default=(), help="drop these boxes, such as group_of,depiction")
    add("--min_box_side", type=parse_side, default=0.0, help="least width and height (default: %(default)s)")
    add("--clip_boxes", action="store_true", help="move edges up to 0.01 outside the image into it")
    add("--image_ids_path", help="file of image ids or image names, one a line: keep no others")
    add(
        "--keep_images_without_boxes", type=whole_number(1), nargs="?", const=ALL, default=0, metavar="N",
        help="keep images without a box of these classes too, as background: all of --image_ids_path, or N "
        "by random choice; --max_images counts them too",
    )  # fmt: skip
    add("--max_images_per_class", type=whole_number(1), help="keep this many of each class, by random choice")
    add("--max_images", type=whole_number(1), help="keep at most this many in all, by random choice")
    add("--seed", type=whole_number(0), default=0, help="seed of that choice (default: %(default)s)")
    add("--image_labels_input_path", help="verified image-level labels, CSV, to add to the datapoints")
    add("--keep_labels_only", action="store_true", help="keep images with labels but no boxes too")
    add("--masks_input_path", help="instance masks, CSV: boxes get the file name of their mask")
    add(
        "--boxes_without_mask", choices=("keep", "drop_box", "drop_image"), default="keep",
        help="drop boxes that have no mask, or images with such a box (default: %(default)s)",
    )  # fmt: skip
    add("--attribution_output_path", help="author, title, source and licence of each image to write, CSV")
    args = parser.parse_args(argv)
    if (args.classes or args.classes_path) and not args.trainable_classes_output_path:
        parser.error("--classes and --classes_path need --trainable_classes_output_path for the chosen list")
    if args.expand_hierarchy and not args.hierarchy_path:
        parser.error("--expand_hierarchy needs --hierarchy_path")
    if args.keep_labels_only and not args.image_labels_input_path:
        parser.error("--keep_labels_only needs --image_labels_input_path")
    if args.keep_images_without_boxes == ALL and not args.image_ids_path:
        parser.error("--keep_images_without_boxes needs a number N, or --image_ids_path")
    if args.keep_images_without_boxes and args.keep_labels_only:
        parser.error("--keep_images_without_boxes and --keep_labels_only exclude each other")
    if args.boxes_without_mask != "keep" and not args.masks_input_path:
        parser.error("--boxes_without_mask needs --masks_input_path")
    paths = {name: path for name, path in vars(args).items() if name.endswith("_path")}
    outputs = [paths.pop(name) for name in list(paths) if name.endswith("output_path")]
    check_outputs(parser, paths.values(), outputs)
    return args


if __name__ == "__main__":
    run(main)
