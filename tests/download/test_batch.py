"""One batch of step 4, where the whole run would take too long to show it."""

import time

import pytest

from common.download.run import fetch_batch
from common.download.types import (
    Batch,
    Download,
    ImageSource,
)  # fmt: skip
from tests.support.downloads import download_settings, server
from tests.support.fault_server import photo

__all__ = ["server"]


@pytest.fixture
def fetch(tmp_path):
    """Return a function that runs a batch of these downloads."""
    settings = download_settings(tmp_path)

    def run(*downloads: Download):
        return fetch_batch(Batch("run", list(downloads), 4, 4, 1.0, {}, keeps_connections=True), settings)

    return run


def wanted(server, route: str, name: str) -> Download:
    source = ImageSource("original", f"{server.base}/{route}/{name}")
    return Download(name, [source])


def test_a_slow_image_comes_back_and_has_its_time_among_others_of_its_kind(server, fetch):
    def slow(e) -> None:
        e.head("200 OK", f"Content-Length: {len(e.photo)}")
        for start in range(0, len(e.photo), 100):
            e.server.stopping.wait(0.15)
            e.send(e.photo[start : start + 100])

    server.routes["slow"] = slow
    begun = time.monotonic()
    fetched = fetch(wanted(server, "slow", "s"), *(wanted(server, "good", f"g{n}") for n in range(9)))
    assert time.monotonic() - begun < 2
    assert {outcome.id for outcome in fetched.outcomes} == {f"g{n}" for n in range(9)}
    [(seconds, download)] = fetched.later
    assert (seconds, download.id, download.is_slow) == (0, "s", True)
    assert (download.seconds, download.tries) == (0, 0)  # what we cut short is not held against it
    [outcome] = fetch(download).outcomes
    assert (outcome.failure, outcome.size) == (None, len(photo("s")))


def test_a_batch_hands_back_what_it_does_not_get_to(server, fetch):
    def busy(e) -> None:
        e.server.stopping.wait(0.3)
        e.answer(e.photo)

    server.routes["good"] = busy
    begun = time.monotonic()
    fetched = fetch(*(wanted(server, "good", f"g{n}") for n in range(100)))
    assert time.monotonic() - begun < 4
    assert 8 <= len(fetched.outcomes) <= 40
    assert len(fetched.outcomes) + len(fetched.later) == 100
    assert {seconds for seconds, _ in fetched.later} == {0.0}
