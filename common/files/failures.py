"""The list of images that are not there at the end of a step, and why: `id,reason,detail,url`.

While a run goes on, failures are appended to a journal beside the list, so that a kill loses none.
At the end the list is written whole, in the order of the input, and the journal is removed.
"""

import argparse
import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from common.cli import InputError
from common.files.csv_files import read_csv, write_csv
from common.files.journal import Journal, read_journal
from common.files.storage import parse_path, status

HEADER = ["id", "reason", "detail", "url"]


@dataclass(frozen=True, slots=True)
class Failure:
    """One image that is not there, and why; `detail` is one short line for people.

    `in_passing` says of step 5's that the next run should look again; it is not in the list.
    """

    id: str
    reason: str
    detail: str = ""
    url: str = ""
    in_passing: bool = field(default=False, kw_only=True)


class FailureList:
    """The failures known so far: those of earlier runs and, as they come in, those of this one."""

    def __init__(self, path: str | Path) -> None:
        self.path = parse_path(path)
        self.journal = Journal(self.path.with_name(f".{self.path.name}.journal"))
        self.by_id: dict[str, Failure] = {}
        if status(self.path):
            self.by_id.update((failure.id, failure) for failure in read_failures(self.path))
        for journal in read_journal(self.journal.path):
            self.by_id.update((failure.id, failure) for failure in _rows(journal))

    def __enter__(self) -> Self:
        self.journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)

    def add(self, failure: Failure) -> None:
        """Remember a failure, in memory and in the journal."""
        self.by_id[failure.id] = failure
        line = io.StringIO()
        row = [failure.id, failure.reason, _one_line(failure.detail), _one_line(failure.url)]
        csv.writer(line, lineterminator="\n").writerow(row)
        self.journal.add(line.getvalue())

    def finish(self, missing: Iterable[str]) -> int:
        """Write the list of the images in `missing`, in that order, drop the journal, return the number."""
        failures = (self.by_id[image_id] for image_id in missing)
        rows = ((f.id, f.reason, _one_line(f.detail), _one_line(f.url)) for f in failures)
        count = write_csv(self.path, HEADER, rows)
        self.journal.drop()
        return count


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many images may fail, `--max_failures`: a number, or a share of them all in percent."""

    text: str
    number: float
    is_percent: bool

    def check(self, failed: int, images: int) -> None:
        """Raise InputError where more failed than the limit says."""
        allowed = self.number * images / 100 if self.is_percent else self.number
        if failed > allowed:
            raise InputError(f"{failed} of {images} images failed, --max_failures is {self.text}")


def parse_failure_limit(text: str) -> FailureLimit:
    """Return the limit written `N` or `P%`: an argparse type."""
    match = re.fullmatch(r"([0-9]{1,12})|([0-9]{1,3}(?:\.[0-9]{1,6})?)%", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor a percentage such as 5%")
    return FailureLimit(text, float(match[1] or match[2]), match[2] is not None)


def read_failures(path: str | Path) -> Iterator[Failure]:
    """Yield each row of a failures file."""
    rows = read_csv(path)
    line, header = next(rows, (1, []))
    if header != HEADER:
        raise InputError(f"{path}:{line}: the header {','.join(HEADER)} was expected")
    for _, row in rows:
        yield Failure(*row)


def _rows(journal: Path) -> Iterator[Failure]:
    for line, row in read_csv(journal):
        if len(row) != len(HEADER):
            raise InputError(f"{journal}:{line}: {len(row)} fields, {len(HEADER)} were expected")
        yield Failure(*row)


def _one_line(text: str) -> str:
    """Return `text` on one line: a row of ours never spans two, so a cut one is told by its missing end."""
    return " ".join(text.replace("\0", " ").split())
