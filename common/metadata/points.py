"""Datapoints from the boxes, labels and masks of each image: merged, chosen, and written.

Images are chosen by the hash of seed and id: the lowest of each class, then the lowest of all. The order of
the files does not matter, and a larger number only adds images.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from common.cli import InputError, progress
from common.metadata.boxes import merge_boxes
from common.metadata.index import Images
from common.metadata.labels import merge_labels
from common.metadata.losses import no_match
from common.metadata.masks import decode_region, match_masks


@dataclass(frozen=True)
class PointRules:
    """Rules for the boxes and labels of an image, and the files that errors name."""

    annotations_path: str
    masks_path: str | None
    boxes_without_mask: str  # keep, drop_box or drop_image
    labels_path: str | None
    keep_labels_only: bool  # images that lose all boxes stay if they have labels
    ancestors: Mapping[str, Sequence[str]]  # of a class those that get a copy of each of its boxes


class Point(msgspec.Struct, gc=False):
    """The datapoint of an image."""

    id: str
    position: int  # in images
    head: str  # JSON of the keys between id and labels
    labels: dict[str, int] | None  # the confidence of each class
    boxes: list[bytes]  # JSON
    masks: int = 0  # of these boxes, not of their copies
    is_background: bool = False

    def classes(self) -> set[str]:
        """Return the classes of the boxes, or without boxes those verified present."""
        if self.boxes:
            return {decode_region(box).label for box in self.boxes}
        return {mid for mid, confidence in (self.labels or {}).items() if confidence}

    def json(self) -> bytes:
        head = f'{{"id":"{self.id}"' + (f",{self.head}" if self.head else "")
        if self.labels is not None:
            labels = [{"label": mid, "confidence": self.labels[mid]} for mid in sorted(self.labels)]
            head += f',"image_labels":{msgspec.json.encode(labels).decode()}'
        return b'%b,"annotations":[%b]}' % (head.encode(), b",".join(self.boxes))


def read_points(images: Images, rules: PointRules, counts: Counter[str]) -> Iterator[Point]:
    """Yield the datapoint of each image, by number; count what is dropped or added.

    Without a mask that matches any box, if there are boxes, InputError.
    """
    ids = list(images.positions)
    bar = progress(len(images.by_number), "image", "boxes by image")
    example = b""  # a kept box
    has_match = False
    for number, items in images.items:
        bar.update()
        position = images.by_number[number]
        boxes, duplicates = merge_boxes(items.get("boxes", ()))
        counts["repeated_rows"] += duplicates
        labels = merge_labels(items["labels"]) if "labels" in items else {}
        point = Point(
            ids[position], position, images.heads[position], labels if rules.labels_path else None, boxes,
            is_background="background" in items,
        )  # fmt: skip
        if point.is_background and any(labels.values()):
            counts["present_without_boxes"] += 1
            continue
        if rules.masks_path and boxes:
            example = example or boxes[0]
            is_kept = _add_masks(point, items.get("masks", ()), rules, counts)
            has_match = has_match or point.masks > 0
            if not is_kept:
                counts["images_without_mask"] += 1
                continue
        if rules.ancestors:
            expanded = [copy for box in point.boxes for copy in _with_copies(box, rules.ancestors)]
            counts["expanded"] += len(expanded) - len(point.boxes)
            point.boxes = expanded
        yield point
    bar.close()
    if rules.masks_path and example and not has_match:
        raise InputError(no_match(rules.masks_path, rules.annotations_path, example))


def _add_masks(point: Point, masks: Iterable[bytes], rules: PointRules, counts: Counter[str]) -> bool:
    """Add the masks of an image to its boxes, and drop boxes without one; return whether the image stays."""
    found = match_masks(point.boxes, masks)
    point.masks = len(found)
    counts["masks_without_box"] -= len(found)
    if rules.boxes_without_mask == "drop_image" and len(found) < len(point.boxes):
        return False
    boxes = []
    for place, box in enumerate(point.boxes):
        if place in found:
            boxes.append(b'%b,"mask":"%b"}' % (box[:-1], found[place]))
        elif rules.boxes_without_mask == "keep":
            boxes.append(box)
    counts["boxes_without_mask"] += len(point.boxes) - len(boxes)
    point.boxes = boxes
    return bool(boxes or (rules.keep_labels_only and point.labels))


def _with_copies(box: bytes, ancestors: Mapping[str, Sequence[str]]) -> Iterator[bytes]:
    """Yield a box and its copies for the ancestors of its class."""
    yield box
    label = decode_region(box).label
    for ancestor in ancestors.get(label, ()):
        yield box.replace(msgspec.json.encode(label), msgspec.json.encode(ancestor), 1)


@dataclass(frozen=True)
class ImageChoice:
    """Limits on the number of images, and the ids to choose from; None stands for all."""

    image_ids: frozenset[str] | None = None
    max_images_per_class: int | None = None
    max_images: int | None = None
    seed: int = 0

    def choose(self, points: Iterable[Point], counts: Counter[str]) -> set[str] | None:
        """Return the ids of the points to keep, None for all; count what each limit drops."""
        number = self.max_images_per_class
        if self.image_ids is None and number is None and self.max_images is None:
            return None
        chosen: set[str] = set()
        lowest: dict[str, list[tuple[int, str]]] = {}  # of each class a heap with the highest hash on top
        listed = 0
        for point in points:
            if self.image_ids is not None and point.id not in self.image_ids:
                counts["not_listed"] += 1
                continue
            listed += 1
            if number is None or point.is_background:
                chosen.add(point.id)
                continue
            item = (-self._hash(point.id), point.id)
            for mid in point.classes():
                heap = lowest.setdefault(mid, [])
                heapq.heappush(heap, item)
                if len(heap) > number:
                    heapq.heappop(heap)
        chosen.update(image_id for heap in lowest.values() for _, image_id in heap)
        if self.image_ids is not None:
            counts["listed_without_boxes"] += len(self.image_ids) - listed
        counts["over_max_images_per_class"] += listed - len(chosen)
        if self.max_images is not None:
            counts["over_max_images"] += max(len(chosen) - self.max_images, 0)
            chosen = set(heapq.nsmallest(self.max_images, chosen, key=self._hash))
        return chosen

    def add_background(self, images: Images, number: int) -> None:
        """Add so many images without boxes: of the list, in the order of the index, by lowest hash."""
        found = zip(images.positions, images.numbers, images.lost, strict=True)
        free = (image_id for image_id, place, is_lost in found if place < 0 and not is_lost)
        listed = [image_id for image_id in free if self.image_ids is None or image_id in self.image_ids]
        chosen = set(heapq.nsmallest(number, listed, key=self._hash))
        images.number_all(image_id for image_id in listed if image_id in chosen)
        images.add("background", ((image_id, b"") for image_id in chosen))

    def _hash(self, image_id: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{image_id}".encode()).digest()[:16])


def write_points(
    images: Images,
    rules: PointRules,
    chosen: Set[str] | None,
    write: Callable[[bytes], None],
    counts: Counter[str],
) -> bytearray:
    """Write the chosen points, all if that is None; count these and the others.

    Return whether the image at each position of the index is written.
    """
    written = bytearray(len(images.positions))
    for point in read_points(images, rules, counts):
        if chosen is not None and point.id not in chosen:
            counts["images_not_chosen"] += 1
            continue
        write(point.json())
        written[point.position] = True
        counts["images"] += 1
        counts["boxes"] += len(point.boxes)
        counts["masks"] += point.masks
        counts["images_without_boxes"] += point.is_background
    return written
