"""The README against the code: every command parses, and it names exactly the flags that exist."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.readme import README, blocks

STEPS = [
    "get_dataset.sh", "translate_class_descriptions.py", "process_metadata.py", "download_images.py",
    "process_images.py", "create_label_map.py", "record_maker.py",
]  # fmt: skip


def commands(name: str) -> list[list[str]]:
    """Return the arguments of each call of a script in the README's shell blocks."""
    lines = "\n".join(blocks()).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [call[call.index(name) + 1 :] for call in words if name in call]


def manual(name: str) -> str:
    command = ["sh", name] if name.endswith(".sh") else [sys.executable, name]
    return subprocess.run(
        [*command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    ).stdout


def flags_of(name: str) -> set[str]:
    """Return the flags that a script defines: those that begin a line of its --help."""
    return set(re.findall(r"^ {2,4}(--[a-z][a-z_]*)", manual(name), re.M)) - {"--help"}


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z_]*", text)) - {"--help"}


def section(name: str) -> str:
    found = re.search(rf"^### \d\. `{re.escape(name)}`\n(.*?)(?=^##)", README, re.S | re.M)
    assert found, f"the README has no section {name}"
    return found[1]


@pytest.mark.parametrize("name", STEPS)
def test_every_flag_is_named_and_every_named_flag_exists(name):
    assert flags_in(section(name)) == flags_of(name)


@pytest.mark.parametrize("name", STEPS)
def test_every_command_uses_flags_that_exist(name):
    calls = commands(name)
    assert calls
    for call in calls:
        assert {word for word in call if word.startswith("--")} <= flags_of(name)


@pytest.mark.parametrize("name", [name for name in STEPS if name.endswith(".py")])
def test_every_command_parses(name, script, tmp_path, monkeypatch):
    """With missing files, a command whose flags are right ends with exit code 1, not 2."""
    monkeypatch.chdir(tmp_path)
    for call in commands(name):
        call = [word if word.startswith("--") else word.replace("data", "nowhere") for word in call]
        assert script(name.removesuffix(".py"), *call).code == 1


def test_the_pipeline_is_that_of_make_dataset():
    """Each step of the README's long block uses the flags that make_dataset.sh uses."""
    chain = (ROOT / "make_dataset.sh").read_text()
    for name in STEPS:
        (call,) = commands(name)
        used = re.search(rf"{re.escape(name)}((?:.*\\\n)*.*)", chain)
        assert used
        assert flags_in(used[1]) - {"--max_side"} <= flags_in(" ".join(call)) | flags_in("--directory")


def test_the_variables_exist():
    chain = (ROOT / "make_dataset.sh").read_text()
    for block in blocks():
        for variable in re.findall(r"\b([A-Z_]+)=", block):
            assert f"#   {variable} " in chain


def test_the_two_commands_are_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert f"\n{target}:" in makefile


def test_named_files_exist():
    for name in set(re.findall(r"`([a-z_]+\.(?:py|sh))`", README)):
        assert (ROOT / name).is_file(), name
