#!/usr/bin/env python3
r"""Translate the MIDs of the trainable classes into their readable names.

    python3 translate_class_descriptions.py \
        --trainable_classes_path data/classes/classes-trainable.txt \
        --class_description_path data/classes/class-descriptions.csv \
        --trainable_translated_path work/classes-translated.json

Reads a class list (one MID a line) and the release's class descriptions (CSV: MID, name). Writes a JSON array
of the names, unchanged and in the order of the class list. Either input may also be the folder that holds the
file. Classes without a description are an error that lists them all.

Names are for people: several classes can share one (Bench, Mouse), so no file is keyed by them.

Exit codes: 0 done; 1 bad input; 2 wrong flags; 130 interrupted.
"""

from collections.abc import Sequence

from common.cli import make_parser, print_counts, run
from common.files.json_files import json_writer
from common.openimages.classes import describe, read_classes
from common.openimages.outputs import check_outputs


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--trainable_classes_path", required=True, metavar="TRAINABLE_CLASSES",
        help="class list, one MID a line, or its folder")  # fmt: skip
    add("--class_description_path", required=True, metavar="CLASS_DESCRIPTION",
        help="class descriptions, CSV of MID and name, or its folder")  # fmt: skip
    add("--trainable_translated_path", required=True, metavar="TRAINABLE_TRANSLATED_PATH",
        help="JSON array of names to write")  # fmt: skip
    args = parser.parse_args(argv)
    inputs = (args.trainable_classes_path, args.class_description_path)
    check_outputs(parser, inputs, [args.trainable_translated_path])

    classes = read_classes(args.trainable_classes_path)
    names = describe(classes, args.trainable_classes_path, args.class_description_path)
    with json_writer(args.trainable_translated_path) as write:
        for name in names:
            write(name)
    counts = {"classes": len(classes), "distinct_names": len(set(names))}
    print_counts(counts, went_out=list(counts))


if __name__ == "__main__":
    run(main)
