"""Step 4 against everything a server can do: the documented reason, within the deadline, the others unharmed."""

import io
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from itertools import pairwise

import pytest
import trustme

from common.download.connections import is_public
from common.download.types import PERMANENT
from common.files.failures import read_failures
from tests.support.fault_server import Exchange, fault_server, photo, to, unused_port
from tests.support.faults import (
    DEADLINE,
    FAULTS,
    GOOD,
    SETTINGS,
    TLS_RECORD,
    listener,
    server_context,
    write_index,
)  # fmt: skip


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    """Have the authority trusted, as a user would who has one of their own."""
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))


def test_every_fault_has_its_reason_and_harms_no_other_photo(script, tmp_path, authority, trusted):
    """By http and by https, all at once."""
    names = {
        f"{scheme}-{route.replace('_', '-')}": (scheme, route)
        for scheme in ("http", "https")
        for route in (*GOOD, *FAULTS)
    }
    urls: dict[str, str] = {}
    with ExitStack() as stack:
        servers = []
        for scheme, tls in (("http", None), ("https", server_context(authority, "127.0.0.1"))):
            servers.append(server := stack.enter_context(fault_server(tls)))
            for image_id, (own_scheme, route) in names.items():
                if own_scheme == scheme:
                    own = server
                    # Pauses belong to a host: those who ask for them have one of their own.
                    if route in ("429", "503", "busy_then_good", "busy_by_date", "unavailable_then_good"):
                        servers.append(own := stack.enter_context(fault_server(tls)))
                    urls[image_id] = f"{own.base}/{route}/{image_id}"
            urls |= {
                f"{scheme}-fine{number}": f"{server.base}/good/{scheme}-fine{number}" for number in range(60)
            }
        write_index(tmp_path / "index.json", urls)
        begun = time.monotonic()
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", "--deadline", DEADLINE, *SETTINGS,
        )  # fmt: skip
        seconds = time.monotonic() - begun
    assert (outcome.code, len(outcome.messages.splitlines())) == (0, 1)
    failures = {
        failure.id: failure for failure in read_failures(tmp_path / "photos" / "download_failures.csv")
    }
    expected = {image_id: FAULTS[route] for image_id, (_, route) in names.items() if route in FAULTS}
    wrong = {
        image_id: failures.get(image_id)
        for image_id, (reason, detail) in expected.items()
        if image_id not in failures
        or failures[image_id].reason != reason
        or detail not in failures[image_id].detail
    }
    assert not wrong
    assert failures.keys() == expected.keys()
    asked = sum((each.asked for each in servers), Counter())
    tries = {image_id: asked[f"/{names[image_id][1]}/{image_id}"] for image_id in expected}
    assert tries == {
        image_id: 1 if reason in PERMANENT | {"web_page"} or detail == "deadline" else 3
        for image_id, (reason, detail) in expected.items()
    } | {image_id: number for image_id, number in tries.items() if names[image_id][1] == "drip_redirects"}
    photos = {path.stem: path.read_bytes() for path in (tmp_path / "photos").glob("*.jpg")}
    assert photos == {image_id: photo(image_id) for image_id in urls if image_id not in failures}
    assert outcome.counts["downloaded"] == 2 * (len(GOOD) + 60)
    # All dripping ones at once: one after another they would take 14 deadlines.
    assert seconds < 6 * DEADLINE
    assert not list((tmp_path / "photos").glob(".*.part"))


def test_further_tries_wait_twice_as_long_each_time_and_do_not_come_at_once(script, tmp_path):
    with fault_server() as server:
        times: dict[str, list[float]] = defaultdict(list)

        def fail(e: Exchange) -> None:
            times[e.path].append(time.monotonic())
            e.answer(b"", "500 Internal Server Error")

        server.routes["500"] = fail
        urls = {f"p{n}": f"{server.base}/500/p{n}" for n in range(40)}
        write_index(tmp_path / "index.json", urls | {"fine": f"{server.base}/good/fine"})
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", *SETTINGS, "--backoff", 0.2, "--retries", 3,
        )  # fmt: skip
    assert (outcome.code, outcome.counts["server_error"]) == (0, 40)
    waits = [[after - before for before, after in pairwise(asked)] for asked in times.values()]
    assert {len(gaps) for gaps in waits} == {3}
    for gaps in waits:
        assert all(gap >= 0.1 * 2**number for number, gap in enumerate(gaps)), gaps  # half to one and a half
    first = [gaps[0] for gaps in waits]
    assert max(first) - min(first) > 0.1


def test_certificates_are_verified(script, tmp_path, authority, trusted):
    with (
        fault_server(server_context(trustme.CA(), "127.0.0.1")) as strange,
        fault_server(server_context(authority, "photos.example")) as misnamed,
        fault_server() as plain,
    ):
        urls = {
            "strange": f"{strange.base}/good/strange",
            "misnamed": f"{misnamed.base}/good/misnamed",
            "notls": f"{plain.base.replace('http', 'https')}/good/notls",
            "good": f"{plain.base}/good/good",
        }
        write_index(tmp_path / "index.json", urls)
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", *SETTINGS,
        )  # fmt: skip
        assert not strange.asked
        assert not misnamed.asked
    assert (outcome.code, outcome.counts["tls"], outcome.counts["downloaded"]) == (0, 3, 1)
    details = {f.id: f.detail for f in read_failures(tmp_path / "photos" / "download_failures.csv")}
    assert "self-signed" in details["strange"] or "unable to get local issuer" in details["strange"]
    assert "IP address mismatch" in details["misnamed"]


def test_hosts_that_are_not_there(script, tmp_path):
    with fault_server() as server:
        urls = {"good": f"{server.base}/good/good"}
        for scheme in ("http", "https"):
            urls[f"refused-{scheme}"] = f"{scheme}://127.0.0.1:{unused_port()}/refused.jpg"
            urls[f"nameless-{scheme}"] = f"{scheme}://no-such-host.invalid/nameless.jpg"
        write_index(tmp_path / "index.json", urls)
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", *SETTINGS,
        )  # fmt: skip
    assert (outcome.code, outcome.counts["connection"], outcome.counts["downloaded"]) == (0, 4, 1)
    details = {f.id: f.detail for f in read_failures(tmp_path / "photos" / "download_failures.csv")}
    for scheme in ("http", "https"):
        assert details[f"refused-{scheme}"] == "original: Connection refused"
        assert "name" in details[f"nameless-{scheme}"].lower()


def with_another_answer(e: Exchange) -> None:
    """Say more than was promised: behind what a client reads ahead, another photo as the next answer."""
    other = photo("other")
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(other)}\r\n\r\n".encode() + other
    e.head("200 OK", f"Content-Length: {len(e.photo)}")
    e.send(e.photo.ljust(io.DEFAULT_BUFFER_SIZE, b"x") + answer)


def nothing_and_another_answer(e: Exchange) -> None:
    """Say that there is nothing, and send another photo as the next answer."""
    other = photo("other")
    e.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    e.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(other)}\r\n\r\n".encode() + other)


@pytest.mark.parametrize(("answer", "refused"), [(with_another_answer, 0), (nothing_and_another_answer, 20)])
def test_what_follows_an_answer_is_not_taken_for_the_next(
    answer, refused, script, tmp_path, authority, trusted
):
    urls: dict[str, str] = {}
    with ExitStack() as stack:
        for scheme, tls in (("http", None), ("https", server_context(authority, "127.0.0.1"))):
            server = stack.enter_context(fault_server(tls))
            server.routes["more"] = answer
            for number in range(10):
                for route, name in (("good", f"g-{scheme}-{number}"), ("more", f"m-{scheme}-{number}")):
                    urls[name] = f"{server.base}/{route}/{name}"
        write_index(tmp_path / "index.json", urls)
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", *SETTINGS, "--threads", 1,
        )  # fmt: skip
    assert (outcome.code, outcome.counts["failed"]) == (0, refused)
    photos = {path.stem: path.read_bytes() for path in (tmp_path / "photos").glob("*.jpg")}
    assert photos == {name: photo(name) for name in urls if not refused or name.startswith("g")}


def test_a_proxy_is_used(script, tmp_path, authority, trusted, monkeypatch):
    with (
        fault_server() as plain,
        fault_server(server_context(authority, "127.0.0.1")) as secure,
        fault_server() as proxy,
        fault_server() as secure_proxy,
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy.base)
        monkeypatch.setenv("HTTPS_PROXY", secure_proxy.base)
        urls = {f"p{n}": f"{(plain, secure)[n % 2].base}/good/p{n}" for n in range(40)}
        write_index(tmp_path / "index.json", urls)
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", *SETTINGS,
        )  # fmt: skip
        assert (outcome.code, outcome.counts["downloaded"]) == (0, 40)
        assert (tmp_path / "photos" / "p6.jpg").read_bytes() == photo("p6")
        assert (tmp_path / "photos" / "p7.jpg").read_bytes() == photo("p7")
        assert set(secure_proxy.asked) == {secure.base.removeprefix("https://")}
        assert secure.asked.total() == 20
        assert set(proxy.asked) == {url for url in urls.values() if url.startswith("http:")}
        assert not plain.asked


PRIVATE = ("127.0.0.1", "localhost", "[::1]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
           "0.0.0.0", "[::ffff:127.0.0.1]", "[fd00::1]", "[fe80::1]", "127.1", "2130706433", "0x7f.0.0.1")  # fmt: skip


@pytest.mark.parametrize("proxied", [False, True])
def test_a_public_photo_is_not_followed_to_a_private_address(script, tmp_path, monkeypatch, proxied):
    """The proxy plays the public host; through a proxy a name counts as public."""
    with fault_server() as proxy, fault_server() as private:
        port = private.server_address[1]
        for number, host in enumerate(PRIVATE):
            proxy.routes[f"to{number}"] = to(f"http://{host}:{port}/good/secret")
        monkeypatch.setenv("HTTP_PROXY", proxy.base)
        if not proxied:
            monkeypatch.setenv("NO_PROXY", ",".join(host.strip("[]") for host in PRIVATE))
        urls = {f"p{number}": f"http://photos.example/to{number}/x" for number in range(len(PRIVATE))}
        urls["good"] = "http://photos.example/good/good"
        write_index(tmp_path / "index.json", urls)
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", *SETTINGS,
        )  # fmt: skip
        assert not private.asked
        assert set(proxy.asked) == set(urls.values())
    assert (outcome.code, outcome.counts["downloaded"]) == (0, 1)
    failures = {f.id: f for f in read_failures(tmp_path / "photos" / "download_failures.csv")}
    got = {host: failures[f"p{number}"].detail for number, host in enumerate(PRIVATE)}
    assert got == dict.fromkeys(PRIVATE, "original: redirected to a private address")
    assert {failure.reason for failure in failures.values()} == {"connection"}


@pytest.mark.parametrize(
    "host", ["93.184.216.34", "[2606:2800:220:1::1]", "photos.example", "localhost.example"]
)
def test_what_is_public(host):
    assert is_public(host)


def test_the_deadline_holds_before_the_first_request(script, tmp_path, authority, trusted, monkeypatch):
    """Servers that never finish TLS, say half of it or drip it, or are proxies that drip their answer to CONNECT."""
    with ExitStack() as stack:
        server = stack.enter_context(fault_server(server_context(authority, "127.0.0.1")))
        proxy = stack.enter_context(fault_server())
        proxy.tunnel = lambda connection, address: Exchange.drip(  # type: ignore[method-assign]
            Exchange(proxy, connection, address, {}, 1), b"HTTP/1.1 200 ", again=b"o"
        )
        silent = stack.enter_context(listener(b""))
        half = stack.enter_context(listener(b"\x16\x03\x03\x00\x7a\x02\x00"))
        drips = stack.enter_context(listener(TLS_RECORD, drips=True))
        urls = {
            "silent": f"https://127.0.0.1:{silent}/x",
            "drips": f"https://127.0.0.1:{drips}/x",
            "half": f"https://127.0.0.1:{half}/x",
            "good": f"{server.base}/good/good",
            "proxied": "https://photos.example/x",
        }
        monkeypatch.setenv("HTTPS_PROXY", proxy.base)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        write_index(tmp_path / "index.json", urls)
        begun = time.monotonic()
        outcome = script(
            "download_images", "--images_path", tmp_path / "index.json",
            "--images_output_directory", tmp_path / "photos", "--deadline", DEADLINE, *SETTINGS,
        )  # fmt: skip
        assert time.monotonic() - begun < DEADLINE + 4
    assert (outcome.code, outcome.counts["timeout"], outcome.counts["downloaded"]) == (0, 4, 1)
