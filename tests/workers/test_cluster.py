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

import process_images
from common.cli import InputError
from common.openimages.classes import read_classes
from common.workers.pool import WINDOW
from tests.conftest import ROOT
from tests.support.dask_cluster import BARE, PATIENCE, cluster, disturbed, free_port, lines_of
from tests.support.step5 import arguments, contents, folder
from tests.support.step5_cluster import MANY, assert_like_undisturbed, freeze, many, start, undisturbed

__all__ = ["folder", "many", "undisturbed"]


def connect(*given):
    """Connect to a scheduler. Dask, which takes half a second to load, is imported where it is used."""
    from common.workers.cluster import connect

    return connect(*given)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """A cluster of a worker without a nanny and one with; in their folder is a module of our package's name."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        (found.folder / "common.py").write_text("raise ImportError('not ours')")
        found.add_worker("bare", BARE)
        found.add_worker("watched")
        yield found


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler whose workers come and go with the tests."""
    with cluster(tmp_path_factory.mktemp("scheduler")) as found:
        yield found


@pytest.fixture
def no_workers(scheduler):
    """A cluster that has no workers yet."""
    if scheduler.scheduler not in scheduler.running:  # ended by a test that failed
        scheduler.scheduler = scheduler.start_scheduler()
    yield scheduler
    scheduler.remove_workers()


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


def test_a_task_that_kills_every_worker_that_runs_it_is_one_line(no_workers):
    no_workers.add_worker("watched")
    with (
        connect(no_workers.address, [], [], []) as workers,
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
                late.append(two_workers.add_worker("late", BARE, TEST_NAME="late"))
            yield shell(f"sleep 0.1; echo ${{TEST_NAME:-early}} >> {tmp_path}/names; echo {n}")

    late: list[subprocess.Popen[str]] = []
    results = list(mapped(subprocess.check_output, tasks()))
    two_workers.kill(late[0])
    assert results == [f"{n}\n".encode() for n in range(len(results))]
    assert len(lines_of(tmp_path / "names")) == len(results)


def test_a_worker_that_has_another_version_of_our_code_is_named(no_workers, tmp_path):
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
        command = [sys.executable, "-c", code, no_workers.address, tmp_path / "classes"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return run.stdout, re.sub("tcp://[0-9.:]+", "ADDRESS", run.stderr)

    no_workers.add_worker("first", BARE)
    with connect(no_workers.address, [], [], []) as workers:
        assert list(workers.map(read_classes, [tmp_path / "classes"])) == [["/m/01yrx"]]
    problem = "another version of our code is loaded there: restart the workers"
    assert run_other() == ("", f"-c: worker first (ADDRESS): {problem}\n")
    no_workers.remove_workers()
    no_workers.add_worker("another", BARE)
    assert run_other() == ("['of another version']\n", "")


# --- workers that are not usable ------------------------------------------------------------------------------


def test_no_scheduler_is_one_line(script, folder, monkeypatch):
    monkeypatch.setattr("common.workers.cluster.CONNECT_SECONDS", 1)
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


def test_no_worker_is_one_line(no_workers, monkeypatch):
    monkeypatch.setattr("common.workers.cluster.LONELY_SECONDS", 1)
    with (
        pytest.raises(InputError, match="had no usable worker for 1 seconds"),
        connect(no_workers.address, [], [], []),
    ):
        pass


def test_a_worker_that_comes_late_has_as_long_to_answer_as_any(no_workers, monkeypatch):
    monkeypatch.setattr("common.workers.cluster.CHECK_SECONDS", 4)
    later = threading.Timer(4, no_workers.add_worker, ["late", BARE])
    later.start()
    with connect(no_workers.address, [], [], []) as workers:
        assert workers.slots == 1
    later.join()


def test_a_worker_with_other_packages_is_named_before_work_starts(two_workers, script, folder, tmp_path):
    packages = tmp_path / "packages"
    (packages / "simplejpeg-1.2.dist-info").mkdir(parents=True)
    metadata = packages / "simplejpeg-1.2.dist-info" / "METADATA"
    metadata.write_text("Name: simplejpeg\nVersion: 1.2\n")
    python = bare_python(tmp_path, packages, "simplejpeg")
    worker = two_workers.add_worker("other", BARE, python=python, PYTHONPATH=str(packages))
    try:
        for problem in (
            r"simplejpeg 1.2, [0-9.]+ as here was expected",
            r"simplejpeg is not installed, [0-9.]+ was expected",
        ):
            outcome = script("process_images", *arguments(folder, "--dask_scheduler", two_workers.address))
            assert (outcome.code, outcome.out) == (1, "")
            line = rf"process_images.py: worker other \(tcp://[0-9.:]+\): {problem}\n"
            assert re.fullmatch(line, outcome.err)
            assert not list((folder / "small").glob("*.jpg"))
            shutil.rmtree(metadata.parent, ignore_errors=True)
    finally:
        two_workers.kill(worker)


def test_a_worker_with_several_threads_is_named(two_workers, script, folder):
    worker = two_workers.add_worker("broad", BARE, "--nthreads", "4")
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
                late.append(
                    two_workers.add_worker("unfit", BARE, TEST_NAME="unfit", PYTHONPATH=str(packages))
                )
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


def test_workers_killed_in_the_middle_come_back_or_are_replaced(
    script, no_workers, many, undisturbed, monkeypatch
):
    """One comes back under its nanny at another address, then is lost; the next one comes back at the same."""

    def disturb() -> None:
        freeze(no_workers, many)
        os.kill(no_workers.process_of(moving), signal.SIGKILL)
        freeze(no_workers, many)
        no_workers.add_worker("kept", "--worker-port", str(free_port()))
        freeze(no_workers, many)
        no_workers.kill(moving)
        os.kill(no_workers.process_of(no_workers.workers[1]), signal.SIGKILL)

    monkeypatch.setattr(process_images, "BATCH_IMAGES", 1)
    moving = no_workers.add_worker("moving")
    with disturbed(no_workers, disturb):
        outcome = script("process_images", *arguments(many, "--dask_scheduler", no_workers.address))
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"images={MANY} resized={MANY - MANY // 20} unchanged=0 ")
    gone = re.findall(r"worker (\w+) \(tcp://[0-9.:]+\) is gone, its tasks go to others\n", outcome.messages)
    assert gone == ["moving", "moving", "kept"]
    assert outcome.messages.count("\n") == 3
    assert_like_undisturbed(many, undisturbed)


def test_the_scheduler_restarted_is_one_line_and_a_second_run_goes_on(
    script, no_workers, many, undisturbed, monkeypatch
):
    ended: list[float] = []

    def end_scheduler() -> None:
        freeze(no_workers, many)
        no_workers.kill(no_workers.scheduler)
        ended.append(time.monotonic())

    monkeypatch.setattr(process_images, "BATCH_IMAGES", 1)
    no_workers.add_worker("first", BARE)
    flags = arguments(many, "--dask_scheduler", no_workers.address)
    with disturbed(no_workers, end_scheduler):
        outcome = script("process_images", *flags)
    assert time.monotonic() - ended[0] < 20
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        f"process_images.py: the connection to the Dask scheduler {no_workers.address} was lost; "
        "run the same command again to resume\n"
    )
    no_workers.kill(no_workers.workers.pop())
    no_workers.scheduler = no_workers.start_scheduler()
    no_workers.add_worker("another", BARE)
    again = script("process_images", *flags)
    assert again.code == 0, again.err
    assert again.counts["images"] == MANY
    assert 0 < again.counts["already_there"] < MANY
    assert_like_undisturbed(many, undisturbed)


def test_the_client_interrupted_then_killed_resumes_each_time(script, no_workers, many, undisturbed):
    """The tasks of a killed run end while the next one is at work; Ctrl-C takes two seconds."""
    for number in range(2):
        no_workers.add_worker(f"worker{number}", BARE)
    with start(many, no_workers.address) as run:
        freeze(no_workers, many)
        begun = time.monotonic()
        run.send_signal(signal.SIGINT)
        no_workers.signal_workers(signal.SIGCONT)
        out, err = run.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 10  # two seconds, on a busy machine
    assert (run.returncode, out) == (130, "")
    assert err == "process_images.py: interrupted; run the same command again\n"
    with start(many, no_workers.address) as run:
        freeze(no_workers, many)
        run.kill()
        run.communicate(timeout=PATIENCE)
        no_workers.signal_workers(signal.SIGCONT)
    again = script("process_images", *arguments(many, "--dask_scheduler", no_workers.address))
    assert again.code == 0, again.err
    assert again.counts["images"] == MANY
    assert_like_undisturbed(many, undisturbed)
