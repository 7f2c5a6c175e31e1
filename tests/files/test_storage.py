"""Files on an object store: a real S3 server, whole objects, one run at a time, journals that survive."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from common.cli import InputError
from common.files import journal, store_lock
from common.files.journal import Journal, read_journal, remove_journal, replace_journal
from common.files.json_files import json_writer, read_json
from common.files.scratch import local_copy, scratch_path
from common.files.storage import (
    Status,
    is_folder,
    list_objects,
    parse_path,
    put_bytes,
    put_objects,
    read_objects,
    remove,
    status,
    statuses,
)
from common.files.store_lock import store_lock as hold
from common.files.whole_files import atomic_path, locked_folder, open_input, open_output, replace_file
from tests.conftest import ROOT


def names(address: str) -> list[str]:
    return list(list_objects(parse_path(address), ""))


def step(code: str, environment: Mapping[str, str] = os.environ) -> "subprocess.CompletedProcess[str]":
    """Run a line of Python as a script of its own would be run."""
    program = (
        "import sys, time; sys.argv = ['step.py']\n"
        "from common import cli; from common.files import storage, store_lock, whole_files as files\n"
        f"def main(argv):\n    {code}\n"
        "cli.run(main)"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment,
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


@pytest.mark.parametrize(
    ("address", "missing", "said"),
    [
        ("s3://bucket/x", "s3fs", "s3fs and the packages of requirements-cluster.txt: Install s3fs"),
        ("gs://bucket/x", "gcsfs", "gcsfs and the packages of requirements-cluster.txt: "),
        ("s3://bucket/x", "upath", "s3fs and the packages of requirements-cluster.txt: "),
        ("s3://bucket/x", "fsspec", "s3fs and the packages of requirements-cluster.txt: "),
    ],
)
def test_a_missing_package_is_named_in_one_line(address, missing, said):
    ended = step(f"sys.modules[{missing!r}] = None; storage.parse_path({address!r})")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"step.py: {address}: {address[:2]}:// needs {said}")
    assert ended.stderr.count("\n") == 1


def test_local_paths_load_no_package():
    ended = step(
        "storage.parse_path('a'); from common.files import journal; "
        "print([name for name in ('fsspec', 'upath', 's3fs', 'asyncio') if name in sys.modules])"
    )
    assert ended.stdout == "[]\n", ended.stderr


# --- objects -------------------------------------------------------------------------------------


def test_objects_are_put_read_listed_and_removed(bucket):
    folder = parse_path(f"{bucket}/photos")
    assert status(folder / "a.jpg") is None
    assert not is_folder(folder)
    for name, data in (("a.jpg", b"one"), ("b.jpg", b""), (".hidden", b"x"), ("deeper/a.jpg", b"y")):
        put_bytes(folder / name, data)
    put_bytes(parse_path(f"{bucket}/photos2/a.jpg"), b"of another folder")
    assert is_folder(folder)
    assert names(f"{bucket}/photos") == [".hidden", "a.jpg", "b.jpg"]
    assert [found.size for found in list_objects(folder, "").values()] == [1, 3, 0]
    assert list(read_objects(folder, ["a.jpg", "none.jpg", "b.jpg"])) == [b"one", None, b""]
    remove(folder / "a.jpg")
    remove(folder / "a.jpg")
    assert names(f"{bucket}/photos") == [".hidden", "b.jpg"]


def test_many_objects_go_and_come_with_one_listing(bucket, object_store):
    folder = parse_path(f"{bucket}/many")
    wanted = {f"{number:02x}.jpg": bytes([number]) * (number + 1) for number in range(40)}
    put_objects(folder, wanted)
    assert dict(zip(wanted, read_objects(folder, list(wanted)), strict=True)) == wanted
    object_store.requests.clear()
    look = statuses(folder)
    assert object_store.requests == []
    for name, data in wanted.items():
        found = look(name)
        assert found is not None
        assert found.size == len(data)
    assert look("none.jpg") is None
    assert {method for method, _ in object_store.requests} == {"GET"}
    assert len(object_store.requests) == 62  # listings, one for each letter that an id may begin with
    assert look("00.jpg") == status(folder / "00.jpg")


def test_a_version_changes_with_the_bytes_alone(bucket):
    path = parse_path(f"{bucket}/a")
    put_bytes(path, b"one")
    first = status(path)
    put_bytes(path, b"one")
    assert status(path) == first
    put_bytes(path, b"two")
    assert status(path) != first
    assert status(path) == list_objects(path.parent, "a")["a"]


def test_a_local_file_has_its_time_as_version(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(5, 7))
    assert statuses(tmp_path)("a") == Status(3, 7)
    assert statuses(tmp_path)("b") is None


def test_outputs_are_whole_or_not_there(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = f"{bucket}/sub/points.json.gz"
    with json_writer(path) as write:
        write({"id": "a"})
        assert names(f"{bucket}/sub") == []
    assert list(read_json(path)) == [(2, {"id": "a"})]
    with pytest.raises(ZeroDivisionError):
        put(path, b"half", then=lambda: 1 // 0)
    assert list(read_json(path)) == [(2, {"id": "a"})]
    with atomic_path(parse_path(f"{bucket}/sub/x.bin")) as part:
        part.write_bytes(b"1234")
    with local_copy(parse_path(f"{bucket}/sub/x.bin")) as copy:
        assert copy.read_bytes() == b"1234"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.system  # for its seconds: nothing smaller is put in parts
def test_large_objects_go_in_parts_and_are_whole_or_not_there(bucket, object_store, tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 101)  # two parts of 50 MB, and a third
    path = parse_path(f"{bucket}/large")
    object_store.refuses = lambda method, path: method == "PUT" and len(parts_put(object_store)) > 2
    with pytest.raises(PermissionError), atomic_path(path) as part:
        shutil.copy(tmp_path / "large", part)
    assert len(parts_put(object_store)) == 3
    assert object_store.requests[-1][0] == "DELETE"  # what came of it is not left behind either
    assert names(bucket) == []
    object_store.refuses = lambda method, path: False
    with atomic_path(path) as part:
        shutil.copy(tmp_path / "large", part)
    with local_copy(path) as copy:
        assert filecmp.cmp(copy, tmp_path / "large", shallow=False)


def parts_put(store) -> list[str]:
    return [path for method, path in store.requests if method == "PUT" and path.endswith("/large")]


def test_what_cannot_be_put_or_read_is_one_line_with_its_address(bucket, object_store):
    path = parse_path(f"{bucket}/a")
    put_bytes(path, b"before")
    object_store.refuses = lambda method, path: method == "PUT"
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
    put_bytes(parse_path(f"{bucket}/folder/x"), b"")
    with pytest.raises(InputError, match=f"^{bucket}/folder: a folder, a file was expected$"):
        read(parse_path(f"{bucket}/folder"))
    with pytest.raises(OSError, match="does not exist"):
        put_bytes(parse_path("s3://no-such-bucket/a"), b"")


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
def test_a_store_that_cannot_be_asked_is_one_line(more, said):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ended = step(
        "storage.put_bytes(storage.parse_path('s3://bucket/x'), b'')",
        plain | {"AWS_MAX_ATTEMPTS": "1", "HOME": "/none"} | more,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("step.py: s3://bucket/x: ")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


# --- one run at a time ---------------------------------------------------------------------------


@pytest.fixture
def quick_hearts(monkeypatch):
    monkeypatch.setattr(store_lock, "BEAT", 0.1)
    monkeypatch.setattr(store_lock, "PATIENCE", 0.5)


@pytest.mark.usefixtures("quick_hearts")
def test_a_second_run_is_refused_while_the_first_lives(bucket):
    folder = f"{bucket}/folder"
    with locked_folder(folder):
        time.sleep(0.3)
        with (
            pytest.raises(InputError, match=f"^{folder}: another run is working in this folder$"),
            locked_folder(folder),
        ):
            pass
    with locked_folder(folder):
        assert len(names(folder)) == 1
    assert names(folder) == []


@pytest.mark.usefixtures("quick_hearts")
def test_the_lock_of_a_killed_run_is_taken_over(bucket, capsys):
    folder = parse_path(f"{bucket}/folder")
    put_bytes(folder / ".folder.lock-dead", b"host process 1, beat 7")
    with locked_folder(folder):
        assert len(names(str(folder))) == 1
    assert "was killed: looking for" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_hearts")
def test_of_two_that_begin_at_once_at_most_one_goes_on(bucket, capsys):
    folder = parse_path(f"{bucket}/folder")
    held, refused, inside = [], [], []

    def begin() -> None:
        try:
            with hold(folder, "x", "busy"):
                inside.append(1)
                held.append(len(inside))
                time.sleep(0.5)
                inside.pop()
        except InputError:
            refused.append(1)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held in ([], [1])
    assert len(held) + len(refused) == 4
    assert names(str(folder)) == []


def test_a_run_that_was_taken_over_stops_in_one_line(bucket):
    folder = f"{bucket}/folder"
    other = f"storage.put_bytes(storage.parse_path({folder!r}) / '.folder.lock-other', b'')"
    ended = step(f"store_lock.BEAT = 0.1\n    with files.locked_folder({folder!r}): {other}; time.sleep(60)")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"step.py: {folder}: another run is working in this folder: it took over")
    assert ended.stderr.count("\n") == 1
    assert names(folder) == [".folder.lock-other"]


def test_a_scratch_folder_of_someone_else_is_refused(tmp_path, monkeypatch):
    """In a folder that all may write to, such as /tmp, another user may have taken the name."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"open-images-{os.getuid()}").symlink_to("elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match=r"open-images-\d+: not ours, another TMPDIR is needed"):
        scratch_path(parse_path("s3://bucket/points.json"))


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
    remove_journal(path)
    assert lines(path) == []
    remove_journal(path)


def test_a_killed_run_loses_no_more_of_a_journal_than_its_last_seconds(bucket, monkeypatch):
    path = parse_path(bucket) / "x" / ".done"
    monkeypatch.setattr(journal, "SECONDS", 0.2)
    dying = Journal(path)
    dying.add("a\n")
    time.sleep(0.3)
    dying.add("b\n")
    dying.add("lost\n")
    assert lines(path) == ["a", "b"]
    with Journal(path) as file:
        file.add("c\n")
    assert lines(path) == ["a", "b", "c"]
    assert names(f"{bucket}/x") == [".done-00000000", ".done-00000001"]
    replace_journal(path, (f"{line}\n".encode() for line in lines(path)[1:]))
    assert lines(path) == ["b", "c"]
    assert names(f"{bucket}/x") == [".done-00000000"]


def test_journals_whose_names_begin_alike_are_kept_apart(bucket):
    first, second = parse_path(bucket) / ".done", parse_path(bucket) / ".done-too"
    for path in (first, second):
        with Journal(path) as file:
            file.add(f"{path.name}\n")
    assert lines(first) == [".done"]
    assert lines(second) == [".done-too"]
