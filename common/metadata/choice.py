"""Which images to keep: those of a list, the lowest hashes for each class, the lowest hashes of all.

By hash of seed and id, so that the same images are chosen whatever the order of the files, and a larger
number contains the smaller.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from common.cli import InputError
from common.files.whole_files import read_lines
from common.openimages.ids import is_image_id

Item = TypeVar("Item")


@dataclass(frozen=True)
class ImageChoice:
    """How many images are wanted, and which may be taken; None stands for all."""

    image_ids: frozenset[str] | None = None
    max_images_per_class: int | None = None
    max_images: int | None = None
    seed: int = 0

    @property
    def takes_all(self) -> bool:
        return self.image_ids is None and self.max_images_per_class is None and self.max_images is None

    @property
    def by_class(self) -> bool:
        return self.max_images_per_class is not None

    def choose(self, images: Iterable[tuple[str, Set[str]]], counts: Counter[str]) -> set[str]:
        """Return the ids chosen out of images, each an id and its classes; count those that each limit drops.

        `listed_not_found` counts ids of the list that no image has.
        """
        passed: Counter[str] = Counter()

        def counted(name: str, items: Iterable[Item]) -> Iterator[Item]:
            for item in items:
                passed[name] += 1
                yield item

        ids = self.image_ids
        allowed = (image for image in counted("all", images) if ids is None or image[0] in ids)
        listed = counted("listed", allowed)
        candidates: Iterable[str] = (image_id for image_id, _ in listed)
        if self.max_images_per_class is not None:
            candidates = self._lowest_of_each_class(listed, self.max_images_per_class)
        candidates = counted("candidates", candidates)
        if self.max_images is None:
            chosen = set(candidates)
        else:
            hashes = ((self._hash(image_id), image_id) for image_id in candidates)
            chosen = {image_id for _, image_id in heapq.nsmallest(self.max_images, hashes)}
        counts["not_listed"] += passed["all"] - passed["listed"]
        counts["over_max_images_per_class"] += passed["listed"] - passed["candidates"]
        counts["over_max_images"] += passed["candidates"] - len(chosen)
        if ids is not None:
            counts["listed_not_found"] += len(ids) - passed["listed"]
        return chosen

    def _lowest_of_each_class(self, images: Iterable[tuple[str, Set[str]]], number: int) -> set[str]:
        lowest: dict[str, list[tuple[int, str]]] = {}  # of each class a heap with the highest hash on top
        for image_id, labels in images:
            item = (-self._hash(image_id), image_id)
            for label in labels:
                heap = lowest.setdefault(label, [])
                if len(heap) < number:
                    heapq.heappush(heap, item)
                elif item > heap[0]:
                    heapq.heapreplace(heap, item)
        return {image_id for heap in lowest.values() for _, image_id in heap}

    def _hash(self, image_id: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{image_id}".encode()).digest()[:16])


def read_image_ids(path: str | Path) -> frozenset[str]:
    """Return the image ids of a file, one a line; an official `split/id` line is taken too."""
    ids = set()
    for line, text in read_lines(path):
        image_id = text.strip().rpartition("/")[2]
        if not image_id:
            continue
        if not is_image_id(image_id):
            raise InputError(f"{path}:{line}: {image_id[:80]!r}, an image id was expected")
        ids.add(image_id)
    if not ids:
        raise InputError(f"{path}: no image ids in it, one a line was expected")
    return frozenset(ids)
