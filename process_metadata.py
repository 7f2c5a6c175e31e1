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
classes, or of those of them that --classes or --classes_path asks for. Writes two JSON arrays with one
element a line, which agree on their images: the datapoints, in the order of the annotations, and the index,
in its own order, without repeated ids and images that have no kept box.

Dropped and counted: boxes of other classes, boxes outside [0, 1] or without area, rows repeated in every
column, images with boxes but no row in the index. No box left at all is an error.
"""

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from common.boxes import ImageReturnedError, columns, grouped_boxes, scattered_boxes
from common.class_choice import asked_classes, choose_classes
from common.cli import InputError, make_parser, print_counts, run, say, whole_number
from common.files import open_output, read_csv
from common.json_files import json_writer
from common.openimages import is_image_id, parse_number, read_classes

INDEX_KEYS = {
    "ImageID": "id", "OriginalURL": "url", "Subset": "subset", "OriginalSize": "size", "OriginalMD5": "md5",
    "Thumbnail300KURL": "thumbnail_url", "Rotation": "rotation", "OriginalLandingURL": "landing_url",
    "License": "license", "AuthorProfileURL": "author_profile_url", "Author": "author", "Title": "title",
}  # fmt: skip
SHOWN = 10  # classes named in an error

Facts = tuple[str | None, float | None]  # of an image: subset, rotation in degrees
Reader = Callable[..., Iterator[tuple[str, list[dict[str, Any]]]]]


def read_index(path: str, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield each image of the index once, its columns under our keys, empty ones left out."""
    rows = read_csv(path)
    places = columns(path, next(rows, (1, []))[1], ("ImageID", "OriginalURL"))
    keys = [(place, INDEX_KEYS.get(name, name)) for name, place in places.items()]
    seen: set[str] = set()
    for line, row in rows:
        counts["index_rows"] += 1
        image: dict[str, Any] = {key: row[place] for place, key in keys if row[place]}
        if not is_image_id(image.get("id")):
            raise InputError(f"{path}:{line}: ImageID {image.get('id')!r:.80}, an image id was expected")
        for key, kind in (("size", int), ("rotation", float)):
            if key in image:
                value = parse_number(image[key])
                if value is None or value < 0 or kind(value) != value:
                    raise InputError(f"{path}:{line}: {key} is {image[key]!r:.80}, a number was expected")
                image[key] = kind(value)
        if image["id"] in seen:
            counts["repeated_ids"] += 1
            continue
        seen.add(image["id"])
        yield image


def lowest_hashes(image_ids: Iterator[str], number: int, seed: int) -> set[str]:
    """Return the ids whose hashes with the seed are lowest: a larger number contains the smaller."""
    hashed = ((hashlib.sha256(f"{seed}:{image_id}".encode()).digest(), image_id) for image_id in image_ids)
    return {image_id for _, image_id in heapq.nsmallest(number, hashed)}


def datapoints(
    reader: Reader, path: str, classes: Container[str], facts: dict[str, Facts], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yield each image of the index that has kept boxes, with its subset, rotation and boxes."""

    def keep(image_id: str, label: str) -> bool:
        if label not in classes:
            counts["other_classes"] += 1
            return False
        return True

    for image_id, boxes in reader(path, keep, counts):
        if image_id not in facts:
            counts["images_not_in_index"] += 1
            continue
        subset, rotation = facts[image_id]
        point: dict[str, Any] = {"id": image_id}
        if subset is not None:
            point["subset"] = subset
        if rotation is not None:
            point["rotation"] = rotation
        yield point | {"annotations": boxes}


def write_points(
    reader: Reader, args: Any, classes: Sequence[str], facts: dict[str, Facts], counts: Counter[str]
) -> set[str]:
    """Write the datapoints, at most `--max_images` of them, and return their ids."""
    path, wanted = args.annotations_input_path, set(classes)
    chosen: Container[str] = facts
    if args.max_images is not None:
        points = datapoints(reader, path, wanted, facts, Counter())
        chosen = lowest_hashes((point["id"] for point in points), args.max_images, args.seed)
    written: set[str] = set()
    with json_writer(args.point_output_path) as write:
        for point in datapoints(reader, path, wanted, facts, counts):
            if point["id"] not in chosen:
                counts["images_not_chosen"] += 1
                continue
            write(point)
            written.add(point["id"])
            counts["boxes"] += len(point["annotations"])
        if not written:
            raise InputError(no_boxes(path, classes))
    return written


def no_boxes(path: str, classes: Sequence[str]) -> str:
    """Return the message that says which classes were asked for and which the annotations have."""
    rows = read_csv(path)
    place = columns(path, next(rows)[1], ("LabelName",))["LabelName"]
    found = Counter(row[place] for _, row in rows)
    has = [mid for mid, _ in found.most_common(SHOWN)]
    return (
        f"{path}: no box to keep: asked for {shown(classes, len(classes))}, "
        f"the file has {shown(has, len(found))}"
    )


def shown(classes: Sequence[str], number: int) -> str:
    rest = f" and {number - SHOWN} more" if number > SHOWN else ""
    return f"{number} classes ({', '.join(classes[:SHOWN])}{rest})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    flags = parser.add_argument
    flags("--annotations_input_path", required=True, metavar="ANNO_PATH", help="box annotations, CSV")
    flags("--image_index_input_path", required=True, metavar="INDEX_IN_PATH", help="image index, CSV")
    flags("--point_output_path", required=True, metavar="POINT_PATH", help="datapoints to write, JSON")
    flags("--image_index_output_path", required=True, metavar="INDEX_OUT_PATH", help="index to write, JSON")
    flags(
        "--trainable_classes_path", required=True, metavar="TRAINABLE_PATH",
        help="class list, one MID a line, or its folder",
    )  # fmt: skip
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--classes", help="names or MIDs to keep, separated by commas (default: all)")
    chosen.add_argument("--classes_path", help="file of names or MIDs to keep, one a line")
    flags("--class_description_path", help="class descriptions, CSV: needed to choose by name")
    flags("--trainable_classes_output_path", help="where the chosen classes are written, for the later steps")
    flags("--max_images", type=whole_number(1), help="keep at most this many images (default: all)")
    flags("--seed", type=whole_number(0), default=0, help="which --max_images keeps (default: %(default)s)")
    args = parser.parse_args(argv)
    choosing = args.classes is not None or args.classes_path is not None
    if choosing != (args.trainable_classes_output_path is not None):
        parser.error("--classes or --classes_path and --trainable_classes_output_path need each other")
    outputs = [args.point_output_path, args.image_index_output_path, args.trainable_classes_output_path]
    outputs = [os.path.realpath(path) for path in outputs if path is not None]
    if len(set(outputs)) != len(outputs):
        parser.error("the outputs need a path each")

    classes = read_classes(args.trainable_classes_path)
    if choosing:
        asked = asked_classes(args.classes, args.classes_path)
        classes = choose_classes(asked, classes, args.class_description_path)

    interned: dict[Facts, Facts] = {}  # few subsets and rotations: one tuple for each serves all images
    facts: dict[str, Facts] = {}
    for image in read_index(args.image_index_input_path, Counter()):
        fact = (image.get("subset"), image.get("rotation"))
        facts[image["id"]] = interned.setdefault(fact, fact)
    if not facts:
        raise InputError(f"{args.image_index_input_path}: no images in it")

    counts: Counter[str] = Counter()
    try:
        written = write_points(grouped_boxes, args, classes, facts, counts)
    except ImageReturnedError as error:
        say(f"the rows of image {error} are apart: grouping on disk, which is slower")
        counts.clear()
        written = write_points(scattered_boxes, args, classes, facts, counts)
    with json_writer(args.image_index_output_path) as write:
        for image in read_index(args.image_index_input_path, counts):
            if image["id"] in written:
                write(image)
    if choosing:
        with open_output(args.trainable_classes_output_path) as stream:
            stream.writelines(f"{mid}\n".encode() for mid in classes)
    names = (
        "rows", "boxes", "other_classes", "outside_image", "without_area", "repeated_rows",
        "images_not_in_index", "images_not_chosen", "index_rows", "repeated_ids",
    )  # fmt: skip
    print_counts({"images": len(written), "classes": len(classes)} | {name: counts[name] for name in names})


if __name__ == "__main__":
    run(main)
