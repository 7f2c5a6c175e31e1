"""Datapoints from spooled boxes and labels: merged by image, and chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from common.cli import progress
from common.metadata.boxes import merge
from common.metadata.index import Images
from common.metadata.labels import merge_labels
from common.metadata.spool import Spool
from common.openimages.datapoints import Annotation

BUCKET = 1 << 15  # images whose boxes and labels are read into memory together: 100 MB


_decode_box = msgspec.json.Decoder(Annotation).decode


@dataclass(frozen=True)
class Tables:
    """Inputs as read: the images, and by their number the boxes and, if asked for, the labels.

    `background` are the numbers of images that are kept without boxes, unless a label is verified present.
    """

    images: Images
    boxes: Spool
    labels: Spool | None
    ancestors: Mapping[str, Sequence[str]]  # of a class those that get a copy of each of its boxes
    background: range = range(0)


class Point(msgspec.Struct, gc=False):
    """The datapoint of an image, its boxes as JSON."""

    id: str
    position: int  # in images
    head: str  # JSON of the keys between id and labels
    labels: dict[str, int] | None  # the confidence of each class
    boxes: bytes  # JSON, a line each
    box_count: int
    mask_count: int = 0  # of these boxes, not of their copies
    is_background: bool = False

    def classes(self) -> set[str]:
        """Return the classes of the boxes, or without boxes those verified present."""
        if self.boxes:
            return {_decode_box(box).label for box in self.boxes.split(b"\n")}
        return {mid for mid, confidence in (self.labels or {}).items() if confidence}

    def json(self) -> bytes:
        head = f'{{"id":"{self.id}"' + (f",{self.head}" if self.head else "")
        if self.labels is not None:
            labels = [{"label": mid, "confidence": self.labels[mid]} for mid in sorted(self.labels)]
            head += f',"image_labels":{msgspec.json.encode(labels).decode()}'
        return b'%b,"annotations":[%b]}' % (head.encode(), self.boxes.replace(b"\n", b","))


def read_points(tables: Tables, counts: Counter[str]) -> Iterator[Point]:
    """Yield the datapoint of each image that is in the index, by number; count what is dropped or added."""
    images, labels = tables.images, tables.labels
    ids, heads = list(images.positions), list(images.heads)
    size, numbers = tables.boxes.bucket_size, tables.background
    bar = progress(len(images.by_number), "image", "boxes by image")
    for place in range(-(-len(images.by_number) // size)):
        box_items = tables.boxes.bucket(place)
        label_items = labels.bucket(place) if labels is not None else {}
        background = range(max(numbers.start, place * size), min(numbers.stop, (place + 1) * size))
        for number in sorted({*box_items, *label_items, *background}):
            bar.update()
            boxes, box_count, repeated = merge(box_items.get(number, ()))
            counts["repeated_rows"] += repeated
            position = images.by_number[number]
            if position >= images.indexed:
                counts["images_not_in_index"] += 1
                continue
            of_image = merge_labels(label_items.get(number, ()))
            if number in background and any(of_image.values()):
                counts["present_without_boxes"] += 1
                continue
            if tables.ancestors and boxes:
                expanded = list(_expanded(boxes.split(b"\n"), tables.ancestors))
                counts["expanded"] += len(expanded) - box_count
                boxes, box_count = b"\n".join(expanded), len(expanded)
            head = heads[images.head_places[position]]
            yield Point(
                ids[position], position, head, of_image if labels is not None else None, boxes, box_count,
                is_background=number in background,
            )  # fmt: skip
    bar.close()


def write_points(
    points: Iterable[Point], chosen: Set[str] | None, write: Callable[[bytes], None], counts: Counter[str]
) -> Iterator[Point]:
    """Write the chosen points, all if that is None, and yield them; count these and the others."""
    for point in points:
        if chosen is None or point.id in chosen:
            write(point.json())
            counts["images"] += 1
            counts["boxes"] += point.box_count
            counts["masks"] += point.mask_count
            counts["images_without_boxes"] += point.is_background
            yield point
        else:
            counts["images_not_chosen"] += 1


def _expanded(boxes: Iterable[bytes], ancestors: Mapping[str, Sequence[str]]) -> Iterator[bytes]:
    """Yield each box and its copies for the ancestors of its class."""
    for box in boxes:
        yield box
        label = _decode_box(box).label
        for ancestor in ancestors.get(label, ()):
            yield box.replace(msgspec.json.encode(label), msgspec.json.encode(ancestor), 1)
