"""Names that other rooms still import from here."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from common.files.folders import (
    Status,
    folder_of,
    is_folder,
    is_remote,
    is_same_place,
    packages_for,
    parse_path,
    remove,
    status,
)

__all__ = [
    "Status",
    "is_folder",
    "is_remote",
    "is_same_place",
    "packages_for",
    "parse_path",
    "remove",
    "status",
]


def statuses(folder: Path):  # type: ignore[no-untyped-def]
    return folder_of(folder).statuses()


def files_named(path: Path) -> dict[str, Status]:
    return folder_of(path.parent).list(path.name)


def names_in(folder: Path) -> Iterator[str]:
    return folder_of(folder).names()


def list_objects(folder: Path, prefix: str) -> dict[str, Status]:
    return folder_of(folder).list(prefix)


def put_bytes(path: Path, data: bytes) -> None:
    folder_of(path.parent).write(path.name, data)


def put_objects(folder: Path, objects: dict[str, bytes]) -> None:
    folder_of(folder).write_many(objects.items())


def read_objects(folder: Path, names: Sequence[str]) -> Iterator[bytes | None]:
    return folder_of(folder).read_many(names)  # type: ignore[return-value]
