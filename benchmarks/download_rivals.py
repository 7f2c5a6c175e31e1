"""Other ways to download images, as functions of (urls, folder, connections), for `benchmarks.download`.

    python3 -m benchmarks.download_rivals WAY URLS_FILE FOLDER CONNECTIONS CA_BUNDLE

The `checked` ways do what step 4 does with each image: magic bytes, size, MD5, temporary file and rename.
That of pycurl also has a deadline and a size limit.
"""

import asyncio
import hashlib
import io
import os
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

Photo = tuple[str, str, int, str]  # id, url, size, MD5
Way = Callable[[list[Photo], Path, int, str], None]  # photos, folder, connections, certificates


def save(photo: Photo, folder: Path, data: bytes) -> None:
    """Check an image and write it completely or not at all."""
    image_id, _, size, md5 = photo
    if not data.startswith(b"\xff\xd8\xff") or len(data) != size:
        raise SystemExit(f"{image_id}: not the image")
    if b64encode(hashlib.md5(data).digest()).decode() != md5:
        raise SystemExit(f"{image_id}: another MD5")
    part = folder / f".{image_id}.part"
    part.write_bytes(data)
    os.replace(part, folder / f"{image_id}.jpg")


def one_connection_each(photos: list[Photo], folder: Path, connections: int, bundle: str) -> None:
    """Use requests.get in 16 processes, as the usual script does."""
    with ProcessPoolExecutor(16) as pool:
        list(pool.map(partial(_get, folder=folder, bundle=bundle), photos, chunksize=16))


def _get(photo: Photo, folder: Path, bundle: str) -> None:
    import requests

    save(photo, folder, requests.get(photo[1], verify=bundle, timeout=60).content)


def requests_sessions(photos: list[Photo], folder: Path, connections: int, bundle: str) -> None:
    """Use a thread and a Session for each connection, and `.content`."""
    import requests

    local = threading.local()

    def get(photo: Photo) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        save(photo, folder, local.session.get(photo[1], verify=bundle, timeout=60).content)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(get, photos))


def urllib3_pool(photos: list[Photo], folder: Path, connections: int, bundle: str) -> None:
    """Use one PoolManager and a thread for each connection."""
    import urllib3

    manager = urllib3.PoolManager(
        maxsize=connections, block=True, ssl_context=ssl.create_default_context(cafile=bundle)
    )

    def get(photo: Photo) -> None:
        save(photo, folder, manager.request("GET", photo[1], timeout=60).data)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(get, photos))


def aiohttp_session(photos: list[Photo], folder: Path, connections: int, bundle: str) -> None:
    import aiohttp

    async def run() -> None:
        waiting = iter(photos)
        connector = aiohttp.TCPConnector(limit=connections, ssl=ssl.create_default_context(cafile=bundle))
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                for photo in waiting:
                    async with session.get(photo[1]) as response:
                        save(photo, folder, await response.read())

            await asyncio.gather(*(work() for _ in range(connections)))

    asyncio.run(run())


def pycurl_multi(
    photos: list[Photo], folder: Path, connections: int, bundle: str, checked: bool = True
) -> None:
    """Use one thread and libcurl's multi interface."""
    import pycurl

    multi = pycurl.CurlMulti()
    waiting = iter(photos)
    kept = []  # handles must not be collected while in use

    def begin(handle: "pycurl.Curl") -> bool:
        photo = next(waiting, None)
        if photo is None:
            return False
        handle.photo, handle.body = photo, io.BytesIO()
        handle.setopt(pycurl.URL, photo[1])
        handle.setopt(pycurl.WRITEDATA, handle.body)
        multi.add_handle(handle)
        return True

    running = 0
    for _ in range(connections):
        handle = pycurl.Curl()
        handle.setopt(pycurl.CAINFO, bundle)
        handle.setopt(pycurl.BUFFERSIZE, 1 << 18)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.FAILONERROR, 1)
        handle.setopt(pycurl.TIMEOUT, 120)
        handle.setopt(pycurl.MAXFILESIZE, 50_000_000)
        kept.append(handle)
        running += begin(handle)
    while running:
        while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        more = 1
        while more:
            more, good, bad = multi.info_read()
            if bad:
                raise SystemExit(str(bad[0][1:]))
            for handle in good:
                if checked:
                    save(handle.photo, folder, handle.body.getvalue())
                multi.remove_handle(handle)
                running += begin(handle) - 1
        multi.select(1.0)


def boto3_threads(photos: list[Photo], folder: Path, connections: int, bundle: str) -> None:
    """Use `download_file` of an unsigned client in threads, as the data set's own downloader.py does."""
    import boto3
    import botocore

    parts = urlsplit(photos[0][1])
    bucket, *folders = parts.path.strip("/").split("/")[:-1]
    settings = botocore.config.Config(
        signature_version=botocore.UNSIGNED,
        max_pool_connections=connections,
        s3={"addressing_style": "path"},
    )
    client = boto3.client(
        "s3", endpoint_url=f"{parts.scheme}://{parts.netloc}", region_name="us-east-1", config=settings
    )

    def get(photo: Photo) -> None:
        key = "/".join([*folders, f"{photo[0]}.jpg"])
        client.download_file(bucket, key, str(folder / f"{photo[0]}.jpg"))

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(get, photos))


WAYS: dict[str, Way] = {
    "pycurl, nothing checked or written": partial(pycurl_multi, checked=False),
    "pycurl, checked": pycurl_multi,
    "aiohttp, checked": aiohttp_session,
    "urllib3, 1 process, checked": urllib3_pool,
    "requests, 1 process, checked": requests_sessions,
    "boto3, threads": boto3_threads,
    "requests.get in 16 processes, checked": one_connection_each,
}


if __name__ == "__main__":
    way, list_path, target, number, ca = sys.argv[1:]
    rows = [line.split(" ") for line in Path(list_path).read_text().splitlines()]
    WAYS[way]([(i, url, int(size), md5) for i, url, size, md5 in rows], Path(target), int(number), ca)
