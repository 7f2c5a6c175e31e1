"""The verified image-level labels: checked, and spooled by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import msgspec

from common.cli import InputError
from common.files.csv_files import columns
from common.metadata.index import Images
from common.metadata.rows import Rows, read_rows
from common.metadata.spool import Spool
from common.openimages.ids import one_of_each

CONFIDENCES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}  # verified absent, verified present

Item = tuple[str, int, int, bytes]  # image id, rows, those of other classes, labels

decode_labels = msgspec.msgpack.Decoder(dict[str, int]).decode


@dataclass(frozen=True)
class LabelRules:
    """The classes that a row of a class counts for: if it is verified present, and if verified absent."""

    present: Mapping[str, Set[str]]
    absent: Mapping[str, Set[str]]


def spool_labels(path: str, rules: LabelRules, images: Images, labels: Spool) -> Counter[str]:
    """Add the labels of the images that have a number to a spool, in items of one image.

    An item is a dictionary in msgpack: the confidence of each class. Rows of a class without a rule, or of an
    image that is not in the index, only count. A file without a row of the index's images is an error.
    """

    def open_reader(header: list[str]) -> partial[list[Item]]:
        places = columns(path, header, ("ImageID", "LabelName", "Confidence"))
        return partial(read_labels, places, rules)

    counts: Counter[str] = Counter()
    other_id = "none"
    for items in read_rows(path, open_reader):
        added = []
        for image_id, rows, of_other_classes, item in items:
            counts["label_rows"] += rows
            if not images.is_indexed(image_id):
                counts["labels_not_in_index"] += rows
                other_id = image_id
                continue
            counts["labels_of_other_classes"] += of_other_classes
            if images.has_number(image_id) and of_other_classes < rows:
                added.append((images.number(image_id), item))
        labels.add(added)
    if counts["label_rows"] == counts["labels_not_in_index"]:
        shown = one_of_each("label file", other_id, "index", next(iter(images.positions)))
        raise InputError(
            f"{path}: none of its {counts['label_rows']} image labels is of an image in the index, those of "
            f"the same release and split were expected: {shown}"
        )
    return counts


def read_labels(places: dict[str, int], rules: LabelRules, rows: Rows) -> list[Item]:
    """Return the labels of each image; a reader as `read_rows` takes it."""
    label, confidence = places["LabelName"], places["Confidence"]
    items = []
    table = (row.decode().split("\0") for row in rows)
    for image_id, same_image in groupby(table, key=itemgetter(places["ImageID"])):
        labels: dict[str, int] = {}
        count = of_other_classes = 0
        for row in same_image:
            count += 1
            value = CONFIDENCES.get(row[confidence])
            if value is None:
                raise ValueError(f"Confidence is {row[confidence]!r:.80}, 0 or 1 was expected")
            classes = (rules.present if value else rules.absent).get(row[label], frozenset())
            of_other_classes += not classes
            add_labels(labels, dict.fromkeys(classes, value))
        items.append((image_id, count, of_other_classes, msgspec.msgpack.encode(labels)))
    return items


def add_labels(labels: dict[str, int], more: Mapping[str, int]) -> None:
    """Add labels of an image; where a class is both present and absent, present wins."""
    for mid, value in more.items():
        labels[mid] = max(value, labels.get(mid, 0))
