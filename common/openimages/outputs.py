"""Check, before anything is read, that no output replaces an input or another output."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from contextlib import suppress

from common.cli import InputError
from common.openimages.classes import class_list_file, descriptions_file


def check_outputs(
    parser: argparse.ArgumentParser, inputs: Iterable[str | None], outputs: Iterable[str | None]
) -> None:
    """End with a usage error if two outputs have the same path or an output is an input; None is no path."""
    written = [path for path in outputs if path]
    if len(set(map(os.path.realpath, written))) < len(written):
        parser.error("two outputs have the same path")
    read = {os.path.realpath(file) for path in inputs if path for file in _files(path)}
    for path in written:
        if os.path.realpath(path) in read:
            parser.error(f"{path} is an input: an output would replace it")


def _files(path: str) -> list[str]:
    """Return the path of an input and, if it is a folder, of the class files in it."""
    files = [path]
    if os.path.isdir(path):
        for find in (class_list_file, descriptions_file):
            with suppress(InputError, OSError):  # the step itself reports a folder without such a file
                files.append(str(find(path)))
    return files
