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

HTTP_PROXY, HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE are honoured. Exit codes: 0 done, the counts say what
was lost; 1 bad input, no photo at all, a full disk, no network, or more than --max_failures; 2 wrong flags;
130 interrupted.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import InputError, make_parser, print_counts, progress, run, whole_number
from common.failures import Failure, FailureList, parse_failure_limit
from common.files import locked_folder, sweep_parts
from common.openimages import image_file_name, parse_number
from common.parallel import usable_cores

if TYPE_CHECKING:
    from common.downloader import DownloadSettings, Photo

MIRROR = "https://open-images-dataset.s3.amazonaws.com"
SOURCES = ("mirror", "original", "thumbnail")
USER_AGENT = "open-images-to-tfrecords/1.0"
# With 50 ms before each answer 16, 32, 64 and 128 threads in two processes fetched 207, 270, 269 and 238
# photos a second on two busy cores (benchmarks/download.py, one round): from 32 on the CPU is full.
THREADS = 32
FIRST = 200  # photos; when all of them fail in passing, the fault is not theirs
MEGABYTE = 10**6
REASONS = (
    "gone", "forbidden", "changed", "not_an_image", "too_large", "bad_url", "no_source",
    "rate_limited", "server_error", "timeout", "connection", "tls",
)  # fmt: skip
COUNTS = ("images", "downloaded", "already_there", "failed", *REASONS, "bytes")


class Tally:
    """The counts, and the photos that are not there, in the order they failed."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.asked = 0
        self.first: list[Failure] = []  # the photos asked for first, as long as all failed in passing

    def add(self, size: int, failure: Failure | None) -> None:
        """Count what came of a photo asked for; InputError when the first ones all failed in passing."""
        from common.fetch import IN_PASSING

        if failure and failure.reason in IN_PASSING and self.asked == len(self.first) < FIRST:
            self.first.append(failure)
        self.asked += 1
        if failure:
            self.add_failure(failure)
        else:
            self.counts.update(downloaded=1, bytes=size)
        if self.asked == len(self.first) == FIRST:
            raise InputError(f"the first {FIRST} photos all failed, {self.cause()}")

    def add_failure(self, failure: Failure) -> None:
        """Count a photo that is not there."""
        self.counts.update(("failed", failure.reason))

    def short(self) -> str:
        """Return what stands beside the progress bar."""
        return f"{self.counts['bytes'] / 1e9:.2f} GB, {self.counts['failed']} failed"

    def cause(self) -> str:
        """Return the fault that most of the first photos have, by way of an example."""
        (reason, number), *_ = Counter(failure.reason for failure in self.first).most_common(1)
        one = next(failure for failure in self.first if failure.reason == reason)
        return f"{number} of them with {reason}: {one.detail} ({one.url})"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    order = args.image_source
    index = Path(args.images_path)
    folder = Path(args.images_output_directory)
    failures_path = args.failures_path or folder / "download_failures.csv"

    from common.downloader import download
    from common.photo_index import check_index, photos_in, photos_of, skip_refused
    from common.refusals import Refusals

    if args.dry_run:
        print_counts(plan(index, folder, order, args.mirror_url, forget=args.retry_failed))
        return
    settings = make_settings(args, folder)
    with locked_folder(folder):
        sweep_parts(folder, image_file_name(""))
        there = check_index(index, photos_in(folder))
        tally = Tally()
        tally.counts.update(images=len(there), already_there=sum(there.values()))
        with (
            FailureList(failures_path) as failures,
            Refusals(folder, forget=args.retry_failed) as refusals,
            progress(len(there), "photo", "photos") as bar,
        ):
            bar.update(tally.counts["already_there"])

            def wanted() -> "Iterator[Photo]":
                for photo in photos_of(index, there, order, args.mirror_url):
                    known = skip_refused(photo, refusals)
                    if isinstance(known, Failure):
                        failures.add(known)
                        tally.add_failure(known)
                        bar.update()
                    else:
                        yield known

            with closing(download(wanted(), settings)) as outcomes:
                for outcome in outcomes:
                    refusals.add(outcome.refused)
                    if outcome.failure:
                        failures.add(outcome.failure)
                    else:
                        there[outcome.id] = True
                    tally.add(outcome.size, outcome.failure)
                    bar.set_postfix_str(tally.short(), refresh=False)
                    bar.update()
            failures.finish(image_id for image_id, is_there in there.items() if not is_there)
    print_counts(tally.counts)
    check_end(tally, failures_path, args.max_failures)


def plan(index: Path, folder: Path, order: list[str], mirror: str, *, forget: bool) -> dict[str, int]:
    """Return how many photos would be asked for, and the bytes of those whose size the index knows.

    The size is that of the original: it is known of the photos whose first source that is.
    """
    from common.photo_index import check_index, photos_in, photos_of, skip_refused
    from common.refusals import Refusals

    with locked_folder(folder) if folder.exists() else nullcontext():
        there = check_index(index, photos_in(folder) if folder.exists() else set())
        refusals = Refusals(folder, forget=forget)
        counts = Counter(images=len(there), already_there=sum(there.values()), to_download=0, refused=0)
        counts.update(size_known=0, bytes=0)
        for photo in photos_of(index, there, order, mirror):
            known = skip_refused(photo, refusals)
            if isinstance(known, Failure):
                counts["refused"] += 1
                continue
            size = known.sources[0].size
            counts.update(to_download=1, size_known=size is not None, bytes=size or 0)
    return counts


def check_end(tally: Tally, failures_path: Path, limit: Any) -> None:
    """Raise InputError where nothing is there, or more failed than the user allows."""
    images, failed = tally.counts["images"], tally.counts["failed"]
    if failed == images:
        why = f", {tally.cause()}" if len(tally.first) == failed else ""
        raise InputError(f"none of the {images} photos is there{why}; see {failures_path}")
    if limit:
        limit.check(failed, images)


# --- the command line ----------------------------------------------------------------------------


def make_settings(args: argparse.Namespace, folder: Path) -> "DownloadSettings":
    """Return the settings of the downloader, with what the environment says of proxies and certificates."""
    from urllib.request import getproxies

    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    from common.downloader import DownloadSettings
    from common.fetch import FetchSettings

    environment = os.environ.get
    bundle = environment("REQUESTS_CA_BUNDLE") or environment("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    if not os.path.exists(bundle):
        raise InputError(f"{bundle}: no such file, REQUESTS_CA_BUNDLE names certificates")
    proxies = getproxies()
    for name, url in proxies.items():
        if name != "no" and not url.lower().startswith(("http://", "https://")):
            raise InputError(f"{name.upper()}_PROXY is {url!r}, an http:// or https:// address was expected")
    fetch = FetchSettings(
        user_agent=args.user_agent,
        max_bytes=args.max_megabytes * MEGABYTE,
        max_per_host=args.max_per_host,
        ignore_robots_tag=args.ignore_robots_tag,
        ca_bundle=bundle,
        proxies=proxies,
    )
    return DownloadSettings(
        folder, args.processes, args.threads, args.deadline, args.retries, args.backoff, args.max_pause, fetch
    )


def parse_sources(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(SOURCES) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list out of {','.join(SOURCES)}")
    return names


def parse_base(text: str) -> str:
    from common.fetch import url_problem

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
    add(
        "--processes", type=whole_number(1, most=256), default=min(usable_cores(), 8), metavar="N",
        help="processes the threads run in (default: one a core, at most 8, %(default)s here)",
    )  # fmt: skip
    add(
        "--threads", type=whole_number(1, most=4096), default=THREADS, metavar="N",
        help="photos fetched at the same time, over all processes (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max_per_host", type=whole_number(1, most=4096), default=32, metavar="N",
        help="connections to one host at most (default: %(default)s)",
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
    add("--dry_run", action="store_true", help="say how much would be downloaded, and change nothing")
    add("--retry_failed", action="store_true", help="ask again for photos that failed for good")
    add(
        "--max_failures", type=parse_failure_limit, metavar="N|P%",
        help="exit 1 when more photos than this fail (default: no limit)",
    )  # fmt: skip
    add(
        "--failures_path", type=Path, metavar="FAILURES_PATH",
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
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
