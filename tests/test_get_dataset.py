"""Step 1 in each shell and with each tool that is on this machine, against a real server."""

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from sample.make import main as make_sample
from tests.conftest import ROOT
from tests.fault_server import fault_server, unused_port

SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]
TOOLS = [tool for tool in ("curl", "wget", "busybox", "python3") if shutil.which(tool)]
UNIX_TOOLS = [
    "sh",
    "cat",
    "head",
    "tail",
    "sed",
    "tr",
    "awk",
    "wc",
    "grep",
    "mkdir",
    "mv",
    "rm",
    "rmdir",
    "tar",
    "gzip",
    "kill",
    "sleep",
    "printf",
    "dirname",
    "env",
    "cp",
    "ls",
]
CUT = 20_000  # bytes after which a fault cuts the body; more than the tools hold back in their buffers


class Handler(BaseHTTPRequestHandler):
    """Serves a folder, with the fault that the test set for a path."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        fault = self.server.faults.get(self.path, "")
        self.server.requests.append((self.path, self.headers.get("Range")))
        file = self.server.folder / self.path.lstrip("/")
        if fault.isdigit() or not file.is_file():
            self.answer(int(fault or 404), b"<html>no</html>")
            return
        data = b"<html>all is well</html>" if fault == "not a tarball" else file.read_bytes()
        version = self.server.versions.get(self.path, "1")
        if version != "1":
            data = data.replace(b"0", b"9")  # as long, and another file
        wanted, tag = self.headers.get("Range"), f'"v{version}"'
        start = 0
        if wanted and fault != "no ranges" and self.headers.get("If-Range") in (None, tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if "no tag" not in fault:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if fault.startswith("cut") or fault == "hang":
            if fault == "cut once":
                del self.server.faults[self.path]
            self.wfile.write(body[:CUT])
            self.wfile.flush()
            if fault == "hang":
                self.server.hanging.set()
                self.server.go_on.wait(30)
            self.close_connection = True
            return
        self.wfile.write(body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """The server's switches and what it was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.hanging, self.go_on = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        if tls:
            self.url = f"https://localhost:{self.server_port}"
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request, client_address) -> None:
        pass  # a client that left early is part of these tests


@contextmanager
def serving(folder: Path, tls: ssl.SSLContext | None = None):
    with Server(folder, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    make_sample(["--directory", str(folder), "--images", "60"])
    boxes = folder / "release" / BOXES.lstrip("/")
    header, rest = boxes.read_bytes().split(b"\n", 1)
    boxes.write_bytes(header + b"\n" + rest * (4 * CUT // len(rest)))
    return folder / "release"


@pytest.fixture
def server(release):
    with serving(release) as server:
        yield server


@pytest.fixture(scope="module")
def path_with(tmp_path_factory):
    """Return `path_with(tool)`, a PATH on which that tool is the only one that can fetch."""

    def make(tool: str) -> str:
        folder = tmp_path_factory.mktemp(f"bin-{tool}")
        for name in UNIX_TOOLS:
            if found := shutil.which(name):
                (folder / name).symlink_to(found)
        name = "wget" if tool == "busybox" else tool
        # A shim in place of python3 would need more of the machine than this PATH has.
        target = os.path.realpath(sys.executable) if tool == "python3" else shutil.which(tool)
        (folder / name).symlink_to(target)
        return str(folder)

    return make


def command(shell: str) -> list[str]:
    return ["busybox", "sh"] if shell == "busybox" else [shell]


def start(
    server: Server, *arguments: object, shell: str = "sh", path: str | None = None
) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OPEN_IMAGES_URL": server.url + "/", "PATH": path or os.environ["PATH"]}
    whole = [
        shutil.which(command(shell)[0]) or shell,
        *command(shell)[1:],
        str(ROOT / "get_dataset.sh"),
        *map(str, arguments),
    ]
    return subprocess.Popen(
        whole,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def get(server: Server, *arguments: object, **options) -> tuple[int, str, str]:
    process = start(server, *arguments, **options)
    out, err = process.communicate(timeout=60)
    errors = [line for line in err.splitlines() if ": fetching " not in line]
    return process.returncode, out, "\n".join(errors)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(data: bytes) -> int:
    return data.count(b"\n")


# --- what is there afterwards -------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", ["v2", "v3", "v4", "v5", "v6", "v7"])
def test_every_release_and_split_ends_in_the_same_layout(server, tmp_path, name, split):
    code, out, err = get(
        server, "--release", name, "--split", split, "--directory", tmp_path / "d", "--image_labels"
    )
    assert (code, err) == (0, "")
    files = tree(tmp_path / "d")
    expected = {
        "RELEASE", "classes/class-descriptions.csv", "classes/classes-trainable.txt",
        f"{split}/boxes.csv", f"{split}/images.csv", f"{split}/image-labels.csv",
    }  # fmt: skip
    if name in ("v2", "v3"):
        expected |= {path for path in files if path.startswith("tarballs/")}
    else:
        expected |= {"classes/hierarchy.json"}
    assert set(files) == expected
    assert files["RELEASE"] == f"{name}\n".encode()
    assert files[f"{split}/images.csv"].startswith(b"ImageID,Subset,OriginalURL,")
    assert f",{split},".encode() in files[f"{split}/images.csv"]
    assert files[f"{split}/boxes.csv"].startswith(b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax")
    assert files[f"{split}/image-labels.csv"].startswith(b"ImageID,Source,LabelName,Confidence")
    assert all(line.startswith(b"/m/") for line in files["classes/classes-trainable.txt"].splitlines())
    counts = dict(pair.split("=") for pair in out.splitlines()[-1].split())
    assert int(counts["images"]) == rows(files[f"{split}/images.csv"]) - 1
    assert int(counts["boxes"]) == rows(files[f"{split}/boxes.csv"]) - 1
    assert int(counts["trainable"]) == rows(files["classes/classes-trainable.txt"])


def test_the_boxable_classes_are_the_trainable_ones_from_v4_on(server, tmp_path):
    assert get(server, "--release", "v7", "--directory", tmp_path)[0] == 0
    described = (tmp_path / "classes/class-descriptions.csv").read_text().splitlines()
    assert described[0] == "LabelName,DisplayName"
    trainable = (tmp_path / "classes/classes-trainable.txt").read_text().splitlines()
    assert trainable == [line.split(",")[0] for line in described[1:]]


def test_v3_takes_the_classes_of_the_boxes(server, tmp_path):
    assert get(server, "--release", "v3", "--directory", tmp_path)[0] == 0
    tarball = server.folder / "2017_11/classes_2017_11.tar.gz"
    listed = subprocess.run(
        ["tar", "-xzOf", tarball, "2017_11/classes-bbox-trainable.txt"], capture_output=True, check=True
    ).stdout
    assert (tmp_path / "classes/classes-trainable.txt").read_bytes() == listed


@pytest.mark.parametrize("name", ["v3", "v7"])
def test_a_second_split_joins_and_a_second_run_fetches_nothing(server, tmp_path, name):
    assert get(server, "--release", name, "--directory", tmp_path)[0] == 0
    before = tree(tmp_path)
    assert get(server, "--release", name, "--directory", tmp_path, "--split", "validation")[0] == 0
    after = tree(tmp_path)
    assert before.items() <= after.items()
    assert {"validation/boxes.csv", "validation/images.csv"} <= set(after) - set(before)
    asked = len(server.requests)
    assert len(set(server.requests)) == asked
    assert get(server, "--release", name, "--directory", tmp_path)[0] == 0
    assert len(server.requests) == asked


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("tool", TOOLS)
def test_any_shell_and_tool_leave_the_same(server, tmp_path, path_with, shell, tool):
    for name in ("v3", "v7"):
        code, _, err = get(
            server, "--release", name, "--directory", tmp_path / name, shell=shell, path=path_with(tool)
        )
        assert (code, err) == (0, "")
        assert get(server, "--release", name, "--directory", tmp_path / f"{name}-plain")[0] == 0
        assert tree(tmp_path / name) == tree(tmp_path / f"{name}-plain")


def test_nothing_to_fetch_with_is_one_line(server, tmp_path, path_with):
    path = path_with("true")
    code, _, err = get(server, "--directory", tmp_path / "d", path=path)
    assert (code, err) == (
        1,
        "get_dataset.sh: curl, wget or python3 is needed to fetch files, and none is here",
    )


# --- what goes wrong ----------------------------------------------------------------------------------

DESCRIPTIONS = "/v7/oidv7-class-descriptions-boxable.csv"
BOXES = "/v5/validation-annotations-bbox.csv"
TARBALL = "/2017_11/annotations_human_bbox_2017_11.tar.gz"
V7 = ("--release", "v7", "--split", "validation")
V3 = ("--release", "v3", "--split", "validation")

REFUSED = {
    "404": (V7, BOXES, "404", "{url}: the server answered 404"),
    "403": (V7, BOXES, "403", "{url}: the server answered 403"),
    "500": (V7, BOXES, "500", "{url}: the server answered 500"),
    "404 for a tarball": (V3, TARBALL, "404", "{url}: the server answered 404"),
    "not a tarball": (V3, TARBALL, "not a tarball", "{url}: not a gzipped tarball"),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("flags", "path", "fault", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_one_line_and_mends_itself(
    server, tmp_path, path_with, tool, flags, path, fault, message
):
    server.faults[path] = fault
    code, _, err = get(server, *flags, "--directory", tmp_path, path=path_with(tool))
    assert (code, err) == (1, "get_dataset.sh: " + message.format(url=server.url + path))
    assert not (tmp_path / "validation/boxes.csv").exists()
    assert not any(path.suffix in (".part", ".head", ".error") for path in tmp_path.rglob("*"))
    server.faults.clear()
    assert get(server, *flags, "--directory", tmp_path)[0] == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_a_server_that_is_not_there_is_one_line(server, tmp_path, path_with, tool):
    server.url = f"http://127.0.0.1:{unused_port()}"
    code, _, err = get(server, "--directory", tmp_path, path=path_with(tool))
    assert code == 1
    assert err.startswith(f"get_dataset.sh: {server.url}{DESCRIPTIONS}: nothing came (")
    assert re.search("refused|connect to", err)
    assert "\n" not in err
    assert set(tree(tmp_path)) == {"RELEASE"}


# --- the way to the server ----------------------------------------------------------------------------


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """Return the context of a server on localhost; of the last TLS that a busybox of old can speak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    authority.issue_cert("localhost", key_type=trustme.KeyType.RSA).configure_cert(context)
    return context


@pytest.mark.parametrize("tool", TOOLS)
def test_certificates_are_verified(release, tmp_path, path_with, monkeypatch, tool):
    """One of ours is trusted by REQUESTS_CA_BUNDLE alone; a tool that checks none is not taken."""
    authority, folder, path = trustme.CA(), tmp_path / "data", path_with(tool)
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    with serving(release, server_context(authority)) as server:
        code, _, err = get(server, *V7, "--directory", folder, path=path)
        assert code == 1
        assert "certificate" in err
        assert "\n" not in err
        assert set(tree(folder)) == {"RELEASE"}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        code, _, err = get(server, *V7, "--directory", folder, path=path)
        if tool == "busybox":
            assert (code, err.partition(": this ")[2]) == (
                1, "wget checks no certificates; curl, GNU wget or python3 is needed",
            )  # fmt: skip
        else:
            assert (code, err) == (0, "")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "nowhere.pem")
        assert get(server, *V7, "--directory", folder, path=path) == (
            1, "", "get_dataset.sh: nowhere.pem: no such file, REQUESTS_CA_BUNDLE names certificates",
        )  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_a_proxy_in_capital_letters_is_used(server, tmp_path, path_with, monkeypatch, tool):
    with fault_server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base)
        code, _, err = get(server, *V7, "--directory", tmp_path, path=path_with(tool))
        assert (code, err) == (1, f"get_dataset.sh: {server.url}{DESCRIPTIONS}: the server answered 404")
        assert set(proxy.asked) == {f"{server.url}{DESCRIPTIONS}"}
        assert not server.requests


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "busybox"])
def test_a_host_without_proxy_is_asked_itself(server, tmp_path, path_with, monkeypatch, tool):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert get(server, *V7, "--directory", tmp_path, path=path_with(tool))[0] == 0


# --- interruptions ------------------------------------------------------------------------------------

CUTS = {
    "a connection that breaks off once": ("cut once", "1", ["whole", "rest"]),
    "a server without ranges": ("no ranges", "1", ["whole", "rest", "whole"]),
    "a file that changed": ("", "2", ["whole", "rest", "whole"]),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("fault", "version", "ranges"), CUTS.values(), ids=CUTS)
def test_a_partial_file_is_continued_or_started_over(
    server, tmp_path, path_with, tool, fault, version, ranges
):
    path = path_with(tool)
    if fault != "cut once":
        server.faults[BOXES] = "hang"
        process = start(server, *V7, "--directory", tmp_path, path=path)
        assert server.hanging.wait(30)
        wait_until(lambda: (tmp_path / "validation/boxes.csv.part").stat().st_size >= CUT // 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "validation/boxes.csv").exists()
        server.go_on.set()
    server.faults[BOXES], server.versions[BOXES] = fault, version
    code, _, err = get(server, *V7, "--directory", tmp_path, path=path)
    assert code == 0, err
    official = (server.folder / BOXES.lstrip("/")).read_bytes()
    expected = official if version == "1" else official.replace(b"0", b"9")
    assert (tmp_path / "validation/boxes.csv").read_bytes() == expected
    asked = ["rest" if wanted else "whole" for path, wanted in server.requests if path == BOXES]
    assert asked == ranges


def wait_until(condition) -> None:
    """Wait for something another process is about to do; the test's own time limit is the deadline."""
    pause = threading.Event()
    for _ in range(600):
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        pause.wait(0.05)
    raise AssertionError("it did not happen within 30 seconds")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_short_file_is_never_taken_for_whole(server, tmp_path, path_with, tool):
    """Without a tag nothing can be continued, and every try is cut at the same byte."""
    server.faults[BOXES] = "cut, no tag"
    code, _, err = get(server, *V7, "--directory", tmp_path, path=path_with(tool))
    assert code == 1
    assert err.startswith(f"get_dataset.sh: {server.url}{BOXES}: broke off after {CUT} of ")
    assert not (tmp_path / "validation/boxes.csv").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_goes_on(server, tmp_path, signum):
    server.faults[BOXES] = "hang"
    process = start(server, *V7, "--directory", tmp_path)
    assert server.hanging.wait(30)
    wait_until(lambda: (tmp_path / "validation/boxes.csv.part").stat().st_size >= CUT // 2)
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "get_dataset.sh: interrupted; run the same command again to go on"
    server.go_on.set()
    server.faults.clear()
    assert get(server, *V7, "--directory", tmp_path)[0] == 0
    assert [bool(wanted) for path, wanted in server.requests if path == BOXES] == [False, True]


def test_two_runs_in_one_folder_are_refused(server, tmp_path):
    server.faults[BOXES] = "hang"
    process = start(server, *V7, "--directory", tmp_path)
    assert server.hanging.wait(30)
    code, _, err = get(server, *V7, "--directory", tmp_path)
    assert code == 1
    assert err == (
        f"get_dataset.sh: {tmp_path}: another run (process {process.pid}) is fetching into it; "
        f"if that is something else, remove {tmp_path}/.get_dataset.lock"
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    server.faults.clear()
    assert get(server, *V7, "--directory", tmp_path)[0] == 0  # the lock of a killed run holds no one up


def test_the_lock_of_a_killed_run_with_our_own_number_holds_no_one_up(server, tmp_path):
    """In a container each run has the same number."""
    lock = tmp_path / ".get_dataset.lock"
    lock.mkdir()
    result = subprocess.run(
        ["sh", "-c", f"echo $$ >{lock}/pid; exec sh {ROOT}/get_dataset.sh {' '.join(V7)} --directory {tmp_path}"],
        env={**os.environ, "OPEN_IMAGES_URL": server.url}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not lock.exists()


def test_a_run_that_has_only_just_begun_is_another_run(server, tmp_path):
    """Its lock has no number in it yet."""
    lock = tmp_path / ".get_dataset.lock"
    lock.mkdir()
    process = start(server, *V7, "--directory", tmp_path)
    time.sleep(0.2)
    (lock / "pid").write_text(f"{os.getpid()}\n")
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"another run (process {os.getpid()}) is fetching into it" in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_does_not_wait_until_a_tarball_is_unpacked(server, tmp_path, path_with, signum):
    """A tar that takes a minute stands in for a large tarball on a slow disk."""
    path = path_with(TOOLS[0])
    tar = Path(path.split(os.pathsep)[0]) / "tar"
    tar.unlink()
    tar.write_text(f"#!/bin/sh\n: >{tmp_path}/unpacking\nexec sleep 60\n")
    tar.chmod(0o755)
    process = start(
        server, "--release", "v3", "--split", "validation", "--directory", tmp_path / "d", path=path
    )
    wait_until((tmp_path / "unpacking").exists)
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "get_dataset.sh: interrupted; run the same command again to go on"
    assert get(server, "--release", "v3", "--split", "validation", "--directory", tmp_path / "d")[0] == 0


def test_another_release_in_the_same_folder_is_an_error(server, tmp_path):
    assert get(server, "--release", "v3", "--directory", tmp_path)[0] == 0
    before = tree(tmp_path)
    code, _, err = get(server, "--release", "v7", "--directory", tmp_path)
    assert (code, err) == (
        1, f"get_dataset.sh: {tmp_path}: holds release v3, v7 was asked for; give each its own --directory",
    )  # fmt: skip
    assert tree(tmp_path) == before


def test_a_full_disk_is_one_line_and_nothing_half_made(server, tmp_path):
    """A limit on the size of files stands in for the full disk, which needs root: writes fail all the same."""
    script = (
        f"ulimit -f 1; trap '' XFSZ; exec sh {ROOT}/get_dataset.sh --split validation --directory {tmp_path}"
    )
    environment = {**os.environ, "OPEN_IMAGES_URL": server.url}
    result = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if ": fetching " not in line]
    assert len(errors) == 1
    assert errors[0].endswith("cannot be written (disk full?)")
    assert not any(path.stat().st_size > 1024 for path in tmp_path.rglob("*") if path.is_file())


FLAGS = {
    "unknown flag": (["--nothing"], "unknown argument --nothing"),
    "no value": (["--release"], "--release needs a value"),
    "empty value": (["--directory", ""], "--directory needs a value"),
    "no such release": (["--release", "v8"], "--release v8: v2, v3, v4, v5, v6 or v7 was expected"),
    "no such split": (["--split", "dev"], "--split dev: train, validation or test was expected"),
}


@pytest.mark.parametrize(("arguments", "message"), FLAGS.values(), ids=FLAGS)
def test_wrong_flags_exit_2(server, arguments, message):
    assert get(server, *arguments) == (2, "", f"get_dataset.sh: {message}; see sh get_dataset.sh --help")


@pytest.mark.parametrize("shell", SHELLS)
def test_help_is_the_manual(server, shell):
    code, out, err = get(server, "--help", shell=shell)
    assert (code, err) == (0, "")
    assert "sh get_dataset.sh --release v7 --split validation" in out
    assert "set -u" not in out
