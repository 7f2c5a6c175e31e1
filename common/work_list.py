"""What each record is made of: the usable datapoints, as lines of a file that the processes share."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from common.cli import progress
from common.examples import record_bytes
from common.files import scratch_file
from common.json_files import to_json
from common.openimages import image_file_name, read_datapoints
from common.record_sets import RecordSet

FORMATS = ("jpeg", "png")
LOSSES = ("missing", "not_rgb", "without_boxes", "other_classes", "other_labels", "repeated_ids")


def work_path(path: Path) -> Path:
    """Return where the work list of the records `path` is."""
    return path.with_name(f".{path.name}.work.part")


@contextmanager
def open_work_list(sets: Sequence[RecordSet]) -> Iterator[BinaryIO]:
    """Yield the work list, gone afterwards, while no other run writes records of these names."""
    with ExitStack() as stack:
        streams = []
        for records in sets:
            busy = f"{records.path}: another run is writing these records"
            streams.append(stack.enter_context(scratch_file(work_path(records.path), busy)))
        yield streams[0]


def write_work_list(
    stream: BinaryIO, points: Iterator[dict[str, Any]], choose: Callable[[dict[str, Any]], RecordSet]
) -> None:
    """Write a line for each record and note it in the set that it belongs to."""
    position = 0
    with progress(None, "image", "looking at photos") as bar:
        for point in points:
            line = to_json(point) + b"\n"
            stream.write(line)
            chosen = choose(point["point"])
            chosen.digest.update(line)
            chosen.offsets.append(position)
            chosen.sizes.append(record_bytes(point["boxes"], point["bytes"]))
            position += len(line)
            bar.update()
    stream.flush()


def usable_points(
    path: str, folder: Path, ids: dict[str, int], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Yield what each record is made of: datapoint, kept boxes, and the photo's file, size and bytes.

    What is left out is counted, under the names in LOSSES.
    """
    seen: set[str] = set()
    for point in read_datapoints(path):
        counts["images"] += 1
        if point["id"] in seen:
            counts["repeated_ids"] += 1
            continue
        seen.add(point["id"])
        boxes = [box for box in point["annotations"] if box["label"] in ids]
        counts["other_classes"] += len(point["annotations"]) - len(boxes)
        labels = point.get("image_labels", [])
        counts["other_labels"] += sum(label["label"] not in ids for label in labels)
        if not boxes and not any(label["label"] in ids for label in labels):
            counts["without_boxes"] += 1
            continue
        file = find_image(folder, point["id"])
        if file is None:
            counts["missing"] += 1
            continue
        size = image_size(file)
        if size is None:
            counts["not_rgb"] += 1
            continue
        yield {
            "point": point, "boxes": boxes, "file": file.name, "size": size,
            "bytes": file.stat().st_size,
        }  # fmt: skip
        counts["boxes"] += len(boxes)


def find_image(folder: Path, image_id: str) -> Path | None:
    for image_format in FORMATS:
        path = folder / image_file_name(image_id, image_format)
        if path.is_file():
            return path
    return None


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of an RGB JPEG or PNG, in pixels; None for any other file."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size if image.mode == "RGB" else None
    except (OSError, Image.DecompressionBombError):
        return None
