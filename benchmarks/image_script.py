"""Step 5 as a script: rates by number of workers, cost of passing tasks, a million finished files."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common.files.folders import Status
from common.images.finished import FinishedImage
from common.images.tasks import ImageResult, ImageTask
from common.workers.pool import batches
from common.workers.scheduler import open_workers
from process_images import BATCH_IMAGES

ROOT = Path(__file__).resolve().parent.parent
LINKS = 20_000  # to one file; file systems have a limit
IDLE = 200_000  # tasks to pass


def peak_memory(pid: int) -> float:
    """Return the peak memory of a process in MB; getrusage would count its parent's before exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measure_script(paths: list[Path], folder: Path, photos: int, cores: int, rounds: int) -> None:
    """Print rates of the script by number of workers, and the cost of passing its tasks."""
    data = [path.read_bytes() for path in paths]
    make_photos(folder / "many", photos, data)
    print(f"\n### The script, {photos} images of 1024x768, start-up included, best of {rounds}\n")
    print("| run | images/s | x one worker | peak MB, all processes |\n| --- | ---: | ---: | ---: |")
    best: dict[int, tuple[float, float]] = {}
    for number in range(rounds):
        for workers in range(1, cores + 1):
            run = run_script(folder / "many", workers, f"small{workers}-{number}")
            best[workers] = min(run, best.get(workers, run))
    one = best[1][0]
    for workers, (seconds, peak) in best.items():
        print(
            f"| --workers {workers} | {photos / seconds:.0f} | {one / seconds:.2f} | {peak:.0f} |", flush=True
        )
    idle = idle_seconds()
    share = f"{100 * idle * photos / one:.2g} % of the {1e3 * one / photos:.1f} ms that an image takes"
    print(f"\nPassing a task, {BATCH_IMAGES} at a time, and its result: {idle * 1e6:.0f} us, {share}.")


def measure_again(folder: Path, files: int, photo: bytes, cores: int) -> None:
    """Print seconds and memory of a run over many images, and of a second run, which has nothing to do."""
    make_photos(folder / "million", files, [photo])
    print(f"\n### {files} images that need no change\n")
    print("| run | seconds | peak MB, all processes |\n| --- | ---: | ---: |")
    for name in ("first, each decoded and copied", "second"):
        seconds, peak = run_script(folder / "million", cores, "copies")
        print(f"| {name} | {seconds:.1f} | {peak:.0f} |", flush=True)


def make_photos(folder: Path, number: int, data: list[bytes]) -> None:
    """Write `number` images, most of them links, and their datapoints."""
    (folder / "photos").mkdir(parents=True)
    first: dict[int, Path] = {}
    with open(folder / "points.json", "w") as points:
        for n in range(number):
            path = folder / "photos" / f"{n:016x}.jpg"
            which = n // LINKS * len(data) + n % len(data)
            if which in first:
                os.link(first[which], path)
            else:
                first[which] = path
                path.write_bytes(data[n % len(data)])
            box = {"label": "/m/01yrx", "x0": 0.25, "x1": 0.5, "y0": 0.25, "y1": 0.5}
            points.write("," if n else "[")
            points.write(json.dumps({"id": path.stem, "annotations": [box]}) + "\n")
        points.write("]\n")


def run_script(folder: Path, workers: int, into: str) -> tuple[float, float]:
    """Return the seconds of a run, and the peak memory of the script and its workers in MB."""
    start = time.monotonic()
    script = subprocess.Popen(
        [
            sys.executable, "process_images.py", "--image_directory", folder / "photos",
            "--image_saving_directory", folder / into, "--datapoints_input_path", folder / "points.json",
            "--datapoints_output_path", folder / "out.json", "--workers", str(workers),
        ],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    peaks: dict[int, float] = {}
    while script.poll() is None:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        pids = [script.pid, *(map(int, children.read_text().split()) if children.exists() else ())]
        peaks |= {pid: max(peaks.get(pid, 0), peak_memory(pid)) for pid in pids}
        time.sleep(0.05)
    assert script.returncode == 0
    return time.monotonic() - start, sum(peaks.values())


def idle_seconds() -> float:
    """Return the seconds that it takes to pass one task to a worker and its result back."""
    with open_workers(2, None, [], [], []) as workers:
        results = workers.map(be_idle, batches(idle_tasks(), BATCH_IMAGES))
        next(results)  # the workers have started
        start = time.monotonic()
        count = sum(len(result) for result in results)
        return (time.monotonic() - start) / count


def idle_tasks() -> Iterator[ImageTask]:
    for n in range(IDLE):
        yield ImageTask(f"{n:016x}", f"{n:016x}.jpg", 0, Status(123456, 1700000000000000000, 1.7e9))


def be_idle(tasks: list[ImageTask]) -> list[ImageResult]:
    return [
        ImageResult("resized", FinishedImage(task.id, task.original, task.turn, 256, 192, 20_000))
        for task in tasks
    ]
