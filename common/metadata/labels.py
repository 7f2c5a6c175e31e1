"""The verified image-level labels: checked, and kept by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from functools import partial
from itertools import chain, groupby
from operator import attrgetter, itemgetter

import msgspec

from common.cli import InputError
from common.metadata.index import Images
from common.metadata.rows import VERIFIED, Columns, Rows, read_rows, typed_rows
from common.openimages.ids import one_of_each

REQUIRED = ("ImageID", "LabelName", "Confidence")
COLUMNS: Columns = tuple(zip(REQUIRED, ("id", "label", "confidence"), (str, str, VERIFIED), strict=True))

# By confidence, absent or present: the classes that a row of a class counts for.
LabelRules = tuple[Mapping[str, Set[str]], Mapping[str, Set[str]]]
Found = list[tuple[str, int, int, bytes]]  # image id, rows, those of other classes, labels

_decode = msgspec.msgpack.Decoder(list[tuple[str, int]]).decode


def read_labels(path: str, rules: LabelRules, images: Images, counts: Counter[str]) -> None:
    """Keep the labels of the images that have a number, in items of one image.

    An item is a list in msgpack, of classes and their confidences. Rows of a class without a rule, or of an
    image that is not in the index, only count. A file without a row of the index's images is an error.
    """
    other_id = "none"
    for items in read_rows(path, REQUIRED, partial(find_labels, rules)):
        images.add("labels", ((one, labels) for one, rows, others, labels in items if others < rows))
        for image_id, rows, of_other_classes, _ in items:
            counts["label_rows"] += rows
            if image_id in images.positions:
                counts["labels_of_other_classes"] += of_other_classes
            else:
                counts["labels_not_in_index"] += rows
                other_id = image_id
    if counts["label_rows"] == counts["labels_not_in_index"]:
        shown = one_of_each("label file", other_id, "index", next(iter(images.positions)))
        raise InputError(
            f"{path}: none of its {counts['label_rows']} image labels is of an image in the index, those of "
            f"the same release and split were expected: {shown}"
        )


def find_labels(rules: LabelRules, header: tuple[str, ...], rows: Rows) -> Found:
    """Return the labels of each image; a reader as `read_rows` takes it."""
    items = []
    for image_id, same_image in groupby(typed_rows(header, COLUMNS, rows), key=attrgetter("id")):
        of_image = [(rules[row.confidence].get(row.label, ()), row.confidence) for row in same_image]
        labels = [(mid, confidence) for classes, confidence in of_image for mid in classes]
        of_other_classes = sum(not classes for classes, _ in of_image)
        items.append((image_id, len(of_image), of_other_classes, msgspec.msgpack.encode(labels)))
    return items


def merge_labels(items: Iterable[bytes]) -> dict[str, int]:
    """Return the labels of an image; where a class is both present and absent, present wins."""
    return dict(sorted(chain.from_iterable(map(_decode, items)), key=itemgetter(1)))
