#!/usr/bin/env python3
r"""Download the images of an index, complete and checked, as <id>.jpg.

    python3 download_images.py \
        --images_path dataset/validation/images.json \
        --images_output_directory dataset/validation/photos

Each image is requested from its sources in turn: the mirror (images with boxes, at most 1024 pixels, 300 kB
on average), then the address in the index (the original, 2 MB on average). The next source is asked when one
refuses the image permanently. After a transient failure the same source is tried again --retries times, then
in the next run; after a web page, such as a sign-in page, only in the next run. So the same images arrive
each time.

If the run is interrupted, run the same command again: it resumes. Images that exist are skipped, transient
failures are tried again, and permanent ones only with --retry_failed. Images that are missing at the end are
listed in download_failures.csv in the folder, with one of these reasons; the commonest is reported:

    permanent:  gone forbidden changed not_an_image too_large bad_url no_source
    transient:  rate_limited server_error web_page timeout connection tls

On disk, images are also found in sub-folders (train/<id>.jpg) and with the endings .jpeg and .png, in either
case; an empty file counts as missing. --refetch FAILURES_CSV downloads the images again that are in a list of
failures, such as process_failures.csv of process_images.py. If a source sends a bad image, the next one is
asked. Only an image that decodes replaces a file. A file that cannot be replaced stays, and its image is
listed. A file newer than the list is kept.

With --max_side images are verified and shrunk as they arrive, by the code and with the flags of
process_images.py, and no original touches the disk: the folder is as if that step had worked on it in place
afterwards, without the images that are unusable. These are listed, permanently, as truncated, damaged,
unreadable, too_large or too_small, and requested from no other source. Images that exist are shrunk in place.

Index, folder and list may be on an object store, by an address such as s3://bucket/photos.

HTTP_PROXY, HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honoured, on a cluster those of each worker.
Exit codes: 0 done, the counts say what was lost; 1 bad input, no image at all, a full disk, no network, or
more than --max_failures; 2 wrong flags; 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import make_parser, print_counts, progress, run, whole_number
from common.files.csv_files import parse_number
from common.files.failures import Failure, FailureLimit, FailureList
from common.files.places import folder_of, is_folder, parse_path
from common.files.whole_files import locked_folder
from common.images.settings import add_image_flags, given_image_flags, image_settings
from common.workers.pool import Workers, usable_cores
from common.workers.scheduler import add_scheduler_flag, open_workers

if TYPE_CHECKING:  # these import requests
    from common.download.outcomes import Refusals, Tally
    from common.download.types import Download, DownloadSettings

MIRROR = "https://open-images-dataset.s3.amazonaws.com"
SOURCES = ("mirror", "original", "thumbnail")
USER_AGENT = "open-images-to-tfrecords/1.0"
THREADS = 32  # with 50 ms before each answer they fill a link of 1 Gbit/s, and are polite
PACKAGES = ("requests", "urllib3")  # of the workers of a cluster
SHRINKING_PACKAGES = ("numpy", "pillow", "simplejpeg")  # the bytes of shrunk images depend on them
MEGABYTE = 10**6
HALF_WRITTEN = r".*\.(?i:jpe?g|png)"  # names of images that a killed run was writing
FITS = ("longer", "shorter", "stretch")  # what is padded could not be told from the image afterwards


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    index, folder = parse_path(args.images_path), parse_path(args.images_output_directory)
    if args.dask_scheduler:  # whose workers run in other folders
        folder = folder.absolute()
    failures_path = parse_path(args.failures_path or folder / "download_failures.csv")
    settings = make_settings(args, folder)
    shrink = settings.shrink

    from common.download import outcomes, sources

    with ExitStack() as stack:
        if is_folder(folder) or not args.dry_run:
            stack.enter_context(locked_folder(folder))
        states = sources.read_states(index, folder, shrinks=shrink is not None)
        refusals = outcomes.Refusals(folder, forget=args.retry_failed, shrink=shrink)
        if shrink:
            sources.mark_finished(states, folder, shrink, args.overwrite, args.dry_run)
        bad = sources.mark_bad(states, folder, parse_path(args.refetch)) if args.refetch else {}
        images = sources.wanted_images(index, states, args.image_source, args.mirror_url, refusals, bad)
        if args.dry_run:
            print_counts(sources.plan(images, states), came_in=["images"])
            return
        for place in {folder, *((folder / file.name).parent for file in bad.values())}:
            folder_of(place).sweep(HALF_WRITTEN)
            stack.callback(folder_of(place).sweep, HALF_WRITTEN)  # of workers that were stopped or lost
        packages = PACKAGES + (SHRINKING_PACKAGES if shrink or bad else ())
        opened = open_workers(args.processes, args.dask_scheduler, packages, [], [folder])
        workers = stack.enter_context(opened)
        if shrink:
            sources.shrink_in_place(states, folder, shrink, workers)
        failures = stack.enter_context(FailureList(failures_path))
        if args.retry_failed:
            refusals.drop()
        stack.enter_context(refusals)
        tally = download_all(images, states, settings, workers, refusals, failures)
        failures.finish(image_id for image_id, state in states.items() if not state)
    tally.finish(folder, failures_path, args.max_failures)


def download_all(
    images: Iterator[Download | Failure], states: dict[str, int], settings: DownloadSettings,
    workers: Workers, refusals: Refusals, failures: FailureList,
) -> Tally:  # fmt: skip
    """Download the images that are worth a request, and write down at once what became of each."""
    from common.download import outcomes, sources
    from common.download.run import download
    from common.files.journal import Journal
    from common.images.finished import JOURNAL_NAME

    present = sum(map(bool, states.values()))
    tally = outcomes.Tally(len(states), present, shrinking=settings.shrink is not None)
    with ExitStack() as stack:
        bar = stack.enter_context(progress(len(states), "image", "images"))
        bar.update(present)
        finished = Journal(settings.folder / JOURNAL_NAME)
        if settings.shrink:
            stack.enter_context(finished)

        def wanted() -> Iterator[Download]:
            for image in images:
                if isinstance(image, Failure):
                    failures.note(image)
                    tally.add_failure(image)
                    bar.update()
                else:
                    yield image

        number = len(states) - present
        for outcome in stack.enter_context(closing(download(wanted(), number, settings, workers))):
            refusals.add(outcome.refused)
            finished.add(outcome.line)
            if outcome.failure:
                failures.note(outcome.failure)
            else:
                states[outcome.id] = sources.PRESENT
            tally.add(outcome)
            bar.set_postfix(GB=tally.counts["bytes"] / 1e9, failed=tally.counts["failed"], refresh=False)
            bar.update()
    return tally


def make_settings(args: argparse.Namespace, folder: Path) -> DownloadSettings:
    from common.download.types import DownloadSettings

    shrink = image_settings(args) if args.max_side else None
    return DownloadSettings(
        folder, args.threads, args.max_per_host, args.deadline, args.retries, args.backoff, args.max_pause,
        args.max_megabytes * MEGABYTE, args.user_agent, args.ignore_robots_tag, shrink,
    )  # fmt: skip


def parse_sources(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SOURCES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(SOURCES)}")
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"duplicate source {name!r}")
    return names


def parse_base(text: str) -> str:
    from common.download.connections import url_problem

    if problem := url_problem(text):
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}")
    return text.rstrip("/")


def parse_seconds(text: str) -> float:
    seconds = parse_number(text)
    if seconds is None or not 0 < seconds <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def parse_user_agent(text: str) -> str:
    if not text.strip() or not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r} is not printable ASCII text")
    return text


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--images_path", required=True, metavar="IMAGES_PATH", help="image index of step 3")
    add("--images_output_directory", required=True, metavar="IMAGES_OUTPUT_DIRECTORY",
        help="folder for the images, <id>.jpg")  # fmt: skip
    add("--image_source", type=parse_sources, default="mirror,original", metavar="SOURCES",
        help="in the order to ask, out of mirror,original,thumbnail (default: %(default)s)")  # fmt: skip
    add("--mirror_url", type=parse_base, default=MIRROR, metavar="BASE",
        help="the mirror, with images at BASE/{subset}/{id}.jpg (default: %(default)s)")  # fmt: skip
    add("--processes", type=whole_number(1, most=256), default=min(usable_cores(), 8), metavar="N",
        help="worker processes that share --threads (default: one a core, at most 8)")  # fmt: skip
    add_scheduler_flag(parser)
    add("--threads", type=whole_number(1, most=4096), default=THREADS, metavar="N",
        help="images downloaded at the same time, in all (default: %(default)s)")  # fmt: skip
    add("--max_per_host", type=whole_number(1, most=4096), default=32, metavar="N",
        help="connections to one host at most, in all (default: %(default)s)")  # fmt: skip
    add("--deadline", type=parse_seconds, default=120, metavar="SECONDS",
        help="for an image in all, without pauses that a host asks for (default: %(default)s)")  # fmt: skip
    add("--retries", type=whole_number(0, most=100), default=4, metavar="N",
        help="further tries after transient failures (default: %(default)s)")  # fmt: skip
    add("--backoff", type=parse_seconds, default=1, metavar="SECONDS",
        help="wait before the first retry, doubled for each further one (default: %(default)s)")  # fmt: skip
    add("--max_pause", type=parse_seconds, default=300, metavar="SECONDS",
        help="leave a host that asks for a longer pause to the next run (default: %(default)s)")  # fmt: skip
    add("--max_megabytes", type=whole_number(1, most=1000), default=50, metavar="MB",
        help="skip images larger than this (reason: too_large; default: %(default)s)")  # fmt: skip
    add_image_flags(parser, FITS, "shrink images as they arrive, to this (default: keep the originals)")
    add("--overwrite", action="store_true", help="download images shrunk with other settings again")
    add("--dry_run", action="store_true", help="report how much would be downloaded, and change nothing")
    add("--retry_failed", action="store_true", help="request images again that failed permanently")
    add("--refetch", metavar="FAILURES_CSV",
        help="download images again that a list such as step 5's names as bad")  # fmt: skip
    add("--max_failures", type=FailureLimit, metavar="N|P%",
        help="exit 1 when more images than this fail (default: no limit)")  # fmt: skip
    add("--failures_path", metavar="FAILURES_PATH",
        help="list of the missing images (default: download_failures.csv beside the images)")  # fmt: skip
    add("--user_agent", type=parse_user_agent, default=USER_AGENT, metavar="TEXT",
        help="the User-Agent of requests (default: %(default)s)")  # fmt: skip
    add("--ignore_robots_tag", action="store_true",
        help="take originals whose server refuses training (X-Robots-Tag: noai, noimageai)")  # fmt: skip
    args = parser.parse_args(argv)
    if not args.max_side and (given := given_image_flags(args)):
        parser.error(f"{given[0]} needs --max_side")
    return args


if __name__ == "__main__":
    run(main)
