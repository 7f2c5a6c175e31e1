"""Losses of step 3: their counts, the funnel, why no box is left, and boxes that are outside their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from common.cli import print_counts, say
from common.files.csv_files import columns, parse_number, read_csv
from common.metadata.boxes import CLIPPED, REQUIRED
from common.metadata.index import Images
from common.metadata.rows import ROUNDING
from common.openimages.datapoints import ATTRIBUTES, COORDINATES
from common.openimages.funnel import Stage, lost_of
from common.openimages.ids import one_of_each

COUNTS = (
    "images", "boxes", "classes", "rows", "other_classes", "outside_image", "without_area", "repeated_rows",
    "images_not_in_index", "images_not_chosen", "index_rows", "repeated_ids",
)  # fmt: skip
CAME_IN = ("rows", "index_rows", "label_rows")
WENT_OUT = ("images", "images_without_boxes", "boxes", "masks", "classes")
LOST_BOXES = (
    "other_classes", "outside_image", "without_area", "repeated_rows", "too_small", "boxes_without_mask",
    *(f"excluded_{key}" for key in ATTRIBUTES),
)  # fmt: skip
LOST_IMAGES = (
    "images_not_in_index", "images_without_mask", "present_without_boxes",
    "not_listed", "over_max_images_per_class", "over_max_images",
)  # fmt: skip
LOST_OTHERS = (
    "repeated_ids", "listed_not_found", "listed_without_boxes", "masks_without_box", "labels_not_in_index",
    "labels_of_other_classes",
)  # fmt: skip
SHOWN = 10  # classes named in an error


def nothing_kept(
    annotations: str, index: str, classes: Sequence[str], images: Images, counts: Counter[str]
) -> str:
    """Return why no box is left, the largest loss first: the index, the list, or the boxes themselves."""
    if not counts["rows"]:
        return f"{annotations}: no boxes in it"
    others = ("outside_image", "without_area", "images_without_mask")
    if counts["images_not_in_index"] > max(counts[name] for name in others):
        return (
            f"{index}: none of the {counts['images_not_in_index']} images with boxes to keep in "
            f"{annotations} is in this index, one of the same release and split was expected: "
            + one_of_each("index", next(iter(images.positions)), "box file", min(images.others))
        )
    if counts["images_not_chosen"]:
        flag = "--max_images" if counts["over_max_images"] else "--image_ids_path"
        return f"{annotations}: no box to keep in the images of {flag}"
    lost = lost_of(counts, (*LOST_BOXES, *LOST_IMAGES))
    largest = next(iter(lost))
    why = f"most are {largest}"
    if largest == "outside_image":
        why = outside_example(annotations)
    elif largest == "other_classes":
        rows = read_csv(annotations)
        place = columns(annotations, next(rows)[1], REQUIRED)["LabelName"]
        labels = Counter(row[place] for _, row in rows)
        has = [mid for mid, _ in labels.most_common()]
        why = f"asked for {shown(classes)}, the file has {shown(has)}"
    numbers = ", ".join(f"{name}={number}" for name, number in ({"rows": counts["rows"]} | lost).items())
    return f"{annotations}: no box to keep: {why}; {numbers}"


def shown(classes: Sequence[str]) -> str:
    """Return the number of classes and the first of them."""
    rest = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes ({', '.join(classes[:SHOWN])}{rest})"


def say_outside(annotations: str, counts: Counter[str]) -> None:
    """Show the user one of the boxes outside their images, if most boxes of the classes are."""
    if counts["outside_image"] * 2 > counts["rows"] - counts["other_classes"]:
        say(f"{annotations}: most boxes are outside the image: {outside_example(annotations)}")


def outside_example(path: str) -> str:
    """Return the first coordinate of a file that is outside the image, and what it may mean."""
    rows = read_csv(path)
    places = columns(path, next(rows)[1], REQUIRED)
    fields = ((line, name, row[places[name]]) for line, row in rows for name in COORDINATES.values())
    for line, name, text in fields:
        away = abs((parse_number(text) or 0.0) - 0.5) - 0.5
        if away > ROUNDING:
            expected = "pixels? A number from 0 to 1" if away > 1 else "a number from 0 to 1"
            hint = "; see --clip_boxes" if away <= CLIPPED + ROUNDING else ""
            return f"line {line}: {name} is {text:.80}, {expected} was expected{hint}"
    raise AssertionError("no coordinate is outside")


def stages(counts: Counter[str]) -> list[Stage]:
    """Return what became of the rows."""
    rows, boxes, images = (counts[name] for name in ("rows", "boxes", "images"))
    lost_boxes, lost_images = lost_of(counts, LOST_BOXES), lost_of(counts, LOST_IMAGES)
    of_lost_images = rows + counts["expanded"] - boxes - sum(lost_boxes.values())
    if of_lost_images > 0:
        lost_boxes["of_images_left_out"] = of_lost_images
    return [
        Stage(3, "rows", rows, rows),
        Stage(3, "kept boxes", rows, boxes, lost_boxes),
        Stage(3, "images", images + sum(lost_images.values()), images, lost_images),
    ]


def print_losses(counts: Counter[str], *, masked: bool) -> None:
    """Print the counts; some are shown even if they are 0."""
    always = (*COUNTS, "masks", "masks_without_box") if masked else COUNTS
    more = sorted(name for name in counts if name not in always and counts[name])
    print_counts(
        {name: counts[name] for name in (*always, *more)}, came_in=CAME_IN, went_out=WENT_OUT,
        lost=(*LOST_BOXES, *LOST_IMAGES, *LOST_OTHERS), line_only=["images_not_chosen"],
    )  # fmt: skip
