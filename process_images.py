#!/usr/bin/env python3
r"""Verify and shrink the photos, and keep the datapoints of those that survive.

    python3 process_images.py \
        --image_directory dataset/train/photos \
        --image_saving_directory dataset/train/resized \
        --datapoints_input_path dataset/train/points.json \
        --datapoints_output_path dataset/train/points-resized.json

Decodes each photo to its end, makes it RGB, shrinks it so that its longer side is at most --max_side (none is
enlarged), and writes <id>.jpg: about 20 kB a photo at 256 pixels. One that already is what is asked for keeps
its bytes. EXIF orientation is neither applied nor handed on: the boxes are in the frame of the stored pixels.

Without --image_saving_directory the photos are replaced in place, each at once and whole; broken ones stay.
Photos that are missing, truncated, damaged, unreadable, too_large or too_small are listed in
process_failures.csv beside the resized photos and left out of the output datapoints, which gain `width` and
`height` in pixels. Run again, it goes on where it stopped; process_settings.json in the folder says what its
photos were made with, and other settings need --overwrite. What was shrunk in place cannot grow again.

Exit codes: 0 done, the counts say what was lost; 1 bad input, no photo at all, or more than --max_failures;
2 wrong flags; 130 interrupted.
"""

import argparse
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.cli import InputError, make_parser, print_counts, progress, run, whole_number
from common.failures import Failure, FailureList, parse_failure_limit
from common.files import locked_folder, sweep_parts
from common.finished import FinishedImages, make_stamp
from common.images import MAX_JPEG_SIDE, BadImageError, ImageSettings, image_size, process_image
from common.json_files import json_writer
from common.openimages import image_file_name, read_datapoints
from common.parallel import batches, map_batches, usable_cores

BATCH = 64  # photos a task: a tenth of a second of work, a thousand times what handing it over takes
REASONS = ("missing", "truncated", "damaged", "unreadable", "too_large", "too_small")
COUNTS = ("images", "resized", "unchanged", "already_there", "failed", *REASONS)


@dataclass(frozen=True, slots=True)
class Done:
    """One photo that is there as asked for: how it came to be so, its size, and what it was made from."""

    how: str  # a key of the counts
    width: int
    height: int
    stamp: str


def process_batch(
    images: list[tuple[str, bool]], source: Path, target: Path, settings: ImageSettings
) -> list[Done | Failure]:
    """Process images, given as id and whether the photo is finished by all accounts; run in a worker."""
    return [process_one(image_id, known, source, target, settings) for image_id, known in images]


def process_one(
    image_id: str, known: bool, source: Path, target: Path, settings: ImageSettings
) -> Done | Failure:
    original = source / image_file_name(image_id)
    photo = target / image_file_name(image_id)
    try:
        if known and (size := image_size(photo)):
            return Done("already_there", *size, stamp="")
        # The stamp is taken before the bytes are read: a photo replaced meanwhile is done again.
        before = make_stamp(image_id, original)
        width, height, changed = process_image(original, photo, settings)
        stamp = before if photo != original else make_stamp(image_id, photo)
        return Done("resized" if changed else "unchanged", width, height, stamp)
    except BadImageError as bad:
        return Failure(image_id, bad.reason, bad.detail)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    source = Path(args.image_directory)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder, one with photos was expected")
    target = Path(args.image_saving_directory or source)
    if target.exists() and target.samefile(source):
        target = source
    settings = ImageSettings(args.max_side, args.quality, args.min_side)
    work = partial(process_batch, source=source, target=target, settings=settings)
    failures_path = args.failures_path or target / "process_failures.csv"

    counts = Counter(dict.fromkeys(COUNTS, 0))
    waiting: deque[dict[str, Any]] = deque()  # datapoints whose photos are under way
    failed: list[str] = []
    with (
        locked_folder(target),
        FinishedImages(target, asdict(settings), overwrite=args.overwrite) as finished,
        FailureList(failures_path) as failures,
        json_writer(args.datapoints_output_path) as write,
        progress(None, "photo", "photos") as bar,
    ):
        sweep_parts(target, image_file_name(""))

        def tasks() -> Iterator[tuple[str, bool]]:
            for point in unique_datapoints(args.datapoints_input_path):
                waiting.append(point)
                stamp = make_stamp(point["id"], source / image_file_name(point["id"]))
                yield point["id"], finished.has(stamp)

        for results in map_batches(work, batches(tasks(), BATCH), args.workers):
            for result in results:
                point = waiting.popleft()
                counts["images"] += 1
                if isinstance(result, Failure):
                    counts.update(("failed", result.reason))
                    failures.add(result)
                    failed.append(result.id)
                else:
                    counts[result.how] += 1
                    write(point | {"width": result.width, "height": result.height})
            finished.add([result.stamp for result in results if isinstance(result, Done) and result.stamp])
            bar.update(len(results))
        failures.finish(failed)
        print_counts(counts)
        if counts["failed"] == counts["images"]:
            raise InputError(f"none of the {counts['images']} photos can be used, see {failures_path}")
        if args.max_failures:
            args.max_failures.check(counts["failed"], counts["images"])


def unique_datapoints(path: str) -> Iterator[dict[str, Any]]:
    """Yield each datapoint; an id that comes twice is an error: two workers would write its photo at once."""
    seen: set[str] = set()
    for point in read_datapoints(path):
        if point["id"] in seen:
            raise InputError(f"{path}: image {point['id']} is there twice")
        seen.add(point["id"])
        yield point


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--image_directory",
        required=True,
        metavar="IMAGE_DIRECTORY_PATH",
        help="folder of the photos, <id>.jpg",
    )
    add(
        "--image_saving_directory", metavar="RESIZED_DIRECTORY_PATH",
        help="folder for the resized photos (default: they replace the photos in IMAGE_DIRECTORY_PATH)",
    )  # fmt: skip
    add(
        "--datapoints_input_path", required=True, metavar="DATAPOINTS_INPUT_PATH",
        help="datapoints of step 3",
    )  # fmt: skip
    add(
        "--datapoints_output_path", required=True, metavar="DATAPOINTS_OUTPUT_PATH",
        help="where the datapoints of the photos that are there are written",
    )  # fmt: skip
    add(
        "--max_side", type=whole_number(1, most=MAX_JPEG_SIDE), default=256, metavar="PIXELS",
        help="longer side at most (default: %(default)s)",
    )  # fmt: skip
    add(
        "--min_side", type=whole_number(1), default=1, metavar="PIXELS",
        help="photos with a shorter side below this are left out as too_small (default: %(default)s)",
    )  # fmt: skip
    add(
        "--quality", type=whole_number(1, most=100), default=90, metavar="1-100",
        help="of the JPEGs (default: %(default)s)",
    )  # fmt: skip
    add(
        "--workers", type=whole_number(1), default=usable_cores(), metavar="N",
        help="processes (default: one a core, %(default)s here)",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="make photos anew that were made with other settings")
    add(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="exit 1 and write no datapoints when more photos than this fail (default: no limit)",
    )  # fmt: skip
    add(
        "--failures_path", metavar="FAILURES_PATH",
        help="list of the photos left out (default: process_failures.csv beside the resized photos)",
    )  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
