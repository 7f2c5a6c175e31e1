"""What the tests share: a script run in this process, as its user would run it."""

import importlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import cli

ROOT = Path(__file__).resolve().parent.parent
PROXY_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)


@dataclass(frozen=True)
class Outcome:
    """What a run left for its user to see."""

    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, int]:
        """The last line of stdout, `name=number` pairs."""
        pairs = (pair.split("=") for pair in self.out.splitlines()[-1].split())
        return {name: int(number) for name, number in pairs}


@pytest.fixture
def script(capsys, monkeypatch):
    """Return `script(name, *arguments)`: its main run through cli.run, as an Outcome."""

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


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Tests talk to servers on the loopback: the machine's proxy settings are not theirs."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def real_files():
    """Return the folder of real Open Images files that OPEN_IMAGES_FILES names, None where it is not set."""
    folder = os.environ.get("OPEN_IMAGES_FILES")
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def sample_directory(tmp_path_factory):
    """Return the sample release, made once; to serve it, copy it, since serving may write it anew."""
    from sample import make

    directory = tmp_path_factory.mktemp("sample")
    make.main(["--directory", str(directory)])
    return directory
