"""Workers that do not fit a run: another Python, and folders that they do not share (which takes root to make)."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.dask_cluster import Cluster, cluster
from tests.support.step5 import arguments, folder

__all__ = ["folder"]
pytestmark = pytest.mark.system

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """Return another version of Python, with Dask."""
    pyenv = Path.home() / ".pyenv" / "versions"
    installed = [shutil.which(f"python3.{minor}") for minor in range(11, 15)]
    found = [path for path in (*installed, *pyenv.glob("3.1[1-4].*/bin/python3")) if path]
    others = [path for path in found if ask(path) not in ("", HERE)]
    assert others, "no Python from 3.11 to 3.14 but this one was found on PATH or under ~/.pyenv/versions"
    environment = tmp_path_factory.mktemp("other")
    subprocess.run([others[0], "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python")
    packages = [f"{name}=={version(name)}" for name in ("distributed", "dask")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def ask(python: str | Path) -> str:
    """Return which version of Python this is; "" for a stand-in of pyenv's without one."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def refusal(script, folder: Path, found: Cluster) -> str:
    """Return the one line of a run of step 5 that does not begin."""
    outcome = script("process_images", *arguments(folder, "--dask_scheduler", found.address))
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1), outcome.err
    assert not list((folder / "small").glob("*.jpg"))
    return re.sub(r"tcp://[0-9.:]+", "ADDRESS", outcome.err)


def test_a_worker_with_another_python_is_named(script, folder, tmp_path, other_python):
    with cluster(tmp_path / "cluster", workers=1) as found:
        found.add_worker("other", python=other_python)
        line = refusal(script, folder, found)
    assert re.fullmatch(
        r"process_images.py: worker other \(ADDRESS\): Python 3[0-9.]+, 3[0-9.]+ as here was expected\n", line
    )


def test_a_scheduler_with_another_python_is_named(script, folder, tmp_path, other_python):
    with cluster(tmp_path / "cluster", python=other_python) as found:
        line = refusal(script, folder, found)
    assert re.fullmatch(
        r"process_images.py: the Dask scheduler ADDRESS has Python 3[0-9.]+, 3[0-9.]+ as here was expected\n",
        line,
    )


@pytest.mark.parametrize(
    ("mount", "hidden", "problem"),
    [
        ("mount -t tmpfs none {}", "small", "No such file or directory there"),
        ("mount -t tmpfs none {}", "photos", "No such file or directory there"),
        ("mount -t tmpfs none {0} && echo other > {0}/.lock", "small", "another file there"),
        ("mount --bind {0} {0} && mount -o remount,bind,ro {0}", "small", "Read-only file system there"),
    ],
    ids=["target", "source", "another", "read only"],
)  # fmt: skip
def test_a_worker_that_does_not_share_a_folder_is_named(script, folder, tmp_path, mount, hidden, problem):
    (folder / "small").mkdir()
    private = ["unshare", "--mount", "sh", "-c", f'{mount.format(folder / hidden)} && exec "$@"', "sh"]
    with cluster(tmp_path / "cluster", workers=1) as found:
        found.add_worker("far", inside=private)
        line = refusal(script, folder, found)
    assert re.match(r"process_images.py: worker far \(ADDRESS\): ", line)
    assert f"/{hidden}/" in line
    assert f"{problem}: the folder must be one that all machines share" in line
