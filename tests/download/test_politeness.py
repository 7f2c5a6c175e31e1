"""Step 4 towards its hosts: their pauses are kept, their robots tags are heeded, none is pressed."""

import threading
import time
from contextlib import ExitStack
from itertools import pairwise

import pytest

from common.download.connections import host_of
from common.download.request import retry_after, robots_refuse
from common.download.run import Host
from tests.support.downloads import arguments, counts, failures, folder, good, photos, server, write_index
from tests.support.fault_server import fault_server, photo

__all__ = ["folder", "server"]


PAUSES = {
    "429, seconds": ("429 Too Many Requests", "Retry-After: 2"),
    "503, a date by a clock that is years behind": (
        "503 Service Unavailable", "Date: Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After: Wed, 21 Oct 2015 07:28:02 GMT"),
}  # fmt: skip


def test_a_pause_holds_for_the_whole_host_and_holds_up_no_other(script, folder):
    """One photo's answer pauses its host for 2 s; the photos of a host without a pause are done meanwhile."""
    times: dict[str, float] = {}

    def timed(e) -> None:
        times[e.path] = time.monotonic()
        e.answer(e.photo)

    def busy(pause):
        def answer(e) -> None:
            times.setdefault(e.path, time.monotonic())  # of the first request
            e.server.busy(pause[0], e, *pause[1:])

        return answer

    entries = []
    with ExitStack() as stack:
        for host, pause in {**PAUSES, "other": None}.items():
            server = stack.enter_context(fault_server())
            server.routes |= {"good": timed, "busy": busy(pause)}
            # One connection, so that the busy one is asked first and everything else after it.
            host = host[:3]
            entries += [{"id": f"{host}-busy", "url": f"{server.base}/busy/{host}"}] if pause else []
            entries += [{"id": f"{host}-{n}", "url": f"{server.base}/good/{host}-{n}"} for n in range(20)]
        write_index(folder, entries)
        outcome = script(
            "download_images", *arguments(folder, "--max_per_host", 1, "--threads", 4, "--deadline", 1)
        )
    assert (outcome.code, outcome.counts["downloaded"]) == (0, 62)  # the pause is longer than the deadline
    for host in ("429", "503"):
        start = times[f"/busy/{host}"]
        assert min(times[f"/good/{host}-{n}"] for n in range(20)) >= start + 2
        assert max(times[f"/good/oth-{n}"] for n in range(20)) < start + 2


def test_a_pause_holds_for_all_processes_and_no_burst_follows(script, server, folder):
    """Asked for a second's pause among a stream of photos, two processes stop, and come back one by one."""
    lock = threading.Lock()
    begun: list[float] = []
    active: list[int] = [0]
    met: list[tuple[float, int]] = []  # when each photo was asked for, and how many were then under way
    pause: list[float] = []

    def serve(e) -> None:
        with lock:
            active[0] += 1
            met.append((time.monotonic(), active[0]))
            if len(met) == 60:
                pause.append(time.monotonic())
        time.sleep(0.05)
        with lock:
            active[0] -= 1
        if pause and not begun:
            begun.append(pause[0])
            e.answer(b"busy", "429 Too Many Requests", "Retry-After: 2")
        else:
            e.answer(e.photo)

    server.routes["good"] = serve
    write_index(folder, good(server, 150))
    outcome = script(
        "download_images", *arguments(folder, "--processes", 2, "--threads", 16, "--max_per_host", 16)
    )
    assert (outcome.code, outcome.counts["downloaded"]) == (0, 150)
    assert max(number for at, number in met if at <= pause[0]) >= 8  # before it all connections were in use
    during = [at for at, _ in met if pause[0] + 0.6 < at < pause[0] + 2]
    after = [(at, number) for at, number in met if at >= pause[0] + 2]
    assert not during
    assert all(number <= 4 for at, number in after[:6])  # two processes begin with one connection each
    assert after[0][1] <= 2


def test_a_pause_beyond_what_we_wait_leaves_the_host_for_the_next_run(script, server, folder):
    with fault_server() as other:
        entries = [{"id": f"l{n}", "url": f"{server.base}/429_long/l{n}"} for n in range(50)]
        write_index(folder, [*entries, *good(other, 5)])
        outcome = script("download_images", *arguments(folder, "--max_per_host", 2))
    assert outcome.counts == counts(
        images=55, downloaded=5, failed=50, rate_limited=50, bytes=sum(len(photo(f"p{n}")) for n in range(5))
    )
    assert server.asked.total() <= 2
    assert "--max_pause" in failures(folder)["l49"][1]


def test_a_host_that_asks_for_no_pause_is_not_left_for_the_next_run(script, server, folder):
    """What we wait by ourselves may be longer than --max_pause."""
    server.routes["good"] = lambda e: e.server.busy("503 Service Unavailable", e)
    write_index(folder, good(server, 3))
    outcome = script("download_images", *arguments(folder, "--backoff", 0.4, "--max_pause", 0.1))
    assert outcome.counts == counts(images=3, downloaded=3, bytes=outcome.counts["bytes"])


def test_the_rate_comes_back_gradually_after_a_pause():
    host = Host(8, 8.0, active=8)
    host.pause(0.0)  # one that is over already
    rounds = []
    for _ in range(9):
        for _ in range(host.active):
            host.done(well=True)
        while host.may_start(1e9):
            host.active += 1
        rounds.append(host.active)
    assert rounds[0] == 1  # what was under way before the pause says nothing
    assert all(after - before <= 1 for before, after in pairwise(rounds))
    assert rounds[-1] >= 6


RETRY_AFTER = {
    "seconds": ({"Retry-After": "7"}, 7),
    "a date by the server's clock": (
        {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:29:30 GMT"}, 90),
    "a date that is over": ({"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:00:00 GMT"}, 0),
    "none": ({}, None),
    "nonsense": ({"Retry-After": "soon"}, None),
    "negative": ({"Retry-After": "-5"}, None),
    "no ASCII digit": ({"Retry-After": "\u0665"}, None),
    "without end": ({"Retry-After": "9" * 400}, 10**12 - 1),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("tags", "refuses"),
    [
        (["noai"], True),
        (["NoImageAI, noindex"], True),
        (["noindex", "noimageai"], True),
        (["mine: noai"], True),
        (["otherbot: noai"], False),
        (["noindex, nofollow"], False),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], False),
    ],
)
def test_robots_tags(tags, refuses):
    assert robots_refuse(tags, "mine/1.0") is refuses


def test_the_robots_tag_can_be_ignored_and_holds_for_originals_only(script, server, folder):
    write_index(folder, [
        {"id": "original", "url": f"{server.base}/noai/original"},
        {"id": "mirror", "subset": "noai", "url": f"{server.base}/404/mirror"},
        {"id": "thumbnail", "thumbnail_url": f"{server.base}/noai/thumbnail"},
    ])  # fmt: skip
    sources = ("--image_source", "mirror,original,thumbnail", "--mirror_url", server.base)
    script("download_images", *arguments(folder, *sources))
    assert photos(folder).keys() == {"mirror", "thumbnail"}
    assert failures(folder) == {"original": ("forbidden", "original: X-Robots-Tag: noindex, noimageai")}
    script("download_images", *arguments(folder, *sources, "--ignore_robots_tag", "--retry_failed"))
    assert photos(folder).keys() == {"original", "mirror", "thumbnail"}
    assert failures(folder) == {}


def test_hosts_are_told_apart_by_scheme_and_port():
    assert host_of("HTTP://Host:80/a?b") == "http://host:80"
    assert host_of("https://host?x=http://other/") == "https://host"
