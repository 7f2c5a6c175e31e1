"""A folder of images that step 4 shrinks as they arrive, left as step 5 in place leaves it.

Step 5 finds there its settings and journal, and nothing to do. Images that exist as they were received, from
a run without --max_side or from one killed before it noted an image, are shrunk in place.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from common.cli import progress
from common.download.sources import FINISHED, MISSING, PRESENT, STALE
from common.files.failures import Failure
from common.files.journal import Journal
from common.files.places import folder_of, status
from common.images import finished
from common.images.settings import ImageSettings
from common.images.tasks import ImageTask, process_batch
from common.openimages.ids import SETTINGS_NAME, image_file_name
from common.workers.pool import Workers, batches

BATCH = 64  # images a task


def mark_finished(
    states: dict[str, int], folder: Path, settings: ImageSettings, overwrite: bool, dry_run: bool
) -> None:
    """Set unchanged images of the folder's journal to FINISHED or STALE, and give it these settings."""
    is_other = finished.has_other_settings(folder, settings, overwrite=overwrite)
    # Without settings no one knows what the journal is of.
    has_settings = status(folder / SETTINGS_NAME) is not None
    status_of = folder_of(folder).statuses()
    for image_id, numbers in finished.read_finished(folder) if has_settings else ():
        if not states.get(image_id):
            continue
        if is_other or not any(numbers):
            states[image_id] = STALE
        else:  # unless the file was replaced since
            is_same = (own := status_of(image_file_name(image_id))) and own[:2] == numbers[:2]
            states[image_id] = FINISHED if is_same else PRESENT
    if is_other and not dry_run:
        finished.replace_settings(folder, settings, keep_stale=has_settings)


def shrink_in_place(states: dict[str, int], folder: Path, settings: ImageSettings, workers: Workers) -> None:
    """Make PRESENT images FINISHED, and note them in the folder's journal; unusable ones become MISSING."""
    number = sum(state == PRESENT for state in states.values())
    if not number:
        return
    tasks = (ImageTask(image_id) for image_id, state in states.items() if state == PRESENT)
    work = partial(process_batch, source=folder, target=folder, settings=settings)
    journal = Journal(folder / finished.JOURNAL_NAME)
    with journal, progress(number, "image", "images on disk") as bar:
        for results in workers.map(work, batches(tasks, BATCH), most=-(-number // BATCH)):
            made = [result.image for result in results if not isinstance(result, Failure)]
            states.update((image.id, FINISHED) for image in made)
            states.update((result.id, MISSING) for result in results if isinstance(result, Failure))
            journal.add("".join(image.line() for image in made))
            bar.update(len(results))
