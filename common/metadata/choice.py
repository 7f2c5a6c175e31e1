"""The choice of images: those of a list, the lowest hashes of each class, the lowest hashes of all.

The hash is of seed and id: the order of the files does not matter, and a larger number only adds images.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from common.cli import InputError
from common.files.whole_files import read_lines
from common.metadata.index import Images
from common.metadata.points import Point
from common.openimages.ids import is_image_id, list_key, one_of_each

_LISTED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} .*\s")  # in a line of `aws s3 ls`, what is before the name


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

    def background(self, images: Iterable[str], number: int) -> list[str]:
        """Return so many of these images, in their order: those of the list that have the lowest hashes."""
        listed = [image_id for image_id in images if self.image_ids is None or image_id in self.image_ids]
        chosen = set(heapq.nsmallest(number, listed, key=self._hash))
        return [image_id for image_id in listed if image_id in chosen]

    def _hash(self, image_id: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{image_id}".encode()).digest()[:16])


def read_image_ids(path: str | Path) -> frozenset[str]:
    """Return the image ids of a file, one a line, as `list_key` has them.

    A line may hold a path or address of the image, or be one of `aws s3 ls`, whose last column counts.
    """
    ids = set()
    for line, text in read_lines(path):
        name = _LISTED.sub("", text.strip()).rpartition("/")[2]
        if name and not is_image_id(name):
            raise InputError(f"{path}:{line}: {name[:80]!r}, an image id was expected")
        ids.add(list_key(name))
    ids.discard("")
    if not ids:
        raise InputError(f"{path}: no image ids in it, one a line was expected")
    return frozenset(ids)


def find_listed(path: str, ids: Set[str], index_path: str, images: Images) -> tuple[frozenset[str], int]:
    """Return the images of the index that a list names, and the number of its ids that the index lacks."""
    of_index = images.of_index()
    listed = frozenset(image_id for image_id in of_index if image_id in ids or list_key(image_id) in ids)
    if not listed:
        shown = one_of_each("list", min(ids), "index", next(iter(images.positions)))
        raise InputError(f"{path}: none of its {len(ids)} image ids is in {index_path}: {shown}")
    return listed, len(ids) - len(set(map(list_key, listed)))
