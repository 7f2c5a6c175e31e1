"""Files that exist are whole: outputs, locks, leftovers, and text as it comes in."""

import errno
import fcntl
import gzip
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli import InputError
from common.files import csv_files, folders
from common.files import whole_files as files
from common.files.csv_files import read_csv
from common.files.places import folder_of
from common.files.whole_files import locked_folder, open_output, read_lines
from tests.conftest import ROOT


def write(path, data: bytes) -> None:
    with open_output(path) as stream:
        stream.write(data)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- outputs ------------------------------------------------------------------------------------------


def test_an_output_appears_whole_in_a_folder_that_is_made(tmp_path):
    with open_output(tmp_path / "new/a.json") as stream:
        stream.write(b"half")
        assert not (tmp_path / "new/a.json").exists()
    assert (tmp_path / "new/a.json").read_bytes() == b"half"
    assert names(tmp_path / "new") == ["a.json"]


@pytest.mark.parametrize(
    "error", [InputError("x"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
def test_a_run_that_fails_leaves_what_was_there(tmp_path, error):
    write(tmp_path / "a", b"old")

    def fail() -> None:
        with open_output(tmp_path / "a") as stream:
            stream.write(b"new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_is_what_the_umask_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_a_symlink_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").symlink_to("disk/a")
    write(tmp_path / "a", b"new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "disk/a").read_bytes() == b"new"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_file_is_not_replaced(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(InputError, match="a: not a regular file, a file to write was expected"):
        write(tmp_path / "a", b"")


def test_a_second_run_on_one_output_is_refused(tmp_path):
    with folder_of(tmp_path).complete("a") as part:
        part.write_bytes(b"first")
        with pytest.raises(InputError, match="a: another run is writing this file"):
            write(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_killed_run_leaves_no_lock_and_the_next_sweeps_up(tmp_path):
    code = (
        f"import os, signal; from common.files.whole_files import open_output\n"
        f"with open_output({str(tmp_path / 'a')!r}) as stream:\n"
        f"    stream.write(b'x' * 100000); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".a.lock", ".a.part"]
    write(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_compressed_output_is_the_same_bytes_each_time(tmp_path):
    write(tmp_path / "a.gz", b"data")
    write(tmp_path / "b.gz", b"data")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"data"


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with locked_folder(tmp_path / "new") as folder:
        assert folder.is_dir()
        with pytest.raises(InputError, match="another run is working in this folder"), locked_folder(folder):
            pass
    with locked_folder(tmp_path / "new"):
        pass
    assert names(tmp_path / "new") == []
    write(tmp_path / "file", b"")
    with pytest.raises(InputError, match="not a folder"), locked_folder(tmp_path / "file"):
        pass


# No file system without flock is to be had in a test: a shim of that one call raises what such a mount does.


@pytest.fixture
def flock_raises(monkeypatch):
    def refuse(number: int) -> None:
        def flock(descriptor, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        monkeypatch.setattr(folders, "_said", set())

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_flock_a_file_is_the_lock_and_stderr_says_so_once(tmp_path, capsys, flock_raises, number):
    flock_raises(number)
    with locked_folder(tmp_path / "a"), open_output(tmp_path / "b") as stream:
        stream.write(b"first")
        assert names(tmp_path / "a") == [".lock", ".lock.owner"]
        owner = f"{socket.gethostname()}, process {os.getpid()}, since .*"
        for again in (locked_folder(tmp_path / "a"), open_output(tmp_path / "b")):
            with (
                pytest.raises(InputError, match=rf"another run .*\({owner}\); if it was killed, remove "),
                again,
            ):
                pass
    write(tmp_path / "b", b"second")
    assert (names(tmp_path), names(tmp_path / "a")) == (["a", "b"], [])
    assert (tmp_path / "b").read_bytes() == b"second"
    assert capsys.readouterr().err == (
        f"{tmp_path}/a: no flock here ({os.strerror(number)}): files such as .lock.owner are the locks\n"
    )


@pytest.mark.parametrize("held", ["node7, process 7, since 2026-01-01 00:00:00 UTC", ""])
def test_a_lock_file_of_a_killed_run_is_named(tmp_path, flock_raises, held):
    flock_raises(errno.ENOSYS)
    lock = tmp_path / ".a.lock.owner"
    lock.write_text(held)
    with pytest.raises(InputError) as refused:
        write(tmp_path / "a", b"new")
    assert str(refused.value).endswith(f"writing this file ({held}); if it was killed, remove {lock}")
    assert lock.read_text() == held


def test_another_error_of_flock_names_the_file_and_leaves_none(tmp_path, flock_raises):
    flock_raises(errno.EIO)
    for path, begin in (
        (tmp_path / ".lock", locked_folder(tmp_path)),
        (tmp_path / ".a.lock", open_output(tmp_path / "a")),
    ):
        with pytest.raises(OSError, match="Input/output error") as raised, begin:
            pass
        assert raised.value.filename == str(path)
    assert names(tmp_path) == []


def test_what_a_worker_left_half_written_is_swept_up_and_nothing_else(tmp_path):
    """A worker given up for lost may still write what another writes again: each has its own temporary name."""
    code = (
        "import os, signal; from pathlib import Path; from common.files.places import folder_of\n"
        f"with folder_of(Path({str(tmp_path)!r})).complete('a.jpg', locked=False) as part:\n"
        "    part.write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False)
    for name in (".b.jpg.part", ".b.jpg.notes", ".theirs.part", "c.jpg"):
        write(tmp_path / name, b"")
    assert len(names(tmp_path)) == 6
    folder_of(tmp_path).sweep(".*.jpg")
    assert names(tmp_path) == [".b.jpg.notes", ".theirs.part", "c.jpg"]


def test_what_another_process_takes_away_meanwhile_is_swept_up(tmp_path):
    """As a worker of a killed run does, which completes its file."""
    for number in range(1000):
        (tmp_path / f".{number}.jpg.host-{number}.part").touch()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(folder_of(tmp_path).sweep, [".*.jpg"] * 2))
    assert names(tmp_path) == []


# --- text and CSV ---------------------------------------------------------------------------------------

# Without NUL, which as the first or second byte is the mark of UTF-16.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(lines=st.lists(TEXT, max_size=8))
def test_lines_come_as_they_are(tmp_path_factory, lines):
    text = "\n".join(lines)
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(text.encode())
    found = list(read_lines(path))
    assert "".join(line for _, line in found) == text.removeprefix("\ufeff")
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert all(line.endswith("\n") for _, line in found[:-1])


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0\ufeff"), max_size=12)


@given(rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1))
def test_any_rows_come_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    header = ["x", "y", "z"]
    csv_files.write_csv(folder / "a.csv", header, rows)
    found = [row for _, row in read_csv(folder / "a.csv")]
    assert found == [header, *(list(row) for row in rows if any(row))]


EVIL = {
    "short row": (b"a,b\n1,2\n3\n", "a.csv:3: 1 fields, 2 were expected"),
    "long row": (b"a,b\n1,2,3\n", "a.csv:2: 3 fields, 2 were expected"),
    "after a quoted line end": (b'a,b\n"1\n\n",2\n3\n', "a.csv:5: 1 fields, 2 were expected"),
    "cut last line": (b"a,b\n1,2", "a.csv:2: no line end after the last row; is the file cut short?"),
    "open quote": (b'a,b\n1,2\n3,"4\n5,6\n', "a.csv:3: unexpected end of data, a CSV row was expected"),
    "text after a quote": (b'a,b\n"1"x,2\n', "a.csv:2: ',' expected after '\"', a CSV row was expected"),
    "NUL": (b"a,b\n1,\x00\n", "a.csv:2: a NUL byte, text was expected"),
    "lone carriage return": (
        b"a,b\n1\r,2\n",
        "a.csv:2: a carriage return inside a line, LF or CRLF was expected",
    ),
    "not UTF-8": (b"a,b\n1,2\n1,\xff\n", "a.csv:3: not UTF-8 text"),
    "cut in the middle of a letter": ("a,b\n1,é".encode()[:-1], "a.csv:2: not UTF-8 text"),
}


@pytest.mark.parametrize(("data", "message"), EVIL.values(), ids=EVIL)
def test_a_bad_csv_file_is_an_error_at_its_line(tmp_path, data, message):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError) as error:
        list(read_csv(tmp_path / "a.csv"))
    assert str(error.value) == f"{tmp_path}/{message}"


GZIP = {
    "cut": gzip.compress(b"a,b\n" * 9999)[:-20],
    "changed": gzip.compress(b"a,b\n")[:-8] + b"\0" * 8,
    "none": b"a,b\n",
}


@pytest.mark.parametrize("data", GZIP.values(), ids=GZIP)
def test_a_damaged_gzip_file_is_one_line(tmp_path, data):
    (tmp_path / "a.csv.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"a.csv.gz: damaged gzip file"):
        list(read_csv(tmp_path / "a.csv.gz"))


def test_a_line_without_end_is_not_gathered(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ITEM", 100)
    (tmp_path / "a.txt").write_text(f"x\n{'y' * 101}")
    with pytest.raises(InputError, match=r"a\.txt:2: a line of over 100 bytes"):
        list(read_lines(tmp_path / "a.txt"))


def test_no_file_and_a_folder_are_one_line(tmp_path):
    with pytest.raises(InputError, match="none: no such file"):
        list(read_lines(tmp_path / "none"))
    with pytest.raises(InputError, match="a folder, a file was expected"):
        list(read_lines(tmp_path))
