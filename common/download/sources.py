"""Images of an index: which exist in the folder, and the addresses of the others.

With --max_side the folder is left as step 5 in place leaves it: with its settings and journal. Images that
exist as they were received, from a run without --max_side or from one killed before it noted an image, are
shrunk in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common.cli import InputError, progress, say
from common.download.connections import without_blanks
from common.download.outcomes import Refusals
from common.download.types import BadFile, Download, ImageSource
from common.files.failures import Failure, read_failures
from common.files.journal import Journal
from common.files.places import folder_of, status
from common.images import finished
from common.images.settings import ImageSettings
from common.images.tasks import ImageTask, process_batch
from common.openimages.datapoints import IndexEntry, read_index
from common.openimages.ids import SETTINGS_NAME, ImageFiles, image_file_name, image_files
from common.workers.pool import Workers, batches

# The states of an image: to be downloaded; in the folder; in the folder, and shrunk.
MISSING, PRESENT, FINISHED = range(3)
BATCH = 64  # images a task, of those that are shrunk in place


def read_states(path: Path, folder: Path, *, shrinks: bool) -> dict[str, int]:
    """Return the images of the index, in order, as MISSING or, by one listing of the folder, PRESENT.

    An image takes 110 bytes. An empty file is missing. InputError for a wrong entry, and for two files of one
    image.
    """
    states: dict[str, int] = {}
    for line, entry in read_index(path):
        if entry.id in states:
            raise InputError(f"{path}:{line}: duplicate image id {entry.id}")
        states[entry.id] = MISSING
    there, files = folder_of(folder), None
    for image_id, name, listed in image_files(folder):
        if image_id in states and (found := listed or there.status(name)) and found.size:
            if states[image_id]:
                files = files or ImageFiles(folder)
                files.find(image_id)  # raises, unless both are one file
            if shrinks and name != image_file_name(image_id):
                wanted = "only <id>.jpg directly in the folder is resized in place"
                raise InputError(f"{folder}/{name}: {wanted}; run without --max_side")
            states[image_id] = PRESENT
    return states


def mark_finished(
    states: dict[str, int], folder: Path, settings: ImageSettings, overwrite: bool, dry_run: bool
) -> None:
    """Set the images of the folder's journal to FINISHED, or to MISSING if made with other settings.

    An image that was replaced since stays PRESENT. The folder is given the settings.
    """
    is_other = finished.has_other_settings(folder, settings, overwrite=overwrite)
    # Without settings no one knows what the journal is of.
    has_settings = status(folder / SETTINGS_NAME) is not None
    status_of = folder_of(folder).statuses()
    for image_id, numbers in finished.read_finished(folder) if has_settings else ():
        if image_id in states and (own := status_of(image_file_name(image_id))) and own.size:
            if is_other or not any(numbers):
                states[image_id] = MISSING
            else:
                states[image_id] = FINISHED if own[:2] == numbers[:2] else PRESENT
    if is_other and not dry_run:
        finished.replace_settings(folder, settings, keep_stale=has_settings)


def mark_bad(states: dict[str, int], folder: Path, path: Path) -> dict[str, BadFile]:
    """Set the images that a list of failures names to MISSING, and return their files by id.

    A file that is newer than the list is left: it was downloaded again after the list was made.
    """
    bad: dict[str, BadFile] = {}
    files, there, listed, known, other = ImageFiles(folder), folder_of(folder), status(path), 0, ""
    for failure in read_failures(path):
        if failure.id not in states:
            other = failure.id
            continue
        known += 1
        name = files.find(failure.id)
        found = there.status(name)
        if not (found and found.size and listed and found.changed_at > listed.changed_at):
            bad[failure.id] = BadFile(name, failure.reason)
            states[failure.id] = MISSING
    if other and not known:
        raise InputError(f"{path}: none of its images is in the index, such as {other}")
    say(f"{path}: {len(bad)} of {known} images are to be downloaded")
    return bad


def shrink_in_place(states: dict[str, int], folder: Path, settings: ImageSettings, workers: Workers) -> None:
    """Make PRESENT images FINISHED, and note them in the folder's journal; unusable ones become MISSING."""
    number = sum(state == PRESENT for state in states.values())
    if not number:
        return
    present = (image_id for image_id, state in states.items() if state == PRESENT)
    tasks = (ImageTask(image_id, image_file_name(image_id)) for image_id in present)
    work = partial(process_batch, source=folder, target=folder, settings=settings)
    journal = Journal(folder / finished.JOURNAL_NAME)
    with journal, progress(number, "image", "images on disk") as bar:
        for results in workers.map(work, batches(tasks, BATCH), most=-(-number // BATCH)):
            for result in results:
                if isinstance(result, Failure):
                    states[result.id] = MISSING
                else:
                    states[result.image.id] = FINISHED
                    journal.add(result.image.line())
            bar.update(len(results))


def wanted_images(
    path: Path, states: dict[str, int], order: list[str], mirror: str,
    refusals: Refusals, bad: dict[str, BadFile],
) -> Iterator[Download | Failure]:  # fmt: skip
    """Yield the images of the index to download, with the sources that are worth asking, or why none is.

    A source whose image was received but is unusable is the last that is asked, as in the run that found it;
    if the image is to replace a bad file, the next source is asked.
    """
    shrink = refusals.shrink
    for _, entry in read_index(path):
        if states.get(entry.id, PRESENT):
            continue
        left: list[ImageSource] = []
        refusal: Failure | None = None
        for source in sources_of(entry, order, mirror):
            unusable = shrink and refusals.find(entry.id, source.url, shrink)
            refusal = unusable or refusals.find(entry.id, source.url)
            if not refusal:
                left.append(source)
            elif unusable and entry.id not in bad:
                break
        if left:
            yield Download(entry.id, left, refusal, bad.get(entry.id))
        else:
            yield refusal or Failure(entry.id, "no_source", "no address in the index for any --image_source")


def sources_of(entry: IndexEntry, order: list[str], mirror: str) -> Iterator[ImageSource]:
    """Yield the sources that an image has, in order; size and MD5 hold for the original alone."""
    copy = f"{mirror}/{entry.subset}/{image_file_name(entry.id)}" if entry.subset else None
    addresses = {"mirror": copy, "original": entry.url, "thumbnail": entry.thumbnail_url}
    for name in order:
        if address := without_blanks(addresses[name] or ""):
            yield ImageSource(name, address, *((entry.size or None, entry.md5) if name == "original" else ()))


def plan(images: Iterator[Download | Failure], states: dict[str, int]) -> dict[str, int]:
    """Return how many images would be requested, and the bytes of those whose size the index knows.

    The size is that of the original: it is known of the images whose first source that is.
    """
    counts = {"images": len(states), "already_there": sum(map(bool, states.values()))}
    counts |= dict.fromkeys(("to_download", "refused", "size_known", "bytes"), 0)
    for image in images:
        if isinstance(image, Failure):
            counts["refused"] += 1
        else:
            size = image.sources[0].size
            counts["to_download"] += 1
            counts["size_known"] += size is not None
            counts["bytes"] += size or 0
    return counts
