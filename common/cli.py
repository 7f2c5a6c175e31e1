"""The command line of every script: arguments, progress, counts, one-line errors and exit codes.

Exit codes: 0 done, the counts say what was lost; 1 bad input, or nothing left at the end; 2 wrong flags
(argparse); 130 interrupted by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}  # of bytes
LINE_SECONDS = 60  # off a terminal the progress bar becomes one line a minute


class InputError(Exception):
    """A fault in the user's files, flags or network; its text is the one line that the user reads."""


def make_parser(manual: str) -> argparse.ArgumentParser:
    """Return a parser whose --help is the script's docstring, `manual`, followed by the flags."""
    return argparse.ArgumentParser(
        description=manual, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def whole_number(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Return an argparse type that accepts whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch("[0-9]{1,1000}", text) else -1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r:.80} is not a whole number of at least {least}")
        if number > most:
            raise argparse.ArgumentTypeError(f"{text!r:.80} is more than {most}")
        return number

    return parse


def byte_count(text: str) -> int:
    """Return the number of bytes in `100M` and the like: an argparse type."""
    match = re.fullmatch(r"([0-9]{1,9})([KMG]?)B?", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes such as 500K, 100M or 2G")
    return int(match[1]) * UNITS[match[2]]


def fraction(text: str) -> float:
    """Return a number between 0 and 1: an argparse type."""
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction between 0 and 1, such as 0.1")
    return float(text)


def print_counts(
    counts: Mapping[str, int],
    *,
    came_in: Sequence[str] = (),
    went_out: Sequence[str] = (),
    lost: Sequence[str] = (),
    line_only: Sequence[str] = (),
) -> None:
    """Print a table for people to stderr, and `name=number` pairs for scripts as the last line of stdout.

    The table leaves out counts that are 0. The others are grouped as in, out and lost by the names given;
    those not named come last. Names in `line_only`, such as totals of others, are not in it.
    """
    also = [name for name in counts if name not in (*came_in, *went_out, *lost, *line_only)]
    senses = {"in": came_in, "out": went_out, "lost": lost, "also": also}
    rows = [(sense, name) for sense, names in senses.items() for name in names if counts.get(name)]
    say_table([(sense, counts[name], name.replace("_", " ")) for sense, name in rows])
    print(" ".join(f"{name}={number}" for name, number in counts.items()), flush=True)


def say_table(rows: Sequence[tuple[str, int, str]]) -> None:
    """Print rows of a head, a number and a text to stderr, aligned; a head that is repeated is left out."""
    heads = max((len(head) for head, _, _ in rows), default=0)
    digits = max((len(f"{number:,}") for _, number, _ in rows), default=0)
    before = ""
    for head, number, text in rows:
        say(f"  {'' if head == before else head:<{heads}}  {number:>{digits},}  {text}".rstrip())
        before = head


def say(message: str) -> None:
    """Print one line for the user to stderr."""
    print(message, file=sys.stderr, flush=True)


class _Lines:
    """A stderr for tqdm that writes each update of the bar as a separate line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress(total: int | None, unit: str, description: str) -> tqdm[NoReturn]:
    """Return a tqdm bar on stderr: live on a terminal, one line a minute elsewhere. The unit `B` is bytes."""
    from tqdm import tqdm

    options: dict[str, Any] = {"total": total, "unit": unit, "desc": description, "unit_scale": unit == "B"}
    if sys.stderr.isatty():
        return tqdm(**options, dynamic_ncols=True)
    return tqdm(
        **options, file=_Lines(sys.stderr), ascii=True, ncols=100,
        mininterval=LINE_SECONDS, maxinterval=LINE_SECONDS, delay=LINE_SECONDS,
    )  # fmt: skip


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a script's `main` and exit: an expected failure is one line on stderr, a bug is a traceback."""
    name = os.path.basename(sys.argv[0])
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(argv)
        sys.stdout.flush()
    except InputError as error:
        say(f"{name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say(f"{name}: interrupted; run the same command again")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of stdout has gone, as `head` does; Python would complain about it a second time at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        say(f"{name}: {where}{error.strerror or error}")
        sys.exit(1)
    sys.exit(0)
