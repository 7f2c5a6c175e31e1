"""nginx on this machine with images of 210 kB, for the benchmarks of step 4.

    apt-get install nginx-light libnginx-mod-http-echo

/www/NAME is answered at once, /slow/NAME after a delay, as by a distant server.
"""

import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import certifi
import numpy
import trustme
from PIL import Image

CONTENTS = 50  # different images; the others are links to these
SIZE = (1024, 683)  # pixels, the mirror's
NOISE = 9.4  # of 255; makes an image of 210 kB
ECHO = "/usr/lib/nginx/modules/ngx_http_echo_module.so"

CONFIGURATION = """
load_module {echo};
daemon off; pid {folder}/nginx.pid; worker_processes auto; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type image/jpeg;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl; root {folder};
        ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
        location /slow/ {{ echo_sleep {delay}; echo_exec @slow; }}
        location @slow {{ rewrite ^/slow/(.*)$ /www/$1 break; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def nginx(folder: Path, delay: float) -> Iterator[dict[str, str]]:
    """Yield the base address by scheme of an nginx that serves `folder`; `delay` in seconds.

    `folder`/ca.pem holds the authorities to trust: this server's and those of the internet.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program or not os.path.exists(ECHO):
        sys.exit("nginx or its echo module is missing: apt-get install nginx-light libnginx-mod-http-echo")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (folder / "ca.pem").write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    ports = {"http": free_port(), "https": free_port()}
    text = CONFIGURATION.format(folder=folder, echo=ECHO, delay=delay, **ports)
    (folder / "nginx.conf").write_text(text)
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


def draw(seed: int) -> bytes:
    """Return a JPEG of about 210 kB: soft shapes under some noise."""
    draws = numpy.random.default_rng(seed)
    soft = Image.fromarray(draws.integers(0, 256, (9, 12, 3), dtype=numpy.uint8))
    pixels = numpy.asarray(soft.resize(SIZE, Image.Resampling.BICUBIC), dtype=numpy.float64)
    noisy = pixels + draws.normal(0, NOISE, (*pixels.shape[:2], 1))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def make_photos(folder: Path, number: int) -> list[tuple[str, int, str]]:
    """Write the images to serve; return id, size and MD5 of each."""
    folder.mkdir()
    folder.chmod(0o755)
    photos = []
    for position in range(number):
        path = folder / f"{position:016x}.jpg"
        if position < CONTENTS:
            data = draw(position)
            path.write_bytes(data)
            digest = b64encode(hashlib.md5(data).digest()).decode()
            photos.append((path.stem, len(data), digest))
        else:
            os.link(folder / f"{position % CONTENTS:016x}.jpg", path)
            photos.append((path.stem, *photos[position % CONTENTS][1:]))
    return photos
