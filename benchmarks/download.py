"""Step 4 compared with other clients, on nginx on this machine: images a second, CPU, memory, ratio.

    apt-get install nginx-light libnginx-mod-http-echo
    .venv/bin/pip install -r requirements-bench.txt
    make .venv-img2dataset
    .venv/bin/python -m benchmarks.download

Images of 210 kB over HTTPS, over HTTP, and over HTTPS with a delay before each answer. All ways have the same
number of connections and, where they can, of processes. Each way is a process of its own, start-up included,
in interleaved rounds; the tables show medians. CPU is that of the client and its workers, memory their peak
(each shared page counted once). Client and server share the cores: the figures compare the ways; they do not
predict the rates of another machine. img2dataset is the release on PyPI, in an environment of its own because
its requirements conflict with others; --img2dataset names the program.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.download_rivals import WAYS
from benchmarks.download_server import make_photos, nginx
from benchmarks.tables import print_head, print_in_short, print_row

ROOT = Path(__file__).resolve().parent.parent
OURS = "download_images.py"
REFERENCE = "pycurl, checked"
# Of the rivals, those in the summary.
SUMMARY = ("aiohttp, checked", "requests.get in 16 processes, checked", "img2dataset")
LOOK_SECONDS = 0.25  # between two measurements of memory

Photo = tuple[str, int, str]  # id, size, MD5


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from tree(int(child))


def memory(pid: int) -> int:
    """Return the memory of a process and all below it in bytes, shared pages counted in parts."""
    total = 0
    for process in tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and peak memory in bytes of a command."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    over = threading.Event()
    seen = [0]

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            seen.append(memory(process.pid))

    looking = threading.Thread(target=look)
    looking.start()
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    over.set()
    looking.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        sys.exit(f"{command}: {error.decode()}")
    return seconds, usage.ru_utime + usage.ru_stime, max(seen)


def commands(base: str, photos: list[Photo], folder: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    """Write the index and lists that the ways read; return the command of each way."""
    index = [{"id": i, "url": f"{base}/{i}.jpg", "size": size, "md5": md5} for i, size, md5 in photos]
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "list").write_text("".join(f"{p['id']} {p['url']} {p['size']} {p['md5']}\n" for p in index))
    (folder / "urls.txt").write_text("".join(f"{p['url']}\n" for p in index))
    out, threads, processes = folder / "out", args.connections, args.processes
    ours = [
        sys.executable, OURS, "--images_path", folder / "index.json", "--images_output_directory", out,
        "--image_source", "original", "--processes", processes, "--threads", threads,
        "--max_per_host", threads,
    ]  # fmt: skip
    ways = {OURS: ours, f"{OURS} --max_side 256": [*ours, "--max_side", 256]}
    for way in WAYS:
        rival = [sys.executable, "-m", "benchmarks.download_rivals", way, folder / "list", out]
        ways[way] = [*rival, threads, folder / "ca.pem"]
    img2dataset = [
        args.img2dataset, "--url_list", folder / "urls.txt", "--output_folder", out / "i",
        "--output_format", "files", "--resize_mode", "no",
        "--processes_count", processes, "--thread_count", -(-threads // processes),
        # Two shards a process, or one of them would have all the work.
        "--number_sample_per_shard", -(-len(photos) // (2 * processes)),
    ]  # fmt: skip
    ways["img2dataset"] = img2dataset
    ways["img2dataset, re-encoding off"] = [*img2dataset, "--skip_reencode", "True"]
    ways["img2dataset to 256 pixels"] = [
        *img2dataset[:8], "keep_ratio_largest", "--image_size", 256, "--resize_only_if_bigger", "True",
        "--encode_quality", 85, *img2dataset[9:],
    ]  # fmt: skip
    parts = args.ways.split(",")
    chosen = [way for way in ways if way in parts or any(p in way and p not in ways for p in parts)]
    return {way: list(map(str, ways[way])) for way in chosen}


def check(way: str, out: Path, photos: list[Photo]) -> None:
    """Exit if a way did not download all images."""
    found = sum(path.stat().st_size > 0 for path in out.rglob("*.jpg"))
    if found != len(photos) and "nothing" not in way:
        sys.exit(f"{way}: {found} of {len(photos)} images downloaded")


def report(
    title: str, base: str, photos: list[Photo], folder: Path, args: argparse.Namespace
) -> dict[str, float]:
    """Measure every way at one server and print a table; return the images a second of each way."""
    ways = commands(base, photos, folder, args)
    bundle = str(folder / "ca.pem")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_ALBUMENTATIONS_UPDATE": "1"}
    environment |= dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"), bundle)
    results: dict[str, list[tuple[float, float, int]]] = {way: [] for way in ways}
    out = folder / "out"
    for _ in range(args.rounds):
        for way, command in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            results[way].append(measure(command, environment))
            check(way, out, photos)
    size = sum(photo[1] for photo in photos)
    print(f"\n### {title}: {len(photos)} images, {args.connections} connections, median of {args.rounds}\n")
    print_head("way", "images/s", "Gbit/s", "CPU s/1,000", "peak MB", f"of {REFERENCE}", "ours is")
    seconds = {way: statistics.median(row[0] for row in rows) for way, rows in results.items()}
    for way, rows in results.items():
        cpu = statistics.median(row[1] for row in rows) / len(photos) * 1000
        peak = statistics.median(row[2] for row in rows) / 1e6
        share = seconds.get(REFERENCE, seconds[way]) / seconds[way]
        ours = seconds[way] / seconds.get(OURS, seconds[way])
        rate, bits = f"{len(photos) / seconds[way]:.0f}", f"{size * 8 / seconds[way] / 1e9:.2f}"
        print_row(way, rate, bits, f"{cpu:.2f}", f"{peak:.0f}", f"{share:.2f}", f"{ours:.2f}x")
    return {way: len(photos) / each for way, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--servers", default="https,http,slow", help="of https,http,slow (over HTTPS)")
    parser.add_argument("--delay", type=int, default=50, help="of the slow server, in ms")
    parser.add_argument(
        "--ways",
        default="",
        help="only ways with these names, or these words in their names, comma-separated",
    )
    parser.add_argument(
        "--folder",
        default="/dev/shm",
        help="folder to serve from and write to, in memory",
    )
    parser.add_argument(
        "--img2dataset", default=ROOT / ".venv-img2dataset/bin/img2dataset", help="the program"
    )
    args = parser.parse_args()
    if not os.path.exists(args.img2dataset):
        parser.error(f"{args.img2dataset} is missing: make .venv-img2dataset")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        photos = make_photos(folder / "www", args.photos)
        with nginx(folder, args.delay / 1000) as bases:
            places = {
                "https": ("https", f"{bases['https']}/www"),
                "http": ("http", f"{bases['http']}/www"),
                "slow": (f"https, {args.delay} ms before each answer", f"{bases['https']}/slow"),
            }
            rates = {
                title: report(title, base, photos, folder, args)
                for title, base in map(places.__getitem__, args.servers.split(","))
            }
    print_in_short([
        (f"step 4, images a second, {title}, {args.photos} images", of[OURS],
         [(way, rate) for way, rate in of.items() if way != OURS and (args.ways or way in SUMMARY)])
        for title, of in rates.items() if OURS in of
    ])  # fmt: skip


if __name__ == "__main__":
    main()
