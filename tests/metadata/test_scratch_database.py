"""The database for what is too large for memory: nothing of it outlives the run, however that ends."""

import tempfile

import pytest

from common.metadata.scratch_database import scratch_database

ROWS, TEXT = 100_000, "x" * 300  # 30 MB, where SQLite holds 2 MB in memory


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return the folder that is TMPDIR to this test, SQLite's own files among it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_database_has_no_name_and_holds_more_than_memory_does(temporary):
    with scratch_database() as database:
        assert not list(temporary.iterdir())
        database.execute("CREATE TABLE texts (number INTEGER, text TEXT)")
        database.executemany(
            "INSERT INTO texts VALUES (?, ?)", ((number * 7919 % ROWS, TEXT) for number in range(ROWS))
        )
        assert not list(temporary.iterdir())
        database.execute("CREATE INDEX by_number ON texts (number)")
        rows = database.execute("SELECT number, text FROM texts ORDER BY number")
        assert all(row == (number, TEXT) for number, row in enumerate(rows))
        assert database.execute("SELECT COUNT(*) FROM texts").fetchone() == (ROWS,)
        assert not list(temporary.iterdir())
    assert not list(temporary.iterdir())


def test_nothing_is_left_after_an_error(temporary):
    with pytest.raises(KeyboardInterrupt), scratch_database():
        raise KeyboardInterrupt
    assert not list(temporary.iterdir())
