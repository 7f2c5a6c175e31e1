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

Reads the box annotations and the image index of V2 to V7, columns by name. Keeps the boxes of the trainable
classes, or of those of them that --classes or --classes_path asks for; the chosen list is written for the
later steps. Writes two JSON arrays with one element a line, which agree on their images: the datapoints, in
the order of the annotations, and the index, in its own order, without repeated ids.

Dropped and counted: boxes of other classes, outside [0, 1] or without area, rows repeated in every column,
what the flags exclude, and images with boxes but no row in the index. No box left at all is an error.

With --hierarchy_path, of verified image-level labels a class that is present is so for its kept ancestors
too, and one that is absent for its kept kinds.

Files like the released ones are read in columns, on all cores: the train split of V7 in 40 seconds and 0.5 GB
of memory. What is out of the ordinary (quotes in odd places, a first column other than ImageID) is read row
by row, to the same result, several times slower, and stderr says so.

The rows of an image may stand anywhere. Files that do not have them together, and image-level labels, go
through a temporary database on disk, in the folder that TMPDIR names.

Exit codes: 0 done, the counts say what was dropped; 1 bad input, or no box left; 2 wrong flags;
130 interrupted.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from common.cli import InputError, make_parser, print_counts, run, say, whole_number
from common.files.csv_files import columns, parse_number, read_csv
from common.files.json_files import json_writer
from common.files.whole_files import check_rereadable, open_output
from common.metadata import image_index
from common.metadata.boxes import BoxFilter, ImageReturnedError
from common.metadata.grouping import Reader, Source, batches, choose_images
from common.metadata.image_choice import ImageChoice, read_image_ids
from common.metadata.image_index import ImageIds, ImageSet, Kept, attribution_writer
from common.metadata.image_labels import image_labels
from common.openimages.class_choice import asked_classes, choose_classes
from common.openimages.classes import read_classes
from common.openimages.hierarchy import descendants, read_ancestors
from common.openimages.outputs import check_outputs

SHOWN = 10  # classes named in an error
COUNTS = (
    "images", "boxes", "classes", "rows", "other_classes", "outside_image", "without_area", "repeated_rows",
    "images_not_in_index", "images_not_chosen", "index_rows", "repeated_ids",
)  # fmt: skip


def choose(args: argparse.Namespace, ancestors: dict[str, set[str]]) -> list[str]:
    """Return the classes to keep, in the order of the trainable list."""
    trainable = read_classes(args.trainable_classes_path)
    if args.classes is None and args.classes_path is None:
        return trainable
    chosen = choose_classes(
        asked_classes(args.classes, args.classes_path), trainable, args.class_description_path
    )
    wanted = {*chosen, *(mid for mid in trainable if not ancestors.get(mid, set()).isdisjoint(chosen))}
    return [mid for mid in trainable if mid in wanted]


def read_images(
    path: str, counts: Counter[str]
) -> tuple[ImageIds, Callable[[str, ImageSet], Iterator[Kept]]]:
    """Return the images of the index, and the function that reads those to keep in the same way."""
    from common.metadata import index_tables
    from common.metadata.csv_tables import NotPlainError

    try:
        images, kept_images = index_tables.read_images(path, counts), index_tables.kept_images
    except NotPlainError as reason:
        images, kept_images = image_index.read_images(path, counts), image_index.kept_images
        say(f"{path}: read row by row, which is slower: it has {reason}")
    if not images.codes:
        raise InputError(f"{path}: no images in it")
    return images, kept_images


def write_points(source: Source, choice: ImageChoice, path: str, counts: Counter[str]) -> ImageSet:
    """Write the datapoints of the chosen images and return their ids."""
    from common.metadata.csv_tables import NotPlainError

    name = source.annotations
    reader, remark = Reader.COLUMNS, ""
    while True:
        try:
            written = write_points_with(reader, source, choice, path, counts)
        except NotPlainError as reason:
            reader, remark = Reader.ROWS, f"{name}: read row by row, which is slower: it has {reason}"
        except ImageReturnedError as image_id:
            say(f"{name}: the rows of image {image_id} are apart: grouping on disk, which is slower")
            reader, remark = Reader.DISK, ""
        else:
            if remark:
                say(remark)
            return written


def write_points_with(
    reader: Reader, source: Source, choice: ImageChoice, path: str, counts: Counter[str]
) -> ImageSet:
    """Do it in one way; raises NotPlainError, ImageReturnedError where another is needed."""
    found: Counter[str] = Counter()
    chosen = choose_images(source, reader, choice, found)
    written = source.images.new_set()
    with json_writer(path) as write:
        for batch in batches(source, reader, chosen, found):
            write(batch.json)
            written.update(batch.image_ids)
        if not found["images"]:
            raise InputError(nothing_kept(source, found))
    counts.update(found)
    return written


def write_index(kept: Iterator[Kept], path: str, attribution_path: str | None) -> None:
    """Write the kept images, and, where asked for, who is to be named for them."""
    with json_writer(path) as write, ExitStack() as stack:
        name = stack.enter_context(attribution_writer(attribution_path)) if attribution_path else None
        for json, attributions in kept:
            write(json)
            if name is not None:
                name(attributions)


def nothing_kept(source: Source, counts: Counter[str]) -> str:
    """Return the message that says why: the index, the filters, or which classes were asked for and found."""
    if counts["images_not_chosen"]:
        return f"{source.annotations}: none of its images is among those of --image_ids_path"
    if counts["images_not_in_index"]:
        return (
            f"{source.index}: none of the {counts['images_not_in_index']} images with boxes to keep in "
            f"{source.annotations} is in this index, one of the same release and split was expected"
        )
    rows = read_csv(source.annotations)
    place = columns(source.annotations, next(rows)[1], ("LabelName",))["LabelName"]
    found = Counter(row[place] for _, row in rows)
    has = [mid for mid, _ in found.most_common(SHOWN)]
    dropped = "".join(
        f", {name}={number}" for name, number in sorted(counts.items()) if number and name != "rows"
    )
    return (
        f"{source.annotations}: no box to keep: asked for {shown(source.classes, len(source.classes))}, "
        f"the file has {shown(has, len(found))}; rows={counts['rows']}{dropped}"
    )


def shown(classes: Sequence[str], number: int) -> str:
    rest = f" and {number - SHOWN} more" if number > SHOWN else ""
    return f"{number} classes ({', '.join(classes[:SHOWN])}{rest})"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    for path in (args.annotations_input_path, args.image_index_input_path):
        check_rereadable(path)  # a pipe would be empty the second time
    ancestors = read_ancestors(args.hierarchy_path) if args.hierarchy_path else {}
    classes = choose(args, ancestors)
    kept = frozenset(classes)
    up = {mid: kept & {mid, *ancestors.get(mid, set())} for mid in {*kept, *ancestors}}
    below = descendants(ancestors)
    down = {mid: kept & {mid, *below.get(mid, set())} for mid in {*kept, *ancestors}}
    choice = ImageChoice(
        read_image_ids(args.image_ids_path) if args.image_ids_path else None,
        args.max_images_per_class, args.max_images, args.seed,
    )  # fmt: skip
    counts: Counter[str] = Counter()
    images, kept_images = read_images(args.image_index_input_path, counts)
    with ExitStack() as stack:
        labels = None
        if args.image_labels_input_path:
            path = args.image_labels_input_path
            labels = stack.enter_context(image_labels(path, images, up, down, counts))
        source = Source(
            annotations=args.annotations_input_path, index=args.image_index_input_path, classes=classes,
            wanted=BoxFilter(kept, args.exclude, args.min_box_side), images=images,
            expand={mid: sorted(up[mid] - {mid}) for mid in classes} if args.expand_hierarchy else {},
            labels=labels, keep_labels_only=args.keep_labels_only,
        )  # fmt: skip
        written = write_points(source, choice, args.point_output_path, counts)
    kept_rows = kept_images(args.image_index_input_path, written)
    write_index(kept_rows, args.image_index_output_path, args.attribution_output_path)
    if args.trainable_classes_output_path:
        with open_output(args.trainable_classes_output_path) as stream:
            stream.writelines(f"{mid}\n".encode() for mid in classes)
    counts["classes"] = len(classes)
    more = sorted(name for name in counts if name not in COUNTS and counts[name])
    print_counts({name: counts[name] for name in (*COUNTS, *more)})


# --- the command line ------------------------------------------------------------------------------------


def parse_attributes(text: str) -> tuple[str, ...]:
    """Return the attributes of a comma-separated list: an argparse type."""
    from common.openimages.datapoints import ATTRIBUTES

    names = tuple(text.split(","))
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join(ATTRIBUTES)}")
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
    add(
        "--trainable_classes_path", required=True, metavar="TRAINABLE_PATH",
        help="class list, one MID a line, or its folder",
    )  # fmt: skip
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--classes", help="names or MIDs to keep, separated by commas (default: all)")
    chosen.add_argument("--classes_path", help="file of names or MIDs to keep, one a line")
    add("--class_description_path", help="class descriptions, CSV: needed to choose by name")
    add("--trainable_classes_output_path", help="where the chosen classes are written, for the later steps")
    add("--hierarchy_path", help="class hierarchy, JSON: kinds of the classes asked for are kept too")
    add("--expand_hierarchy", action="store_true", help="add a copy of each box for every kept ancestor")
    add(
        "--exclude", type=parse_attributes, default=(),
        help="drop boxes with any of these attributes, comma-separated, such as group_of,depiction",
    )  # fmt: skip
    add(
        "--min_box_side", type=parse_side, default=0.0,
        help="least width and height, 0 to 1 (default: %(default)s)",
    )  # fmt: skip
    add("--image_ids_path", help="file of image ids, one a line: keep no others")
    add("--max_images_per_class", type=whole_number(1), help="keep this many of each class (default: all)")
    add("--max_images", type=whole_number(1), help="keep at most this many in all (default: all)")
    add("--seed", type=whole_number(0), default=0, help="which the two above keep (default: %(default)s)")
    add("--image_labels_input_path", help="verified image-level labels, CSV, to add to the datapoints")
    add("--keep_labels_only", action="store_true", help="keep images with verified labels and no boxes too")
    add("--attribution_output_path", help="where author, title, source and licence of each image go, CSV")
    args = parser.parse_args(argv)
    if (args.classes or args.classes_path) and not args.trainable_classes_output_path:
        parser.error("--classes and --classes_path need --trainable_classes_output_path for the chosen list")
    if args.expand_hierarchy and not args.hierarchy_path:
        parser.error("--expand_hierarchy needs --hierarchy_path")
    if args.keep_labels_only and not args.image_labels_input_path:
        parser.error("--keep_labels_only needs --image_labels_input_path")
    check_outputs(parser, args, [name for name in vars(args) if name.endswith("output_path")])
    return args


if __name__ == "__main__":
    run(main)
