"""The choice of images: those of a list, the lowest hashes of each class, the lowest hashes of all.

The hash is of seed and id: the order of the files does not matter, and a larger number only adds images.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

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

    def add_background(self, images: Images, number: int) -> None:
        """Add so many images without boxes: of the list, in the order of the index, by lowest hash."""
        listed = [one for one in images.without_boxes() if self.image_ids is None or one in self.image_ids]
        chosen = set(heapq.nsmallest(number, listed, key=self._hash))
        images.number_all(image_id for image_id in listed if image_id in chosen)
        images.add("background", ((image_id, b"") for image_id in chosen))

    def _hash(self, image_id: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{image_id}".encode()).digest()[:16])


def read_listed(path: str, index_path: str, images: Images, counts: Counter[str]) -> frozenset[str]:
    """Return the images of the index that a file lists, one a line, and count the others.

    A line may hold a path or address of the image, or be one of `aws s3 ls`, whose last column counts. Ids
    are compared as `list_key` has them.
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
    of_index = images.positions
    listed = frozenset(image_id for image_id in of_index if image_id in ids or list_key(image_id) in ids)
    if not listed:
        shown = one_of_each("list", min(ids), "index", next(iter(of_index)))
        raise InputError(f"{path}: none of its {len(ids)} image ids is in {index_path}: {shown}")
    counts["listed_not_found"] = len(ids) - len(set(map(list_key, listed)))
    return listed
