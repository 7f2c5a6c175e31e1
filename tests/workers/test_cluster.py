"""Work on a Dask cluster: a real scheduler and real workers, and what is left when one of them dies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import pytest

from common.cli import InputError
from common.openimages.classes import read_classes
from common.workers import cluster as common_cluster
from common.workers.cluster import connect
from common.workers.pool import WINDOW
from tests.conftest import ROOT
from tests.support.dask_cluster import PATIENCE, cluster, free_port, lines_of
from tests.support.step5 import arguments, contents, folder
from tests.support.step5_cluster import MANY, assert_like_undisturbed, start, wait_until_done
from tests.support.step5_cluster import many as many

__all__ = ["folder"]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """A cluster of a worker without a nanny and one with; in their folder is a module of our package's name."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        (found.folder / "common.py").write_text("raise ImportError('not ours')")
        found.add_worker("bare", "--no-nanny")
        found.add_worker("watched")
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
    assert len(taken) <= 10 + WINDOW * 2


def test_every_worker_has_work(mapped):
    assert len(set(mapped(subprocess.check_output, [shell("sleep 0.5; echo $PPID")] * 4))) == 2


def test_unordered_results_come_as_they_end_and_none_is_no_task(mapped):
    found: list[bytes] = []

    def tasks():
        yield shell("sleep 2; echo slow")
        yield shell("echo quick")
        while not found:
            yield None
        yield shell("echo next")

    for result in mapped(subprocess.check_output, tasks(), ordered=False):
        found.append(result)
    assert found == [b"quick\n", b"next\n", b"slow\n"]


def test_an_error_in_a_task_is_the_callers(mapped, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        list(mapped(os.stat, ["/nowhere"]))
    assert caught.value.filename == "/nowhere"
    assert re.fullmatch(r"No such file or directory, on worker (bare|watched)", str(caught.value.strerror))
    (tmp_path / "classes").write_text("no class\n")
    with pytest.raises(InputError, match="classes:1: "):
        list(mapped(read_classes, [tmp_path / "classes"]))


def test_a_task_that_kills_every_worker_that_runs_it_is_one_line(tmp_path):
    with (
        cluster(tmp_path / "cluster", workers=1) as found,
        connect(found.address, [], [], []) as workers,
        pytest.raises(InputError, match="4 workers were lost while they ran the same task, the last one w"),
    ):
        list(workers.map(subprocess.check_output, [shell("kill -9 $PPID; sleep 1")]))


def test_when_the_caller_stops_no_further_task_begins(mapped, tmp_path):
    tasks = [shell("echo first"), *[shell(f"echo x >> {tmp_path}/log; sleep 0.5")] * 9]
    with closing(mapped(subprocess.check_output, tasks)) as results:
        assert next(results) == b"first\n"
    begun = len(lines_of(tmp_path / "log"))
    time.sleep(2)
    assert len(lines_of(tmp_path / "log")) <= begun + 2


def test_a_late_worker_gets_work(mapped, two_workers, tmp_path):
    def tasks():
        for n in count():
            if "late" in lines_of(tmp_path / "names"):
                return
            if n == 10:
                late.append(two_workers.add_worker("late", TEST_NAME="late"))
            yield shell(f"sleep 0.1; echo ${{TEST_NAME:-early}} >> {tmp_path}/names; echo {n}")

    late: list[subprocess.Popen[str]] = []
    results = list(mapped(subprocess.check_output, tasks()))
    two_workers.kill(late[0])
    assert results == [f"{n}\n".encode() for n in range(len(results))]
    assert len(lines_of(tmp_path / "names")) == len(results)


def test_a_worker_that_is_lost_is_named_and_its_tasks_run_again(tmp_path, capsys):
    said: list[str] = []

    def tasks():
        for n in count():
            if n == 4:
                found.kill(found.workers[0])
            said.append(capsys.readouterr().err)
            if "is gone" in "".join(said):
                return
            yield shell(f"sleep 0.1; echo {n}")

    with cluster(tmp_path / "cluster", workers=2) as found, connect(found.address, [], [], []) as workers:
        results = list(workers.map(subprocess.check_output, tasks()))
    assert results == [f"{n}\n".encode() for n in range(len(results))]
    assert re.fullmatch(r"worker worker0 \(tcp://[0-9.:]+\) is gone, its tasks go to others\n", "".join(said))


def test_a_worker_that_has_another_version_of_our_code_is_named(tmp_path):
    """The same command of another checkout, before and after the worker was restarted."""
    shutil.copytree(ROOT / "common", tmp_path / "common")
    with open(tmp_path / "common" / "openimages" / "classes.py", "a") as module:
        module.write("def read_classes(path):\n    return ['of another version']\n")
    code = (
        "import sys\nfrom common.cli import run\nfrom common.openimages.classes import read_classes\n"
        "from common.workers.cluster import connect\n"
        "def main(argv):\n"
        "    with connect(sys.argv[1], [], [], []) as workers:\n"
        "        print(*workers.map(read_classes, [sys.argv[2]]))\n"
        "run(main)"
    )
    (tmp_path / "classes").write_text("/m/01yrx\n")

    def run_other() -> tuple[str, str]:
        command = [sys.executable, "-c", code, found.address, tmp_path / "classes"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return run.stdout, re.sub("tcp://[0-9.:]+", "ADDRESS", run.stderr)

    with cluster(tmp_path / "cluster", workers=1) as found:
        with connect(found.address, [], [], []) as workers:
            assert list(workers.map(read_classes, [tmp_path / "classes"])) == [["/m/01yrx"]]
        problem = "another version of our code is loaded there: restart the workers"
        assert run_other() == ("", f"-c: worker worker0 (ADDRESS): {problem}\n")
        found.kill(found.workers[0])
        found.add_worker("another")
        assert run_other() == ("['of another version']\n", "")


# --- workers that are not usable ------------------------------------------------------------------------------


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
    monkeypatch.setattr(common_cluster, "LONELY_SECONDS", 2)
    with (
        cluster(tmp_path / "cluster") as empty,
        pytest.raises(InputError, match="had no usable worker for 2 seconds"),
        connect(empty.address, [], [], []),
    ):
        pass


def test_a_worker_that_comes_late_has_as_long_to_answer_as_any(tmp_path, monkeypatch):
    monkeypatch.setattr(common_cluster, "CHECK_SECONDS", 5)
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
    worker = two_workers.add_worker(f"other-{bool(prepare)}", python=python, PYTHONPATH=str(packages))
    try:
        outcome = script("process_images", *arguments(folder, "--dask_scheduler", two_workers.address))
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
        assert re.fullmatch(
            rf"process_images.py: worker other-{bool(prepare)} \(tcp://[0-9.:]+\): {problem}\n", outcome.err
        )
        assert not list((folder / "small").glob("*.jpg"))
    finally:
        two_workers.kill(worker)


def test_a_worker_with_several_threads_is_named(two_workers, script, folder):
    worker = two_workers.add_worker("broad", "--nthreads", "4")
    try:
        outcome = script("process_images", *arguments(folder, "--dask_scheduler", two_workers.address))
    finally:
        two_workers.kill(worker)
    assert (outcome.code, outcome.out) == (1, "")
    assert re.fullmatch(
        r"process_images.py: worker broad \(tcp://[0-9.:]+\): 4 threads, 1 was expected: "
        "start it with --nworkers -1 --nthreads 1\n",
        outcome.err,
    )


def bare_python(tmp_path: Path, packages: Path, left_out: str) -> str:
    """Return a Python without packages; the folder is given all that this one has but one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    for entry in Path(pytest.__file__).parent.parent.iterdir():
        if not entry.name.startswith(left_out):
            (packages / entry.name).symlink_to(entry)
    return str(tmp_path / "venv" / "bin" / "python")


def test_a_late_worker_that_is_not_usable_gets_no_tasks(mapped, two_workers, tmp_path, capsys):
    packages = tmp_path / "packages"
    (packages / "pillow-1.2.dist-info").mkdir(parents=True)
    (packages / "pillow-1.2.dist-info" / "METADATA").write_text("Name: pillow\nVersion: 1.2\n")
    said: list[str] = []

    def tasks():
        for n in count():
            said.append(capsys.readouterr().err)
            if "gets no tasks" in "".join(said) and n % 20 == 0:
                return
            if n == 5:
                late.append(two_workers.add_worker("unfit", TEST_NAME="unfit", PYTHONPATH=str(packages)))
            yield shell("sleep 0.05; echo ${TEST_NAME:-fit}")

    late: list[subprocess.Popen[str]] = []
    assert set(mapped(subprocess.check_output, tasks())) == {b"fit\n"}
    two_workers.kill(late[0])
    assert re.search(
        r"worker unfit \(tcp://[0-9.:]+\) gets no tasks: pillow 1.2, .* was expected\n", "".join(said)
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
            wait_until_done(many, run, MANY // 3)
            found.kill(found.workers[0])
            out, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, err
        assert out.startswith(f"images={MANY} resized={MANY - MANY // 20} unchanged=0 ")
    assert_like_undisturbed(script, many)


@pytest.mark.parametrize("is_address_kept", [False, True])
def test_a_worker_process_killed_under_its_nanny_comes_back(script, many, tmp_path, is_address_kept):
    with cluster(tmp_path / "cluster") as found:
        found.add_worker("only", *(["--worker-port", str(free_port())] if is_address_kept else []))
        with start(many, found.address) as run:
            wait_until_done(many, run, MANY // 3)
            os.kill(found.process_of(found.workers[0]), signal.SIGKILL)
            out, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, err
        assert out.startswith(f"images={MANY} ")
    assert_like_undisturbed(script, many)


def test_the_scheduler_restarted_is_one_line_and_a_second_run_goes_on(script, many, tmp_path):
    with cluster(tmp_path / "cluster", workers=1) as found:
        with start(many, found.address) as run:
            wait_until_done(many, run, MANY // 3)
            found.kill(found.scheduler)
            begun = time.monotonic()
            out, err = run.communicate(timeout=PATIENCE)
        assert time.monotonic() - begun < 20
        assert (run.returncode, out) == (1, "")
        assert err == (
            f"process_images.py: the connection to the Dask scheduler {found.address} was lost; "
            "run the same command again to resume\n"
        )
        found.scheduler = found.start_scheduler()
        found.add_worker("another")
        with start(many, found.address) as again:
            out, err = again.communicate(timeout=PATIENCE)
        assert again.returncode == 0, err
        assert f"images={MANY} " in out
        assert "already_there=0" not in out
    assert_like_undisturbed(script, many)


def test_the_client_interrupted_then_killed_resumes_each_time(script, many, tmp_path):
    """The tasks of a killed run end while the next one is at work; Ctrl-C takes two seconds."""
    with cluster(tmp_path / "cluster", workers=2) as found:
        with start(many, found.address) as run:
            wait_until_done(many, run, MANY // 4)
            begun = time.monotonic()
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=PATIENCE)
        assert time.monotonic() - begun < 10  # two seconds, on a busy machine
        assert (run.returncode, out) == (130, "")
        assert err == "process_images.py: interrupted; run the same command again to resume\n"
        with start(many, found.address) as run:
            wait_until_done(many, run, MANY * 2 // 3)
            run.kill()
            run.communicate(timeout=PATIENCE)
        with start(many, found.address) as again:
            out, err = again.communicate(timeout=PATIENCE)
        assert again.returncode == 0, err
        assert f"images={MANY} " in out
    assert_like_undisturbed(script, many)
