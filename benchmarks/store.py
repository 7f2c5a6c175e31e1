"""Steps 5 and 7 on an object store compared with local folders: the cost of a request for each image.

    .venv/bin/pip install -r requirements-dev.txt -r requirements-bench.txt
    .venv/bin/python -m benchmarks.store

The --photos images have 1024x768 pixels and some 300 kB, as in the mirror, on moto's S3 server in a process
of its own. Rates are by the CPU time of our processes, best of --rounds interleaved rounds: the server
answers some 300 requests a second and costs more than our processes, so wall time would measure the server.
Images are also put and fetched unchanged, the extra cost of step 4. The time for one image, a step's start,
is subtracted. Two minutes.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.images import jpeg, mosaic, photographs
from benchmarks.tables import print_head, print_row
from common.files.places import folder_of, parse_path

ROOT = Path(__file__).resolve().parent.parent
SERVER = """
from tests.support.object_store import ObjectStore
store = ObjectStore()
print(store.url, flush=True)
store.thread.join()
"""
BUCKET = "s3://bench"
BATCH = 64
KINDS = 32  # different images, put repeatedly


def make_input(folder: Path, photos: dict[str, bytes]) -> None:
    """Write the images, their datapoints and a class list, and put the images to the store."""
    (folder / "photos").mkdir()
    for name, data in photos.items():
        (folder / "photos" / name).write_bytes(data)
    box = {"label": "/m/01yrx", "x0": 0.25, "x1": 0.5, "y0": 0.125, "y1": 0.75}
    for number in (1, len(photos)):
        points = [{"id": name.removesuffix(".jpg"), "annotations": [box]} for name in list(photos)[:number]]
        (folder / f"points-{number}.json").write_text(json.dumps(points))
    (folder / "classes.txt").write_text("/m/01yrx\n")


def step(folder: Path, place: str, number: int, out: str) -> tuple[float, float]:
    """Run steps 5 and 7 on `number` images; return the CPU seconds of each."""
    five = [
        "process_images.py", "--image_directory", f"{place}/photos", "--datapoints_input_path",
        folder / f"points-{number}.json", "--image_saving_directory", f"{place}/{out}",
        "--datapoints_output_path", f"{place}/{out}.json",
    ]  # fmt: skip
    seven = [
        "record_maker.py", "--points_path", f"{place}/{out}.json",
        "--saved_images_directory", f"{place}/{out}", "--trainable_classes_path", folder / "classes.txt",
        "--record_save_path", f"{place}/{out}.tfrecord",
    ]  # fmt: skip
    return cpu_seconds(five), cpu_seconds(seven)


def cpu_seconds(command: list[object]) -> float:
    """Run a script with one worker; return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *map(str, command), "--workers", "1"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def put_and_fetch(photos: dict[str, bytes]) -> tuple[float, float]:
    """Return the CPU seconds of putting and of fetching the images unchanged."""
    names, folder = list(photos), folder_of(parse_path(f"{BUCKET}/photos"))
    begun = time.process_time()
    for start in range(0, len(names), BATCH):
        folder.write_many((name, photos[name]) for name in names[start : start + BATCH])
    put = time.process_time() - begun
    begun = time.process_time()
    assert list(folder.read_many(names)) == list(photos.values())
    return put, time.process_time() - begun


def measure(folder: Path, number: int, rounds: int) -> dict[str, float]:
    """Return the CPU seconds of each way: the fastest round minus the fastest start."""
    rng = random.Random(1)
    kinds = [jpeg(mosaic(photographs(), (1024, 768), rng)) for _ in range(KINDS)]
    photos = {f"{index:016x}.jpg": kinds[index % KINDS] for index in range(number)}
    print(f"{number} images of {sum(map(len, photos.values())) / number / 1000:.0f} kB")
    make_input(folder, photos)
    parse_path(BUCKET).fs.mkdir("bench")  # type: ignore[attr-defined]
    times: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    for round_number in range(rounds):
        put, fetched = put_and_fetch(photos)
        times.setdefault("put", []).append(put)
        times.setdefault("fetched", []).append(fetched)
        for where, place in (("local", str(folder)), ("s3", BUCKET)):
            one = step(folder, place, 1, f"one-{round_number}")
            all_of_them = step(folder, place, number, f"all-{round_number}")
            for name, start, whole in zip(("step 5", "step 7"), one, all_of_them, strict=True):
                times.setdefault(f"{name}, {where}", []).append(whole)
                starts.setdefault(f"{name}, {where}", []).append(start)
    return {name: min(seconds) - min(starts.get(name, [0])) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with (
        subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as server,
        tempfile.TemporaryDirectory() as scratch,
    ):
        os.environ.update(
            AWS_ENDPOINT_URL=server.stdout.readline().strip(), AWS_ACCESS_KEY_ID="someone",
            AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION="us-east-1",
        )  # fmt: skip
        try:
            times = measure(Path(scratch), args.photos, args.rounds)
        finally:
            server.kill()
    print()
    print_head("way", "ms of CPU an image", "images a CPU second")
    for name, seconds in times.items():
        print_row(name, f"{seconds * 1000 / args.photos:.2f}", f"{args.photos / seconds:.0f}")


if __name__ == "__main__":
    main()
