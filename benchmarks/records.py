"""Step 7 against the loop that people write in its place, and against reading and hashing the same photos.

    .venv/bin/pip install -r requirements-bench.txt
    .venv/bin/python -m benchmarks.records

--photos files of about 20 kB, 256 pixels, with 8 boxes each on average, as V7's train split has. "cold":
the photos are dropped from the system's memory before each run, so that the disk reads them again, as it must
those of a set larger than memory; "warm": they are in memory. Every way is a process of its own. The start
(loading TensorFlow and so on) is what a run on --few photos takes; rates are those of the photos beyond that.
The best of --rounds interleaved rounds counts. Takes about ten minutes.
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

from benchmarks.images import jpeg, mosaic, peak_memory, photographs

ROOT = Path(__file__).resolve().parent.parent
CLASSES = [f"/m/0c{number}" for number in range(601)]
SHARDS = 16
KINDS = 128  # different photos, written again and again


def make_input(folder: Path, number: int) -> None:
    """Write `number` photos and their datapoints, as step 5 leaves them, and the class list."""
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


def make_box(name: str, rng: random.Random) -> dict:
    x0, y0 = round(rng.uniform(0, 0.7), 6), round(rng.uniform(0, 0.7), 6)
    return {
        "id": name, "label": rng.choice(CLASSES), "confidence": 1, "x0": x0, "x1": x0 + 0.25, "y0": y0,
        "y1": y0 + 0.25, "occluded": 0, "truncated": 1, "group_of": 0, "depiction": 0, "inside": 0,
        "source": "xclick",
    }  # fmt: skip


# --- the ways ------------------------------------------------------------------------------------------


def read_and_hash(folder: Path, processes: int) -> None:
    """Read and hash every photo: what no way of making records can do without."""
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
    """Return the command that runs a way above in a process of its own."""
    return [sys.executable, "-m", "benchmarks.records", "--way", way, str(folder), str(out)]


def commands(cores: int) -> dict[str, partial]:
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
    """Drop the photos from the system's memory, which needs no root; what is known of their places stays."""
    for path in (folder / "images").iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command took, and the most memory in MB that all its processes held."""
    start = time.monotonic()
    script = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks: dict[int, float] = {}
    while script.poll() is None:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        pids = [script.pid, *(map(int, children.read_text().split()) if children.exists() else ())]
        peaks |= {pid: max(peaks.get(pid, 0), peak_memory(pid)) for pid in pids}
        time.sleep(0.02)
    assert script.returncode == 0, command
    return time.monotonic() - start, sum(peaks.values())


def measure(folder: Path, photos: int, few: int, rounds: int, *, cold: bool) -> None:
    """Print the table of one state of the system's memory."""
    ways = commands(len(os.sched_getaffinity(0)))
    best = {name: {"start": float("inf"), "all": float("inf"), "peak": 0.0} for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            for which in ("start", "all"):
                if cold:
                    forget(folder / which)
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    seconds, peak = timed(command(folder / which, Path(out)))
                    os.sync()
                best[name][which] = min(best[name][which], seconds)
                best[name]["peak"] = max(best[name]["peak"], peak)
    megabytes = sum(path.stat().st_size for path in (folder / "all/images").iterdir()) / 1e6
    rates = {name: (photos - few) / (found["all"] - found["start"]) for name, found in best.items()}
    limit = max(rate for name, rate in rates.items() if name.startswith("read"))
    loop = rates["TFRecordWriter loop, 1 process"]
    print(f"\n### {'Cold' if cold else 'Warm'}, {photos} photos, {megabytes:.0f} MB\n")
    print("| way | photos/s | MB/s | x read and hash | x loop | start s | peak MB |\n| --- |" + " ---: |" * 6)
    for name, rate in rates.items():
        print(
            f"| {name} | {rate:.0f} | {rate * megabytes / photos:.0f} | {rate / limit:.2f} | "
            f"{rate / loop:.2f} | {best[name]['start']:.1f} | {best[name]['peak']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--few", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--directory", help="on the disk to measure (default: that of TMPDIR)")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way == "loop":
        plain_loop(*args.paths)
    elif args.way:
        read_and_hash(args.paths[0], int(args.way.removeprefix("hash")))
    else:
        print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
        with tempfile.TemporaryDirectory(dir=args.directory) as name:
            folder = Path(name)
            make_input(folder / "start", args.few)
            make_input(folder / "all", args.photos)
            for cold in (True, False):
                measure(folder, args.photos, args.few, args.rounds, cold=cold)


if __name__ == "__main__":
    main()
