"""What a Dask cluster costs against worker processes, on this machine's cores: seconds, and their ratio.

    .venv/bin/python -m benchmarks.cluster

Three ways to use the same cores: `--workers`, that is processes of our own; a cluster of one worker with a
thread a core; a cluster of a worker a core. First tasks that only compute, of 0.2 and 2 seconds, mapped by
`map_batches`, with the start of the processes and the connection to the scheduler; then process_images.py as
a command, on photos of 1024 pixels. In interleaved rounds; the median counts, the ratio is that of medians.
Small tasks show what handing one over takes, which is the same for large ones.
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

from common.parallel import map_batches, open_workers
from sample.scenes import draw
from tests.dask_cluster import cluster

ROOT = Path(__file__).resolve().parent.parent
SECONDS_OF_WORK = 12.0  # a core and round
CONTENTS = 50  # different photos; the others are links to these


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
        one = stack.enter_context(cluster(folder / "one", workers=1, threads=cores))
        each = stack.enter_context(cluster(folder / "each", workers=cores))
        ways = {
            "processes": None, f"one worker, {cores} threads": one.address, "a worker a core": each.address,
        }  # fmt: skip
        print(f"\n| | {' | '.join(ways)} |\n| --- |{' ---: |' * len(ways)}")
        for seconds in (0.2, 2.0):
            tasks = round(SECONDS_OF_WORK / seconds) * cores
            report(
                f"{tasks} tasks of {seconds:g} s",
                ways,
                args.rounds,
                functools.partial(compute, cores, seconds, tasks),
            )
        make_photos(folder, args.photos)
        report(
            f"process_images.py, {args.photos} photos",
            ways,
            args.rounds,
            functools.partial(process, folder, cores),
        )


def report(
    name: str, ways: dict[str, str | None], rounds: int, measure: Callable[[str | None], float]
) -> None:
    """Print the median seconds of each way, and what the first's are to them."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]:
            seconds[way].append(measure(ways[way]))
    medians = [statistics.median(each) for each in seconds.values()]
    cells = [f"{median:.2f} s ({median / medians[0] - 1:+.1%})" for median in medians]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


@functools.cache
def iterations(seconds: float) -> int:
    """Return how often a hash takes so long on an idle core."""
    number = 200_000
    best = min(timed(number) for _ in range(5))
    return round(number * seconds / best)


def timed(number: int) -> float:
    begun = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", number)
    return time.perf_counter() - begun


def compute(cores: int, seconds: float, tasks: int, scheduler: str | None) -> float:
    """Return the seconds that so many tasks take, each of so many seconds of one core."""
    work = functools.partial(hashlib.pbkdf2_hmac, "sha256", b"", b"")
    number = iterations(seconds)
    begun = time.perf_counter()
    with open_workers(cores, scheduler, [], [], []) as workers:
        for _ in map_batches(work, [number] * tasks, workers):
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
    command = [
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
