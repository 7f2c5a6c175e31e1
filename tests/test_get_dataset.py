"""Step 1 in each shell and with each tool that is on this machine, against a real server."""

import re
import shutil
import ssl
import subprocess

import pytest
import trustme

from tests.support.fault_server import fault_server, unused_port
from tests.support.get_dataset_runs import (
    BOXES,
    DESCRIPTIONS,
    SHELLS,
    TARBALL,
    TOOLS,
    V3,
    V7,
    get,
    rows,
    serving,
    tree,
)
from tests.support.get_dataset_runs import path_with as path_with
from tests.support.get_dataset_runs import release as release
from tests.support.get_dataset_runs import server as server

# --- the files it makes ----------------------------------------------------------------------------


HEADERS = {"boxes": b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax", "images": b"ImageID,Subset,OriginalURL,",
           "image-labels": b"ImageID,Source,LabelName,Confidence"}  # fmt: skip
CLASSES_WITH_MASKS = "/v5/classes-segmentation.txt"


@pytest.mark.parametrize("name", ["v2", "v3", "v4", "v5", "v6", "v7"])
def test_every_release_and_split_ends_in_the_same_layout(server, tmp_path, name):
    """Of a release into one folder: each run adds its files to those that exist, and none is fetched twice."""
    classes = {"classes/class-descriptions.csv", "classes/classes-trainable.txt"}
    expected = {"RELEASE", *classes, *(() if name in ("v2", "v3") else ("classes/hierarchy.json",))}
    before: dict[str, bytes] = {}
    for split in ("train", "validation", "test"):
        flags = ("--release", name, "--split", split, "--directory", tmp_path, "--image_labels")
        code, out, err = get(server, *flags)
        assert (code, err) == (0, "")
        files = tree(tmp_path)
        expected |= {f"{split}/{kind}.csv" for kind in HEADERS}
        tarballs = {path for path in files if path.startswith("tarballs/")}
        assert set(files) - tarballs == expected
        assert bool(tarballs) == (name in ("v2", "v3"))
        assert before.items() <= files.items()
        for kind, header in HEADERS.items():
            assert files[f"{split}/{kind}.csv"].startswith(header)
        assert f",{split},".encode() in files[f"{split}/images.csv"]
        counts = dict(pair.split("=") for pair in out.splitlines()[-1].split())
        assert int(counts["images"]) == rows(files[f"{split}/images.csv"]) - 1
        assert int(counts["boxes"]) == rows(files[f"{split}/boxes.csv"]) - 1
        assert int(counts["trainable"]) == rows(files["classes/classes-trainable.txt"])
        if name == "v7" and split == "test":
            expected |= fetch_masks(server, tmp_path, split, flags)
            files = tree(tmp_path)
        before = files
    assert files["RELEASE"] == f"{name}\n".encode()
    asked = len(server.requests)
    assert len(set(server.requests)) == asked
    assert get(server, *flags)[0] == 0
    assert len(server.requests) == asked
    trainable = (tmp_path / "classes/classes-trainable.txt").read_text().splitlines()
    assert all(label.startswith("/m/") for label in trainable)
    if name == "v3":
        tarball = server.folder / "2017_11/classes_2017_11.tar.gz"
        listed = subprocess.run(
            ["tar", "-xzOf", tarball, "2017_11/classes-bbox-trainable.txt"], capture_output=True, check=True
        ).stdout
        assert files["classes/classes-trainable.txt"] == listed
    elif name != "v2":
        described = (tmp_path / "classes/class-descriptions.csv").read_text().splitlines()
        assert (described[0] == "LabelName,DisplayName") == (name == "v7")
        assert trainable == [line.split(",")[0] for line in described if not line.startswith("LabelName,")]


def fetch_masks(server, folder, split, flags) -> set[str]:
    """Add the masks to a folder, by two runs that fetch nothing else and nothing twice; return their files."""
    before, asked = tree(folder), len(server.requests)
    code, out, err = get(server, *flags, "--masks")
    assert (code, err) == (0, "")
    assert get(server, *flags, "--masks")[0] == 0
    files = tree(folder)
    assert before.items() <= files.items()
    zips = {f"{split}/masks/{split}-masks-{digit}.zip" for digit in "0123456789abcdef"}
    added = {"classes/classes-segmentable.txt", f"{split}/masks.csv", *zips}
    assert set(files) - set(before) == added
    assert len(server.requests) - asked == len(added) == 18
    assert files[f"{split}/masks.csv"].startswith(b"MaskPath,ImageID,LabelName,BoxID,BoxXMin,")
    counts = dict(pair.split("=") for pair in out.splitlines()[-1].split())
    assert int(counts["masks"]) == rows(files[f"{split}/masks.csv"]) - 1 > 0
    assert int(counts["segmentable"]) == rows(files["classes/classes-segmentable.txt"]) > 0
    for path in zips:
        official = server.folder / "v5" / f"{split}-masks" / path.rpartition("/")[2]
        assert files[path] == official.read_bytes()
    return added


@pytest.mark.parametrize("name", ["v5", "v6"])
def test_earlier_releases_with_masks_have_those_of_v7(server, tmp_path, name):
    server.faults[CLASSES_WITH_MASKS] = "404"
    code, _, err = get(server, "--release", name, "--directory", tmp_path, "--masks")
    assert (code, err) == (1, f"get_dataset.sh: {server.url}{CLASSES_WITH_MASKS}: the server answered 404")


@pytest.fixture(scope="module")
def plain(release, tmp_path_factory):
    """Return the files of v3 and v7, fetched by the first shell and tool of this machine."""
    folder = tmp_path_factory.mktemp("plain")
    with serving(release) as server:
        for name in ("v3", "v7"):
            assert get(server, "--release", name, "--directory", folder / name)[0] == 0
    return {name: tree(folder / name) for name in ("v3", "v7")}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("tool", TOOLS)
def test_every_shell_and_tool_makes_the_same_files(server, plain, tmp_path, path_with, shell, tool):
    for name in ("v3", "v7") if tool == TOOLS[0] else ("v7",):  # what it unpacks is no matter of the tool
        code, _, err = get(
            server, "--release", name, "--directory", tmp_path / name, shell=shell, path=path_with(tool)
        )
        assert (code, err) == (0, "")
        assert tree(tmp_path / name) == plain[name]


@pytest.mark.parametrize("tool", ["true", *(["busybox"] if shutil.which("busybox") else [])])
def test_without_a_tool_to_fetch_with_it_is_one_line(server, tmp_path, path_with, tool):
    """The wget of busybox is none: many of them check no certificates."""
    code, _, err = get(server, "--directory", tmp_path / "d", path=path_with(tool))
    assert (code, err) == (
        1,
        "get_dataset.sh: curl, GNU wget or python3 is needed, and none of them was found",
    )


# --- what goes wrong ----------------------------------------------------------------------------------

REFUSED = {  # by the tool or, where the shell decides, by the first
    "404": (V7, BOXES, "404", "{url}: the server answered 404"),
    "500": (V7, BOXES, "500", "{url}: the server answered 500"),
    "404 for a tarball": (V3, TARBALL, "404", "{url}: the server answered 404"),
    "not a tarball": (V3, TARBALL, "not a tarball", "{url}: not a gzipped tarball"),
}


@pytest.mark.parametrize(
    ("case", "tool"), [(case, tool) for case in REFUSED for tool in (TOOLS if len(case) == 3 else TOOLS[:1])]
)
def test_what_the_server_refuses_is_one_line_and_the_next_run_fetches_it(
    server, tmp_path, path_with, case, tool
):
    flags, path, fault, message = REFUSED[case]
    server.faults[path] = fault
    code, _, err = get(server, *flags, "--directory", tmp_path, path=path_with(tool))
    assert (code, err) == (1, "get_dataset.sh: " + message.format(url=server.url + path))
    assert path != BOXES or not (tmp_path / "validation/boxes.csv").exists()
    assert not any(path.suffix in (".part", ".head", ".error") for path in tmp_path.rglob("*"))
    server.faults.clear()
    assert get(server, *flags, "--directory", tmp_path)[0] == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_a_server_that_does_not_answer_is_one_line(server, tmp_path, path_with, tool):
    server.url = f"http://127.0.0.1:{unused_port()}"
    code, _, err = get(server, "--directory", tmp_path, path=path_with(tool))
    assert code == 1
    assert err.startswith(f"get_dataset.sh: {server.url}{DESCRIPTIONS}: no data received (")
    assert re.search("refused|connect to", err)
    assert "\n" not in err
    assert set(tree(tmp_path)) == {"RELEASE"}


# --- the way to the server ----------------------------------------------------------------------------


@pytest.mark.parametrize("tool", TOOLS)
def test_certificates_are_verified(release, tmp_path, path_with, monkeypatch, tool):
    """Only REQUESTS_CA_BUNDLE makes the tool trust our own authority."""
    authority, folder, path = trustme.CA(), tmp_path / "data", path_with(tool)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    with serving(release, context) as server:
        code, _, err = get(server, *V7, "--directory", folder, path=path)
        assert code == 1
        assert "certificate" in err
        assert "\n" not in err
        assert set(tree(folder)) == {"RELEASE"}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        server.faults[DESCRIPTIONS] = "404"
        code, _, err = get(server, *V7, "--directory", folder, path=path)
        assert (code, err) == (1, f"get_dataset.sh: {server.url}{DESCRIPTIONS}: the server answered 404")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "nowhere.pem")
        assert get(server, *V7, "--directory", folder, path=path) == (
            1, "", "get_dataset.sh: nowhere.pem: no such file; REQUESTS_CA_BUNDLE must name a certificate file or folder",
        )  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_a_proxy_in_capital_letters_is_used(server, tmp_path, path_with, monkeypatch, tool):
    with fault_server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base)
        code, _, err = get(server, *V7, "--directory", tmp_path, path=path_with(tool))
        assert (code, err) == (1, f"get_dataset.sh: {server.url}{DESCRIPTIONS}: the server answered 404")
        assert set(proxy.asked) == {f"{server.url}{DESCRIPTIONS}"}
        assert not server.requests


@pytest.mark.parametrize("tool", TOOLS)
def test_a_host_without_proxy_is_asked_itself(server, tmp_path, path_with, monkeypatch, tool):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.faults[DESCRIPTIONS] = "404"
    code, _, err = get(server, *V7, "--directory", tmp_path, path=path_with(tool))
    assert (code, err) == (1, f"get_dataset.sh: {server.url}{DESCRIPTIONS}: the server answered 404")


# --- flags and help ---------------------------------------------------------------------------------

NO_MASKS = "--masks: {} has no masks; --release v5, v6 or v7 was expected"
FLAGS = {
    "unknown flag": (["--nothing"], "unknown argument --nothing"),
    "no value": (["--release"], "--release needs a value"),
    "empty value": (["--directory", ""], "--directory needs a value"),
    "no such release": (["--release", "v8"], "--release v8: v2, v3, v4, v5, v6 or v7 was expected"),
    "masks of v2": (["--release", "v2", "--masks"], NO_MASKS.format("v2")),
    "masks of v3": (["--masks", "--release", "v3"], NO_MASKS.format("v3")),
    "masks of v4": (["--release", "v4", "--masks"], NO_MASKS.format("v4")),
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
