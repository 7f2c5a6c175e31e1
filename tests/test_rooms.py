"""The rooms of common/ and the scripts: which may import which, and how many files a room has."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAY_IMPORT = {  # room: the rooms whose own rooms it may import too
    "cli": (), "files": ("cli",), "openimages": ("files",), "workers": ("files",), "images": ("openimages", "files"),
    "metadata": ("openimages", "workers"), "download": ("images", "workers"), "records": ("images", "workers"),
}  # fmt: skip
SCRIPTS = {path.stem: path for path in ROOT.glob("*.py")}


def names(path: Path) -> set[str]:
    """Return the full names that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}


def imports(path: Path) -> set[str]:
    """Return the scripts and the rooms (`common.files`) that a file imports."""
    parts = [name.split(".") for name in names(path)]
    return {".".join(part[:2]) if part[0] == "common" else part[0] for part in parts} - {path.stem}


def reach(room: str) -> set[str]:
    return {f"common.{room}"}.union(*(reach(other) for other in MAY_IMPORT[room]))


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / "common").glob("cli.py" if room == "cli" else f"{room}/*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_the_rooms_above_it_and_no_script(room):
    for path in files_of(room):
        assert {name for name in imports(path) if name in SCRIPTS or "common" in name} <= reach(room), path


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if room != "cli"])
def test_a_room_says_its_rule_in_one_sentence_and_has_at_most_nine_files(room):
    (first, *others) = files_of(room)
    rule = ast.get_docstring(ast.parse(first.read_text(encoding="utf-8"))) or ""
    assert rule.endswith(f"; may import only {', '.join(MAY_IMPORT[room])}.")
    assert ". " not in rule
    assert len(others) <= 9


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_no_script(name):
    assert not imports(SCRIPTS[name]) & set(SCRIPTS)


def test_every_room_is_in_the_table():
    assert {path.stem for path in (ROOT / "common").glob("[!_.]*")} == set(MAY_IMPORT)


def test_no_test_file_imports_another():
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not [name for name in names(path) if re.search(r"^tests\.(.+\.)?test_", name)], path
