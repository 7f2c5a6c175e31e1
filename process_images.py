#!/usr/bin/env python3
r"""Check and resize the images, and keep the datapoints of those that can be used.

    python3 process_images.py \
        --image_directory dataset/train/photos \
        --image_saving_directory dataset/train/resized \
        --datapoints_input_path dataset/train/points.json \
        --datapoints_output_path dataset/train/points-resized.json

Each image is decoded to its end, converted to RGB in sRGB, resized so that its longer side is at most
--max_side (none is enlarged), and written as <id>.jpg: about 20 kB an image at 256 pixels. An image that
already is as asked keeps its bytes. EXIF orientation is neither applied nor written: Open Images' boxes are
in the frame of the stored pixels, and --rotate_upright turns images and boxes together. Most annotation tools
show images upright: for boxes drawn there, --exif_upright turns the images and leaves boxes and masks as they
are. turned_by_exif counts the images whose orientation is not upright, applied or not.

On disk an image may also be in a sub-folder (train/<id>.jpg) or end in .jpeg or .png, in either case.

Images that are missing, truncated, damaged (inside the image data), unreadable, too_large or too_small are
listed in process_failures.csv beside the resized images and left out of the output datapoints, which gain
`width` and `height` in pixels. Without --image_saving_directory each image is replaced in place as soon as it
is resized; images that cannot be used stay as they are. If a run is interrupted, run the same command again:
it resumes. process_settings.json in the folder holds the settings of its images; other settings need
--overwrite. Images resized in place cannot become larger again.

With --masks_directory each annotation's `mask`, the name of a PNG, becomes its pixels: COCO's run-length
encoding {"size": [height, width], "counts": "..."} at the size of the resized image, resized, turned and
padded as the image is. The PNGs are read out of a release's zips where they are, or from a folder. A box
whose mask is missing, unreadable, empty, vanished at this size, or of another shape than its image (the
ratios of width to height differ by over 2 %) is kept without it, and counted.

Folders and files may be on an object store, by an address such as s3://bucket/photos, except the masks.

Exit codes: 0 done, the counts say what was lost; 1 bad input, no usable image, or more than --max_failures;
2 wrong flags; 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from common.cli import InputError, make_parser, print_counts, progress, run, whole_number
from common.files.failures import Failure, FailureLimit, FailureList
from common.files.json_files import count_elements, json_writer
from common.files.places import folder_of, is_folder, is_same_place, parse_path
from common.files.whole_files import locked_folder
from common.images.finished import TAKEN, FinishedImages, FinishedMasks
from common.images.header import BAD_IMAGE_REASONS
from common.images.masks import MASK_REASONS, find_mask_files
from common.images.settings import FITS, add_image_flags, image_settings, warn_of_exif
from common.images.tasks import ImageResult, ImageTask, finished_point, mask_names, parse_turn, process_batch
from common.openimages.funnel import Stage, add_stage, counts_path, lost_of, read_stages, write_stages
from common.openimages.ids import ImageFiles, image_file_name
from common.workers.pool import Workers, batches, usable_cores
from common.workers.scheduler import add_scheduler_flag, open_workers

BATCH_IMAGES = 64  # of a task, which takes a quarter of a second
PACKAGES = ("numpy", "pillow", "simplejpeg")  # the bytes of the images depend on them
MASK_PACKAGES = (*PACKAGES, "pycocotools")
MADE, LOST = ("resized", "unchanged", "damaged_kept", "already_there"), ("missing", *BAD_IMAGE_REASONS)
LOST_MASKS = [f"masks_{reason}" for reason in MASK_REASONS]

Planned = tuple[dict[str, Any], ImageTask, ImageResult | None]  # a datapoint, its task, or what exists


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    settings = image_settings(args)
    source, target = args.image_directory, args.image_saving_directory
    points_path, output_path = args.datapoints_input_path, args.datapoints_output_path
    mask_files = find_mask_files(args.masks_directory) if args.masks_directory else None
    reads, packages = ([source, args.masks_directory], MASK_PACKAGES) if mask_files else ([source], PACKAGES)
    failures_path = parse_path(args.failures_path or target / "process_failures.csv")
    half_written = f".*{image_file_name('', settings.format)}"
    counted = ["images", *MADE, "failed", *LOST, "turned_by_exif"]
    counts = Counter(dict.fromkeys([*counted, "masks", *LOST_MASKS] if mask_files else counted, 0))
    failed: list[str] = []
    has_rotation = False
    with (
        locked_folder(target),
        FinishedImages(target, settings, overwrite=args.overwrite) as finished,
        FinishedMasks(target, settings, mask_files) if mask_files else nullcontext() as masks,
        open_workers(args.workers, args.dask_scheduler, packages, reads, [target]) as workers,
        FailureList(failures_path) as failures,
        json_writer(output_path) as write,
    ):
        folder_of(target).sweep(half_written)
        planned = plan_images(points_path, source, finished, masks)
        work = partial(process_batch, source=source, target=target, settings=settings, mask_files=mask_files)
        with progress(count_elements(points_path), "image", "images") as bar:
            for point, result in process_all(planned, work, workers, finished, masks):
                count(counts, result)
                has_rotation |= point.get("rotation") not in (None, "")
                if isinstance(result, Failure):
                    failures.note(result)
                    failed.append(result.id)
                else:
                    write(finished_point(point, result, settings))
                bar.update()
        failures.finish(failed)
        folder_of(target).sweep(half_written)  # of workers of a cluster that were lost
        lost = [*LOST, *LOST_MASKS]
        print_counts(counts, came_in=["images"], went_out=[*MADE, "masks"], lost=lost, line_only=["failed"])
        warn_of_exif(counts["turned_by_exif"], settings, has_rotation=has_rotation, in_place=source == target)
        check_enough(counts, failures_path, args.masks_directory, args.max_failures)
    kept = counts["images"] - len(failed)
    verified = Stage(5, "verified", counts["images"], kept, lost_of(counts, LOST))
    write_stages(counts_path(output_path), add_stage(read_stages(points_path, source), verified), output_path)


def plan_images(
    path: str, source: Path, finished: FinishedImages, masks: FinishedMasks | None
) -> Iterator[Planned]:
    """Yield each datapoint with its task and, where that is done already, the result."""
    from common.openimages.datapoints import read_raw_datapoints

    files = ImageFiles(source)
    originals = finished.status if source == finished.folder else folder_of(source).statuses()
    for line, point in read_raw_datapoints(path):
        image_id, where = point["id"], f"{path}:{line}"
        if finished.row_of.get(image_id) == TAKEN:  # two workers would write one file
            raise InputError(f"{where}: duplicate image id {image_id}")
        turn = parse_turn(point, where) if finished.settings.rotate_upright else 0
        names = mask_names(point, where) if masks else ()
        file = files.find(image_id)
        if source == finished.folder and file != image_file_name(image_id):
            wanted = "only <id>.jpg directly in the folder is resized in place"
            raise InputError(f"{source}/{file}: {wanted}; give an --image_saving_directory")
        original = originals(file)
        image = finished.take(image_id, original, turn)
        found = masks.find(image, names) if image and masks and names else ()
        result = ImageResult("already_there", image, found) if image and found is not None else None
        yield point, ImageTask(image_id, file, turn, original, image, names), result


def process_all(
    planned: Iterable[Planned], work: partial[list[ImageResult | Failure]], workers: Workers,
    finished: FinishedImages, masks: FinishedMasks | None,
) -> Iterator[tuple[dict[str, Any], ImageResult | Failure]]:  # fmt: skip
    """Yield each datapoint and its image's result, noted if it is new, while the workers process others."""
    under_way: deque[list[Planned]] = deque()

    def tasks() -> Iterator[list[ImageTask]]:
        for batch in batches(planned, BATCH_IMAGES * workers.batch_factor):
            under_way.append(batch)
            yield [task for _, task, done in batch if not done]

    for results in workers.map(work, tasks()):
        made = iter(results)
        for point, task, done in under_way.popleft():
            result = done or next(made)
            if not done and isinstance(result, ImageResult):
                finished.add(result.image.line())
                if masks:
                    masks.note(result.image, task.masks, result.masks)
            yield point, result


def count(counts: Counter[str], result: ImageResult | Failure) -> None:
    """Count the result of an image, and its masks."""
    if isinstance(result, Failure):
        counts.update(("images", "failed", result.reason))
    else:
        masks = [f"masks_{mask.reason}" if mask.reason else "masks" for mask in result.masks]
        counts.update(("images", result.how, *masks))
        counts["turned_by_exif"] += result.image.orientation > 1


def check_enough(
    counts: Counter[str], failures_path: Path, masks_folder: Path | None, limit: FailureLimit | None
) -> None:
    """Raise InputError if no image or no mask can be used, or more images failed than the user allows."""
    if counts["failed"] == counts["images"]:
        raise InputError(f"none of the {counts['images']} images can be used, see {failures_path}")
    if masks_folder and not counts["masks"]:
        number = sum(counts[name] for name in LOST_MASKS)
        found = f"none of the {number} masks can be used" if number else "no usable image has a mask"
        raise InputError(f"{masks_folder}: {found}: check step 3's --masks_input_path")
    if limit:
        limit.check(counts["failed"], counts["images"])


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--image_directory", type=parse_path, required=True, metavar="IMAGE_DIRECTORY_PATH",
        help="folder of images, <id>.jpg")  # fmt: skip
    add("--image_saving_directory", type=parse_path, metavar="RESIZED_DIRECTORY_PATH",
        help="folder for the resized images (default: they replace the originals)")  # fmt: skip
    add("--datapoints_input_path", required=True, metavar="DATAPOINTS_INPUT_PATH", help="written by step 3")
    add("--datapoints_output_path", required=True, metavar="DATAPOINTS_OUTPUT_PATH",
        help="where to write the datapoints of the images that can be used")  # fmt: skip
    add_image_flags(parser, FITS)
    add("--masks_directory", type=parse_path, metavar="MASKS_DIRECTORY",
        help="folder of mask zips, or of PNGs: write masks as pixels (default: as names)")  # fmt: skip
    add("--format", choices=("jpeg", "png"), default="jpeg", help="of the images (default: %(default)s)")
    add("--rotate_upright", action="store_true", help="turn images and boxes by the datapoints' rotation")
    add("--workers", type=whole_number(1), default=usable_cores(), metavar="N",
        help="worker processes on this machine (default: one a core, %(default)s here)")  # fmt: skip
    add_scheduler_flag(parser)
    add("--overwrite", action="store_true", help="make images again that were made with other settings")
    add("--max_failures", type=FailureLimit, metavar="N|P%",
        help="exit 1 and write no datapoints when more than this fail (default: no limit)")  # fmt: skip
    add("--failures_path", metavar="FAILURES_PATH",
        help="list of the images left out (default: process_failures.csv beside the images)")  # fmt: skip
    args = parser.parse_args(argv)
    if args.rotate_upright and args.exif_upright:
        parser.error("--rotate_upright is for boxes on stored pixels, --exif_upright for upright ones")
    if not is_folder(args.image_directory):
        raise InputError(f"{args.image_directory}: no such folder, one with images was expected")
    points_in, points_out = parse_path(args.datapoints_input_path), parse_path(args.datapoints_output_path)
    if is_same_place(points_in, points_out):
        parser.error(f"{points_out} is also the input: an image that fails once would be lost from it")
    target = args.image_saving_directory
    if not target or is_same_place(args.image_directory, target):
        # In place a second run would turn or pad its own result again.
        args.image_saving_directory = args.image_directory
        refused = {
            "--rotate_upright": args.rotate_upright,
            "--fit pad": args.fit == "pad",
            "--format png": args.format == "png",
            # which has lost the shape that masks are compared with
            "--masks_directory with --fit stretch": args.masks_directory and args.fit == "stretch",
        }
        for flag in filter(refused.get, refused):
            parser.error(f"{flag} needs an --image_saving_directory other than the --image_directory")
    if args.dask_scheduler:  # whose workers run in other folders
        for name in ("image_directory", "image_saving_directory", "masks_directory"):
            if place := getattr(args, name):
                setattr(args, name, place.absolute())
    return args


if __name__ == "__main__":
    run(main)
