"""Cost of a Dask cluster compared with worker processes on this machine's cores: seconds, and their ratio.

    .venv/bin/python -m benchmarks.cluster

Two ways to use the same cores: `--workers`, that is processes of our own, and a cluster of a worker a core.
First tasks of two seconds that only compute, with the start of the processes and the connection to the
scheduler; then process_images.py as a command, on images of 1024 pixels. In interleaved rounds; the median
counts, the ratio is that of medians.
"""

import argparse
import functools
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.tables import print_head, print_in_short, print_row
from common.workers.scheduler import open_workers
from sample.scenes import draw
from tests.support.dask_cluster import cluster

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 2.0  # of one core, a task
TASKS = 6  # a core and round
CONTENTS = 50  # different images; the others are links to these


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--photos", type=int, default=8000, help="default: %(default)s")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}, {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        found = stack.enter_context(cluster(folder / "cluster", workers=cores))
        ways = {"processes": None, "a worker a core": found.address}
        print()
        print_head("work", *ways)
        work = functools.partial(compute, cores, TASKS * cores)
        report(f"{TASKS * cores} tasks of {SECONDS:g} s", ways, args.rounds, work)
        make_photos(folder, args.photos)
        work = functools.partial(process, folder, cores)
        photos = report(f"process_images.py, {args.photos} images", ways, args.rounds, work)
        alone, on_cluster = (args.photos / seconds for seconds in photos)
        print_in_short([("a Dask cluster, images of step 5 a second", on_cluster, [("processes", alone)])])


def report(
    name: str, ways: dict[str, str | None], rounds: int, measure: Callable[[str | None], float]
) -> list[float]:
    """Print and return the median seconds of each way; also print its difference from the first."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]:
            seconds[way].append(measure(ways[way]))
    medians = [statistics.median(each) for each in seconds.values()]
    print_row(name, *(f"{median:.2f} s ({median / medians[0] - 1:+.1%})" for median in medians))
    return medians


@functools.cache
def iterations(seconds: float) -> int:
    """Return the number of hash iterations that take so long on an idle core."""
    number = 200_000
    best = min(timed(number) for _ in range(5))
    return round(number * seconds / best)


def timed(number: int) -> float:
    begun = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", number)
    return time.perf_counter() - begun


def compute(cores: int, tasks: int, scheduler: str | None) -> float:
    """Return the seconds that the tasks take."""
    work = functools.partial(hashlib.pbkdf2_hmac, "sha256", b"", b"")
    number = iterations(SECONDS)
    begun = time.perf_counter()
    with open_workers(cores, scheduler, [], [], []) as workers:
        for _ in workers.map(work, [number] * tasks):
            pass
    return time.perf_counter() - begun


def make_photos(folder: Path, number: int) -> None:
    (folder / "photos").mkdir()
    box = {"id": "x", "label": "/m/01yrx", "x0": 0.1, "x1": 0.9, "y0": 0.1, "y1": 0.9}
    points = [{"id": f"{position:06}", "annotations": [box]} for position in range(number)]
    (folder / "points.json").write_text(json.dumps(points))
    for position in range(number):
        path = folder / "photos" / f"{position:06}.jpg"
        if position < CONTENTS:
            draw(str(position))[0].resize((1024, 768)).save(path, quality=88)
        else:
            os.link(folder / "photos" / f"{position % CONTENTS:06}.jpg", path)


def process(folder: Path, cores: int, scheduler: str | None) -> float:
    """Return the seconds of step 5, as a command, into an empty folder."""
    shutil.rmtree(folder / "small", ignore_errors=True)
    command: list[str | Path] = [
        sys.executable, "process_images.py", "--image_directory", folder / "photos",
        "--image_saving_directory", folder / "small", "--datapoints_input_path", folder / "points.json",
        "--datapoints_output_path", folder / "out.json", "--workers", str(cores),
        *(["--dask_scheduler", scheduler] if scheduler else []),
    ]  # fmt: skip
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
