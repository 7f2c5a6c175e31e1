"""Check, before anything is read, that no output replaces an input or another output."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress

from common.cli import InputError
from common.openimages.classes import class_list_file, descriptions_file

FOLDERS = {"trainable_classes_path": class_list_file, "class_description_path": descriptions_file}


def check_outputs(parser: argparse.ArgumentParser, args: argparse.Namespace, outputs: Sequence[str]) -> None:
    """End with a usage error if two outputs have the same path or an output is an input.

    `outputs` are names of arguments. Every other argument that ends in `_path` is an input.
    """
    paths = {name: value for name, value in vars(args).items() if name.endswith("_path") and value}
    written = [paths[name] for name in outputs if name in paths]
    if len(set(map(os.path.realpath, written))) != len(written):
        parser.error("two outputs have the same path")
    inputs = {file for name, path in paths.items() if name not in outputs for file in _files(name, path)}
    for path in written:
        if os.path.realpath(path) in inputs:
            parser.error(f"{path} is an input: an output would replace it")


def _files(name: str, path: str) -> list[str]:
    """Return the real path of an input and, if it is the folder of a class file, of that file."""
    files = [path]
    if name in FOLDERS and os.path.isdir(path):
        with suppress(InputError, OSError):  # the step itself reports a folder without such a file
            files.append(str(FOLDERS[name](path)))
    return list(map(os.path.realpath, files))
