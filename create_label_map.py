#!/usr/bin/env python3
r"""Write the label map that TensorFlow's detectors and evaluation read.

    python3 create_label_map.py \
        --trainable_classes_path data/classes/classes-trainable.txt \
        --class_description_path data/classes/class-descriptions.csv \
        --label_map_save_path work/label_map.pbtxt

Reads a class list (one MID a line) and the release's class descriptions (CSV: MID, name). Writes a
StringIntLabelMap in protobuf's text format, in the form of the official Open Images maps: `name` is the MID,
`id` the position in the class list from 1 (0 is background), `display_name` the readable name. The records
number classes by the same rule, so give both steps the same class list. Either input may also be the folder
that holds the file. Classes without a description are an error that lists them all.

For records made with --class_text name, --name_field name makes `name` the readable name too. A name that
several classes share is followed by the MID: "Bench (/m/076lb9)".

Exit codes: 0 done; 1 bad input; 2 wrong flags; 130 interrupted.
"""

from collections.abc import Sequence

from common.cli import make_parser, print_counts, run
from common.files.whole_files import open_output
from common.openimages.classes import class_ids, class_texts, describe, read_classes
from common.openimages.outputs import check_outputs

# Escapes of protobuf's text format inside double quotes; all other letters stay UTF-8.
ESCAPES = str.maketrans(
    {"\\": "\\\\", '"': '\\"', "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    | {chr(code): f"\\{code:03o}" for code in [*range(32), 127] if chr(code) not in "\n\r\t"}
)


def label_map_item(text: str, number: int, name: str) -> str:
    """Return one item of a StringIntLabelMap in protobuf's text format."""
    return (
        "item {\n"
        f'  name: "{text.translate(ESCAPES)}"\n'
        f"  id: {number}\n"
        f'  display_name: "{name.translate(ESCAPES)}"\n'
        "}\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--trainable_classes_path", required=True, metavar="TRAINABLE_CLASSES",
        help="class list, one MID a line, or its folder")  # fmt: skip
    add("--class_description_path", required=True, metavar="CLASS_DESCRIPTION",
        help="class descriptions, CSV of MID and name, or its folder")  # fmt: skip
    add("--label_map_save_path", required=True, metavar="LABEL_MAP_PATH",
        help="label map to write (.pbtxt)")  # fmt: skip
    add("--name_field", choices=("mid", "name"), default="mid",
        help="content of `name`, as record_maker.py's --class_text (default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    inputs = (args.trainable_classes_path, args.class_description_path)
    check_outputs(parser, inputs, [args.label_map_save_path])

    classes = read_classes(args.trainable_classes_path)
    names = describe(classes, args.trainable_classes_path, args.class_description_path)
    texts = class_texts(classes, names, args.name_field)
    with open_output(args.label_map_save_path) as stream:
        for (mid, number), name in zip(class_ids(classes).items(), names, strict=True):
            stream.write(label_map_item(texts[mid], number, name).encode())
    print_counts({"classes": len(classes)}, went_out=["classes"])


if __name__ == "__main__":
    run(main)
