"""Losses of step 3 for people: why no box is left, and boxes that are outside their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from common.cli import say
from common.files.csv_files import columns, parse_number, read_csv
from common.metadata.boxes import CLIPPED, REQUIRED, ROUNDING
from common.metadata.index import Images
from common.openimages.datapoints import COORDINATES
from common.openimages.ids import one_of_each

KEPT = ("rows", "images", "images_without_boxes")  # counts that are no losses
SHOWN = 10  # classes named in an error


def nothing_kept(
    annotations: str, index: str, classes: Sequence[str], images: Images, counts: Counter[str]
) -> str:
    """Return why no box is left, the largest loss first: the index, the list, or the boxes themselves."""
    if not counts["rows"]:
        return f"{annotations}: no boxes in it"
    if counts["images_not_in_index"] > max(counts["outside_image"], counts["without_area"]):
        ids = list(islice(images.positions, images.indexed + 1))
        return (
            f"{index}: none of the {counts['images_not_in_index']} images with boxes to keep in "
            f"{annotations} is in this index, one of the same release and split was expected: "
            + one_of_each("index", ids[0], "box file", ids[-1])
        )
    if counts["images_not_chosen"]:
        return f"{annotations}: no box to keep in the images of --image_ids_path"
    lost = {name: number for name, number in counts.most_common() if number and name not in KEPT}
    largest = next(iter(lost))
    why = f"most are {largest}"
    if largest == "outside_image":
        why = outside_example(annotations)
    elif largest == "other_classes":
        rows = read_csv(annotations)
        place = columns(annotations, next(rows)[1], REQUIRED)["LabelName"]
        labels = Counter(row[place] for _, row in rows)
        has = [mid for mid, _ in labels.most_common(SHOWN)]
        why = f"asked for {shown(classes, len(classes))}, the file has {shown(has, len(labels))}"
    numbers = ", ".join(f"{name}={number}" for name, number in ({"rows": counts["rows"]} | lost).items())
    return f"{annotations}: no box to keep: {why}; {numbers}"


def shown(classes: Sequence[str], number: int) -> str:
    """Return the number of classes and the first of them."""
    rest = f" and {number - SHOWN} more" if number > SHOWN else ""
    return f"{number} classes ({', '.join(classes[:SHOWN])}{rest})"


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
