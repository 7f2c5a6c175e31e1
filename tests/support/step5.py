"""Images, datapoints, arguments and results of step 5, for all tests that run it."""

import io
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sample.scenes import draw

JOURNALS = (".process_finished", ".process_masks")


@cache
def photo(number: int, form: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    draw(str(number))[0].save(stream, form, **options)
    return stream.getvalue()


def small_photo() -> bytes:
    stream = io.BytesIO()
    draw("small")[0].resize((200, 150)).save(stream, "JPEG")
    return stream.getvalue()


def point(image_id: str, **more) -> dict[str, Any]:
    box = {"id": f"{image_id}-0", "label": "/m/01yrx", "x0": 0.25, "x1": 0.5, "y0": 0.125, "y1": 0.75}
    return {"id": image_id, "annotations": [box], **more}


GOOD = {"f1": photo(1), "a2": photo(2, progressive=True), "c3": small_photo(), "b4": photo(4, "PNG")}
BAD = {"e5": photo(5)[:9000], "d6": b"<html>", "g7": b""}  # and h8, which is missing
IDS = ["f1", "e5", "a2", "d6", "c3", "g7", "b4", "h8"]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with `photos` and `points.json`: good and bad images, not in the order of names."""
    (tmp_path / "photos").mkdir()
    for image_id, data in {**GOOD, **BAD}.items():
        (tmp_path / "photos" / f"{image_id}.jpg").write_bytes(data)
    write_points(tmp_path, IDS)
    return tmp_path


def write_points(folder: Path, ids) -> None:
    (folder / "points.json").write_text(json.dumps([point(image_id) for image_id in ids]))


def make_many(folder: Path, number: int) -> Path:
    """Fill a folder with images, one in twenty cut short, and return it."""
    data = [photo(each) for each in range(10)]
    (folder / "photos").mkdir(parents=True)
    write_points(folder, [f"{each:04}" for each in range(number)])
    for each in range(number):
        whole = data[each % 10]
        path = folder / "photos" / f"{each:04}.jpg"
        path.write_bytes(whole[:-500] if each % 20 == 3 else whole)
    return folder


def linked(many: Path, folder: Path) -> Path:
    """Fill a folder with the same images as hard links, since a run replaces files and writes into none."""
    shutil.copytree(many / "photos", folder / "photos", copy_function=os.link)
    shutil.copy(many / "points.json", folder)
    return folder


def arguments(folder: Path, *more: object, into: str | None = "small") -> list[str]:
    saving = ["--image_saving_directory", folder / into] if into else []
    every = [
        "--image_directory", folder / "photos", *saving,
        "--datapoints_input_path", folder / "points.json",
        "--datapoints_output_path", folder / "out.json", "--workers", 1, *more,
    ]  # fmt: skip
    return [str(argument) for argument in every]


def look(path: Path) -> tuple[str | None, int]:
    """Decode an image completely; return its format and longer side."""
    with Image.open(path) as image:
        image.load()
        return image.format, max(image.size)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder without the journals, which hold times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in JOURNALS)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
