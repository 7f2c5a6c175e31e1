"""Step 5's work on one image: a task goes to a worker, a result comes back, and its datapoint follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files.failures import Failure
from common.files.folders import Status
from common.files.places import folder_of, status
from common.images.finished import FinishedImage
from common.images.fit import move_box
from common.images.header import DECODE_ERRORS, BadImageError
from common.images.masks import FoundMask, MaskFiles, make_mask
from common.images.process import frame_size, process_bytes
from common.images.settings import ImageSettings
from common.openimages.ids import image_file_name


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to process, and its masks."""

    id: str
    turn: int = 0  # degrees counterclockwise
    original: Status | None = None  # looked up before the file is read: one replaced meanwhile is made again
    finished: FinishedImage | None = None  # so only its masks are to be made
    masks: tuple[str, ...] = ()  # their files' names
    file: str = ""  # the original's name, "" for <id>.jpg

    @property
    def name(self) -> str:
        """Return the name of the original."""
        return self.file or image_file_name(self.id)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image that exists as the settings ask."""

    how: str  # a key of step 5's counts
    image: FinishedImage
    masks: tuple[FoundMask, ...] = ()  # in the order of their annotations


def process_batch(
    tasks: Sequence[ImageTask], source: Path, target: Path, settings: ImageSettings,
    mask_files: MaskFiles | None = None,
) -> list[ImageResult | Failure]:  # fmt: skip
    """Process a batch of images in a worker; return the results in order. In place `target` is `source`."""
    results: dict[str, ImageResult | Failure] = {
        task.id: ImageResult("already_there", task.finished) for task in tasks if task.finished
    }
    left = [task for task in tasks if not task.finished]
    sizes: dict[str, tuple[int, int]] = {}  # of the originals that have masks, in the frame of their boxes

    def made() -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of each file to write, and note every result."""
        originals = folder_of(source).read_many(task.name for task in left)
        for task, original in zip(left, originals, strict=True):
            try:
                if original is None:
                    raise BadImageError("missing")
                if isinstance(original, OSError):
                    raise BadImageError("unreadable", original.strerror or str(original))
                data, done = process_bytes(original, settings, task.turn)
            except BadImageError as bad:
                results[task.id] = Failure(task.id, bad.reason, bad.detail)
                continue
            if done.how != "unchanged" or source != target:
                yield image_file_name(task.id, settings.format), data
            size = (*done.fit.scaled, len(data))
            image = FinishedImage(task.id, task.original, task.turn, *size, done.orientation)
            results[task.id] = ImageResult(done.how, image)
            if task.masks and source != target:
                sizes[task.id] = done.frame

    # In place an image is on the disk before its original goes: there is no other copy.
    folder_of(target).write_many(made(), sync=source == target)
    if mask_files:
        usable = {task: result for task in tasks if isinstance(result := results[task.id], ImageResult)}
        if source != target:
            others = [task for task in usable if task.masks and task.id not in sizes]
            sizes |= _read_sizes(others, source, settings)
        for task, result in usable.items():
            results[task.id] = _with_masks(result, task, sizes.get(task.id), settings, mask_files)
    ordered = [results[task.id] for task in tasks]
    return [_with_own_status(result, target) for result in ordered] if source == target else ordered


def _read_sizes(tasks: list[ImageTask], source: Path, settings: ImageSettings) -> dict[str, tuple[int, int]]:
    """Return the sizes of originals whose finished images exist, by id; leave out what is gone by now."""
    sizes: dict[str, tuple[int, int]] = {}
    originals = folder_of(source).read_many(task.name for task in tasks)
    for task, data in zip(tasks, originals, strict=True):
        if isinstance(data, bytes):
            with suppress(BadImageError, *DECODE_ERRORS):
                sizes[task.id] = frame_size(data, settings)
    return sizes


def _with_masks(
    result: ImageResult, task: ImageTask, size: tuple[int, int] | None, settings: ImageSettings,
    files: MaskFiles,
) -> ImageResult:  # fmt: skip
    """Return a result with its masks; without an original's `size` the finished image stands for it."""
    fit = result.image.fit(settings)
    size = size or (fit.scaled if task.turn % 180 == 0 else fit.scaled[::-1])
    masks = (make_mask(files, task.id, name, size, fit, task.turn) for name in task.masks)
    return replace(result, masks=tuple(masks))


def _with_own_status(result: ImageResult | Failure, folder: Path) -> ImageResult | Failure:
    """Return a result whose original is the finished image: what it was made from is replaced."""
    if isinstance(result, Failure):
        return result
    own = status(folder / image_file_name(result.image.id))
    return replace(result, image=replace(result.image, original=own))


def mask_names(point: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the mask files in a datapoint, in the order of its annotations."""
    return tuple(box["mask"] for box in point["annotations"] if isinstance(box.get("mask"), str))


def finished_point(point: dict[str, Any], result: ImageResult, settings: ImageSettings) -> dict[str, Any]:
    """Return a datapoint in the frame of its finished image, with masks where they were asked for."""
    fit = result.image.fit(settings)
    boxes = [move_box(box, result.image.turn, fit) for box in point["annotations"]]
    if result.masks:
        masks = iter(result.masks)
        size = [fit.canvas[1], fit.canvas[0]]
        for place, box in enumerate(boxes):
            if isinstance(box.get("mask"), str):
                mask = next(masks)
                pixels = {"mask": {"size": size, "counts": mask.counts}} if not mask.reason else {}
                boxes[place] = {key: value for key, value in box.items() if key != "mask"} | pixels
    turned = {"rotation": 0} if settings.rotate_upright else {}
    return point | {"annotations": boxes, "width": fit.canvas[0], "height": fit.canvas[1]} | turned
