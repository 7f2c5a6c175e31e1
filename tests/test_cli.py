"""Exit codes, messages and signals, in real processes where the promise is about a process."""

import signal
import subprocess
import sys
import time

import pytest

from common import cli
from tests.conftest import ROOT

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))


def run_python(code: str, **options):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def program(body: str) -> str:
    """Return the text of a script whose main has this body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import sys, os, time\nsys.argv = ['step.py']\nfrom common.cli import *\ndef main(argv):\n{lines}run(main)"


ENDS = {
    "done": ("print_counts({'read': 3, 'kept': 2}, came_in=['read'], went_out=['kept'])", 0, "read=3 kept=2\n",
             "  in   3  read\n  out  2  kept\n"),
    "bad input": ("raise InputError('a.csv:3: 2 fields, 8 were expected')", 1, "",
                  "step.py: a.csv:3: 2 fields, 8 were expected\n"),
    "no such file": ("open('/nowhere/at/all')", 1, "", "step.py: /nowhere/at/all: No such file or directory\n"),
    "full disk": ("open('/dev/full', 'wb', 0).write(b'x')", 1, "", "step.py: No space left on device\n"),
    "interrupted": ("raise KeyboardInterrupt", 130, "", "step.py: interrupted; run the same command again\n"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "out", "err"), ENDS.values(), ids=ENDS)
def test_every_ending_has_its_exit_code_and_its_line(body, code, out, err):
    result = run_python(program(body))
    assert (result.returncode, result.stdout, result.stderr) == (code, out, err)


def test_counts_are_a_table_for_people_and_a_line_for_scripts(capsys):
    counts = {
        "rows": 1_234_567,
        "images": 900,
        "classes": 2,
        "no_source": 3,
        "failed": 43,
        "gone": 40,
        "tls": 0,
    }
    lost = ["gone", "no_source", "tls", "not_counted"]
    cli.print_counts(counts, came_in=["rows"], went_out=["images", "masks"], lost=lost, line_only=["failed"])
    out, err = capsys.readouterr()
    assert out == "rows=1234567 images=900 classes=2 no_source=3 failed=43 gone=40 tls=0\n"
    assert err.splitlines() == [
        "  in    1,234,567  rows",
        "  out         900  images",
        "  lost         40  gone",
        "                3  no source",
        "  also          2  classes",
    ]
    cli.print_counts({"images": 0})
    assert capsys.readouterr() == ("images=0\n", "")


def test_a_bug_is_a_traceback():
    result = run_python(program("{}['x']"))
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_closed_pipe_is_no_traceback():
    code = program("for i in range(10**6): print(i)")
    result = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" | head -1', sys.executable, code], cwd=ROOT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_run_alike(signum):
    code = program("print('up', flush=True)\ntime.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        sent = time.monotonic()
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "step.py: interrupted; run the same command again\n"
    assert time.monotonic() - sent < 10


@pytest.mark.parametrize("text", ["-1", "0", "1.5", "x", "", "1_0", "٣"])
def test_whole_numbers_are_checked(text):
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="whole number of at least 1"):
        cli.whole_number(1)(text)


def test_without_a_terminal_progress_is_lines_and_none_in_the_first_minute(capsys, monkeypatch):
    with cli.progress(3, "image", "short") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cli, "LINE_SECONDS", 0)
    with cli.progress(3, "image", "long") as bar:
        bar.update(1)
        bar.update(2)
    lines = capsys.readouterr().err.splitlines()
    assert "3/3" in lines[-1]
    assert all(line.startswith("long: ") for line in lines)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_the_manual_and_loads_nothing_heavy(name):
    code = (
        f"import sys, runpy; sys.argv = ['{name}.py', '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'tensorflow', 'numpy', 'PIL', 'requests', 'pyarrow', 'polars'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert f"python3 {name}.py " in result.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_no_package(name):
    command = [sys.executable, "-S", f"{name}.py", "--help"]  # -S: without installed packages
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_windows_is_one_line_that_names_wsl(name):
    """Windows is simulated: its name for the system, and no fcntl."""
    code = (
        "import sys, runpy; sys.platform = 'win32'; sys.modules['fcntl'] = None\n"
        f"sys.argv = ['{name}.py']; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    result = run_python(code)
    expected = f"{name}.py: Windows is not supported, run it in WSL (Windows Subsystem for Linux)\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


@pytest.mark.parametrize("name", SCRIPTS)
def test_wrong_flags_exit_2(script, name):
    assert script(name, "--no_such_flag").code == 2
