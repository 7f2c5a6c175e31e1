"""The work list: a file with one line for each record, which worker processes share."""

from __future__ import annotations

import hashlib
import os
import tempfile
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
from common.files.places import folder_of, is_folder, is_remote
from common.images.header import rgb_size
from common.openimages.datapoints import Datapoint, Mask, read_datapoints
from common.openimages.ids import image_file_name, image_number
from common.records.types import RecordSet, RecordSettings, Work

LOST_IMAGES = ("missing", "not_rgb", "without_boxes", "repeated_ids")
LOST_OTHERS = ("other_classes", "other_labels")
LOSSES = (*LOST_IMAGES, *LOST_OTHERS)


def work_path(path: Path) -> Path:
    """Return the path of the work list: beside the records or, if they are on a store, in TMPDIR."""
    if not is_remote(path):
        return path.with_name(f".{path.name}.work.part")
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:32]
    return Path(tempfile.gettempdir(), f"open-images-{os.getuid()}-{digest}.part")


@contextmanager
def open_work_list(sets: Sequence[RecordSet]) -> Iterator[BinaryIO]:
    """Yield the work list, removed afterwards; no other run can write records of these names meanwhile."""
    with ExitStack() as stack:
        for records in sets:
            if is_folder(records.path):
                raise InputError(f"{records.path}: a folder, a file name for the records was expected")
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
    stream: BinaryIO, sets: Sequence[RecordSet], points_path: str, settings: RecordSettings
) -> Counter[str]:
    """Write a line for each image that can become a record, add it to its set, and return all counts."""
    counts: Counter[str] = Counter()
    seen: dict[str | int, str] = {}
    folder, ids = folder_of(settings.images), settings.ids
    find, encode = folder.statuses(), msgspec.json.Encoder().encode
    with progress(count_elements(points_path), "image", "checking images") as bar:
        for point in read_datapoints(points_path):
            bar.update()
            counts["images"] += 1
            key = image_number(point.id) if settings.is_numbered else point.id
            if seen.get(key) == point.id:
                counts["repeated_ids"] += 1
                continue
            if (other := seen.setdefault(key, point.id)) != point.id:
                raise InputError(
                    f"{points_path}: images {other} and {point.id} share the number {key}: leave one out"
                )
            counts["other_classes"] += sum(box.label not in ids for box in point.annotations)
            counts["other_labels"] += sum(label.label not in ids for label in point.image_labels)
            work = make_work(point, settings, folder, find)
            if isinstance(work, str):
                counts[work] += 1
                continue
            counts["records_without_boxes"] += not work.boxes and not work.image_labels
            counts["boxes"] += len(work.boxes)
            counts["masks"] += count_masks(point, ids, work.size, points_path)
            line = encode(work) + b"\n"
            records = sets[is_for_evaluation(point, settings)]
            records.digest.update(line)
            records.offsets.append(stream.tell())
            records.sizes.append(estimated_bytes(work))
            stream.write(line)
    stream.flush()
    return counts


def make_work(
    point: Datapoint, settings: RecordSettings, folder: Folder, find: Callable[[str], Status | None]
) -> Work | str:
    """Return the work of an image or, where it cannot become a record, one of LOST_IMAGES.

    A JPEG and a PNG of one image are an error: one of them is left over from an earlier run of step 5.
    """
    boxes = [box for box in point.annotations if box.label in settings.ids]
    labels = [label for label in point.image_labels if label.label in settings.ids]
    if not (boxes or labels or settings.keep_without_boxes):
        return "without_boxes"
    names = [image_file_name(point.id, image_format) for image_format in ("jpeg", "png")]
    files = [(name, status.size) for name in names if (status := find(name))]
    if len(files) > 1:
        both = " and ".join(names)
        raise InputError(f"{folder.path}: {both} both exist; remove the files of an earlier run")
    if not files:
        return "missing"
    name, file_bytes = files[0]
    if point.width and point.height:  # by step 5, of an image that it made or found right
        return Work(point.id, name, file_bytes, boxes, labels, (point.width, point.height))
    with folder.open(name) as image:
        size = rgb_size(image)
    return Work(point.id, name, file_bytes, boxes, labels, size) if size else "not_rgb"


def estimated_bytes(work: Work) -> int:
    """Return about the size of a record; a mask's PNG grows with its runs of pixels."""
    pixels = work.size[0] * work.size[1]
    masks = [box.mask for box in work.boxes if isinstance(box.mask, Mask)]
    mask_bytes = sum(70 + pixels // 1000 + len(mask.counts) * 7 // 5 for mask in masks)
    return work.bytes + 1000 + 80 * len(work.boxes) + mask_bytes  # 1000: names of features


def is_for_evaluation(point: Datapoint, settings: RecordSettings) -> bool:
    """Report whether an image is held out: a fraction by hash of the id, or those of a subset.

    The id alone decides, so an image never changes sides, and a larger fraction contains the smaller.
    """
    if settings.eval_fraction is not None:
        digest = hashlib.sha256(point.id.encode()).digest()
        return int.from_bytes(digest[:8]) < settings.eval_fraction * 2**64
    return settings.eval_subset is not None and point.subset == settings.eval_subset


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
