"""Step 5's work on one image: a task in; out what became of its photo, and its datapoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.bad_image import BadImageError
from common.failures import Failure
from common.finished import make_stamp
from common.fit import Fit, move_box, plan_fit
from common.images import ImageSettings, image_size, process_image
from common.openimages import image_file_name


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
    return [process_one(task, source, target, settings) for task in tasks]


def process_one(task: Task, source: Path, target: Path, settings: ImageSettings) -> Done | Failure:
    original = source / image_file_name(task.id)
    photo = target / image_file_name(task.id, settings.format)
    if task.known and (size := image_size(photo)):
        turn = 0
        if settings.fit == "pad":  # the photo's own size is hidden by what pads it
            size, turn = image_size(original), task.turn
        if size:
            return Done("already_there", plan_fit(size, turn, settings.fit, settings.max_side), "")
    try:
        result = process_image(original, photo, settings, task.turn)
        # The task's stamp was taken before the bytes were read: a photo replaced meanwhile is done again.
        stamp = make_stamp(task.id, photo, task.turn) if photo == original else task.stamp
        return Done(result.how, result.fit, stamp)
    except BadImageError as bad:
        return Failure(task.id, bad.reason, bad.detail)


def finished_point(point: dict[str, Any], turn: int, fit: Fit, settings: ImageSettings) -> dict[str, Any]:
    """Return a datapoint in the frame of its finished photo."""
    width, height = fit.canvas
    boxes = [move_box(box, turn, fit) for box in point["annotations"]]
    turned = {"rotation": 0} if settings.rotate_upright else {}
    return point | {"annotations": boxes, "width": width, "height": height} | turned
