"""Step 5's work on one image: a task goes to a worker, a result comes back, and its datapoint follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files.failures import Failure
from common.files.folders import Status, folder_of, status
from common.images.finished import FinishedImage
from common.images.fit import Fit, move_box
from common.images.header import BadImageError, rgb_size
from common.images.process import process_bytes
from common.images.settings import ImageSettings
from common.openimages.ids import image_file_name


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to process. What else of its datapoint changes with its pixels can travel here too."""

    id: str
    turn: int = 0  # degrees counterclockwise
    original: Status | None = None  # looked up before the file is read: one replaced meanwhile is made again
    is_finished: bool = False  # but of unknown size


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image that exists as the settings ask."""

    how: str  # a key of step 5's counts
    image: FinishedImage


def process_batch(
    tasks: Sequence[ImageTask], source: Path, target: Path, settings: ImageSettings
) -> list[ImageResult | Failure]:
    """Process a batch of images in a worker; return the results in order. In place `target` is `source`."""
    results = _read_finished([task for task in tasks if task.is_finished], target, settings)
    left = [task for task in tasks if task.id not in results]

    def made() -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of each file to write, and note every result."""
        originals = folder_of(source).read_many(image_file_name(task.id) for task in left)
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
            image = FinishedImage(task.id, task.original, task.turn, *done.fit.scaled, len(data))
            results[task.id] = ImageResult(done.how, image)

    # In place an image is on the disk before its original goes: there is no other copy.
    folder_of(target).write_many(made(), sync=source == target)
    ordered = [results[task.id] for task in tasks]
    return [_with_own_status(result, target) for result in ordered] if source == target else ordered


def _read_finished(
    tasks: list[ImageTask], target: Path, settings: ImageSettings
) -> dict[str, ImageResult | Failure]:
    """Return the results of images that are finished, by id, with the sizes that their headers have."""
    results: dict[str, ImageResult | Failure] = {}
    names = [image_file_name(task.id, settings.format) for task in tasks]
    for task, data in zip(tasks, folder_of(target).read_many(names), strict=True):
        if isinstance(data, bytes) and (size := rgb_size(data)):
            image = FinishedImage(task.id, task.original, task.turn, *size, len(data))
            results[task.id] = ImageResult("already_there", image)
    return results


def _with_own_status(result: ImageResult | Failure, folder: Path) -> ImageResult | Failure:
    """Return a result whose original is the finished image: what it was made from is replaced."""
    if isinstance(result, Failure):
        return result
    own = status(folder / image_file_name(result.image.id))
    return replace(result, image=replace(result.image, original=own))


def finished_point(point: dict[str, Any], image: FinishedImage, settings: ImageSettings) -> dict[str, Any]:
    """Return a datapoint in the frame of its finished image."""
    scaled = (image.width, image.height)
    fit = Fit(scaled, (settings.max_side, settings.max_side) if settings.fit == "pad" else scaled)
    boxes = [move_box(box, image.turn, fit) for box in point["annotations"]]
    turned = {"rotation": 0} if settings.rotate_upright else {}
    return point | {"annotations": boxes, "width": fit.canvas[0], "height": fit.canvas[1]} | turned
