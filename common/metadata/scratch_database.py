"""A database on disk that lives as long as a step needs it: for what is too large to be held in memory."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from common.cli import InputError


@contextmanager
def scratch_database() -> Iterator[sqlite3.Connection]:
    """Yield an empty SQLite database in a file below TMPDIR that has no name any more.

    So its room is free again however the run ends, by kill -9 too. Nothing of it is kept, so it has no
    journal. A full disk is an InputError that names the folder.
    """
    try:
        with closing(_open_nameless()) as database:
            yield database
    except sqlite3.OperationalError as error:
        raise InputError(f"{tempfile.gettempdir()}: {error}; set TMPDIR to a folder with more room") from None


def _open_nameless() -> sqlite3.Connection:
    """Return a database in one long transaction, whose file is removed while it is open.

    With a journal SQLite would refuse to write to a file that has moved; without one it does not look.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(
            Path(folder, "scratch.sqlite"), isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")  # opens the file, which a plain BEGIN leaves to the first use
        except BaseException:
            database.close()
            raise
    return database
