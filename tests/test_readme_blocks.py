"""The README's shell blocks, run unchanged: a proxy sends requests for the official hosts to the sample."""

import json
import os
import shutil
import ssl
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme

from sample.make import read_truth, write_release
from sample.serve import FolderServer, sample_folder, start
from tests.conftest import ROOT
from tests.support.fault_server import FaultServer, fault_server
from tests.support.readme import blocks

RELEASE_HOST = "storage.googleapis.com"
MIRROR_HOST = "open-images-dataset.s3.amazonaws.com"


class Bucket(FolderServer):
    """Serve the release below the name of its bucket."""

    def file_at(self, path):
        return super().file_at(path.removeprefix("/openimages"))


@contextmanager
def official_hosts(sample: Path, folder: Path):
    """Yield an environment in which the sample answers for the official hosts, over HTTPS."""
    authority = trustme.CA()
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    with ExitStack() as stack:
        stack.enter_context(sample_folder(sample))
        # The originals on a free port, which the index then names.
        originals = start(stack, sample / "photos", 0)
        settings = json.loads((sample / "settings.json").read_text("utf-8"))
        write_release(sample, read_truth(sample), {**settings, "originals_url": originals.url})
        places = {}
        for host, below, kind in (
            (RELEASE_HOST, sample / "release", Bucket),
            (MIRROR_HOST, sample / "mirror", FolderServer),
        ):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(host).configure_cert(context)
            server = start(stack, below, 0, kind)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            places[f"{host}:443"] = f"127.0.0.1:{server.server_port}"
        proxy = stack.enter_context(fault_server())

        def tunnel(connection, address):
            FaultServer.tunnel(proxy, connection, places[address])

        proxy.tunnel = tunnel  # type: ignore[method-assign]
        yield {"HTTPS_PROXY": proxy.base, "REQUESTS_CA_BUNDLE": str(bundle)}


@pytest.fixture(scope="module")
def pasted(sample_directory, tmp_path_factory):
    """Run all blocks but the two make commands, each in a shell in a copy of the project."""
    folder = tmp_path_factory.mktemp("readme")
    sample, project = folder / "sample", folder / "project"
    shutil.copytree(sample_directory, sample)
    kept_out = shutil.ignore_patterns(".*", "demo", "data", "dataset")
    shutil.copytree(ROOT, project, ignore=kept_out)
    (project / ".venv").symlink_to(sys.prefix)
    results = []
    with official_hosts(sample, folder) as hosts:
        environment = {**os.environ, **hosts, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
        for block in blocks():
            if "make " in block:
                continue
            results.append(
                subprocess.run(
                    ["sh", "-eu"],
                    input=block,
                    cwd=project,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
            )
            shutil.move(project / "dataset", folder / f"dataset-{len(results)}")
    return folder, results


def test_every_block_runs_unchanged(pasted):
    _, results = pasted
    assert results
    for result in results:
        assert result.returncode == 0, result.stderr


def test_the_single_steps_make_the_same_files_as_make_dataset(pasted):
    folder, results = pasted
    files = [
        {
            str(path.relative_to(made)): path.read_bytes()
            for path in made.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }
        for made in (folder / f"dataset-{number}" for number in range(1, len(results) + 1))
    ]
    assert any(name.endswith("-of-00010") for name in files[0])
    for other in files[1:]:
        assert other == files[0]
