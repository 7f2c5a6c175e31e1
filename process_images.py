#!/usr/bin/env python3
r"""Verify and shrink the photos, and keep the datapoints of those that survive.

    python3 process_images.py \
        --image_directory dataset/train/photos \
        --image_saving_directory dataset/train/resized \
        --datapoints_input_path dataset/train/points.json \
        --datapoints_output_path dataset/train/points-resized.json

Decodes each photo to its end, makes it RGB in sRGB, shrinks it so that its longer side is at most --max_side
(none is enlarged), and writes <id>.jpg: about 20 kB a photo at 256 pixels. One that already is what is asked
for keeps its bytes. EXIF orientation is neither applied nor handed on: the boxes are in the frame of the
stored pixels, and only --rotate_upright turns the two together.

Photos that are missing, truncated, damaged in the picture, unreadable, too_large or too_small are listed in
process_failures.csv beside the resized photos and left out of the output datapoints, which gain `width` and
`height` in pixels. Without --image_saving_directory the photos are replaced in place, each at once and whole;
broken ones stay. Run again, it goes on where it stopped; process_settings.json in the folder says what its
photos were made with, and other settings need --overwrite. What was shrunk in place cannot grow again.

Folders and files may be on an object store, by an address such as s3://bucket/photos.

Exit codes: 0 done, the counts say what was lost; 1 bad input, no photo at all, or more than --max_failures;
2 wrong flags; 130 interrupted.
"""

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from common.cli import InputError, make_parser, print_counts, progress, run, whole_number
from common.files.failures import Failure, FailureList, parse_failure_limit
from common.files.json_files import json_writer
from common.files.storage import Status, is_folder, is_same_place, parse_path, statuses
from common.files.whole_files import locked_folder, sweep_parts
from common.images.finished import FinishedImages, make_stamp
from common.images.fit import FITS, parse_turn
from common.images.flags import add_image_flags, image_settings
from common.images.header import REASONS
from common.images.process import ImageSettings
from common.images.tasks import Done, Task, finished_point, process_batch
from common.openimages.ids import image_file_name
from common.workers.batches import add_scheduler_flag, batches, open_workers, usable_cores
from common.workers.window import Workers

BATCH = 64  # images a task: a quarter of a second of work, two hundred times what its transfer takes
PACKAGES = ("numpy", "pillow", "simplejpeg")  # the bytes of the photos depend on them
COUNTS = ("images", "resized", "unchanged", "damaged_kept", "already_there", "failed", "missing", *REASONS)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    source = parse_path(args.image_directory)
    target = parse_path(args.image_saving_directory or source)
    if args.dask_scheduler:  # whose workers stand in other folders
        source, target = source.absolute(), target.absolute()
    settings = image_settings(args)
    points_in, points_out = map(parse_path, (args.datapoints_input_path, args.datapoints_output_path))
    failures_path = parse_path(args.failures_path or target / "process_failures.csv")
    originals = statuses(source)
    photos = originals if source == target else statuses(target)

    def report(counts: dict[str, int]) -> None:
        print_counts(counts)
        if counts["failed"] == counts["images"]:
            raise InputError(f"none of the {counts['images']} photos can be used, see {failures_path}")
        if args.max_failures:
            args.max_failures.check(counts["failed"], counts["images"])

    with (
        locked_folder(target),
        FinishedImages(target, asdict(settings), overwrite=args.overwrite) as finished,
    ):
        sweep_parts(target, image_file_name("", settings.format))
        files = (points_in, points_out, failures_path)
        counts = finished.counts_if_unchanged(
            files,
            original=lambda image_id: originals(image_file_name(image_id)),
            photo=lambda image_id: photos(image_file_name(image_id, settings.format)),
        )
        if counts:
            report(counts)
            return
        with (
            open_workers(args.workers, args.dask_scheduler, PACKAGES, [source], [target]) as workers,
            FailureList(failures_path) as failures,
            json_writer(points_out) as write,
        ):
            tasks = read_tasks(points_in, originals, settings, finished)
            work = partial(process_batch, source=source, target=target, settings=settings)
            counts, failed = process_all(tasks, work, settings, workers, write, failures, finished)
            report(counts)
        if args.dask_scheduler:
            sweep_parts(target, image_file_name("", settings.format))  # of workers that were lost
        again = {"resized": 0, "unchanged": 0, "damaged_kept": 0}
        there = counts["images"] - counts["failed"]
        finished.note_complete(files, counts | again | {"already_there": there}, failed)


def read_tasks(
    path: Path,
    originals: Callable[[str], Status | None],
    settings: ImageSettings,
    finished: FinishedImages,
) -> Iterator[tuple[dict[str, Any], Task]]:
    """Yield each datapoint and what is to be done for it.

    An id that comes twice is an error: two workers would write its photo at once.
    """
    from common.openimages.datapoints import read_raw_datapoints

    for _, point in read_raw_datapoints(path):
        image_id, rotation = point["id"], point.get("rotation")
        turn = parse_turn(rotation) if settings.rotate_upright else 0
        if turn is None:
            what = f"rotation of {image_id} is {rotation!r:.80}"
            raise InputError(f"{path}: {what}, 0, 90, 180 or 270 was expected")
        stamp = make_stamp(image_id, originals(image_file_name(image_id)), turn)
        known = finished.take(image_id, stamp)
        if known is None:
            raise InputError(f"{path}: image {image_id} is there twice")
        yield point, Task(image_id, turn, stamp, known)


def process_all(
    tasks: Iterator[tuple[dict[str, Any], Task]],
    work: Callable[[list[Task]], list[Done | Failure]],
    settings: ImageSettings,
    workers: Workers,
    write: Callable[[dict[str, Any]], None],
    failures: FailureList,
    finished: FinishedImages,
) -> tuple[dict[str, int], dict[str, str]]:
    """Process all images, write the datapoints and failures; return the counts, and stamps of what failed."""
    counts = dict.fromkeys(COUNTS, 0)
    failed: dict[str, str] = {}
    waiting: deque[tuple[dict[str, Any], Task]] = deque()  # those under way

    def under_way() -> Iterator[Task]:
        for point, task in tasks:
            waiting.append((point, task))
            yield task

    size = BATCH * workers.batch_factor
    with progress(None, "photo", "photos") as bar:
        for results in workers.map(work, batches(under_way(), size)):
            for result in results:
                point, task = waiting.popleft()
                counts["images"] += 1
                if isinstance(result, Failure):
                    counts["failed"] += 1
                    counts[result.reason] += 1
                    failures.add(result)
                    failed[task.id] = "" if result.in_passing else task.stamp  # "" is no photo's stamp
                else:
                    counts[result.how] += 1
                    write(finished_point(point, task.turn, result.fit, settings))
            finished.add([result.stamp for result in results if isinstance(result, Done) and result.stamp])
            bar.update(len(results))
    failures.finish(failed)
    return counts, failed


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--image_directory", required=True, metavar="IMAGE_DIRECTORY_PATH",
        help="folder of the photos, <id>.jpg",
    )  # fmt: skip
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
    add_image_flags(parser, FITS)
    add(
        "--format", choices=("jpeg", "png"), default="jpeg",
        help="<id>.jpg or <id>.png (default: %(default)s)",
    )  # fmt: skip
    add("--rotate_upright", action="store_true", help="turn photos and boxes by the datapoints' rotation")
    add(
        "--workers", type=whole_number(1), default=usable_cores(), metavar="N",
        help="processes on this machine (default: one a core, %(default)s here)",
    )  # fmt: skip
    add_scheduler_flag(parser)
    add("--overwrite", action="store_true", help="make photos anew that were made with other settings")
    add(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="exit 1 and write no datapoints when more photos than this fail (default: no limit)",
    )  # fmt: skip
    add(
        "--failures_path", metavar="FAILURES_PATH",
        help="list of the photos left out (default: process_failures.csv beside the resized photos)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    check_folders(args, parser)
    return args


def check_folders(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what cannot be: no photos to read, or in place what would be done again to the result."""
    source = parse_path(args.image_directory)
    if not is_folder(source):
        raise InputError(f"{source}: no such folder, one with photos was expected")
    points_in, points_out = parse_path(args.datapoints_input_path), parse_path(args.datapoints_output_path)
    if is_same_place(points_in, points_out):
        parser.error(f"{points_out} is the datapoints' input: what fails once would be gone from it for good")
    target = args.image_saving_directory
    if target and is_same_place(source, parse_path(target)):
        target = args.image_saving_directory = None
    if not target:
        for flag, given in (
            ("--rotate_upright", args.rotate_upright), ("--fit pad", args.fit == "pad"),
            ("--format png", args.format == "png"),
        ):  # fmt: skip
            if given:
                parser.error(f"{flag} needs an --image_saving_directory other than the --image_directory")


if __name__ == "__main__":
    run(main)
