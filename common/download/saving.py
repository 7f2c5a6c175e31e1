"""A photo that came in, onto disk, as it came or shrunk: the one place where step 4 saves one."""

import threading
from dataclasses import dataclass
from pathlib import Path

from common.files.storage import status
from common.files.whole_files import replace_file
from common.images.finished import FinishedImage
from common.images.process import process_bytes
from common.images.settings import ImageSettings
from common.openimages.ids import image_file_name

# Shrinking takes a core: of the processes there are as many as cores, and each shrinks one photo at a time.
_a_core = threading.Lock()


@dataclass(frozen=True, slots=True)
class Saved:
    """How a photo was shrunk: a key of step 5's counts, and its line in step 5's journal."""

    how: str  # resized, unchanged or damaged_kept
    line: str


def save_photo(image_id: str, data: bytes, folder: Path, shrink: ImageSettings | None) -> Saved | None:
    """Write a photo whole, as <id>.jpg; shrunk as `shrink` says, in which case its original is never on disk.

    Return how it was shrunk. Raises BadImageError where it cannot be used, and nothing is written; OSError
    where writing fails.
    """
    path = folder / image_file_name(image_id)
    if shrink is None:
        replace_file(path, data)
        return None
    with _a_core:
        data, processed = process_bytes(data, shrink)
    replace_file(path, data)
    finished = FinishedImage(image_id, status(path), 0, *processed.fit.scaled, len(data))
    return Saved(processed.how, finished.line())
