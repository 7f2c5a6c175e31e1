"""Step 4: bad addresses are outcomes; a bad id, index, flag or environment is one line."""

import pytest

from common.download.connections import url_problem
from common.files.whole_files import locked_folder
from tests.support.downloads import arguments, failures, folder, good, photos, server, write_index
from tests.support.fault_server import photo

__all__ = ["folder", "server"]


BAD_URLS = {
    "ftp://host/a.jpg": "ftp: only http",
    "file:///etc/passwd": "file: only http",
    "host/a.jpg": "no scheme: only http",
    "http://": "no host",
    "http:///a.jpg": "no host",
    "http://user:secret@host/a.jpg": "user name or password",
    "http://host:99999/a.jpg": "ort",
    "http://host/a\nb.jpg": "control characters",
    "http://host/a\0.jpg": "control characters",
    "http://[::1/a.jpg": "Invalid IPv6",
    "http://host/" + "a" * 10_000: "10012 characters",
}


@pytest.mark.parametrize(("url", "problem"), BAD_URLS.items(), ids=[url[:30] for url in BAD_URLS])
def test_addresses_that_are_never_asked(url, problem):
    assert problem in url_problem(url)


def test_bad_addresses_are_outcomes(script, server, folder):
    evil = [
        *({"id": f"u{n}", "url": url} for n, url in enumerate(BAD_URLS)),
        {"id": "dots", "url": "http://a..b/x"},
        {"id": "idn", "url": "http://" + "ü" * 80 + ".example/"},
    ]
    mirrored = {"id": "subset", "subset": "tr\nain", "url": f"{server.base}/good/subset"}
    write_index(folder, [*evil, *good(server, 1), mirrored])
    for run in (1, 2):
        outcome = script("download_images", *arguments(folder, "--retries", 0))
        assert (outcome.code, len(outcome.messages.splitlines())) == (0, 1)
        assert outcome.messages.startswith(f"{len(evil)} of {len(evil) + 2} images failed, ")
        assert outcome.counts["downloaded" if run == 1 else "already_there"] == 2
        assert outcome.counts["bad_url"] >= len(BAD_URLS)
        assert list(failures(folder)) == [entry["id"] for entry in evil]


def test_names_that_are_reserved_elsewhere_are_names(script, server, folder):
    names = ["con", "NUL", "lpt1", "aux.txt", "desktop.ini", "download_failures.csv", "a-", "x" * 128]
    write_index(folder, [{"id": name, "url": f"{server.base}/good/{name}"} for name in names])
    outcome = script("download_images", *arguments(folder))
    assert (outcome.code, outcome.messages) == (0, "")
    assert photos(folder) == {name: photo(name) for name in names}


EVIL_IDS = {
    "../outside": "at `$.id`: '../outside'",
    "/tmp/absolute": "at `$.id`: ",
    "a/b": "at `$.id`: ",
    "..": "at `$.id`: ",
    ".hidden": "at `$.id`: ",
    "a\0b": "at `$.id`: ",
    "a\nb": "at `$.id`: ",
    "a" * 10_000: "at `$.id`: ",
    "ünï": "at `$.id`: ",
    "": "at `$.id`: ",
}


@pytest.mark.parametrize(
    ("image_id", "message"), EVIL_IDS.items(), ids=[ascii(text)[:20] for text in EVIL_IDS]
)
def test_evil_ids_never_touch_the_disk(script, server, folder, image_id, message):
    write_index(folder, [*good(server, 1), {"id": image_id, "url": f"{server.base}/good/x"}])
    outcome = script("download_images", *arguments(folder))
    assert outcome.code == 1
    assert outcome.err.startswith(f"download_images.py: {folder.parent}/index.json:1: Expected `str` ")
    assert message in outcome.err
    assert len(outcome.messages.splitlines()) == 1
    assert not server.asked
    assert {path.name for path in folder.parent.iterdir()} == {"index.json", "photos"}
    assert list(folder.iterdir()) == []


BAD_INDEXES = {
    "[]": "no images in it",
    "[1]": ":1: Expected `object`, got `int`: 1",
    '[{"id": "a", "url": 5}]': ":1: Expected `str | null`, got `int` - at `$.url`: 5",
    '[{"id": "a", "url": "http://h/a"},\n{"id": "a", "url": "http://h/a"}]': ":2: duplicate image id a",
    '[{"id": "a", "url": "http://h/a"}': "is it cut short?",
}


@pytest.mark.parametrize(("text", "message"), BAD_INDEXES.items())
def test_a_bad_index_is_an_error(script, folder, text, message):
    (folder.parent / "index.json").write_text(text)
    outcome = script("download_images", *arguments(folder))
    assert (outcome.code, outcome.out) == (1, "")
    assert message in outcome.err
    assert len(outcome.messages.splitlines()) == 1


FLAGS = {
    "--image_source": ("flickr", "", "mirror,mirror", "mirror, original"),
    "--mirror_url": ("ftp://x", "host", "http://u:p@h"),
    "--threads": ("0", "-1", "x"),
    "--deadline": ("0", "nan", "-3"),
    "--user_agent": ("", "a\nb", "ü"),
    "--max_failures": ("5 %", "-1"),
}


@pytest.mark.parametrize(
    ("flag", "value"), [(flag, value) for flag, values in FLAGS.items() for value in values]
)
def test_wrong_flags(script, folder, flag, value):
    outcome = script("download_images", *arguments(folder, flag, value))
    assert outcome.code == 2
    assert f"argument {flag}" in outcome.err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "HTTP_PROXY",
            "socks5://127.0.0.1:1",
            "HTTP_PROXY is 'socks5://127.0.0.1:1', an http:// or https:// address was",
        ),
        (
            "REQUESTS_CA_BUNDLE",
            "/nowhere.pem",
            "/nowhere.pem: no such file, REQUESTS_CA_BUNDLE names certificates",
        ),
    ],
)
def test_an_environment_we_cannot_work_in(script, server, folder, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    write_index(folder, good(server, 1))
    outcome = script("download_images", *arguments(folder))
    assert outcome.code == 1
    assert message in outcome.err


def test_a_second_run_on_the_same_folder_is_refused(script, server, folder):
    write_index(folder, good(server, 1))
    with locked_folder(folder):
        outcome = script("download_images", *arguments(folder))
    assert (outcome.code, outcome.err) == (
        1,
        f"download_images.py: {folder}: another run is working in this folder\n",
    )
