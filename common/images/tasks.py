"""Step 5's work on one image: a task goes to a worker, a result comes back, and its datapoint follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.csv_files import parse_number
from common.files.failures import Failure
from common.files.folders import Status
from common.files.places import folder_of, status
from common.images.finished import FinishedImage
from common.images.header import BadImageError
from common.images.masks import FoundMask, MaskFiles, make_mask
from common.images.process import frame_size, process_bytes
from common.images.settings import Fit, ImageSettings
from common.openimages.ids import image_file_name, is_image_id

DIGITS = 6  # of a box's coordinates: under a hundredth of a pixel


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to process, and its masks."""

    id: str
    file: str  # the original's name
    turn: int = 0  # degrees counterclockwise
    original: Status | None = None  # looked up before the file is read: one replaced meanwhile is made again
    finished: FinishedImage | None = None  # so only its masks are to be made
    masks: tuple[str, ...] = ()  # their files' names


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
    in_place = source == target
    results: list[ImageResult | Failure] = []

    def made() -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of each file to write, and note every result."""
        originals = folder_of(source).read_many(task.file for task in tasks)
        for task, original in zip(tasks, originals, strict=True):
            try:
                data, result = _process(task, original, settings, mask_files, in_place=in_place)
            except BadImageError as bad:
                results.append(Failure(task.id, bad.reason, bad.detail))
                continue
            results.append(result)
            if data:
                yield image_file_name(task.id, settings.format), data

    # In place an image is on the disk before its original goes: there is no other copy.
    folder_of(target).write_many(made(), sync=in_place)
    for place, result in enumerate(results if in_place else ()):
        if isinstance(result, ImageResult):  # what it was made from is replaced
            own = status(target / image_file_name(result.image.id))
            results[place] = replace(result, image=replace(result.image, original=own))
    return results


def _process(
    task: ImageTask, original: bytes | OSError | None, settings: ImageSettings, mask_files: MaskFiles | None,
    *, in_place: bool,
) -> tuple[bytes, ImageResult]:  # fmt: skip
    """Return the bytes of one image, empty if its file stays as it is, and the result.

    Raises BadImageError.
    """
    if original is None:
        raise BadImageError("missing")
    if isinstance(original, OSError):
        raise BadImageError("unreadable", original.strerror or str(original))
    if task.finished:
        data, how, image = b"", "already_there", task.finished
    else:
        data, done = process_bytes(original, settings, task.turn)
        how, sizes = done.how, (*done.fit.scaled, len(data))
        image = FinishedImage(task.id, task.original, task.turn, *sizes, done.orientation)
        if how == "unchanged" and in_place:
            data = b""
    masks: tuple[FoundMask, ...] = ()
    if mask_files and task.masks:
        fit = image.fit(settings)
        # In place a later run has the finished image alone.
        size = fit.scaled if in_place else frame_size(original, settings)
        masks = tuple(make_mask(mask_files, task.id, name, size, fit, task.turn) for name in task.masks)
    return data, ImageResult(how, image, masks)


def parse_turn(point: dict[str, Any], where: str) -> int:
    """Return a datapoint's rotation in degrees, 0 if it has none; InputError if it is not a quarter turn."""
    rotation = point.get("rotation")
    degrees = 0 if rotation in (None, "") else parse_number(rotation)
    if degrees is None or degrees not in (0, 90, 180, 270):
        what = f"rotation of {point['id']} is {rotation!r:.80}"
        raise InputError(f"{where}: {what}, 0, 90, 180 or 270 was expected")
    return int(degrees)


def mask_names(point: dict[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of the mask files in a datapoint, in the order of its annotations."""
    names = tuple(box["mask"] for box in point["annotations"] if box.get("mask") is not None)
    for name in names:
        if not is_image_id(name):
            raise InputError(f"{where}: mask {name!r:.80} of {point['id']}, the name of a file was expected")
    return names


def finished_point(point: dict[str, Any], result: ImageResult, settings: ImageSettings) -> dict[str, Any]:
    """Return a datapoint in the frame of its finished image, with masks where they were asked for."""
    fit = result.image.fit(settings)
    boxes = [move_box(box, result.image.turn, fit) for box in point["annotations"]]
    masks = iter(result.masks)
    for place, box in enumerate(boxes if result.masks else ()):
        if isinstance(box.get("mask"), str):
            mask = next(masks)
            pixels = {"mask": {"size": fit.canvas[::-1], "counts": mask.counts}} if not mask.reason else {}
            boxes[place] = {key: value for key, value in box.items() if key != "mask"} | pixels
    turned = {"rotation": 0} if settings.rotate_upright else {}
    return point | {"annotations": boxes, "width": fit.canvas[0], "height": fit.canvas[1]} | turned


def move_box(box: dict[str, Any], turn: int, fit: Fit) -> dict[str, Any]:
    """Return an annotation with its box, in fractions of the image, turned counterclockwise and fitted."""
    x0, x1, y0, y1 = box["x0"], box["x1"], box["y0"], box["y1"]
    if turn == 90:
        x0, x1, y0, y1 = y0, y1, 1 - x1, 1 - x0
    elif turn == 180:
        x0, x1, y0, y1 = 1 - x1, 1 - x0, 1 - y1, 1 - y0
    elif turn == 270:
        x0, x1, y0, y1 = 1 - y1, 1 - y0, x0, x1
    if fit.scaled != fit.canvas:
        (width, height), (left, top) = fit.scaled, fit.offset
        x0, x1 = ((value * width + left) / fit.canvas[0] for value in (x0, x1))
        y0, y1 = ((value * height + top) / fit.canvas[1] for value in (y0, y1))
    elif turn == 0:
        return box
    moved = {"x0": x0, "x1": x1, "y0": y0, "y1": y1}
    rounded = {name: round(value, DIGITS) for name, value in moved.items()}
    has_area = rounded["x0"] < rounded["x1"] and rounded["y0"] < rounded["y1"]
    return box | (rounded if has_area else moved)
