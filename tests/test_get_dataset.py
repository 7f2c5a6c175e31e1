"""Step 1 in each shell and with each tool that is on this machine, against a real server."""

import re
import ssl
import subprocess

import pytest
import trustme

from tests.support.fault_server import fault_server, unused_port
from tests.support.get_dataset_runs import (
    BOXES,
    DESCRIPTIONS,
    MASKS_ZIP,
    SHELLS,
    TARBALL,
    TOOLS,
    V3,
    V7,
    V7_MASKS,
    get,
    rows,
    serving,
    tree,
)
from tests.support.get_dataset_runs import path_with as path_with
from tests.support.get_dataset_runs import release as release
from tests.support.get_dataset_runs import server as server

# --- the files it makes ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", ["v2", "v3", "v4", "v5", "v6", "v7"])
def test_every_release_and_split_ends_in_the_same_layout(server, tmp_path, name, split):
    masks = ["--masks"] if name in ("v5", "v6", "v7") else []
    code, out, err = get(
        server, "--release", name, "--split", split, "--directory", tmp_path / "d", "--image_labels", *masks
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
    zips = {f"{split}/masks/{split}-masks-{digit}.zip" for digit in "0123456789abcdef"} if masks else set()
    if masks:
        expected |= {"classes/classes-segmentable.txt", f"{split}/masks.csv", *zips}
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
    if masks:
        assert files[f"{split}/masks.csv"].startswith(b"MaskPath,ImageID,LabelName,BoxID,BoxXMin,")
        assert int(counts["masks"]) == rows(files[f"{split}/masks.csv"]) - 1 > 0
        assert int(counts["segmentable"]) == rows(files["classes/classes-segmentable.txt"]) > 0
        for path in zips:
            official = server.folder / "v5" / f"{split}-masks" / path.rpartition("/")[2]
            assert files[path] == official.read_bytes()


def test_masks_are_added_by_a_later_run_which_fetches_only_them(server, tmp_path):
    assert get(server, *V7, "--directory", tmp_path)[0] == 0
    before, asked = tree(tmp_path), len(server.requests)
    assert get(server, *V7_MASKS, "--directory", tmp_path)[0] == 0
    assert before.items() <= tree(tmp_path).items()
    assert len(server.requests) - asked == len(tree(tmp_path)) - len(before) == 18
    assert get(server, *V7_MASKS, "--directory", tmp_path)[0] == 0
    assert len(server.requests) - asked == 18


def test_the_boxable_classes_are_the_trainable_ones_from_v4_on(server, tmp_path):
    assert get(server, "--release", "v7", "--directory", tmp_path)[0] == 0
    described = (tmp_path / "classes/class-descriptions.csv").read_text().splitlines()
    assert described[0] == "LabelName,DisplayName"
    trainable = (tmp_path / "classes/classes-trainable.txt").read_text().splitlines()
    assert trainable == [line.split(",")[0] for line in described[1:]]


def test_v3_uses_the_trainable_classes_of_the_boxes(server, tmp_path):
    assert get(server, "--release", "v3", "--directory", tmp_path)[0] == 0
    tarball = server.folder / "2017_11/classes_2017_11.tar.gz"
    listed = subprocess.run(
        ["tar", "-xzOf", tarball, "2017_11/classes-bbox-trainable.txt"], capture_output=True, check=True
    ).stdout
    assert (tmp_path / "classes/classes-trainable.txt").read_bytes() == listed


@pytest.mark.parametrize("name", ["v3", "v7"])
def test_a_second_split_adds_its_files_and_a_second_run_fetches_nothing(server, tmp_path, name):
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
    for name in ("v3", "v7"):
        code, _, err = get(
            server, "--release", name, "--directory", tmp_path / name, shell=shell, path=path_with(tool)
        )
        assert (code, err) == (0, "")
        assert tree(tmp_path / name) == plain[name]


@pytest.mark.parametrize("tool", ["true", *(["busybox"] if "busybox" in SHELLS else [])])
def test_without_a_tool_to_fetch_with_it_is_one_line(server, tmp_path, path_with, tool):
    """The wget of busybox is none: many of them check no certificates."""
    code, _, err = get(server, "--directory", tmp_path / "d", path=path_with(tool))
    assert (code, err) == (
        1,
        "get_dataset.sh: curl, GNU wget or python3 is needed, and none of them was found",
    )


# --- what goes wrong ----------------------------------------------------------------------------------

REFUSED = {
    "404": (V7, BOXES, "404", "{url}: the server answered 404"),
    "500": (V7, BOXES, "500", "{url}: the server answered 500"),
    "404 for masks": (V7_MASKS, MASKS_ZIP, "404", "{url}: the server answered 404"),
    "404 for a tarball": (V3, TARBALL, "404", "{url}: the server answered 404"),
    "not a tarball": (V3, TARBALL, "not a tarball", "{url}: not a gzipped tarball"),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("flags", "path", "fault", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_server_refuses_is_one_line_and_the_next_run_fetches_it(
    server, tmp_path, path_with, tool, flags, path, fault, message
):
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
        assert get(server, *V7, "--directory", folder, path=path)[::2] == (0, "")
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
    assert get(server, *V7, "--directory", tmp_path, path=path_with(tool))[0] == 0


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
