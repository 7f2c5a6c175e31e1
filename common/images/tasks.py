"""Step 5's work on one image: a task in; out what became of its photo, and its datapoint."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from common.files.failures import Failure
from common.files.storage import is_remote, put_objects, read_objects, status
from common.files.whole_files import read_small, replace_file
from common.images.finished import make_stamp
from common.images.fit import Fit, move_box, plan_fit
from common.images.header import BadImageError
from common.images.process import ImageSettings, image_size, process_bytes, process_image, read_photo
from common.openimages.ids import image_file_name


@dataclass(frozen=True, slots=True)
class Task:
    """One image: how its photo is turned, what it is made from, and whether that is done by all accounts."""

    id: str
    turn: int  # degrees counterclockwise
    stamp: str
    known: bool


@dataclass(frozen=True, slots=True)
class Done:
    """One photo that is there as asked for: how it came to be so, where it went, what it was made from."""

    how: str  # a key of the counts
    fit: Fit
    stamp: str  # "" where it is noted already


def process_batch(
    tasks: list[Task], source: Path, target: Path, settings: ImageSettings
) -> list[Done | Failure]:
    """Process a batch of images; run in a worker."""
    if is_remote(source) or is_remote(target):
        return process_together(tasks, source, target, settings)
    return [process_one(task, source, target, settings) for task in tasks]


def process_one(task: Task, source: Path, target: Path, settings: ImageSettings) -> Done | Failure:
    original = source / image_file_name(task.id)
    photo = target / image_file_name(task.id, settings.format)
    if task.known and (fit := finished_fit(task, photo, original, settings)):
        return Done("already_there", fit, "")
    try:
        result = process_image(original, photo, settings, task.turn)
        # The task's stamp was taken before the bytes were read: a photo replaced meanwhile is done again.
        stamp = make_stamp(task.id, status(photo), task.turn) if photo == original else task.stamp
        return Done(result.how, result.fit, stamp)
    except BadImageError as bad:
        return Failure(task.id, bad.reason, bad.detail, in_passing=bad.in_passing)


def finished_fit(
    task: Task, photo: Path | bytes, original: Path | bytes | None, settings: ImageSettings
) -> Fit | None:
    """Return where a finished photo went, None where it is not whole after all."""
    size, turn = image_size(photo), 0
    if size and settings.fit == "pad":  # the photo's own size is hidden by what pads it
        size, turn = image_size(original or b""), task.turn
    return plan_fit(size, turn, settings.fit, settings.max_side) if size else None


def process_together(
    tasks: list[Task], source: Path, target: Path, settings: ImageSettings
) -> list[Done | Failure]:
    """Process a batch of images that are on a store or go to one: many are asked for, and put, at a time."""
    results: dict[str, Done | Failure] = {}
    known = [task for task in tasks if task.known]
    photos = _read_photos(target, known, settings.format)
    originals = _read_photos(source, known if settings.fit == "pad" else [])
    for task, photo, original in zip_longest(known, photos, originals):
        if fit := finished_fit(task, photo or b"", original, settings):
            results[task.id] = Done("already_there", fit, "")
    left = [task for task in tasks if task.id not in results]
    made: dict[str, bytes] = {}
    fetched = _read_photos(source, left)
    for task in left:
        try:
            original = next(fetched) if is_remote(source) else read_photo(source / image_file_name(task.id))
            if original is None:
                raise BadImageError("missing")
            made_of_it, processed = process_bytes(original, settings, task.turn)
        except BadImageError as bad:
            results[task.id] = Failure(task.id, bad.reason, bad.detail, in_passing=bad.in_passing)
            continue
        results[task.id] = Done(processed.how, processed.fit, task.stamp)
        if processed.how != "unchanged" or source != target:
            made[image_file_name(task.id, settings.format)] = made_of_it
    if is_remote(target):
        put_objects(target, made)
    else:
        for name, photo in made.items():
            replace_file(target / name, photo)
    if source == target:  # what is there now is the original
        for task in left:
            result = results[task.id]
            if isinstance(result, Done):
                stamp = make_stamp(task.id, status(target / image_file_name(task.id)), task.turn)
                results[task.id] = replace(result, stamp=stamp)
    return [results[task.id] for task in tasks]


def _read_photos(folder: Path, tasks: list[Task], image_format: str = "jpeg") -> Iterator[bytes | None]:
    names = [image_file_name(task.id, image_format) for task in tasks]
    return (
        read_objects(folder, names)
        if is_remote(folder)
        else map(read_small, (folder / name for name in names))
    )


def finished_point(point: dict[str, Any], turn: int, fit: Fit, settings: ImageSettings) -> dict[str, Any]:
    """Return a datapoint in the frame of its finished photo."""
    width, height = fit.canvas
    boxes = [move_box(box, turn, fit) for box in point["annotations"]]
    turned = {"rotation": 0} if settings.rotate_upright else {}
    return point | {"annotations": boxes, "width": width, "height": height} | turned
