"""The datapoints of step 3, out of annotations and index: in columns, row by row, or grouped on disk.

All three ways give the same bytes. The first is fast; the second takes what the first leaves to it; the third
takes files that do not have the rows of an image together.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from common.files.json_files import to_json
from common.metadata.boxes import (
    BoxFilter,
    ImageReturnedError,
    box_columns,
    checked_rows,
    grouped_boxes,
    scattered_boxes,
)
from common.metadata.image_choice import ImageChoice
from common.metadata.image_index import ImageIds, ImageSet
from common.metadata.image_labels import ImageLabels

if TYPE_CHECKING:
    from common.metadata.box_tables import Boxes
    from common.metadata.csv_tables import Block

Result = TypeVar("Result")


class Reader(Enum):
    """A way to read the annotations."""

    COLUMNS = "in columns"
    ROWS = "row by row"
    DISK = "grouped on disk"


@dataclass(frozen=True)
class Source:
    """Where datapoints come from, and what is kept of it."""

    annotations: str
    index: str
    classes: list[str]
    wanted: BoxFilter
    images: ImageIds
    expand: dict[str, list[str]]  # of each class the chosen ancestors, of which a box gets a copy each
    labels: ImageLabels | None
    keep_labels_only: bool

    def head(self, image_id: str) -> dict[str, Any]:
        """Return what an image's datapoint has between its id and its annotations."""
        head = self.images.fact(image_id)
        return head if self.labels is None else head | {"image_labels": self.labels.of(image_id)}

    def json_heads(self, image_ids: list[str]) -> list[str]:
        """Return the same for many images, each as JSON without its braces, after a comma."""
        if self.labels is not None:
            return [_inner_json(self.head(image_id)) for image_id in image_ids]
        facts = list(map(_inner_json, self.images.facts))
        return [facts[place] for place in self.images.fact_places(image_ids)]


def _inner_json(keys: dict[str, Any]) -> str:
    return "," + to_json(keys)[1:-1].decode() if keys else ""


class Batch(NamedTuple):
    """Datapoints, as they are written."""

    image_ids: list[str]
    boxes: int
    json: bytes | memoryview


def choose_images(
    source: Source, reader: Reader, choice: ImageChoice, counts: Counter[str]
) -> set[str] | None:
    """Return the images chosen out of all that would have a datapoint; None stands for all."""
    if choice.takes_all:
        return None

    def of_boxes(ids: list[str], boxes: "Boxes", counts: Counter[str]) -> list[tuple[str, set[str]]]:
        return list(zip(ids, boxes.classes() if choice.by_class else [set()] * len(ids), strict=True))

    def of_point(point: dict[str, Any], counts: Counter[str]) -> list[tuple[str, set[str]]]:
        classes = {box["label"] for box in point["annotations"]}
        present = {label["label"] for label in point.get("image_labels", ()) if label["confidence"] == 1}
        return [(point["id"], classes or present)]

    results = _read(source, reader, Counter(), of_boxes, of_point)
    return choice.choose((image for images in results for image in images), counts)


def batches(source: Source, reader: Reader, chosen: set[str] | None, counts: Counter[str]) -> Iterator[Batch]:
    """Yield the datapoints of the chosen images: with boxes, then, where asked for, with labels only."""

    def of_boxes(ids: list[str], boxes: "Boxes", counts: Counter[str]) -> Batch:
        from common.metadata.box_tables import points_json

        if chosen is not None:
            take = [image_id in chosen for image_id in ids]
            ids = [image_id for image_id in ids if image_id in chosen]
            counts["images_not_chosen"] += len(take) - len(ids)
            boxes = boxes.only(take)
        return Batch(ids, len(boxes), points_json(boxes, source.json_heads(ids)))

    def of_point(point: dict[str, Any], counts: Counter[str]) -> Batch:
        if chosen is not None and point["id"] not in chosen:
            counts["images_not_chosen"] += 1
            return Batch([], 0, b"")
        return Batch([point["id"]], len(point["annotations"]), to_json(point))

    for batch in _read(source, reader, counts, of_boxes, of_point):
        if batch.image_ids:
            counts["images"] += len(batch.image_ids)
            counts["boxes"] += batch.boxes
            yield batch


def _read(
    source: Source,
    reader: Reader,
    counts: Counter[str],
    of_boxes: Callable[[list[str], "Boxes", Counter[str]], Result],
    of_point: Callable[[dict[str, Any], Counter[str]], Result],
) -> Iterator[Result]:
    """Yield what one of the functions makes of the images of the index that have kept boxes or labels.

    `of_boxes` runs in threads, for many images at once.
    """
    done = source.images.new_set()
    if reader is Reader.COLUMNS:
        yield from _read_columns(source, counts, of_boxes, done)
    else:
        if reader is Reader.ROWS:
            groups = grouped_boxes(source.annotations, source.wanted, counts, source.images.new_set())
        else:
            groups = scattered_boxes(source.annotations, source.wanted, counts)
        for image_id, boxes in groups:
            if image_id not in source.images.codes:
                counts["images_not_in_index"] += 1
                continue
            done.add(image_id)
            expanded = [
                {**box, "label": label}
                for box in boxes
                for label in (box["label"], *source.expand.get(box["label"], ()))
            ]
            counts["expanded"] += len(expanded) - len(boxes)
            yield of_point({"id": image_id} | source.head(image_id) | {"annotations": expanded}, counts)
    if source.labels is not None and source.keep_labels_only:
        for image_id in source.images.codes:
            if image_id not in done and (head := source.head(image_id))["image_labels"]:
                yield of_point({"id": image_id} | head | {"annotations": []}, counts)


def _read_columns(
    source: Source,
    counts: Counter[str],
    of_boxes: Callable[[list[str], "Boxes", Counter[str]], Result],
    done: ImageSet,
) -> Iterator[Result]:
    """Yield what `of_boxes` makes of each block of annotations; raises NotPlainError, ImageReturnedError."""
    from common.metadata.box_tables import read_boxes
    from common.metadata.csv_tables import NotPlainError, block_rows, map_blocks, open_blocks

    path, wanted = source.annotations, source.wanted
    with open_blocks(path, keep_together=True) as (header, blocks):
        places = box_columns(path, header, wanted)
        if places["ImageID"] != 0:
            raise NotPlainError("another first column than ImageID")

        def work(block: "Block") -> tuple[list[str], Counter[str], Result]:
            found: Counter[str] = Counter()
            boxes = read_boxes(block, header, places, wanted, found)
            all_ids = ids = boxes.image_ids
            known = [image_id in source.images.codes for image_id in ids]
            if not all(known):
                found["images_not_in_index"] += known.count(False)
                ids = [image_id for image_id in ids if image_id in source.images.codes]
                boxes = boxes.only(known)
            if source.expand:
                before = len(boxes)
                boxes = boxes.expanded(source.expand)
                found["expanded"] += len(boxes) - before
            return all_ids, found, of_boxes(ids, boxes, found)

        def check(block: "Block") -> None:
            for _ in checked_rows(path, places, block_rows(path, block, len(header)), wanted, Counter()):
                pass

        for ids, found, result in map_blocks(work, blocks, check):
            counts.update(found)
            if (again := done.update(ids)) is not None:
                raise ImageReturnedError(again)
            yield result
