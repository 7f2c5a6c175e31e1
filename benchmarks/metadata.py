"""Step 3 compared with the plain way (lists of dicts from `csv`, then `json.dump`), at growing sizes.

    .venv/bin/python -m benchmarks.metadata          three minutes, 1 GB below TMPDIR
    .venv/bin/python -m benchmarks.metadata --full   10 minutes, 15 GB

The files are like those of the V6 train split; --full adds its full size. Each way runs in a process of its
own, file to file; the table shows the best of --rounds interleaved rounds. `in columns` is
process_metadata.py, `200 images` adds --max_images 200; `row by row` is its method for files that the
columns cannot read. The plain way gets as many images as fit into four fifths of the memory, at 20 kB an
image. At the smallest size its files are compared with ours.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.metadata_plain import plain
from benchmarks.tables import print_head, print_in_short, print_row
from common.cli import make_parser

ROOT = Path(__file__).resolve().parent.parent
FULL = 1_743_042  # images
SIZES = 6_250, 25_000, 100_000
ROW_BY_ROW_UP_TO = 100_000  # images: enough for a comparison
PLAIN_BYTES = 20_000  # of memory an image in the plain way
WAYS = "plain", "row by row", "in columns", "200 images"


def run_way(way: str, folder: Path) -> None:
    """Run one way in this process."""
    paths = folder / "boxes.csv", folder / "images.csv", folder / "classes.txt"
    out = folder / way
    out.mkdir(exist_ok=True)
    if way == "plain":
        plain(*paths, out)
        return
    import process_metadata
    from common.metadata import csv_tables

    @contextmanager
    def refuse(path: str | Path, *, keep_together: bool) -> Iterator[tuple[list[str], Iterator[Any]]]:
        raise csv_tables.NotPlainError("as this benchmark asks")
        yield

    if way == "row by row":
        csv_tables.open_blocks = refuse  # before the other modules take it from there
    process_metadata.main([
        "--annotations_input_path", str(paths[0]), "--image_index_input_path", str(paths[1]),
        "--trainable_classes_path", str(paths[2]), "--point_output_path", str(out / "points.json"),
        "--image_index_output_path", str(out / "images.json"),
        *(["--max_images", "200"] if way == "200 images" else []),
    ])  # fmt: skip


def measure(way: str, folder: Path) -> tuple[float, float, float]:
    """Return the seconds that one way's process takes, those of CPU, and its peak memory in MB."""
    command = [sys.executable, "-m", "benchmarks.metadata", "--way", way, "--folder", str(folder)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds = time.perf_counter() - start
    cpu, peak = map(float, done.stdout.splitlines()[-1].split())
    return seconds, cpu, peak


def plain_limit() -> int:
    """Return the number of images that the plain way can hold on this machine."""
    memory = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    return int(memory) * 1024 * 4 // 5 // PLAIN_BYTES


def compare(images: int, rounds: int) -> dict[str, float]:
    """Print the table's rows for this number of images; return the boxes a second of each way."""
    few = min(images, plain_limit())
    with tempfile.TemporaryDirectory() as name:
        whole = part = Path(name, "whole")
        boxes = {whole: make(whole, images)}
        if few < images:
            part = Path(name, "part")
            boxes[part] = make(part, few)
        folders = {way: part if way == "plain" else whole for way in WAYS}
        if images > ROW_BY_ROW_UP_TO:
            del folders["row by row"]
        best = {way: (float("inf"), 0.0, 0.0) for way in folders}
        for _ in range(rounds):
            for way, folder in folders.items():
                best[way] = min(best[way], measure(way, folder))
        rates = {way: boxes[folders[way]] / seconds for way, (seconds, _, _) in best.items()}
        for way, (seconds, cpu, peak) in best.items():
            cells = f"{seconds:.1f}", f"{cpu:.1f}", f"{rates[way]:,.0f}", f"{peak:,.0f}"
            print_row(way, f"{boxes[folders[way]]:,}", *cells, f"{rates[way] / rates['plain']:.1f}")
        if images == SIZES[0]:
            check_equal(whole)
    return rates


def make(folder: Path, images: int) -> int:
    """Write files for this number of images in a process of its own; return the number of boxes."""
    command = [sys.executable, "-m", "benchmarks.metadata_files", str(folder), str(images)]
    return int(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)


def check_equal(folder: Path) -> None:
    """Exit with a message if the ways write different files."""
    for name in ("points.json", "images.json"):
        columns = (folder / "in columns" / name).read_bytes()
        if columns != (folder / "row by row" / name).read_bytes():
            sys.exit(f"{name}: in columns and row by row differ")
        if json.loads(columns) != json.loads((folder / "plain" / name).read_bytes()):
            sys.exit(f"{name}: in columns and the plain way differ")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="the full V6 train split too")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        run_way(args.way, args.folder)
        status = Path("/proc/self/status").read_text()
        print(time.process_time(), int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    print_head("way", "boxes", "seconds", "CPU s", "boxes/s", "peak MB", "x plain")
    for images in SIZES:
        rates = compare(images, args.rounds)
    if args.full:
        rates = compare(FULL, 1)
    plain_way = ("lists of dicts from `csv`, `json.dump`", rates["plain"])
    print_in_short([("step 3, boxes a second", rates["in columns"], [plain_way])])


if __name__ == "__main__":
    main()
