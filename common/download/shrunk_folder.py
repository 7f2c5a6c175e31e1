"""A folder of photos that step 4 shrinks as they come in: left as step 5 leaves one it worked on in place.

So step 5 finds there its settings and journal, and nothing to do; and what lies there as it was fetched, from
a run without --max_side or from one killed before it noted a photo, is shrunk where it lies.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common.cli import progress
from common.download.sources import FINISHED, STALE, THERE, WANTED
from common.files.failures import Failure
from common.files.journal import Journal
from common.files.storage import status
from common.images.finished import (
    JOURNAL_NAME,
    SETTINGS_NAME,
    has_other_settings,
    read_finished,
    replace_settings,
)  # fmt: skip
from common.images.settings import ImageSettings
from common.images.tasks import ImageTask, process_batch
from common.workers.batches import batches
from common.workers.window import Workers

BATCH = 64  # photos a task


@contextmanager
def shrunk_photos(
    folder: Path,
    there: dict[str, int],
    settings: ImageSettings | None,
    *,
    overwrite: bool,
    workers: Workers,
) -> Iterator[Callable[[str], None]]:
    """Yield a function that adds a journal line for a photo that came in shrunk; without settings do nothing.

    Photos that are there and cannot be used become WANTED, those made with other settings STALE.
    """
    if settings is None:
        yield lambda line: None
        return
    if mark_finished(there, folder, settings, overwrite=overwrite):
        replace_settings(folder, settings, keep_stale=status(folder / SETTINGS_NAME) is not None)
    with Journal(folder / JOURNAL_NAME) as journal:

        def note(*lines: str) -> None:
            journal.add("".join(lines))

        for lines in _shrink_in_place(folder, there, settings, workers):
            note(*lines)
        yield note


def mark_finished(
    there: dict[str, int], folder: Path, settings: ImageSettings | None, *, overwrite: bool
) -> bool:
    """Set photos that are there and in the folder's journal to FINISHED, or STALE; with settings alone.

    Return whether the folder's settings are to be replaced by these; InputError where that was not asked for.
    """
    if settings is None:
        return False
    other = has_other_settings(folder, settings, overwrite=overwrite)
    if status(folder / SETTINGS_NAME):  # without it no one knows what the journal is of
        for image_id, numbers in read_finished(folder):
            if there.get(image_id):
                there[image_id] = STALE if other or not any(numbers) else FINISHED
    return other


def _shrink_in_place(
    folder: Path, there: dict[str, int], settings: ImageSettings, workers: Workers
) -> Iterator[list[str]]:
    """Yield the journal lines of the photos that were THERE and are FINISHED now, a batch at a time."""
    number = sum(state == THERE for state in there.values())
    if not number:
        return
    tasks = (ImageTask(image_id) for image_id, state in there.items() if state == THERE)
    work = partial(process_batch, source=folder, target=folder, settings=settings)
    with progress(number, "photo", "photos on disk") as bar:
        for results in workers.map(work, batches(tasks, BATCH), most=-(-number // BATCH)):
            made = [result.image for result in results if not isinstance(result, Failure)]
            there.update((image.id, FINISHED) for image in made)
            there.update((result.id, WANTED) for result in results if isinstance(result, Failure))
            yield [image.line() for image in made]
            bar.update(len(results))
