"""Rates of step 4 by threads, of steps 5 and 7 by workers: tables and a chart.

    .venv/bin/python -m benchmarks.scaling                          needs what benchmarks.download needs
    .venv/bin/python -m benchmarks.scaling --docs_directory docs    writes docs/scaling.svg

Step 4 runs on nginx on this machine, over HTTPS, with answers 50 ms late, as from a distant server, and at
once. Step 5 runs on images of 1024x768, step 7 on ten times as many of 256 pixels. Start-up is included; the
tables show the best of --rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cluster import make_photos
from benchmarks.download_server import make_photos as make_served_photos
from benchmarks.download_server import nginx
from benchmarks.tables import print_head, print_row

ROOT = Path(__file__).resolve().parent.parent
THREADS = (4, 8, 16, 32, 64, 128)
DELAY = 0.05  # seconds
CLASSES = "/m/01yrx\n"
COPIES = 10  # of each image for step 7, whose start takes as long as 5,000 records

Points = list[tuple[int, float]]  # threads or workers, images a second


def rate(photos: int, rounds: int, command: list[object], **environment: str) -> float:
    """Return the images a second of a command; {out} in it is an empty folder in each round."""
    best = float("inf")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as out:
            words = [str(word).format(out=out) for word in command]
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )  # fmt: skip
            best = min(best, time.perf_counter() - begun)
    return photos / best


def over_threads(folder: Path, photos: int, rounds: int) -> dict[str, Points]:
    """Return the rates of step 4 by threads, with and without a delay."""
    listed = make_served_photos(folder / "www", photos)
    found: dict[str, Points] = {}
    with nginx(folder, DELAY) as bases:
        for name, base in (
            (f"{DELAY * 1000:.0f} ms late", f"{bases['https']}/slow"),
            ("at once", f"{bases['https']}/www"),
        ):
            index = [{"id": i, "url": f"{base}/{i}.jpg", "size": size, "md5": md5} for i, size, md5 in listed]
            (folder / "index.json").write_text(json.dumps(index))
            found[name] = []
            for threads in THREADS:
                command = [
                    "download_images.py", "--images_path", folder / "index.json",
                    "--images_output_directory", "{out}", "--image_source", "original",
                    "--threads", threads, "--max_per_host", threads,
                ]  # fmt: skip
                bundle = str(folder / "ca.pem")
                found[name].append((threads, rate(photos, rounds, command, REQUESTS_CA_BUNDLE=bundle)))
    return found


def over_workers(folder: Path, photos: int, rounds: int) -> dict[str, Points]:
    """Return the rates of steps 5 and 7 by workers, up to twice the cores."""
    make_photos(folder, photos)
    (folder / "classes.txt").write_text(CLASSES)
    shrink = [
        "process_images.py", "--image_directory", folder / "photos",
        "--datapoints_input_path", folder / "points.json",
    ]  # fmt: skip
    kept = [
        *shrink, "--image_saving_directory", folder / "small",
        "--datapoints_output_path", folder / "small.json",
    ]  # fmt: skip
    subprocess.run([sys.executable, *map(str, kept)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    copy_photos(folder)
    ways = {
        "process_images.py": (photos, [
            *shrink, "--image_saving_directory", "{out}/small", "--datapoints_output_path", "{out}/out.json",
        ]),
        "record_maker.py": (photos * COPIES, [
            "record_maker.py", "--points_path", folder / "copies.json",
            "--saved_images_directory", folder / "small", "--trainable_classes_path", folder / "classes.txt",
            "--record_save_path", "{out}/train.tfrecord", "--num_shards", 16,
        ]),
    }  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    workers = sorted({1, 2, *range(4, 2 * cores + 1, 4)})
    return {
        name: [(number, rate(count, rounds, [*command, "--workers", number])) for number in workers]
        for name, (count, command) in ways.items()
    }


def copy_photos(folder: Path) -> None:
    """List each resized image COPIES times, under different names, in copies.json."""
    points = []
    for point in json.loads((folder / "small.json").read_text()):
        for number in range(COPIES):
            image_id = f"{point['id']}{number}"
            os.link(folder / f"small/{point['id']}.jpg", folder / f"small/{image_id}.jpg")
            points.append(point | {"id": image_id})
    (folder / "copies.json").write_text(json.dumps(points))


def print_points(head: str, found: dict[str, Points]) -> None:
    print()
    print_head(head, *(number for number, _ in next(iter(found.values()))))
    for name, points in found.items():
        print_row(f"{name}, images/s", *(f"{value:,.0f}" for _, value in points))


def plot(threads: dict[str, Points], workers: dict[str, Points], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "scaling", "font.size": 9}):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        panels = [("download_images.py", "threads", threads)]
        panels += [(name, "workers", {"": points}) for name, points in workers.items()]
        for axes, (name, unit, found) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for label, points in found.items():
                axes.plot(*zip(*points, strict=True), marker="o", label=label)
            axes.set_title(name)
            axes.set_xlabel(unit)
            axes.set_ylabel("images a second")
            axes.set_xscale("log", base=2)
            axes.set_xticks(*zip(*((number, str(number)) for number, _ in points), strict=True))
            axes.set_ylim(bottom=0)
            axes.spines[["top", "right"]].set_visible(False)
            if len(found) > 1:
                axes.legend(frameon=False, loc="lower right", title="answers")
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--docs_directory", type=Path, help="folder for scaling.svg")
    args = parser.parse_args()
    counts = f"{args.photos} images, {args.photos * COPIES} of step 7"
    print(f"{len(os.sched_getaffinity(0))} cores, {counts}, best of {args.rounds} rounds")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        threads = over_threads(Path(name), args.photos, args.rounds)
    print_points("threads", threads)
    with tempfile.TemporaryDirectory() as name:
        workers = over_workers(Path(name), args.photos, args.rounds)
    print_points("workers", workers)
    if args.docs_directory:
        plot(threads, workers, args.docs_directory / "scaling.svg")


if __name__ == "__main__":
    main()
