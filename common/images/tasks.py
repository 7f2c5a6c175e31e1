"""Step 5's work on one image: a task goes to a worker, a result comes back, and its datapoint follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files.failures import Failure
from common.files.storage import Status, is_remote, put_objects, read_objects, status
from common.files.whole_files import replace_file
from common.images.finished import FinishedImage
from common.images.fit import Fit, move_box
from common.images.header import BadImageError
from common.images.process import check_file_size, process_bytes
from common.images.settings import ImageSettings
from common.openimages.ids import image_file_name


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to process. What else of its datapoint changes with its pixels can travel here too."""

    id: str
    turn: int = 0  # degrees counterclockwise
    original: Status | None = None  # looked up before the file is read: one replaced meanwhile is made again


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image that exists as the settings ask."""

    how: str  # a key of step 5's counts
    image: FinishedImage


def process_batch(
    tasks: Sequence[ImageTask], source: Path, target: Path, settings: ImageSettings
) -> list[ImageResult | Failure]:
    """Process a batch of images in a worker; return the results in order. In place `target` is `source`."""
    results: list[ImageResult | Failure] = []
    objects: dict[str, bytes] = {}  # to put: a store takes many at a time
    names = [image_file_name(task.id) for task in tasks]
    fetched = read_objects(source, names) if is_remote(source) else None
    for task, name in zip(tasks, names, strict=True):
        try:
            original = next(fetched) if fetched else _read_image(source / name)
            if original is None:
                raise BadImageError("missing")
            data, made = process_bytes(original, settings, task.turn)
        except BadImageError as bad:
            results.append(Failure(task.id, bad.reason, bad.detail))
            continue
        if made.how != "unchanged" or source != target:
            own_name = image_file_name(task.id, settings.format)
            if is_remote(target):
                objects[own_name] = data
            else:
                # In place it is on the disk before the original goes: there is no other copy.
                replace_file(target / own_name, data, sync=source == target)
        image = FinishedImage(task.id, task.original, task.turn, *made.fit.scaled, len(data))
        results.append(ImageResult(made.how, image))
    if objects:
        put_objects(target, objects)
    return [_with_own_status(result, target) for result in results] if source == target else results


def _read_image(path: Path) -> bytes:
    try:
        check_file_size(path.stat().st_size)
        return path.read_bytes()
    except FileNotFoundError:
        raise BadImageError("missing") from None
    except OSError as error:
        raise BadImageError("unreadable", error.strerror or str(error)) from None


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
