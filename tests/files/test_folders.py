"""The two kinds of folder: what both do alike, and the store's, on a real S3 server."""

import filecmp
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path

import pytest

from common import cli
from common.cli import InputError
from common.files import store
from common.files.journal import Journal, read_journal
from common.files.json_files import json_writer, read_json
from common.files.places import folder_of, is_folder, parse_path, read_small, replace_file, status
from common.files.whole_files import locked_folder, open_input, open_output
from tests.conftest import ROOT


def names(address: str) -> list[str]:
    return list(folder_of(parse_path(address)).list(""))


def step(code: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of Python as a script of its own would be run."""
    program = (
        "import sys; sys.argv = ['step.py']\n"
        "from common import cli; from common.files.places import folder_of, parse_path\n"
        f"def main(argv):\n    {code}\n"
        "cli.run(main)"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def read(path: Path) -> bytes:
    with open_input(path) as stream:
        return stream.read()


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data/train", "data/train"),
        ("./a", "a"),
        ("file:///tmp/a b", "/tmp/a b"),
        ("FILE:///tmp/a", "/tmp/a"),
        ("local:///tmp/%41", "/tmp/%41"),
        ("a:b/c", "a:b/c"),
        ("1s3://x", "1s3:/x"),
    ],
)
def test_a_path_and_a_file_address_are_local_paths(text, path):
    assert parse_path(text) == Path(path)


@pytest.mark.parametrize(
    "text", ["http://host/a", "memory://a", "sftp://host/a", "S3X://a", "c://a", "s3://", "gs:///"]
)
def test_an_address_that_keeps_no_promise_is_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"^[^\n]*was expected$") as caught:
        parse_path(text)
    assert str(caught.value).startswith(f"{text}: ")


def test_an_address_joins_and_prints_as_a_path_does(bucket):
    folder = parse_path(f"{bucket}/a b/[c]/")
    assert str(folder) == f"{bucket}/a b/[c]"
    assert str(folder / "x.jpg") == f"{bucket}/a b/[c]/x.jpg"
    assert str((folder / "x.jpg").with_name(".y")) == f"{bucket}/a b/[c]/.y"
    assert (folder / "x.jpg").parent == folder
    assert parse_path(folder) is folder
    assert parse_path(f"S3://{str(folder)[5:]}") == folder


def test_a_missing_package_is_named_in_one_line():
    missing = {
        "s3fs": ("s3://bucket/x", "s3fs and the packages of requirements-cluster.txt: Install s3fs"),
        "gcsfs": ("gs://bucket/x", "gcsfs and the packages of requirements-cluster.txt: "),
        "upath": ("s3://bucket/x", "s3fs and the packages of requirements-cluster.txt: "),
        "fsspec": ("s3://bucket/x", "s3fs and the packages of requirements-cluster.txt: "),
    }
    ended = step(
        f"for name, address in {[(name, address) for name, (address, _) in missing.items()]!r}:\n"
        "        sys.modules[name] = None\n"
        "        try: parse_path(address)\n"
        "        except cli.InputError as error: print(repr(str(error)))\n"
        "        if name != 'fsspec': del sys.modules[name]\n"
        f"    parse_path({missing['fsspec'][0]!r})"
    )
    assert ended.returncode == 1
    said = [
        *map(literal_eval, ended.stdout.splitlines()),
        ended.stderr.removeprefix("step.py: ").rstrip("\n"),
    ]
    for text, (address, needs) in zip(said, [*missing.values(), missing["fsspec"]], strict=True):
        assert text.startswith(f"{address}: {address[:2]}:// needs {needs}")
        assert "\n" not in text


def test_local_paths_load_no_package():
    ended = step(
        "parse_path('a'); from common.files import journal; "
        "print([name for name in ('fsspec', 'upath', 's3fs', 'asyncio') if name in sys.modules])"
    )
    assert ended.stdout == "[]\n", ended.stderr


# --- objects -------------------------------------------------------------------------------------


def test_objects_are_put_read_listed_and_removed(bucket):
    folder = parse_path(f"{bucket}/photos")
    assert status(folder / "a.jpg") is None
    assert not is_folder(folder)
    for name, data in (("a.jpg", b"one"), ("b.jpg", b""), (".hidden", b"x"), ("deeper/a.jpg", b"y")):
        replace_file(folder / name, data)
    replace_file(parse_path(f"{bucket}/photos2/a.jpg"), b"of another folder")
    assert is_folder(folder)
    assert names(f"{bucket}/photos") == [".hidden", "a.jpg", "b.jpg"]
    assert [found.size for found in folder_of(folder).list("").values()] == [1, 3, 0]
    assert list(folder_of(folder).read_many(["a.jpg", "none.jpg", "b.jpg"])) == [b"one", None, b""]
    folder_of(folder).remove("a.jpg")
    folder_of(folder).remove("a.jpg")
    assert names(f"{bucket}/photos") == [".hidden", "b.jpg"]


def test_many_objects_go_and_come_with_one_listing(bucket, object_store):
    folder = folder_of(parse_path(f"{bucket}/many"))
    wanted = {f"{number:02x}.jpg": bytes([number]) * (number + 1) for number in range(12)}
    folder.write_many(wanted.items())
    assert dict(zip(wanted, folder.read_many(list(wanted)), strict=True)) == wanted
    object_store.requests.clear()
    look = folder.statuses()
    assert object_store.requests == []
    for name, data in wanted.items():
        found = look(name)
        assert found is not None
        assert found.size == len(data)
    assert look("none.jpg") is None
    assert {method for method, _ in object_store.requests} == {"GET"}
    assert len(object_store.requests) == 62  # listings, one for each letter that an id may begin with
    assert look("00.jpg") == folder.status("00.jpg")
    assert look("00.jpg" * 9) is None


def version(path: Path) -> tuple[int, int]:
    found = status(path)
    assert found
    return found.size, found.version


def test_a_version_changes_with_the_bytes_alone(bucket):
    path = parse_path(f"{bucket}/a")
    replace_file(path, b"one")
    first = version(path)
    replace_file(path, b"one")
    assert version(path) == first
    replace_file(path, b"two")
    assert version(path) != first
    assert status(path) == folder_of(path.parent).list("a")["a"]


def test_a_local_file_has_its_time_as_version(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(5, 7))
    found = folder_of(tmp_path).statuses()("a")
    assert found
    assert found[:2] == (3, 7)
    assert folder_of(tmp_path).statuses()("b") is None


def test_outputs_are_whole_or_not_there(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = f"{bucket}/sub/points.json.gz"
    with json_writer(path) as write:
        write({"id": "a"})
        assert names(f"{bucket}/sub") == [".points.json.gz.lock"]
    assert list(read_json(path)) == [(2, {"id": "a"})]
    with pytest.raises(ZeroDivisionError):
        put(path, b"half", then=lambda: 1 // 0)
    assert list(read_json(path)) == [(2, {"id": "a"})]
    with folder_of(parse_path(f"{bucket}/sub")).complete("x.bin") as part:
        part.write_bytes(b"1234")
    with folder_of(parse_path(f"{bucket}/sub")).local_copy("x.bin") as copy:
        assert copy.read_bytes() == b"1234"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.system  # for its seconds: nothing smaller is put in parts
def test_large_objects_go_in_parts_and_are_whole_or_not_there(bucket, object_store, tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 101)  # two parts of 50 MB, and a third
    path = parse_path(f"{bucket}/large")
    object_store.refuses = lambda method, path: method == "PUT" and len(parts_put(object_store)) > 2
    with pytest.raises(PermissionError), folder_of(path.parent).complete(path.name) as part:
        shutil.copy(tmp_path / "large", part)
    assert len(parts_put(object_store)) == 3
    assert object_store.requests[-1][0] == "DELETE"  # what came of it is not left behind either
    assert names(bucket) == []
    object_store.refuses = lambda method, path: False
    with folder_of(path.parent).complete(path.name) as part:
        shutil.copy(tmp_path / "large", part)
    with folder_of(path.parent).local_copy(path.name) as copy:
        assert filecmp.cmp(copy, tmp_path / "large", shallow=False)


def parts_put(store) -> list[str]:
    return [path for method, path in store.requests if method == "PUT" and path.endswith("/large")]


def test_what_cannot_be_put_or_read_is_one_line_with_its_address(bucket, object_store):
    path = parse_path(f"{bucket}/a")
    replace_file(path, b"before")
    object_store.refuses = lambda method, path: method == "PUT" and path.endswith("/a")
    for write in (lambda: replace_file(path, b"after"), lambda: put(f"{bucket}/a", b"after")):
        with pytest.raises(PermissionError) as caught:
            write()
        assert caught.value.filename == f"{bucket}/a"
        assert "no more room for you" in str(caught.value)
    object_store.refuses = lambda method, path: method in ("GET", "HEAD")
    with pytest.raises(PermissionError):
        read(path)
    object_store.refuses = lambda method, path: False
    assert read(path) == b"before"
    with pytest.raises(InputError, match=f"^{bucket}/b: no such file$"):
        read(parse_path(f"{bucket}/b"))
    replace_file(parse_path(f"{bucket}/folder/x"), b"")
    with pytest.raises(InputError, match=f"^{bucket}/folder: a folder, a file was expected$"):
        read(parse_path(f"{bucket}/folder"))
    with pytest.raises(OSError, match="does not exist"):
        replace_file(parse_path("s3://no-such-bucket/a"), b"")


def put(address: str, data: bytes, then: Callable[[], object] = lambda: None) -> None:
    with open_output(address) as stream:
        stream.write(data)
        then()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
            },
            "connect",
        ),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "credentials"),
    ],
    ids=["no server", "no credentials"],
)
def test_a_store_that_cannot_be_asked_is_one_line(more, said, monkeypatch, capsys):
    import fsspec

    stores = fsspec.get_filesystem_class("s3")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_MAX_ATTEMPTS": "1", "HOME": "/none", **more}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["step.py"])
    before = signal.getsignal(signal.SIGTERM)
    stores.clear_instance_cache()  # of those with another environment
    try:
        with pytest.raises(SystemExit) as stop:
            cli.run(lambda _: folder_of(parse_path("s3://bucket")).write("x", b""))
    finally:
        signal.signal(signal.SIGTERM, before)
        stores.clear_instance_cache()
    err = capsys.readouterr().err
    assert stop.value.code == 1
    assert err.startswith("step.py: s3://bucket/x: ")
    assert said in err
    assert err.count("\n") == 1


# --- one run at a time ---------------------------------------------------------------------------


def test_a_second_run_is_refused_and_told_whose_lock_it_is_and_what_to_remove(bucket):
    folder = f"{bucket}/folder"
    with locked_folder(folder):
        said = (
            rf"^{folder}: another run is working in this folder \([^ ]+, process {os.getpid()}, "
            rf"since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC\); if it was killed, remove {folder}/\.lock$"
        )
        with pytest.raises(InputError, match=said), locked_folder(folder):
            pass
    with locked_folder(folder):
        assert names(folder) == [".lock"]
    assert names(folder) == []


def test_the_lock_of_a_killed_run_stays_until_it_is_removed(bucket):
    ended = step(
        f"import os, signal\n    with folder_of(parse_path('{bucket}/f')).lock('.lock', 'busy'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert ended.returncode == -9
    with pytest.raises(InputError, match="if it was killed, remove"), locked_folder(f"{bucket}/f"):
        pass
    parse_path(f"{bucket}/f/.lock").unlink()
    with locked_folder(f"{bucket}/f"):
        pass


def test_a_lock_that_another_run_took_after_its_removal_is_left_to_it(bucket):
    folder = parse_path(f"{bucket}/folder")
    with locked_folder(folder):
        replace_file(folder / ".lock", b"of another run")
    assert read_small(folder / ".lock") == b"of another run"


def test_of_several_that_begin_at_once_one_goes_on(bucket):
    folder = folder_of(parse_path(f"{bucket}/folder"))
    ready, done = threading.Barrier(8), threading.Event()
    held, refused = [], []

    def begin() -> None:
        ready.wait(10)
        try:
            with folder.lock(".x.lock", "busy"):
                held.append(1)
                done.wait(10)
        except InputError:
            refused.append(1)
        if len(refused) == 7:
            done.set()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    assert names(str(folder.path)) == []


def test_a_second_run_on_one_output_is_refused(bucket):
    path = f"{bucket}/points.json"
    with open_output(path) as stream:
        stream.write(b"first")
        with (
            pytest.raises(InputError, match=rf"^{path}: another run is writing this file \("),
            open_output(path),
        ):
            pass
    assert names(bucket) == ["points.json"]
    assert read_small(parse_path(path)) == b"first"


# --- journals ------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    return parse_path(request.getfixturevalue("bucket")) / "x" if request.param == "bucket" else tmp_path


def lines(path: Path) -> list[str]:
    return [line for file in read_journal(path) for line in read(file).decode().splitlines()]


def test_a_journal_is_there_for_the_next_run(place):
    path = place / ".done"
    for run in range(3):
        assert lines(path) == [f"{number}-{line}" for number in range(run) for line in range(2)]
        with Journal(path) as file:
            for line in range(2):
                file.add(f"{run}-{line}\n")
    file.drop()
    assert lines(path) == []
    file.drop()


def test_a_killed_run_loses_no_more_of_a_journal_than_its_last_minutes(bucket, monkeypatch):
    path = parse_path(bucket) / "x" / ".done"
    monkeypatch.setattr(store, "PUT_SECONDS", 0.2)
    dying = Journal(path).__enter__()
    dying.add("a\n")
    time.sleep(0.3)
    dying.add("b\n")
    dying.add("lost\n")
    assert lines(path) == ["a", "b"]
    with Journal(path) as file:
        file.add("c\n")
    assert lines(path) == ["a", "b", "c"]
    assert names(f"{bucket}/x") == [".done"]
    dying.stream.file.close()
