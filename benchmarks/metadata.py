"""Step 3 beside the plain way: whole lists of dicts from `csv`, then `json.dump`.

    .venv/bin/python -m benchmarks.metadata          five minutes, 3 GB below TMPDIR
    .venv/bin/python -m benchmarks.metadata --full   20 minutes, 15 GB

The files are like those of the V6 train split; --full adds a run at its full size. Each way runs in a process
of its own, file to file: the median of --rounds interleaved rounds. `200 images` is step 3 with --max_images
200, `masks` with --masks_input_path and a mask for 18 % of the boxes; `before` is step 3 of the commit that
--before names, with the packages of this environment. The plain way gets as many images as fit into four
fifths of the memory, at 20 kB an image. Peak memory is that of the largest process. At the smallest size the
files of all ways are compared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.tables import print_head, print_in_short, print_row
from common.cli import make_parser

ROOT = Path(__file__).resolve().parent.parent
FULL = 1_743_042  # images
SIZES = 6_250, 100_000, 436_000
MASKS_FLAG = "--masks_input_path"
PLAIN_BYTES = 20_000  # that the plain way holds of an image


def commands(before: Path | None) -> dict[str, list[str]]:
    """Return the command of each way, without its files."""
    step = [sys.executable, str(ROOT / "process_metadata.py")]
    ways = {"plain": [sys.executable, "-m", "benchmarks.metadata_plain"], "step 3": step}
    if before:
        ways["before"] = [sys.executable, str(before / "process_metadata.py")]
    return ways | {"200 images": [*step, "--max_images", "200"], "masks": [*step, MASKS_FLAG]}


def measure(command: list[str], folder: Path, out: Path) -> tuple[float, float, float]:
    """Run one way; return its seconds, those of CPU, and the peak memory in MB of its largest process."""
    out.mkdir(exist_ok=True)
    files = [
        *([folder / "masks.csv"] if command[-1] == MASKS_FLAG else []),
        "--annotations_input_path", folder / "boxes.csv", "--image_index_input_path", folder / "images.csv",
        "--trainable_classes_path", folder / "classes.txt", "--point_output_path", out / "points.json",
        "--image_index_output_path", out / "images.json",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen([*command, *map(str, files)], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def plain_limit() -> int:
    """Return how many images the plain way survives on this machine."""
    memory = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    return int(memory) * 1024 * 4 // 5 // PLAIN_BYTES


def compare(images: int, rounds: int, ways: dict[str, list[str]]) -> dict[str, float]:
    """Print the rows of the table for files of so many images; return the boxes a second of each way."""
    few = min(images, plain_limit())
    with tempfile.TemporaryDirectory() as name:
        whole = part = Path(name, "whole")
        boxes = {whole: make(whole, images)}
        if few < images:
            part = Path(name, "part")
            boxes[part] = make(part, few)
        folders = {way: part if way == "plain" else whole for way in ways}
        runs = [
            {way: measure(ways[way], folder, folder / way) for way, folder in folders.items()}
            for _ in range(rounds)
        ]
        rates = {way: boxes[folders[way]] / median(run[way][0] for run in runs) for way in ways}
        for way, rate in rates.items():
            seconds, cpu, peak = (median(run[way][place] for run in runs) for place in range(3))
            cells = f"{seconds:.1f}", f"{cpu:.1f}", f"{rate:,.0f}", f"{peak:,.0f}"
            print_row(way, f"{boxes[folders[way]]:,}", *cells, f"{rate / rates['plain']:.1f}")
        if images == SIZES[0]:
            check_equal(whole, ways)
    return rates


def make(folder: Path, images: int) -> int:
    """Write files of so many images in a process of its own; return how many boxes they have."""
    command = [sys.executable, "-m", "benchmarks.metadata_files", str(folder), str(images)]
    return int(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)


def check_equal(folder: Path, ways: dict[str, list[str]]) -> None:
    """Exit with a message if the ways do not write the same."""
    for name in ("points.json", "images.json"):
        ours = (folder / "step 3" / name).read_bytes()
        if "before" in ways and ours != (folder / "before" / name).read_bytes():
            sys.exit(f"{name}: step 3 and the commit before differ")
        if json.loads(ours) != json.loads((folder / "plain" / name).read_bytes()):
            sys.exit(f"{name}: step 3 and the plain way differ")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="the full V6 train split too, in one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--before", metavar="COMMIT", help="a commit whose step 3 is measured too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        before = Path(name, "before") if args.before else None
        if before:
            command = ["git", "worktree", "add", "--detach", str(before), args.before]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        try:
            print_head("way", "boxes", "seconds", "CPU s", "boxes/s", "peak MB", "x plain")
            for images in args.sizes:
                rates = compare(images, args.rounds, commands(before))
            if args.full:
                rates = compare(FULL, 1, commands(before))
        finally:
            if before:
                command = ["git", "worktree", "remove", "--force", str(before)]
                subprocess.run(command, cwd=ROOT, check=True)
    plain_way = ("lists of dicts from `csv`, `json.dump`", rates["plain"])
    print_in_short([("step 3, boxes a second", rates["step 3"], [plain_way])])


if __name__ == "__main__":
    main()
