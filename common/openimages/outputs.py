"""What a step writes may not replace what it reads: looked at before anything is read or written."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress

from common.cli import InputError
from common.openimages.classes import class_list_file, descriptions_file

FOLDERS = {"trainable_classes_path": class_list_file, "class_description_path": descriptions_file}


def check_outputs(parser: argparse.ArgumentParser, args: argparse.Namespace, outputs: Sequence[str]) -> None:
    """End with a usage error where outputs share a path, or one of them is a file that is read.

    Every other argument that ends in `_path` is an input. `outputs` are names of arguments.
    """
    paths = {name: value for name, value in vars(args).items() if name.endswith("_path") and value}
    written = [paths[name] for name in outputs if name in paths]
    if len(set(map(os.path.realpath, written))) != len(written):
        parser.error("the outputs need a path each")
    inputs = {file for name, path in paths.items() if name not in outputs for file in _read(name, path)}
    for path in written:
        if os.path.realpath(path) in inputs:
            parser.error(f"{path} is an input: an output would replace it")


def _read(name: str, path: str) -> list[str]:
    """Return an input and, where it is the folder of a class file, the file in it that is read."""
    files = [os.path.realpath(path)]
    if name in FOLDERS and os.path.isdir(path):
        # Where no one file fits, whoever reads it says so; a step may do without.
        with suppress(InputError, OSError):
            files.append(os.path.realpath(FOLDERS[name](path)))
    return files
