"""The server of the sample: it answers as the real hosts do, and serves nothing else."""

import csv
import http.client
import io
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from PIL import Image

from sample import make, serve
from tests.conftest import ROOT
from tests.support.sample_release import V7_INDEX, photos, rows


@pytest.fixture(scope="module")
def served(sample_directory, tmp_path_factory):
    """Serve a copy of the sample; yield its folder, addresses and truth."""
    directory = shutil.copytree(sample_directory, tmp_path_factory.mktemp("served") / "sample")
    with serve.serving(directory) as addresses:
        yield directory, addresses, make.read_truth(directory)


def ask(url: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request(method, parts.path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response, response.read()


def an_original(served, fault: str = "") -> str:
    _, addresses, truth = served
    image_id = next(entry["id"] for entry in truth if entry["fault"] == fault)
    return f"{addresses.originals_url}/{image_id}_o.jpg"


def test_the_index_and_the_mirror_lead_to_the_same_images(served):
    directory, addresses, truth = served
    with urllib.request.urlopen(f"{addresses.open_images_url}/{V7_INDEX['train']}") as response:
        index = list(csv.DictReader(io.TextIOWrapper(response, "utf-8")))
    entries = {entry["id"]: entry for entry in truth}
    assert len(index) > 30
    for row in index:
        entry = entries[row["ImageID"]]
        found, body = ask(row["OriginalURL"])
        missing = {"gone": 302, "original_gone": 302, "not_found": 404}
        assert found.status == missing.get(entry["fault"], 200)
        assert found.status != 200 or body == photos(directory, entry)["original"].read_bytes()
        found, body = ask(f"{addresses.mirror_url}/train/{row['ImageID']}.jpg")
        assert found.status == (404 if entry["sources"]["mirror"] == "gone" else 200)
    hosts = {addresses.open_images_url, addresses.mirror_url, addresses.originals_url}
    assert len(hosts) == 3
    assert ask(f"{addresses.originals_url}/{V7_INDEX['train']}")[0].status == 404


def test_an_image_that_is_gone_redirects_to_a_small_png(served):
    response, body = ask(an_original(served, "gone"))
    assert (response.status, body) == (302, b"")
    location = response.headers["Location"]
    assert location == f"{served[1].originals_url}/pw/images/en-us/photo_unavailable_l.png"
    response, body = ask(location)
    assert (response.status, response.headers["Content-Type"]) == (200, "image/png")
    assert len(body) < 6000
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        assert image.format == "PNG"


RANGES = [
    ("bytes=0-0", 206, slice(0, 1)),
    ("bytes=5-9", 206, slice(5, 10)),
    ("bytes=100-", 206, slice(100, None)),
    ("bytes=-7", 206, slice(-7, None)),
    ("bytes=100-99999999", 206, slice(100, None)),
    ("bytes=99999999-", 416, slice(0, 0)),
    ("bytes=-0", 416, slice(0, 0)),
    ("bytes=0-1,4-5", 200, slice(None)),
    ("lines=0-1", 200, slice(None)),
]


@pytest.mark.parametrize(("wanted", "status", "part"), RANGES)
def test_ranges(served, wanted, status, part):
    url = an_original(served)
    _, whole = ask(url)
    response, body = ask(url, Range=wanted)
    assert (response.status, body) == (status, whole[part])
    size = len(whole)
    ranges = {200: None, 416: f"bytes */{size}"}
    start, stop, _ = part.indices(size)
    assert response.headers["Content-Range"] == ranges.get(status, f"bytes {start}-{stop - 1}/{size}")


def test_a_range_of_a_file_that_changed_is_the_whole_file(served):
    url = an_original(served)
    response, whole = ask(url)
    for unchanged in (response.headers["ETag"], response.headers["Last-Modified"]):
        found, body = ask(url, Range="bytes=10-", If_Range=unchanged)
        assert (found.status, body) == (206, whole[10:])
    for changed in ('"another"', "Thu, 01 Jan 1970 00:00:00 GMT"):
        found, body = ask(url, Range="bytes=10-", If_Range=changed)
        assert (found.status, body) == (200, whole)


def test_one_connection_answers_many_requests(served):
    good = an_original(served)
    with closing(http.client.HTTPConnection(urlsplit(good).netloc, timeout=10)) as connection:
        sockets = set()
        for path in (good, an_original(served, "gone"), "/no_such.jpg", good):
            for method in ("GET", "HEAD"):
                connection.request(method, urlsplit(path).path)
                response = connection.getresponse()
                body = response.read()
                assert response.version == 11
                assert len(body) == (int(response.headers["Content-Length"]) if method == "GET" else 0)
                sockets.add(connection.sock)
        assert len(sockets) == 1
        assert None not in sockets


@pytest.mark.parametrize("path", ["/", "/..", "/../truth.json", "/%2e%2e/truth.json", "//etc/passwd", "/pw"])
def test_nothing_outside_the_folder_is_served(served, path):
    for url in (served[1].originals_url, served[1].open_images_url):
        assert ask(url + path)[0].status == 404


def test_if_the_port_is_in_use_the_index_names_another(tmp_path):
    make.main(["--directory", str(tmp_path / "a"), "--images", "2"])
    with serve.serving(tmp_path / "a") as first:
        make.main(
            ["--directory", str(tmp_path / "b"), "--images", "2", "--originals_url", first.originals_url]
        )
        with serve.serving(tmp_path / "b") as second:
            assert second.originals_url != first.originals_url
            for row in rows(tmp_path / "b/release" / V7_INDEX["train"]):
                assert row["OriginalURL"].startswith(second.originals_url)
        with serve.serving(tmp_path / "b") as third:
            assert third.originals_url == second.originals_url


def test_one_server_at_a_time(tmp_path, script, served):
    outcome = script("sample.serve", served[0])
    assert outcome.code == 1
    assert outcome.err == f"sample.serve.py: {served[0]}: another run is working in this folder\n"
    outcome = script("sample.serve", tmp_path)
    assert outcome.code == 1
    assert outcome.err.startswith(f"sample.serve.py: {tmp_path}: no sample; ")


def test_a_port_in_use_is_one_line(tmp_path, script, served):
    make.main(["--directory", str(tmp_path), "--images", "1"])
    port = urlsplit(served[1].mirror_url).port
    outcome = script("sample.serve", tmp_path, "--port", port)
    assert outcome.code == 1
    assert outcome.err == f"sample.serve.py: port {port} of 127.0.0.1: Address already in use\n"


def test_a_command_runs_with_the_addresses_and_its_exit_code_is_returned(tmp_path):
    make.main(["--directory", str(tmp_path), "--images", "1"])
    code = (
        "import os, sys, urllib.request as r;"
        "print(len(r.urlopen(os.environ['OPEN_IMAGES_URL'] + '/v5/class-descriptions-boxable.csv').read()));"
        "sys.exit(7)"
    )
    command = [sys.executable, "-m", "sample.serve", str(tmp_path), "--", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    size = (tmp_path / "release/v5/class-descriptions-boxable.csv").stat().st_size
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{size}\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_prints_shell_lines_and_serves_until_stopped(tmp_path, number):
    make.main(["--directory", str(tmp_path), "--images", "1"])
    command = [sys.executable, "-m", "sample.serve", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        lines = [server.stdout.readline() for _ in range(3)]
        shell = "".join(lines) + 'echo "$OPEN_IMAGES_URL $MIRROR_URL $ORIGINALS_URL"'
        urls = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
        assert [line.split("=")[1].strip() for line in lines] == urls
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{urls[1]}/train/none.jpg")
        os.kill(server.pid, number)
        _, err = server.communicate(timeout=30)
        assert server.returncode == 130
        assert "Traceback" not in err
