"""Tests that need root or Debian packages: full disks, every shell and tool, shellcheck."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from sample.make import main as make_sample
from sample.serve import serving
from tests.conftest import ROOT

pytestmark = pytest.mark.system


@contextmanager
def small_disk(folder, kilobytes: int):
    """Mount a disk of this size, yield a function that enlarges it, and unmount it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,size={more}k", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    make_sample(["--directory", str(folder), "--images", "60"])
    with serving(folder) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory):
    """Return a folder with the results of all steps, made once on a disk with space."""
    folder = tmp_path_factory.mktemp("made")
    run(["sh", "make_dataset.sh"], sample, DATA=str(folder / "data"), OUT=str(folder / "out"), NUM_SHARDS="2")
    return folder


def run(command, sample, code: int = 0, **settings: str) -> str:
    """Run a command of ours, assert its exit code, and return its stderr."""
    environment = {**os.environ, **sample.environment(), "PYTHON": sys.executable, **settings}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == code, result.stderr
    return result.stderr


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if ": fetching " not in line]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("release", ["v3", "v7"])
def test_a_release_that_does_not_fit_is_one_line_and_is_fetched_when_there_is_space(
    sample, tmp_path, release
):
    disk = tmp_path / "disk"
    command = ["sh", "get_dataset.sh", "--release", release, "--directory", str(disk / "data")]
    with small_disk(disk, 24) as grow:
        error = one_line(run(command, sample, code=1))
        assert error.endswith("cannot be written (disk full?)")
        for file in (disk / "data").rglob("*.csv"):
            assert file.read_bytes().endswith(b"\n")
        grow(4000)
        run(command, sample)
        assert (disk / "data/train/images.csv").stat().st_size > 5000


def test_a_file_of_a_tarball_that_does_not_fit_is_a_full_disk(sample, tmp_path):
    """The tarball is complete; the file in it is larger than the free space."""
    disk, member = tmp_path / "disk", tmp_path / "2017_11/train/images.csv"
    member.parent.mkdir(parents=True)
    member.write_bytes(b"ImageID\n" + b"0123456789abcdef\n" * 60_000)
    command = ["sh", "get_dataset.sh", "--release", "v3", "--directory", disk / "data"]
    with small_disk(disk, 400) as grow:
        for file in (
            "RELEASE",
            "classes/class-descriptions.csv",
            "classes/classes-trainable.txt",
            "train/boxes.csv",
        ):
            (disk / "data" / file).parent.mkdir(parents=True, exist_ok=True)
            (disk / "data" / file).write_text("v3\n")
        tarball = disk / "data/tarballs/images_2017_11.tar.gz"
        tarball.parent.mkdir()
        subprocess.run(["tar", "-czf", tarball, "-C", tmp_path, "2017_11"], check=True)
        error = one_line(run(command, sample, code=1))
        assert error == f"get_dataset.sh: {disk}/data/train/images.csv: cannot be written (disk full?)"
        grow(4000)
        run(command, sample)
        assert (disk / "data/train/images.csv").read_bytes() == member.read_bytes()


STEPS = {
    "process_metadata": lambda made, disk: [
        "--annotations_input_path", made / "data/train/boxes.csv", "--image_index_input_path", made / "data/train/images.csv",
        "--trainable_classes_path", made / "data/classes/classes-trainable.txt",
        "--point_output_path", disk / "points.json", "--image_index_output_path", disk / "images.json",
    ],
    "download_images": lambda made, disk: [
        "--images_path", made / "out/train/images.json", "--images_output_directory", disk,
        "--mirror_url", os.environ["TEST_MIRROR_URL"],
    ],
    "process_images": lambda made, disk: [
        "--image_directory", made / "out/train/photos", "--image_saving_directory", disk,
        "--datapoints_input_path", made / "out/train/points.json", "--datapoints_output_path", disk / "points.json",
    ],
    "record_maker": lambda made, disk: [
        "--points_path", made / "out/train/points-resized.json", "--saved_images_directory", made / "out/train/resized",
        "--trainable_classes_path", made / "out/classes-trainable.txt", "--record_save_path", disk / "train.tfrecord",
        "--num_shards", "4", "--workers", "1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_full_disk_is_one_line_and_a_second_run_with_space_completes(
    sample, made, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("TEST_MIRROR_URL", sample.mirror_url)
    disk = tmp_path / "disk"
    calm = tmp_path / "calm"
    calm.mkdir()
    command = [sys.executable, f"{name}.py", *map(str, STEPS[name](made, disk))]
    with small_disk(disk, 12) as grow:
        error = one_line(run(command, sample, code=1))
        assert error.startswith(f"{name}.py: ")
        assert error.endswith("No space left on device")
        grow(20_000)
        run(command, sample)
        run([sys.executable, f"{name}.py", *map(str, STEPS[name](made, calm))], sample)
        found, expected = (
            {str(file.relative_to(folder)): file.read_bytes() for file in visible(folder)}
            for folder in (disk, calm)
        )
        assert found == expected


def visible(folder):
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


@pytest.mark.parametrize("name", ["curl", "wget", "busybox", "dash", "bash"])
def test_the_tests_of_step_1_had_every_shell_and_tool(name):
    """Those tests use what is installed; `make system` needs all of it."""
    assert shutil.which(name)


def test_shellcheck_finds_nothing():
    subprocess.run(["shellcheck", "get_dataset.sh", "make_dataset.sh", ".ci/run"], cwd=ROOT, check=True)
