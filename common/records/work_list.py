"""What each record is made of: the usable datapoints, as lines of a file that the processes share."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from common.cli import InputError, progress
from common.files.scratch import scratch_file, scratch_path
from common.files.storage import Status, is_remote, statuses
from common.files.store_lock import store_lock
from common.files.whole_files import read_small
from common.images.header import rgb_size
from common.openimages.ids import image_file_name
from common.records.examples import record_bytes
from common.records.sets import RecordSet
from common.records.write import FORMATS

if TYPE_CHECKING:
    from common.openimages.datapoints import Datapoint
    from common.records.types import Work

LOSSES = ("missing", "not_rgb", "without_boxes", "other_classes", "other_labels", "repeated_ids")


def work_path(path: Path) -> Path:
    """Return where the work list of the records `path` is, on this machine."""
    return scratch_path(path.with_name(f".{path.name}.work.part"))


@contextmanager
def open_work_list(sets: Sequence[RecordSet]) -> Iterator[BinaryIO]:
    """Yield the work list, gone afterwards, while no other run writes records of these names."""
    with ExitStack() as stack:
        streams = []
        for records in sets:
            busy = f"{records.path}: another run is writing these records"
            if is_remote(records.path):
                stack.enter_context(store_lock(records.path.parent, records.path.name, busy))
            streams.append(stack.enter_context(scratch_file(work_path(records.path), busy)))
        yield streams[0]


def write_work_list(
    stream: BinaryIO, points: Iterator[tuple["Datapoint", "Work"]], choose: Callable[["Datapoint"], RecordSet]
) -> None:
    """Write a line for each of `usable_points` and note it in the set that `choose` says it belongs to."""
    import msgspec

    position = 0
    encode = msgspec.json.Encoder().encode
    with progress(None, "image", "looking at photos") as bar:
        for point, work in points:
            line = encode(work) + b"\n"
            stream.write(line)
            chosen = choose(point)
            chosen.digest.update(line)
            chosen.offsets.append(position)
            chosen.sizes.append(record_bytes(work.boxes, work.bytes))
            position += len(line)
            bar.update()
    stream.flush()


def usable_points(
    path: str, folder: Path, ids: dict[str, int], counts: Counter[str]
) -> Iterator[tuple["Datapoint", "Work"]]:
    """Yield each datapoint a record can be made of, and what it is made of: kept boxes and labels, the photo.

    What is left out is counted, under the names in LOSSES.
    """
    from common.openimages.datapoints import read_datapoints
    from common.records.types import Work

    seen: set[str] = set()
    look = statuses(folder)
    for point in read_datapoints(path):
        counts["images"] += 1
        if point.id in seen:
            counts["repeated_ids"] += 1
            continue
        seen.add(point.id)
        boxes = [box for box in point.annotations if box.label in ids]
        counts["other_classes"] += len(point.annotations) - len(boxes)
        labels = [label for label in point.image_labels if label.label in ids]
        counts["other_labels"] += len(point.image_labels) - len(labels)
        if not boxes and not labels:
            counts["without_boxes"] += 1
            continue
        photo = find_photo(look, folder, point.id)
        if photo is None:
            counts["missing"] += 1
            continue
        name, size = photo
        # Step 5 gives its size to a photo that it has made or found right: no need to open that one twice.
        if not (point.width and point.height) and not is_rgb(folder / name):
            counts["not_rgb"] += 1
            continue
        counts["boxes"] += len(boxes)
        pixels = (point.width, point.height) if point.width and point.height else None
        yield point, Work(point.id, name, size, boxes, labels, pixels)


def find_photo(look: Callable[[str], Status | None], folder: Path, image_id: str) -> tuple[str, int] | None:
    """Return the name of an image's file and its size in bytes, None where there is none.

    Where both formats are there one is left over from an earlier run of step 5: an error, nothing says which.
    """
    names = [image_file_name(image_id, image_format) for image_format in FORMATS]
    found = [(name, there.size) for name in names if (there := look(name))]
    if len(found) > 1:
        raise InputError(
            f"{folder}: {' and '.join(names)} are both there; remove the files of an earlier run"
        )
    return found[0] if found else None


def is_rgb(photo: Path) -> bool:
    """Tell whether a file is an RGB JPEG or PNG, by its header; an object is fetched for that."""
    return rgb_size((read_small(photo) or b"") if is_remote(photo) else photo) is not None
