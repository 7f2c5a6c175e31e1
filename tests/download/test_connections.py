"""Step 4's connections: what they need of urllib3, and hosts with several addresses."""

import socket
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
import trustme

from common.download.connections import Attempt, Connections, DeadlineConnection, TimedSocket
from common.download.request import get_image
from common.download.types import ImageSource
from tests.support.downloads import download_settings
from tests.support.fault_server import FaultServer, fault_server, photo
from tests.support.faults import TLS_RECORD, listener, server_context

SETTINGS = download_settings(Path("unused"))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_urllib3_still_does_what_the_deadline_needs(scheme, tmp_path, monkeypatch):
    """The faults of a server are tested elsewhere; this says in plain words what a new urllib3 broke."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    attempt = Attempt(10)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    connections = Connections(1, "tests/1")
    with (
        fault_server(server_context(authority, "127.0.0.1") if scheme == "https" else None) as server,
        connections.get(f"{server.base}/good/a", attempt) as raw,
    ):
        connection = raw.connection
        broken = f"with urllib3 {version('urllib3')} deadlines do not hold: it no longer uses {{}}; see common/download/connections.py, and the versions in requirements.txt"
        assert isinstance(connection, DeadlineConnection), broken.format(
            "pool_classes_by_scheme or ConnectionCls"
        )
        assert connection.attempt is attempt, broken.format(
            "the parts of a Timeout as the timeout of a connection"
        )
        assert isinstance(connection.sock, TimedSocket), broken.format(
            "_new_conn, or the wrap_socket of our SSLContext"
        )
        assert connection.sock.owner is connection, broken.format("the socket that wrap_socket returned")
        assert raw.read() == photo("a")
        connections.close()


@pytest.fixture
def several_addresses(monkeypatch):
    """Return a function that gives a name real addresses of the loopback, which no name server here does."""

    def give(name: str, addresses: list[str]) -> None:
        look_up = socket.getaddrinfo

        def getaddrinfo(host, port, *arguments, **options):
            if host != name:
                return look_up(host, port, *arguments, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return give


def full_backlog(stack: ExitStack, address: str, port: int) -> None:
    """Listen, accept nobody and fill the queue, so that further connections get no answer."""
    server = stack.enter_context(socket.socket())
    server.bind((address, port))
    server.listen(0)
    for _ in range(5):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex((address, port))


def test_an_address_that_does_not_answer_costs_seconds_once(several_addresses):
    several_addresses("images.example", ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    connections = Connections(2, "tests/1")
    with ExitStack() as stack:
        server: FaultServer = stack.enter_context(fault_server())
        port = server.server_address[1]
        full_backlog(stack, "127.0.0.2", port)  # 127.0.0.3 refuses
        seconds = []
        for name in "abc":
            begun = time.monotonic()
            source = ImageSource("original", f"http://images.example:{port}/until_close/{name}")
            answer = get_image(source, 20, connections, SETTINGS)
            seconds.append(time.monotonic() - begun)
            assert answer.data == photo(name), answer
    assert seconds[0] > 2.5  # else the first address answered after all
    assert max(seconds[1:]) < 2.5


def test_the_last_address_has_all_the_time_and_the_deadline_holds(several_addresses):
    several_addresses("images.example", ["127.0.0.2"])
    with ExitStack() as stack:
        port = stack.enter_context(fault_server()).server_address[1]
        full_backlog(stack, "127.0.0.2", port)
        begun = time.monotonic()
        source = ImageSource("original", f"http://images.example:{port}/good/a")
        answer = get_image(source, 4, Connections(2, "tests/1"), SETTINGS)
        assert 3.5 < time.monotonic() - begun < 6
    assert answer.reason == "timeout"


def test_the_deadline_holds_behind_a_proxy_that_speaks_tls(tmp_path, monkeypatch):
    """TLS within TLS: a good image comes through, a server that drips its handshake ends in time."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with (
        fault_server(server_context(authority, "127.0.0.1")) as server,
        fault_server(server_context(authority, "127.0.0.1")) as proxy,
        listener(TLS_RECORD, drips=True) as dripping,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.base)
        connections = Connections(2, "tests/1")
        for name in "ab":
            source = ImageSource("original", f"{server.base}/good/{name}")
            assert get_image(source, 10, connections, SETTINGS).data == photo(name)
        assert proxy.counts.connections == 1
        for url in (f"https://127.0.0.1:{dripping}/x", f"{server.base}/drip_body/x"):
            begun = time.monotonic()
            answer = get_image(ImageSource("original", url), 2, connections, SETTINGS)
            assert answer.reason == "timeout", url
            assert time.monotonic() - begun < 4
