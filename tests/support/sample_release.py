"""Paths and rows of the sample release."""

import csv
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
V7_INDEX = {
    "train": "2018_04/train/train-images-boxable-with-rotation.csv",
    "validation": "2018_04/validation/validation-images-with-rotation.csv",
    "test": "2018_04/test/test-images-with-rotation.csv",
}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def photos(folder: Path, entry: Entry) -> dict[str, Path]:
    return {
        "original": folder / "photos" / f"{entry['id']}_o.jpg",
        "mirror": folder / "mirror" / entry["subset"] / f"{entry['id']}.jpg",
        "thumbnail": folder / "photos" / f"{entry['id']}_z.jpg",
    }
