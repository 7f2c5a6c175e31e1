"""A database on disk that lives as long as a step needs it: for what is too large to be held in memory."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from common.cli import InputError


@contextmanager
def scratch_database() -> Iterator[sqlite3.Connection]:
    """Yield an empty SQLite database in a folder below TMPDIR that is removed afterwards.

    Nothing of it is kept, so it has no journal. A full disk is an InputError that names the folder.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(
            sqlite3.connect(Path(folder, "scratch.sqlite"), isolation_level=None, check_same_thread=False)
        ) as database,
    ):
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        try:
            yield database
        except sqlite3.OperationalError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: {error}; set TMPDIR to a folder with more room"
            ) from None
