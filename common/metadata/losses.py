"""Losses of step 3: their counts, the funnel, and what may be wrong if there are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from common.cli import print_counts, say
from common.files.csv_files import columns, read_csv
from common.metadata.boxes import CLIPPED
from common.metadata.index import Images
from common.metadata.masks import REQUIRED as MASK_COLUMNS
from common.metadata.rows import ROUNDING
from common.openimages.datapoints import ATTRIBUTES, COORDINATES
from common.openimages.funnel import Stage, counts_path, lost_of, write_stages
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
NOT_LOST = (*CAME_IN, *WENT_OUT, "clipped", "expanded", "images_not_chosen")  # the last is a total of others
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
        why = _outside_example(annotations)
    elif largest == "other_classes":
        labels = Counter(label for _, (label,) in _fields(annotations, ["LabelName"]))
        has = [mid for mid, _ in labels.most_common()]
        why = f"asked for {_shown(classes)}, the file has {_shown(has)}"
    numbers = ", ".join(f"{name}={number}" for name, number in ({"rows": counts["rows"]} | lost).items())
    return f"{annotations}: no box to keep: {why}; {numbers}"


def no_match(masks: str, annotations: str, box: bytes) -> str:
    """Return the error that no mask matches, which shows the first mask and a kept box."""
    _, mask = next(_fields(masks, MASK_COLUMNS[1:]), (0, ["missing"]))
    values = msgspec.json.decode(box)
    shown = " ".join(str(values[key]) for key in ("id", "label", *COORDINATES))
    return (
        f"{masks}: no mask matches a box of {annotations}: the first mask is {' '.join(mask)}, the first "
        f"kept box {shown}; the masks of the same split were expected"
    )


def _fields(path: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and these fields of each row of a file that was read before."""
    rows = read_csv(path)
    places = columns(path, next(rows)[1], tuple(names))
    for line, row in rows:
        yield line, [row[places[name]] for name in names]


def _shown(classes: Sequence[str]) -> str:
    """Return the number of classes and the first of them."""
    rest = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return f"{len(classes)} classes ({', '.join(classes[:SHOWN])}{rest})"


def _outside_example(path: str) -> str:
    """Return the first coordinate of a file that is outside the image, and what it may mean."""
    names = list(COORDINATES.values())
    line, name, text, away = next(
        (line, name, text, away)
        for line, fields in _fields(path, names)
        for name, text in zip(names, fields, strict=True)
        if (away := abs(float(text) - 0.5) - 0.5) > ROUNDING
    )
    expected = "pixels? A number from 0 to 1" if away > 1 else "a number from 0 to 1"
    hint = "; see --clip_boxes" if away <= CLIPPED + ROUNDING else ""
    return f"line {line}: {name} is {text:.80}, {expected} was expected{hint}"


def report(counts: Counter[str], annotations: str, points_path: str) -> None:
    """Print the counts, some even if they are 0; write the funnel; show a box outside if most are."""
    if counts["outside_image"] * 2 > counts["rows"] - counts["other_classes"]:
        say(f"{annotations}: most boxes are outside the image: {_outside_example(annotations)}")
    rows, boxes, images = (counts[name] for name in ("rows", "boxes", "images"))
    lost_boxes, lost_images = lost_of(counts, LOST_BOXES), lost_of(counts, LOST_IMAGES)
    of_lost_images = rows + counts["expanded"] - boxes - sum(lost_boxes.values())
    if of_lost_images > 0:
        lost_boxes["of_images_left_out"] = of_lost_images
    stages = [
        Stage(3, "rows", rows, rows),
        Stage(3, "kept boxes", rows, boxes, lost_boxes),
        Stage(3, "images", images + sum(lost_images.values()), images, lost_images),
    ]
    write_stages(counts_path(points_path), stages, points_path)
    always = (*COUNTS, "masks", "masks_without_box") if "masks_without_box" in counts else COUNTS
    shown = [*always, *sorted(name for name in counts if name not in always and counts[name])]
    print_counts(
        {name: counts[name] for name in shown}, came_in=CAME_IN, went_out=WENT_OUT,
        lost=[name for name in shown if name not in NOT_LOST], line_only=["images_not_chosen"],
    )  # fmt: skip
