"""The list of images that are missing at the end of a step, and why: `id,reason,detail,url`.

During a run failures go into a journal beside the list, so that a kill loses few or none. At the end the list
is written, in the order of the input, and the journal is removed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from common.cli import InputError
from common.files.csv_files import csv_line, read_csv
from common.files.journal import Journal, read_journal
from common.files.places import parse_path, status
from common.files.whole_files import open_output

HEADER = ["id", "reason", "detail", "url"]


class Failure(NamedTuple):
    """One missing image, and why; `detail` is one short line for people."""

    id: str
    reason: str
    detail: str = ""
    url: str = ""


class FailureList(Journal):
    """The failures of earlier runs and, as they are noted, those of this one."""

    def __init__(self, path: str | Path) -> None:
        self.list_path = parse_path(path)
        super().__init__(self.list_path.with_name(f".{self.list_path.name}.journal"))
        found = [read_failures(self.list_path)] if status(self.list_path) else []
        found += [read_failures(journal, has_header=False) for journal in read_journal(self.path)]
        self.by_id = {failure.id: failure for failure in chain.from_iterable(found)}

    def note(self, failure: Failure) -> None:
        """Remember a failure, in memory and in the journal."""
        self.by_id[failure.id] = failure
        self.add(csv_line(failure))

    def finish(self, missing: Iterable[str]) -> None:
        """Write the list of the images in `missing`, in that order, and remove the journal."""
        with open_output(self.list_path) as stream:
            for row in chain([HEADER], map(self.by_id.__getitem__, missing)):
                stream.write(csv_line(row).encode(errors="backslashreplace"))
        self.drop()


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """The number of images that may fail, `--max_failures`, `N` or `P%` of all: an argparse type."""

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{1,12}|[0-9]{1,3}(\.[0-9]{1,6})?%", self.text):
            problem = "neither a whole number nor a percentage such as 5%"
            raise argparse.ArgumentTypeError(f"{self.text!r} is {problem}")

    def check(self, failed: int, images: int, why: str = "") -> None:
        """Raise InputError if more images failed than the limit allows; its text ends in `why`."""
        number = float(self.text.removesuffix("%"))
        allowed = number * images / 100 if self.text.endswith("%") else number
        if failed > allowed:
            raise InputError(f"{failed} of {images} images failed, --max_failures is {self.text}{why}")


def read_failures(path: str | Path, *, has_header: bool = True) -> Iterator[Failure]:
    """Yield each row of a list of failures, or of its journal, which has no header."""
    rows = read_csv(path)
    if has_header and next(rows, (1, []))[1] != HEADER:
        raise InputError(f"{path}:1: the header {','.join(HEADER)} was expected")
    for line, row in rows:
        if len(row) != len(HEADER):
            raise InputError(f"{path}:{line}: {len(row)} fields, {len(HEADER)} were expected")
        yield Failure(*row)
