"""Work on a Dask cluster: a real scheduler and real workers, and what is left when one of them dies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import count, islice
from pathlib import Path

import pytest

from common.cli import InputError
from common.openimages.classes import read_classes
from common.workers import cluster as common_cluster
from common.workers import members as cluster_members
from common.workers.cluster import connect
from tests.conftest import ROOT
from tests.support.dask_cluster import cluster, lines_of, wait_until
from tests.support.step5 import arguments, contents, folder
from tests.support.step5_cluster import MANY, assert_like_undisturbed, start, wait_until_a_third_is_done
from tests.support.step5_cluster import many as many

__all__ = ["folder"]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """A cluster of a worker with one thread, without a nanny, and one with two."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        (found.folder / "common.py").write_text("raise ImportError('not ours')")  # where workers are started
        found.add_worker("small", 1, "--no-nanny")
        found.add_worker("large", 2)
        yield found


@pytest.fixture
def mapped(two_workers):
    """Return `mapped(function, tasks)`: the map of the cluster."""
    with connect(two_workers.address, ["pillow"], [], []) as workers:
        yield workers.map


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


# --- the map -------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_tasks(mapped):
    tasks = [shell(f"sleep 0.{n * 7 % 4}; echo {n}") for n in range(16)]
    assert list(mapped(subprocess.check_output, tasks)) == [f"{n}\n".encode() for n in range(16)]


def test_equal_tasks_are_run_each(mapped, tmp_path):
    assert list(mapped(subprocess.call, [shell(f"echo x >> {tmp_path}/log")] * 9)) == [0] * 9
    assert lines_of(tmp_path / "log") == ["x"] * 9


def test_endless_tasks_are_taken_only_as_needed(mapped):
    taken = []
    tasks = (taken.append(n) or n for n in count())
    assert list(islice(mapped(abs, tasks), 10)) == list(range(10))
    assert len(taken) <= 10 + common_cluster.WINDOW * 3


def test_every_thread_of_every_worker_has_a_process_of_its_own(mapped):
    assert len(set(mapped(subprocess.check_output, [shell("sleep 0.5; echo $PPID")] * 6))) == 3


def test_an_error_in_a_task_is_the_callers(mapped, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        list(mapped(os.stat, ["/nowhere"]))
    assert caught.value.filename == "/nowhere"
    assert re.fullmatch(
        r"No such file or directory, says worker (small|large) \(tcp:.*\)", str(caught.value.strerror)
    )
    assert "Traceback" in caught.value.__notes__[0]
    (tmp_path / "classes").write_text("no class\n")
    with pytest.raises(InputError, match="classes:1: "):
        list(mapped(read_classes, [tmp_path / "classes"]))


def test_a_task_whose_process_is_killed_runs_again(mapped, tmp_path, capsys):
    once = shell(f"mkdir {tmp_path}/first 2> {tmp_path}/err && kill -9 $PPID; sleep 0.1; echo done")
    assert list(mapped(subprocess.check_output, [once])) == [b"done\n"]
    assert "was killed (exit code -9)" in capsys.readouterr().err


def test_a_task_that_kills_whoever_takes_it_is_one_line(mapped):
    with pytest.raises(InputError, match="4 times in turn the worker of the same task was lost"):
        list(mapped(subprocess.check_output, [shell("kill -9 $PPID; sleep 1")]))


def test_when_the_caller_stops_the_processes_of_the_workers_end(mapped, tmp_path):
    pids = tmp_path / "pids"
    tasks = [shell("echo first"), *[shell(f"echo $$ >> {pids}; exec sleep 60")] * 2]
    results = mapped(subprocess.check_output, tasks)
    assert next(results) == b"first\n"
    wait_until(lambda: len(lines_of(pids)) == 2)
    parents = [Path(f"/proc/{pid}/stat").read_text().split()[3] for pid in lines_of(pids)]
    results.close()
    wait_until(lambda: not any(os.path.exists(f"/proc/{parent}") for parent in parents))
    for pid in lines_of(pids):
        os.kill(int(pid), signal.SIGKILL)


def test_a_late_worker_gets_work(mapped, two_workers, tmp_path):
    def tasks():
        for n in count():
            if "late" in lines_of(tmp_path / "names"):
                return
            if n == 10:
                late.append(two_workers.add_worker("late", 1, TEST_NAME="late"))
            yield shell(f"sleep 0.1; echo ${{TEST_NAME:-early}} >> {tmp_path}/names; echo {n}")

    late: list[subprocess.Popen[str]] = []
    results = list(mapped(subprocess.check_output, tasks()))
    two_workers.kill(late[0])
    assert results == [f"{n}\n".encode() for n in range(len(results))]
    assert len(lines_of(tmp_path / "names")) == len(results)


def test_two_versions_of_our_code_do_not_meet(mapped, two_workers, tmp_path):
    """Another checkout works on the same workers at the same time, each with its own modules."""
    shutil.copytree(ROOT / "common", tmp_path / "common")
    with open(tmp_path / "common" / "openimages" / "classes.py", "a") as module:
        module.write("def read_classes(path):\n    return ['of another version']\n")
    other = (
        "import sys\nfrom common.workers.cluster import connect\nfrom common.openimages.classes import read_classes\n"
        "with connect(sys.argv[1], [], [], []) as workers:\n"
        "    print(set(map(tuple, workers.map(read_classes, [sys.argv[2]] * 30))))\n"
    )
    (tmp_path / "classes").write_text("/m/01yrx\n")
    command = [sys.executable, "-c", other, two_workers.address, tmp_path / "classes"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as run:
        while run.poll() is None:
            assert list(mapped(read_classes, [tmp_path / "classes"] * 9)) == [["/m/01yrx"]] * 9
        assert run.stdout.read() == "{('of another version',)}\n"


# --- who is not fit ------------------------------------------------------------------------------


def test_no_scheduler_is_one_line(script, folder, monkeypatch):
    monkeypatch.setattr(common_cluster, "CONNECT_SECONDS", 1)
    flags = ["--dask_scheduler", "tcp://127.0.0.1:9"]
    outcome = script("process_images", *arguments(folder, *flags))
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "tcp://127.0.0.1:9: no Dask scheduler answers there" in outcome.err


def test_without_dask_it_is_said_how_to_get_it(script, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = script("process_images", *arguments(folder, "--dask_scheduler", "tcp://127.0.0.1:9"))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        "process_images.py: --dask_scheduler needs Dask: pip install -r requirements-cluster.txt\n"
    )


def test_no_worker_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_members, "LONELY_SECONDS", 2)
    with (
        cluster(tmp_path / "cluster") as empty,
        pytest.raises(InputError, match="had no fit worker for 2 seconds"),
        connect(empty.address, [], [], []),
    ):
        pass


def test_a_worker_that_comes_late_has_as_long_to_answer_as_any(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_members, "CHECK_SECONDS", 5)
    with cluster(tmp_path / "cluster") as empty:
        later = threading.Timer(5, empty.add_worker, ["late"])
        later.start()
        with connect(empty.address, [], [], []) as workers:
            assert workers.slots == 1
        later.join()


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        ("Version: 1.2", "simplejpeg 1.2, .* as here was expected"),
        (None, "simplejpeg is not installed, .* was expected"),
    ],
)
def test_a_worker_with_other_packages_is_named_before_work_starts(
    two_workers, script, folder, tmp_path, prepare, problem
):
    packages = tmp_path / "packages"
    packages.mkdir()
    python = sys.executable
    if prepare:
        (packages / "simplejpeg-1.2.dist-info").mkdir()
        (packages / "simplejpeg-1.2.dist-info" / "METADATA").write_text(f"Name: simplejpeg\n{prepare}\n")
    else:
        python = bare_python(tmp_path, packages, "simplejpeg")
    worker = two_workers.add_worker(f"other-{bool(prepare)}", 1, python=python, PYTHONPATH=str(packages))
    try:
        outcome = script("process_images", *arguments(folder, "--dask_scheduler", two_workers.address))
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
        assert re.fullmatch(
            rf"process_images.py: worker other-{bool(prepare)} \(tcp://[0-9.:]+\): {problem}\n", outcome.err
        )
        assert not list((folder / "small").glob("*.jpg"))
    finally:
        two_workers.kill(worker)


def bare_python(tmp_path: Path, packages: Path, left_out: str) -> str:
    """Return a Python without packages; the folder is given all that this one has but one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    for entry in Path(pytest.__file__).parent.parent.iterdir():
        if not entry.name.startswith(left_out):
            (packages / entry.name).symlink_to(entry)
    return str(tmp_path / "venv" / "bin" / "python")


def test_a_late_worker_that_is_not_fit_gets_no_work(mapped, two_workers, tmp_path, capsys):
    packages = tmp_path / "packages"
    (packages / "pillow-1.2.dist-info").mkdir(parents=True)
    (packages / "pillow-1.2.dist-info" / "METADATA").write_text("Name: pillow\nVersion: 1.2\n")
    said: list[str] = []

    def tasks():
        for n in count():
            said.append(capsys.readouterr().err)
            if "gets no work" in "".join(said) and n % 20 == 0:
                return
            if n == 5:
                late.append(two_workers.add_worker("unfit", TEST_NAME="unfit", PYTHONPATH=str(packages)))
            yield shell("sleep 0.05; echo ${TEST_NAME:-fit}")

    late: list[subprocess.Popen[str]] = []
    assert set(mapped(subprocess.check_output, tasks())) == {b"fit\n"}
    two_workers.kill(late[0])
    assert re.search(
        r"worker unfit \(tcp://[0-9.:]+\) gets no work: pillow 1.2, .* was expected\n", "".join(said)
    )


# --- step 5 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["small", None])
def test_the_result_is_that_of_one_machine(two_workers, script, folder, into, monkeypatch):
    monkeypatch.chdir(folder)  # relative paths mean nothing to a worker
    alone = folder.with_name(f"{folder.name}-alone")
    shutil.copytree(folder, alone)
    flags = [word.replace(f"{folder}/", "") for word in arguments(folder, into=into)]
    outcome = script("process_images", *flags, "--dask_scheduler", two_workers.address)
    assert outcome.code == 0, outcome.err
    assert outcome == script("process_images", *arguments(alone, into=into))
    assert contents(folder) == contents(alone)
    again = script("process_images", *flags, "--dask_scheduler", two_workers.address)
    assert again == script("process_images", *arguments(alone, into=into))


def test_a_worker_killed_in_the_middle_costs_nothing(script, many, tmp_path):
    with cluster(tmp_path / "cluster", workers=2) as found:
        with start(many, found.address) as run:
            wait_until_a_third_is_done(many, run)
            found.kill(found.workers[0])
            out, err = run.communicate()
        assert run.returncode == 0, err
        assert "is gone, its work goes to others" in err
        assert out.startswith(f"images={MANY} resized={MANY - MANY // 20} unchanged=0 ")
    assert_like_undisturbed(script, many)


def test_a_worker_process_killed_under_its_nanny_comes_back(script, many, tmp_path):
    with cluster(tmp_path / "cluster", workers=1) as found:
        with start(many, found.address) as run:
            wait_until_a_third_is_done(many, run)
            os.kill(found.process_of(found.workers[0]), signal.SIGKILL)
            out, err = run.communicate()
        assert run.returncode == 0, err
        assert out.startswith(f"images={MANY} ")
    assert_like_undisturbed(script, many)


def test_the_scheduler_restarted_is_one_line_and_a_second_run_goes_on(script, many, tmp_path):
    with cluster(tmp_path / "cluster", workers=1) as found:
        with start(many, found.address) as run:
            wait_until_a_third_is_done(many, run)
            found.kill(found.scheduler)
            begun = time.monotonic()
            out, err = run.communicate()
        assert time.monotonic() - begun < 20
        assert (run.returncode, out) == (1, "")
        assert err == (
            f"process_images.py: the connection to the Dask scheduler {found.address} was lost; "
            "run the same command again to go on\n"
        )
        found.scheduler = found.start_scheduler()
        found.add_worker("another")
        with start(many, found.address) as again:
            out, err = again.communicate()
        assert again.returncode == 0, err
        assert f"images={MANY} " in out
        assert "already_there=0" not in out
    assert_like_undisturbed(script, many)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_client_stopped_and_started_again(script, many, tmp_path, how):
    """Nothing of the first run is at work any more when the second one begins; Ctrl-C takes two seconds."""
    with cluster(tmp_path / "cluster", workers=1, threads=2) as found:
        with start(many, found.address) as run:
            wait_until_a_third_is_done(many, run)
            begun = time.monotonic()
            run.send_signal(how)
            out, err = run.communicate()
        if how == signal.SIGINT:
            assert time.monotonic() - begun < 10  # two seconds, on a busy machine
            assert (run.returncode, out) == (130, "")
            assert err == "process_images.py: interrupted; run the same command again to go on\n"
        with start(many, found.address) as again:
            out, err = again.communicate()
        assert again.returncode == 0, err
        assert f"images={MANY} " in out
    assert_like_undisturbed(script, many)
