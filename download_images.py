#!/usr/bin/env python3
r"""Download the photos of an image index, each whole and checked, as <id>.jpg.

    python3 download_images.py \
        --images_path dataset/validation/images.json \
        --images_output_directory dataset/validation/photos

Each photo is asked for at its sources in turn: the mirror (the photos with boxes, at most 1024 pixels, 300 kB
on average), then the address in the index (the original, 2 MB on average). The next source is asked when one
says for good that it has not got the photo, or gives something that is not it; never for a fault in passing,
which is tried again --retries times and then left for the next run. So the same photos come each time.

Run again, it goes on where it stopped: photos that are there are skipped, what failed in passing is tried
again, and what a source refused for good only with --retry_failed. Photos that are not there at the end are
listed in download_failures.csv in the folder, with one of these reasons:

    for good:    gone forbidden changed not_an_image too_large bad_url no_source
    in passing:  rate_limited server_error timeout connection tls

With --max_side photos are verified and shrunk as they come in, by the code and with the flags of
process_images.py, and no original touches the disk: the folder is as if that step had worked on it in place
afterwards, without the photos that are of no use. They are listed, for good, as truncated, damaged,
unreadable, too_large or too_small, and asked for nowhere else. What is there already is shrunk where it lies.

Index, folder and list may be on an object store, by an address such as s3://bucket/photos.

HTTP_PROXY, HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honoured, on a cluster those of each worker.
Exit codes: 0 done, the counts say what was lost; 1 bad input, no photo at all, a full disk, no network, or
more than --max_failures; 2 wrong flags; 130 interrupted.
"""

import argparse
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import make_parser, print_counts, progress, run, whole_number
from common.files.csv_files import parse_number
from common.files.failures import Failure, FailureList, parse_failure_limit
from common.files.storage import is_folder, parse_path
from common.files.whole_files import locked_folder, sweep_parts
from common.images.settings import ImageSettings, add_image_flags, given_image_flags, image_settings
from common.openimages.ids import image_file_name
from common.workers.batches import add_scheduler_flag, open_workers, usable_cores

if TYPE_CHECKING:
    from common.download.refusals import Refusals
    from common.download.tally import Tally
    from common.download.threads import DownloadSettings, Outcome, Photo
    from common.workers.window import Workers

MIRROR = "https://open-images-dataset.s3.amazonaws.com"
SOURCES = ("mirror", "original", "thumbnail")
USER_AGENT = "open-images-to-tfrecords/1.0"
# With 50 ms before each answer 8, 16, 32, 64 and 128 threads in two processes fetched 151, 300, 586, 1,086
# and 1,350 photos of 210 kB a second (two cores shared with the server, as many connections): nearly in step
# until 64, from 128 on the CPU is full. 32 fill a link of 1 Gbit/s, and are polite.
THREADS = 32
PACKAGES = ("requests", "urllib3")  # of the workers of a cluster
SHRINKING_PACKAGES = ("numpy", "pillow", "simplejpeg")  # the bytes of the photos depend on them
MEGABYTE = 10**6
FITS = ("longer", "shorter", "stretch")  # what is padded could not be told from the photo afterwards


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    index, folder = parse_path(args.images_path), parse_path(args.images_output_directory)
    if args.dask_scheduler:  # whose workers stand in other folders
        folder = folder.absolute()
    failures_path = parse_path(args.failures_path or folder / "download_failures.csv")
    shrink = image_settings(args) if args.max_side else None

    from common.download.refusals import Refusals
    from common.download.shrunk_folder import mark_finished, shrunk_photos
    from common.download.sources import THERE, check_index, mark_photos, photos_of, plan
    from common.download.tally import Tally

    settings = make_settings(args, folder, shrink)
    tally = Tally(shrinking=shrink is not None)
    with locked_folder(folder) if is_folder(folder) or not args.dry_run else nullcontext():
        there = check_index(index)
        mark_photos(there, folder)
        photos = photos_of(index, there, args.image_source, args.mirror_url)
        refusals = Refusals(folder, forget=args.retry_failed, asked=str(shrink or ""))
        if args.dry_run:
            mark_finished(there, folder, shrink, overwrite=args.overwrite)
            print_counts(plan(photos, there, refusals))
            return
        sweep_parts(folder, image_file_name(""))
        packages = PACKAGES + (SHRINKING_PACKAGES if shrink else ())
        with (
            open_workers(args.processes, args.dask_scheduler, packages, [], [folder]) as workers,
            shrunk_photos(folder, there, shrink, overwrite=args.overwrite, workers=workers) as note,
            FailureList(failures_path) as failures,
            refusals,
        ):
            download_all(photos, there, settings, workers, refusals, failures, tally, note)
            failures.finish(image_id for image_id, state in there.items() if state < THERE)
        if args.dask_scheduler:
            sweep_parts(folder, image_file_name(""))  # of workers that were lost
    print_counts(tally.counts)
    tally.check_end(failures_path, args.max_failures)


def download_all(
    photos: "Iterator[Photo]",
    there: dict[str, int],
    settings: "DownloadSettings",
    workers: "Workers",
    refusals: "Refusals",
    failures: FailureList,
    tally: "Tally",
    note_finished: Callable[[str], None],
) -> None:
    """Download the photos that may be asked for, and write down at once what comes of each."""
    from common.download.sources import THERE, count_there, skip_refused

    tally.counts.update(images=len(there), already_there=count_there(there))
    with progress(len(there), "photo", "photos") as bar:
        bar.update(tally.counts["already_there"])

        def wanted() -> "Iterator[Photo]":
            for photo in photos:
                known = skip_refused(photo, refusals)
                if isinstance(known, Failure):
                    failures.add(known)
                    tally.add_failure(known)
                    bar.update()
                else:
                    yield known

        with closing(begin_download(wanted(), len(there), settings, workers)) as outcomes:
            for outcome in outcomes:
                refusals.add(outcome.refused, outcome.failure if outcome.broken else None)
                if outcome.failure:
                    failures.add(outcome.failure)
                else:
                    there[outcome.id] = THERE
                    if outcome.saved:
                        note_finished(outcome.saved.line)
                tally.add(outcome)
                bar.set_postfix_str(tally.short(), refresh=False)
                bar.update()


def begin_download(
    photos: "Iterator[Photo]", most: int, settings: "DownloadSettings", workers: "Workers"
) -> "Generator[Outcome, None, None]":
    """Return what comes of each photo, of `most` at most, here or on a cluster."""
    if workers.on_this_machine:
        from common.download.processes import download

        return download(photos, settings)
    from common.download.on_cluster import download_on

    return download_on(workers, photos, most, settings)  # type: ignore[arg-type]


# --- the command line ----------------------------------------------------------------------------


def make_settings(args: argparse.Namespace, folder: Path, shrink: ImageSettings | None) -> "DownloadSettings":
    """Return the settings of the downloader, with what the environment says of proxies and certificates."""
    from common.download.environment import ca_bundle, read_proxies
    from common.download.fetch import FetchSettings
    from common.download.threads import DownloadSettings

    fetch = FetchSettings(
        user_agent=args.user_agent,
        max_bytes=args.max_megabytes * MEGABYTE,
        max_per_host=args.max_per_host,
        ignore_robots_tag=args.ignore_robots_tag,
        ca_bundle=ca_bundle(),
        proxies=read_proxies(),
    )
    return DownloadSettings(
        folder=folder,
        processes=args.processes,
        threads=args.threads,
        deadline=args.deadline,
        retries=args.retries,
        backoff=args.backoff,
        max_pause=args.max_pause,
        fetch=fetch,
        shrink=shrink,
    )


def parse_sources(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(SOURCES) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list out of {','.join(SOURCES)}")
    return names


def parse_base(text: str) -> str:
    from common.download.fetch import url_problem

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
        raise argparse.ArgumentTypeError(f"{text!r} is not plain text")
    return text


def add_fetch_flags(parser: argparse.ArgumentParser) -> None:
    """Add how many photos are fetched at a time, and for how long each is tried."""
    add = parser.add_argument
    add(
        "--processes", type=whole_number(1, most=256), default=min(usable_cores(), 8), metavar="N",
        help="processes here the threads run in (default: one a core, at most 8, which is %(default)s)",
    )  # fmt: skip
    add_scheduler_flag(parser)
    add(
        "--threads", type=whole_number(1, most=4096), default=THREADS, metavar="N",
        help="photos fetched at the same time, in all (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max_per_host", type=whole_number(1, most=4096), default=32, metavar="N",
        help="connections to one host at most, in all (default: %(default)s)",
    )  # fmt: skip
    add(
        "--deadline", type=parse_seconds, default=120, metavar="SECONDS",
        help="for a photo in all, pauses that a host asks for not counted (default: %(default)s)",
    )  # fmt: skip
    add(
        "--retries", type=whole_number(0, most=100), default=4, metavar="N",
        help="further tries after faults in passing (default: %(default)s)",
    )  # fmt: skip
    add(
        "--backoff", type=parse_seconds, default=1, metavar="SECONDS",
        help="before the first retry, doubled for each further one (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max_pause", type=parse_seconds, default=300, metavar="SECONDS",
        help="a host that asks for a longer pause is left for the next run (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max_megabytes", type=whole_number(1, most=1000), default=50, metavar="MB",
        help="larger photos are too_large (default: %(default)s)",
    )  # fmt: skip


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--images_path", required=True, metavar="IMAGES_PATH", help="image index of step 3")
    add(
        "--images_output_directory", required=True, metavar="IMAGES_OUTPUT_DIRECTORY",
        help="folder for the photos, <id>.jpg",
    )  # fmt: skip
    add(
        "--image_source", type=parse_sources, default="mirror,original", metavar="SOURCES",
        help="where to ask, in this order, out of mirror,original,thumbnail (default: %(default)s)",
    )  # fmt: skip
    add(
        "--mirror_url", type=parse_base, default=MIRROR, metavar="BASE",
        help="the mirror, photos at BASE/{subset}/{id}.jpg (default: %(default)s)",
    )  # fmt: skip
    add_fetch_flags(parser)
    add_image_flags(parser, FITS, "shrink photos as they come in, to this (default: keep the originals)")
    add("--overwrite", action="store_true", help="fetch anew the photos shrunk with other settings")
    add("--dry_run", action="store_true", help="say how much would be downloaded, and change nothing")
    add("--retry_failed", action="store_true", help="ask again for photos that failed for good")
    add(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="exit 1 when more photos than this fail (default: no limit)",
    )  # fmt: skip
    add(
        "--failures_path", metavar="FAILURES_PATH",
        help="list of the photos that are not there (default: download_failures.csv beside the photos)",
    )  # fmt: skip
    add(
        "--user_agent", type=parse_user_agent, default=USER_AGENT, metavar="TEXT",
        help="who we say we are (default: %(default)s)",
    )  # fmt: skip
    add(
        "--ignore_robots_tag", action="store_true",
        help="take originals whose server asks for no use in training (X-Robots-Tag: noai, noimageai)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if not args.max_side and (given := given_image_flags(args)):
        parser.error(f"{given[0]} needs --max_side")
    return args


if __name__ == "__main__":
    run(main)
