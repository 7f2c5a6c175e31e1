"""The work list: a file with one line for each record, which worker processes share."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from common.cli import InputError, progress, say
from common.files.failures import FailureLimit
from common.files.folders import Folder, Status
from common.files.json_files import count_elements
from common.files.places import folder_of
from common.images.header import rgb_size
from common.openimages.datapoints import Annotation, Datapoint, Mask, read_datapoints
from common.openimages.ids import image_file_name, image_number
from common.records.types import RecordSet, Work

LOST_IMAGES = ("missing", "not_rgb", "without_boxes", "repeated_ids")
LOST_OTHERS = ("other_classes", "other_labels")
LOSSES = (*LOST_IMAGES, *LOST_OTHERS)


def work_path(path: Path) -> Path:
    """Return the path of the work list: beside the records or, if they are on a store, in TMPDIR."""
    return folder_of(path.parent).scratch(f".{path.name}.work.part")


@contextmanager
def open_work_list(sets: Sequence[RecordSet]) -> Iterator[BinaryIO]:
    """Yield the work list, removed afterwards; no other run can write records of these names meanwhile."""
    with ExitStack() as stack:
        for records in sets:
            busy = f"{records.path}: another run is writing these records"
            lock = folder_of(records.path.parent).lock(f".{records.path.name}.lock", busy)
            stack.enter_context(lock)
        path = work_path(sets[0].path)
        stack.callback(path.unlink, missing_ok=True)
        # TMPDIR may be open to other users: a link of theirs is not followed.
        yield stack.enter_context(
            open(path, "w+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o644))
        )


def write_work_list(
    stream: BinaryIO, works: Iterator[tuple[Datapoint, Work]], choose: Callable[[Datapoint], RecordSet]
) -> None:
    """Write a line for each of `usable_works` and add it to the set that `choose` returns."""
    position = 0
    encode = msgspec.json.Encoder().encode
    for point, work in works:
        line = encode(work) + b"\n"
        stream.write(line)
        records = choose(point)
        records.digest.update(line)
        records.offsets.append(position)
        masks = sum(map(_mask_bytes, work.boxes))
        records.sizes.append(work.bytes + 1000 + 80 * len(work.boxes) + masks)  # 1000: feature names
        position += len(line)
    stream.flush()


def _mask_bytes(box: Annotation) -> int:
    """Return about the size of a mask's PNG: that of an empty one, and more for each run."""
    if not isinstance(box.mask, Mask):
        return 0
    height, width = box.mask.size
    return 70 + height * width // 1000 + len(box.mask.counts) * 7 // 5


def is_for_evaluation(point: Datapoint, fraction: float | None, subset: str | None) -> bool:
    """Report whether an image is held out: a fraction by hash of the id, or those of a subset.

    The id alone decides, so an image never changes sides, and a larger fraction contains the smaller.
    """
    if fraction is not None:
        digest = hashlib.sha256(point.id.encode()).digest()
        return int.from_bytes(digest[:8]) < fraction * 2**64
    return subset is not None and point.subset == subset


def usable_works(
    path: str,
    folder: Path,
    ids: dict[str, int],
    counts: Counter[str],
    *,
    numbered: bool = False,
    keep_without_boxes: bool = False,
) -> Iterator[tuple[Datapoint, Work]]:
    """Yield each datapoint that can become a record, and its work; count the others by LOSSES.

    If images are `numbered`, two with the same number are an error. With `keep_without_boxes` images
    without a box or label of the classes `ids` are yielded too.
    """
    seen: dict[str | int, str] = {}
    images = folder_of(folder)
    find = images.statuses()
    bar = progress(count_elements(path), "image", "checking images")
    for point in read_datapoints(path):
        bar.update()
        counts["images"] += 1
        key = image_number(point.id) if numbered else point.id
        other = seen.get(key)
        if other == point.id:
            counts["repeated_ids"] += 1
            continue
        if other is not None:
            raise InputError(f"{path}: images {other} and {point.id} share the number {key}: leave one out")
        seen[key] = point.id
        boxes = [box for box in point.annotations if box.label in ids]
        counts["other_classes"] += len(point.annotations) - len(boxes)
        labels = [label for label in point.image_labels if label.label in ids]
        counts["other_labels"] += len(point.image_labels) - len(labels)
        is_background = not boxes and not labels
        if is_background and not keep_without_boxes:
            counts["without_boxes"] += 1
            continue
        image = find_image(find, folder, point.id)
        if image is None:
            counts["missing"] += 1
            continue
        name, file_bytes = image
        # Step 5 writes the size of an image that it made or found right: no need to open that one twice.
        size = (point.width, point.height) if point.width and point.height else stored_size(images, name)
        if size is None:
            counts["not_rgb"] += 1
            continue
        counts["records_without_boxes"] += is_background
        counts["boxes"] += len(boxes)
        counts["masks"] += count_masks(point, ids, size, path)
        yield point, Work(point.id, name, file_bytes, boxes, labels, size)
    bar.close()


def check_enough(
    sets: Sequence[RecordSet], counts: Counter[str], points_path: str, max_failures: FailureLimit | None
) -> None:
    """Raise InputError if there is no record or only background, or more is missing than the user allows."""
    if counts["not_rgb"]:
        say(f"{counts['not_rgb']} images are not RGB JPEGs or PNGs: run process_images.py first")
    if sum(len(records.offsets) for records in sets) == counts["records_without_boxes"]:
        causes = {"missing": "missing in --saved_images_directory", "not_rgb": "not an RGB JPEG or PNG"}
        for name in ("without_boxes", "records_without_boxes"):
            causes[name] = "without a box or verified label of a trainable class"
        found = [f"{number} {causes[name]}" for name, number in counts.most_common() if name in causes]
        raise InputError(
            f"{points_path}: no record can be made of its {counts['images']} images: {', '.join(found)}"
        )
    for records in sets:
        if not records.offsets:
            raise InputError(f"{records.path}: the split leaves no image for this file")
    if max_failures:
        max_failures.check(counts["missing"] + counts["not_rgb"], counts["images"])


def count_masks(point: Datapoint, ids: dict[str, int], size: tuple[int, int], path: str) -> int:
    """Return the number of masks; InputError for one that is still a file's name or of another size."""
    masks = 0
    for number, box in enumerate(point.annotations, start=1):
        if box.mask is None or box.label not in ids:
            continue
        place = f"{path}: image {point.id}: annotation {number} ({box.label}): the mask"
        if isinstance(box.mask, str):
            raise InputError(
                f"{place} is still the name of a file ({box.mask!r:.80}); run process_images.py with "
                "--masks_directory"
            )
        height, width = box.mask.size
        if (width, height) != size:
            raise InputError(
                f"{place} has {width}x{height} pixels, but the image {size[0]}x{size[1]}; "
                "give the datapoints and images of one run of process_images.py"
            )
        masks += 1
    return masks


def find_image(find: Callable[[str], Status | None], folder: Path, image_id: str) -> tuple[str, int] | None:
    """Return name and bytes of an image's file, None where it is missing.

    A JPEG and a PNG of one image are an error: one of them is left over from an earlier run of step 5.
    """
    names = [image_file_name(image_id, image_format) for image_format in ("jpeg", "png")]
    found = [(name, status.size) for name in names if (status := find(name))]
    if len(found) > 1:
        raise InputError(f"{folder}: {' and '.join(names)} both exist; remove the files of an earlier run")
    return found[0] if found else None


def stored_size(folder: Folder, name: str) -> tuple[int, int] | None:
    """Return width and height of an RGB JPEG or PNG by its header, None for other files."""
    with folder.open(name) as stream:
        return rgb_size(stream)
