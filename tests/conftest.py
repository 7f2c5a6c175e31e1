"""Fixtures of all tests: scripts run in this process, the sample, an object store."""

import fcntl
import importlib.util
import os
import signal
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import cli
from common.files.places import parse_path
from common.workers.pool import usable_cores

ROOT = Path(__file__).resolve().parent.parent
PROXY_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)

# In the background of a script Ctrl-C is ignored, and the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if importlib.util.find_spec("hypothesis"):  # make interop has none
    from hypothesis import settings

    settings.register_profile("no speed asserted", deadline=None)
    settings.load_profile("no speed asserted")


@pytest.hookimpl(optionalhook=True)  # make interop has no xdist
def pytest_xdist_auto_num_workers() -> int:
    """Return twice as many processes as there are cores, since many tests wait for a server or a deadline."""
    return 2 * usable_cores()


# Files with the longest tests, the longest first: begun last, they would keep one core busy and leave the others idle.
LONG = (
    "records/test_on_cluster", "workers/test_cluster", "test_pipeline", "test_process_masks", "test_process_killed",
    "download/test_on_cluster", "test_readme_blocks", "test_record_maker", "download/test_faults", "records/test_report",
    "test_get_dataset_cut_short", "test_get_dataset", "test_process_store", "download/test_store", "test_download_images",
    "download/test_connections", "download/test_politeness", "records/test_store", "openimages/test_datapoints",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order within a file stays."""
    place = {f"tests/{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a run."""

    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, int]:
        """Return the last line of stdout, `name=number` pairs, as a dict."""
        pairs = (pair.split("=") for pair in self.out.splitlines()[-1].split())
        return {name: int(number) for name, number in pairs}

    @property
    def messages(self) -> str:
        """Return stderr without the tables of counts."""
        return "".join(line for line in self.err.splitlines(keepends=True) if not line.startswith("  "))


@pytest.fixture
def script(capsys, monkeypatch):
    """Return `script(name, *arguments)`, which runs its main through cli.run and returns the Outcome."""

    def call(name: str, *arguments: object) -> Outcome:
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py"])
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        code: object = 0
        try:
            cli.run(module.main, [str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGTERM, before)
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def step(script, tmp_path):
    """Return `step(boxes, index, *flags)`, a run of step 3 on these files, with Dog and Cat trainable."""

    def call(boxes: str | bytes, index: str | bytes, *flags: object):
        classes = "/m/0bt9lr\n/m/01yrx\n"
        for name, text in (("boxes.csv", boxes), ("images.csv", index), ("classes.txt", classes)):
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return script(
            "process_metadata",
            "--annotations_input_path", tmp_path / "boxes.csv",
            "--image_index_input_path", tmp_path / "images.csv",
            "--trainable_classes_path", tmp_path / "classes.txt",
            "--point_output_path", tmp_path / "out/points.json",
            "--image_index_output_path", tmp_path / "out/images.json", *flags,
        )  # fmt: skip

    return call


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Remove the machine's proxy settings: tests talk to servers on this machine."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def real_files():
    """Return the folder of real Open Images files that OPEN_IMAGES_FILES names, or None."""
    folder = os.environ.get("OPEN_IMAGES_FILES")
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def sample_directory(tmp_path_factory):
    """Return the sample release, made once for all processes. Copy it to serve it, since serving may rewrite it."""
    from sample import make

    folder = tmp_path_factory.getbasetemp()
    directory = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "sample"
    with open(f"{directory}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make.main(["--directory", str(directory)])
    return directory


@pytest.fixture(scope="session")
def object_store():
    """Return a running S3 server, to which the environment directs s3:// addresses."""
    from tests.support.object_store import ObjectStore

    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", store.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "2")
        yield store
    store.stop()


@pytest.fixture
def bucket(object_store, request):
    """Return the address of an empty bucket on a running S3 server."""
    name = f"bucket-{zlib.crc32(request.node.nodeid.encode()):08x}"
    object_store.requests.clear()
    parse_path(f"s3://{name}").fs.mkdir(name)  # type: ignore[attr-defined]
    yield f"s3://{name}"
    object_store.refuses = lambda method, path: False
