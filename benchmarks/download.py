"""Step 4 against other clients, on nginx on this machine: photos a second, CPU, memory.

    apt-get install nginx-light && .venv/bin/pip install -r requirements-bench.txt
    .venv/bin/python -m benchmarks.download

Photos of 210 kB, over HTTP and HTTPS, with the same number of connections; each way is a process of its own,
start-up included, in interleaved rounds; the median counts. CPU is that of the client and its workers.
Client and server share the cores: the figures compare the ways, and say little of another machine.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from benchmarks.download_rivals import WAYS

ROOT = Path(__file__).resolve().parent.parent
PHOTO_BYTES = 210_000
CONTENTS = 50  # different photos; the others are links to these
OURS = "download_images.py"
REFERENCE = "pycurl, checked"

CONFIGURATION = """
daemon off; pid {folder}/nginx.pid; worker_processes auto; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type image/jpeg;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl; root {folder}/www;
        ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def nginx(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the base address by scheme of an nginx that serves `folder`/www."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        sys.exit("nginx is not installed: apt-get install nginx-light")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    ports = {"http": free_port(), "https": free_port()}
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, **ports))
    folder.chmod(0o755)
    process = subprocess.Popen([program, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        for port in ports.values():
            while process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
        yield {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}
    finally:
        process.terminate()
        process.wait()


@contextmanager
def slow_server(folder: Path, milliseconds: int) -> Iterator[str]:
    """Yield the base address of a server that waits before each answer."""
    command = [sys.executable, "-m", "benchmarks.slow_server", folder / "www", str(milliseconds / 1000)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


def make_photos(folder: Path, number: int) -> list[tuple[str, int, str]]:
    """Write the photos to serve and return id, size and MD5 of each."""
    folder.mkdir()
    folder.chmod(0o755)
    photos = []
    for position in range(number):
        path = folder / f"{position:016x}.jpg"
        if position < CONTENTS:
            data = b"\xff\xd8\xff" + random.Random(position).randbytes(PHOTO_BYTES - 3)
            path.write_bytes(data)
            digests = b64encode(hashlib.md5(data).digest()).decode()
            photos.append((path.stem, len(data), digests))
        else:
            os.link(folder / f"{position % CONTENTS:016x}.jpg", path)
            photos.append((path.stem, *photos[position % CONTENTS][1:]))
    return photos


def measure(command: list[str], bundle: Path) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and peak memory in MB (of the largest process) of a command."""
    begun = time.perf_counter()
    environment = {"PATH": os.environ["PATH"], "REQUESTS_CA_BUNDLE": str(bundle)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        sys.exit(f"{command}: {error.decode()}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--schemes", default="http,https", help="nginx over these; may be empty")
    parser.add_argument("--delay", type=int, default=50, help="of a slow server, in ms; 0: without one")
    parser.add_argument("--ways", default="", help="only those whose name contains this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = make_photos(folder / "www", args.photos)
        with nginx(folder) as bases:
            for scheme in filter(None, args.schemes.split(",")):
                report(scheme, bases[scheme], photos, folder, args)
        if args.delay:
            with slow_server(folder, args.delay) as base:
                report(f"http, {args.delay} ms before each answer", base, photos, folder, args)


def report(scheme: str, base: str, photos: list[tuple[str, int, str]], folder: Path, args) -> None:
    """Measure every way over one scheme and print a table."""
    index = [{"id": i, "url": f"{base}/{i}.jpg", "size": size, "md5": md5} for i, size, md5 in photos]
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "list").write_text("".join(f"{p['id']} {p['url']} {p['size']} {p['md5']}\n" for p in index))
    out = folder / "out"
    commands = {
        OURS: [
            sys.executable, OURS, "--images_path", folder / "index.json", "--images_output_directory", out,
            "--image_source", "original", "--processes", args.processes, "--threads", args.connections,
            "--max_per_host", args.connections,
        ],
    }  # fmt: skip
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.download_rivals", way, folder / "list", out]
        commands[way] = [*command, args.connections, folder / "ca.pem"]
    commands = {way: list(map(str, command)) for way, command in commands.items() if args.ways in way}
    results: dict[str, list[tuple[float, float, int]]] = {way: [] for way in commands}
    for _ in range(args.rounds):
        for way, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            results[way].append(measure(command, folder / "ca.pem"))
    print(f"\n{scheme}: {len(photos)} photos of {PHOTO_BYTES // 1000} kB, {args.connections} connections")
    print(f"{'':40} photos/s  CPU s/1,000  peak MB  of {REFERENCE}")
    rates = {way: len(photos) / statistics.median(row[0] for row in rows) for way, rows in results.items()}
    for way, rows in results.items():
        cpu = statistics.median(row[1] for row in rows) / len(photos) * 1000
        share = rates[way] / rates.get(REFERENCE, rates[way])
        print(f"{way:40} {rates[way]:8.0f}  {cpu:11.2f}  {max(row[2] for row in rows):7}  {share:.2f}")


if __name__ == "__main__":
    main()
