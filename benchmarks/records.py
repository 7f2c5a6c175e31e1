"""Step 7 compared with the loop that people write instead, and with reading and hashing the images.

    .venv/bin/pip install -r requirements-bench.txt
    .venv/bin/python -m benchmarks.records

The input is --photos images of about 20 kB and 256 pixels, with 8 boxes on average, as in V7's train split.
"Cold": the images are dropped from memory before each run, so that the disk reads them again, as with a set
larger than memory; "warm": they are in memory. Every way is a process of its own. Each runs on --few images,
enough for record_maker.py to start all its processes, and on all of them. Rates are those of the images
beyond the few, so that loading TensorFlow, once a process, does not count; "with start" is the rate of the
whole run. "CPU us" are microseconds of all processes for an image beyond the few. The tables show medians of
--rounds interleaved rounds. About ten minutes.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.image_script import peak_memory
from benchmarks.images import jpeg, mosaic, photographs
from benchmarks.tables import print_in_short
from common.records.shards import RECORDS_A_PROCESS

ROOT = Path(__file__).resolve().parent.parent
CLASSES = [f"/m/0c{number}" for number in range(601)]
SHARDS = 16
KINDS = 128  # different images, written repeatedly


def make_input(folder: Path, number: int) -> None:
    """Write `number` images and their datapoints, as step 5 does, and the class list."""
    rng = random.Random(1)
    photos = photographs()
    kinds = [jpeg(mosaic(photos, (1024, 768), rng).resize((256, 192)), quality=90) for _ in range(KINDS)]
    (folder / "images").mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    points = []
    for index in range(number):
        name = hashlib.sha256(str(index).encode()).hexdigest()[:16]
        (folder / "images" / f"{name}.jpg").write_bytes(kinds[index % KINDS])
        boxes = [make_box(name, rng) for _ in range(min(50, 1 + int(rng.expovariate(1 / 7.4))))]
        points.append({"id": name, "subset": "train", "rotation": 0.0, "width": 256, "height": 192,
                       "annotations": boxes})  # fmt: skip
    lines = ",\n".join(json.dumps(point, separators=(",", ":")) for point in points)
    (folder / "points.json").write_text(f"[\n{lines}\n]\n")
    os.sync()


def make_box(name: str, rng: random.Random) -> dict[str, Any]:
    x0, y0 = round(rng.uniform(0, 0.7), 6), round(rng.uniform(0, 0.7), 6)
    return {
        "id": name, "label": rng.choice(CLASSES), "confidence": 1, "x0": x0, "x1": x0 + 0.25, "y0": y0,
        "y1": y0 + 0.25, "occluded": 0, "truncated": 1, "group_of": 0, "depiction": 0, "inside": 0,
        "source": "xclick",
    }  # fmt: skip


# --- the ways ------------------------------------------------------------------------------------------


def read_and_hash(folder: Path, processes: int) -> None:
    """Read and hash every image, the least that any way of making records does."""
    points = json.loads((folder / "points.json").read_bytes())
    paths = [f"{folder}/images/{point['id']}.jpg" for point in points]
    if processes == 1:
        hash_files(paths)
        return
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(hash_files, (paths[index::processes] for index in range(processes))))


def hash_files(paths: list[str]) -> None:
    for path in paths:
        with open(path, "rb", buffering=0) as stream:
            hashlib.sha256(stream.read()).digest()


def plain_loop(folder: Path, out: Path) -> None:
    """Write the records as the examples of the Object Detection API do, into one file."""
    import tensorflow as tf

    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def floats(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def texts(values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    numbers = {mid: number for number, mid in enumerate(CLASSES, start=1)}
    with tf.io.TFRecordWriter(str(out / "train.tfrecord")) as writer:
        for point in json.loads((folder / "points.json").read_bytes()):
            with tf.io.gfile.GFile(str(folder / "images" / f"{point['id']}.jpg"), "rb") as stream:
                encoded = stream.read()
            boxes, name = point["annotations"], point["id"].encode()
            feature = {
                "image/height": ints([point["height"]]), "image/width": ints([point["width"]]),
                "image/filename": texts([name + b".jpg"]), "image/source_id": texts([name]),
                "image/key/sha256": texts([hashlib.sha256(encoded).hexdigest().encode()]),
                "image/encoded": texts([encoded]), "image/format": texts([b"jpeg"]),
                "image/object/bbox/xmin": floats([box["x0"] for box in boxes]),
                "image/object/bbox/xmax": floats([box["x1"] for box in boxes]),
                "image/object/bbox/ymin": floats([box["y0"] for box in boxes]),
                "image/object/bbox/ymax": floats([box["y1"] for box in boxes]),
                "image/object/class/text": texts([box["label"].encode() for box in boxes]),
                "image/object/class/label": ints([numbers[box["label"]] for box in boxes]),
                "image/object/group_of": ints([box["group_of"] for box in boxes]),
            }  # fmt: skip
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def record_maker(folder: Path, out: Path, workers: int) -> list[str]:
    """Return the command."""
    return [
        sys.executable, "record_maker.py", "--points_path", f"{folder}/points.json",
        "--saved_images_directory", f"{folder}/images", "--trainable_classes_path", f"{folder}/classes.txt",
        "--record_save_path", f"{out}/train.tfrecord", "--num_shards", str(SHARDS), "--workers", str(workers),
    ]  # fmt: skip


def this(folder: Path, out: Path, way: str) -> list[str]:
    """Return the command that runs one of the ways above in a process of its own."""
    return [sys.executable, "-m", "benchmarks.records", "--way", way, str(folder), str(out)]


def commands(cores: int) -> dict[str, partial[list[str]]]:
    ways = {}
    for processes in sorted({1, cores}):
        ways[f"read and hash, {processes} process{'es' * (processes > 1)}"] = partial(
            this, way=f"hash{processes}"
        )
    ways["TFRecordWriter loop, 1 process"] = partial(this, way="loop")
    for workers in sorted({1, cores}):
        ways[f"record_maker.py --workers {workers}"] = partial(record_maker, workers=workers)
    return ways


# --- measuring -----------------------------------------------------------------------------------------


def forget(folder: Path) -> None:
    """Drop the images from the page cache, which needs no root; their inodes stay cached."""
    for path in (folder / "images").iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a command, its CPU seconds, and the peak memory of all its processes in MB."""
    start, before = time.monotonic(), os.times()
    script = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks: dict[int, float] = {}
    while script.poll() is None:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        pids = [script.pid, *(map(int, children.read_text().split()) if children.exists() else ())]
        peaks |= {pid: max(peaks.get(pid, 0), peak_memory(pid)) for pid in pids}
        time.sleep(0.02)
    assert script.returncode == 0, command
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - start, cpu, sum(peaks.values())


def measure(folder: Path, photos: int, few: int, rounds: int, *, cold: bool) -> dict[str, float]:
    """Print the table of cold or warm runs; return the images a second of each way."""
    ways = commands(len(os.sched_getaffinity(0)))
    runs: dict[str, list[tuple[float, float, float]]] = {
        f"{name} {which}": [] for name in ways for which in ("few", "all")
    }
    for _ in range(rounds):
        for name, command in ways.items():
            for which in ("few", "all"):
                if cold:
                    forget(folder / which)
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    runs[f"{name} {which}"].append(timed(command(folder / which, Path(out))))
                    os.sync()
    middle = {name: [median(values) for values in zip(*found, strict=True)] for name, found in runs.items()}
    beyond = {
        name: [(more - less) / (photos - few) for more, less in
               zip(middle[f"{name} all"], middle[f"{name} few"], strict=True)]
        for name in ways
    }  # fmt: skip
    megabytes = sum(path.stat().st_size for path in (folder / "all/images").iterdir()) / 1e6
    limit = min(found[0] for name, found in beyond.items() if name.startswith("read"))
    loop = beyond["TFRecordWriter loop, 1 process"][0]
    print(f"\n### {'Cold' if cold else 'Warm'}, {photos} images, {megabytes:.0f} MB\n")
    print("| way | images/s | MB/s | x read and hash | x loop | with start | CPU us | peak MB |")
    print("| --- |" + " ---: |" * 7)
    for name, (seconds, cpu, _) in beyond.items():
        whole, _, peak = middle[f"{name} all"]
        print(
            f"| {name} | {1 / seconds:.0f} | {megabytes / photos / seconds:.0f} | {limit / seconds:.2f} | "
            f"{loop / seconds:.2f} | {photos / whole:.0f} | {1e6 * cpu:.0f} | {peak:.0f} |",
            flush=True,
        )
    return {name: 1 / found[0] for name, found in beyond.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=50_000, help="default: %(default)s")
    cores = len(os.sched_getaffinity(0))
    few = RECORDS_A_PROCESS * cores
    parser.add_argument("--few", type=int, default=few, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--directory", help="a folder on the disk to measure (default: TMPDIR)")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way == "loop":
        plain_loop(*args.paths)
    elif args.way:
        read_and_hash(args.paths[0], int(args.way.removeprefix("hash")))
    else:
        if not few <= args.few < args.photos:
            parser.error(f"--few must be at least {few} and less than --photos")
        print(f"{cores} cores, load {os.getloadavg()[0]:.1f}")
        with tempfile.TemporaryDirectory(dir=args.directory) as name:
            folder = Path(name)
            make_input(folder / "few", args.few)
            make_input(folder / "all", args.photos)
            rates = {
                where: measure(folder, args.photos, args.few, args.rounds, cold=where == "on disk")
                for where in ("on disk", "in memory")
            }
        on_disk = rates["on disk"]
        print_in_short([
            ("step 7, records a second, images on disk", on_disk[f"record_maker.py --workers {cores}"],
             [(name, on_disk[name]) for name in on_disk if "loop" in name or f"hash, {cores}" in name])
        ])  # fmt: skip


if __name__ == "__main__":
    main()
