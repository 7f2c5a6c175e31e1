"""The verified image-level labels, kept on disk by image, for as many images as there are."""

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from common.cli import InputError
from common.files.csv_files import columns, read_csv
from common.metadata.image_index import ImageIds
from common.metadata.scratch_database import scratch_database

TABLES = 64  # each gets its index in one call of SQLite, in which Python hears no signal
AT_ONCE = 256  # rows inserted in one call, which takes less time than one by one

Row = tuple[str, str, int]  # image id, class, confidence


class ImageLabels:
    """Looks up the labels of an image; confidence 1 is verified present, 0 verified absent."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        self.lock = Lock()  # step 3 asks from several threads

    def of(self, image_id: str) -> list[dict[str, Any]]:
        """Return the labels of an image, by class; present wins where a class is both."""
        query = (
            f"SELECT label, MAX(confidence) FROM {_table(image_id)} "  # noqa: S608  # a number of ours
            "WHERE image = ? GROUP BY label ORDER BY label"
        )
        with self.lock:
            rows = self.database.execute(query, (image_id,)).fetchall()
        return [{"label": label, "confidence": confidence} for label, confidence in rows]


@contextmanager
def image_labels(
    path: str | Path,
    images: ImageIds,
    up: Mapping[str, Set[str]],
    down: Mapping[str, Set[str]],
    counts: Counter[str],
) -> Iterator[ImageLabels]:
    """Yield a look-up of a CSV file of verified labels, in a temporary database on disk.

    A class verified present stands for the classes in `up[class]`, one verified absent for those in
    `down[class]`; rows of a class that is in neither, or of an image that is not in the index, are dropped
    and counted. A file without a row of these images is an error.
    """
    with scratch_database() as database:
        tables = [f"labels_{number}" for number in range(TABLES)]
        for table in tables:
            database.execute(f"CREATE TABLE {table} (image TEXT, label TEXT, confidence INTEGER)")
        waiting: dict[str, list[Row]] = {table: [] for table in tables}
        for row in _rows(path, images, up, down, counts):
            rows = waiting[table := _table(row[0])]
            rows.append(row)
            if len(rows) == AT_ONCE:
                _insert(database, table, rows)
                rows.clear()
        for table, rows in waiting.items():
            _insert(database, table, rows)
        for table in tables:
            database.execute(f"CREATE INDEX {table}_by_image ON {table} (image)")
        yield ImageLabels(database)


def _insert(database: sqlite3.Connection, table: str, rows: list[Row]) -> None:
    database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)  # noqa: S608  # a name of ours


def _table(image_id: str) -> str:
    """Return the name of the table with an image's labels."""
    return f"labels_{zlib.crc32(image_id.encode()) % TABLES}"


def _rows(
    path: str | Path,
    images: ImageIds,
    up: Mapping[str, Set[str]],
    down: Mapping[str, Set[str]],
    counts: Counter[str],
) -> Iterator[Row]:
    rows = read_csv(path)
    places = columns(path, next(rows, (1, []))[1], ("ImageID", "LabelName", "Confidence"))
    image, label, confidence = (places[name] for name in ("ImageID", "LabelName", "Confidence"))
    for line, row in rows:
        counts["label_rows"] += 1
        if row[confidence] not in ("0", "1", "0.0", "1.0"):
            raise InputError(f"{path}:{line}: Confidence is {row[confidence]!r:.80}, 0 or 1 was expected")
        if row[image] not in images.codes:
            counts["labels_not_in_index"] += 1
            continue
        present = row[confidence].startswith("1")
        classes = (up if present else down).get(row[label], frozenset())
        counts["labels_of_other_classes"] += not classes
        for mid in classes:
            yield row[image], mid, int(present)
    if counts["label_rows"] == counts["labels_not_in_index"]:
        raise InputError(
            f"{path}: none of its {counts['label_rows']} image labels is of an image in the index, those of "
            "the same release and split were expected"
        )
