"""Step 4 resumed with nearly all images on disk: seconds until the first request, and memory.

    .venv/bin/python -m benchmarks.download_memory

The index is like one of step 3, of 100,000 and of 1,000,000 images; all but 100 of them are in the folder
(files of one byte here: a resumed run checks only their names and sizes). Memory is the peak of the process
that holds the ids; the bytes an id are the slope between the two sizes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.tables import print_head, print_row

ROOT = Path(__file__).resolve().parent.parent
MISSING = 100
PHOTO = b"\xff\xd8\xff" + bytes(1000)


class Server(ThreadingHTTPServer):
    first = float("inf")  # the time of the first request, by time.perf_counter


class Handler(BaseHTTPRequestHandler):
    """Serve images and record the time of the first request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.first = min(self.server.first, time.perf_counter())
        self.send_response(200)
        self.send_header("Content-Length", str(len(PHOTO)))
        self.end_headers()
        self.wfile.write(PHOTO)

    def log_message(self, *arguments: object) -> None:
        pass


def make(folder: Path, number: int, base: str) -> None:
    """Write an index and all images but MISSING, spread evenly."""
    photos = folder / "photos"
    photos.mkdir()
    with open(folder / "index.json", "w") as stream:
        for position in range(number):
            name = f"{position * 0x9E3779B97F4A7C15 % 2**64:016x}"
            entry = {
                "id": name, "url": f"{base}/{name}", "subset": "train", "size": len(PHOTO), "md5": None,
                "thumbnail_url": f"https://c7.staticflickr.com/6/5542/{name}_z.jpg", "rotation": 0.0,
                "landing_url": f"https://www.flickr.com/photos/someone/{position}", "author": "Some One",
                "license": "https://creativecommons.org/licenses/by/2.0/", "title": f"photo {position}",
                "author_profile_url": "https://www.flickr.com/people/someone/",
            }  # fmt: skip
            stream.write(("[" if position == 0 else ",\n") + json.dumps(entry))
            if position % (number // MISSING):
                descriptor = os.open(photos / f"{name}.jpg", os.O_CREAT | os.O_WRONLY)
                os.ftruncate(descriptor, 1)
                os.close(descriptor)
        stream.write("]\n")


def measure(folder: Path, server: Server, *flags: str) -> tuple[float, float, int]:
    """Return seconds to the first request and in all, and the peak memory of the parent in bytes."""
    server.first = float("inf")
    # The peak of the parent without its workers, which it prints when it ends.
    code = (
        "import sys, resource; from common.cli import run; from download_images import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [
        sys.executable, "-c", code, "--images_path", folder / "index.json",
        "--images_output_directory", folder / "photos", "--image_source", "original", *flags,
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"]}
    begun = time.perf_counter()
    result = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if result.returncode or f"downloaded={MISSING} " not in result.stdout:
        sys.exit(result.stdout + result.stderr)
    peak = int(re.findall(r"peak (\d+)", result.stderr)[0]) * 1024
    return server.first - begun, seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[100_000, 1_000_000])
    args = parser.parse_args()
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        print_head("images", "first request, s", "all, s", "peak MB", "bytes an id")
        before = None
        for number in args.photos:
            with tempfile.TemporaryDirectory() as name:
                make(Path(name), number, base)
                first, seconds, peak = measure(Path(name), server)
            each = f"{(peak - before[1]) / (number - before[0]):.0f}" if before else "-"
            print_row(f"{number:,}", f"{first:.1f}", f"{seconds:.1f}", f"{peak / 1e6:.0f}", each)
            before = number, peak
        server.shutdown()


if __name__ == "__main__":
    main()
