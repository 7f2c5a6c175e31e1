"""Arguments, inputs and results of step 7 on an object store."""

import pytest
from PIL import Image

from common.files.json_files import json_writer
from common.files.places import folder_of, parse_path, read_small
from tests.support.step5 import photo, point

IDS = [f"{number:02d}" for number in range(10)]


@pytest.fixture
def places(bucket, tmp_path):
    """Return a local folder and one on a store with the same images, datapoints and class list."""
    photos = {f"{image_id}.jpg": photo(number) for number, image_id in enumerate(IDS)}
    (tmp_path / "classes.txt").write_text("/m/01yrx\n")
    (tmp_path / "resized").mkdir()
    for name, data in photos.items():
        (tmp_path / "resized" / name).write_bytes(data)
    folder_of(parse_path(f"{bucket}/resized")).write_many(photos.items())
    for place in (tmp_path, bucket):
        with json_writer(f"{place}/points.json") as write:
            for image_id in [*IDS, "missing"]:
                with Image.open(
                    tmp_path / "resized" / f"{image_id if image_id in IDS else IDS[0]}.jpg"
                ) as image:
                    write(point(image_id, width=image.width, height=image.height))
        with json_writer(f"{place}/plain.json") as write:
            for image_id in [*IDS, "missing"]:
                write(point(image_id))
    return tmp_path, bucket


def flags(place, tmp_path, *more: object, points: str = "points") -> list[str]:
    every = [
        "--points_path", f"{place}/{points}.json", "--record_save_path", f"{place}/out/train.tfrecord",
        "--saved_images_directory", f"{place}/resized", "--trainable_classes_path", tmp_path / "classes.txt",
        "--workers", 1, *more,
    ]  # fmt: skip
    return [str(each) for each in every]


def written(place) -> dict[str, bytes]:
    folder = parse_path(f"{place}/out")
    names = (
        folder_of(folder).list("")
        if str(place).startswith("s3")
        else [path.name for path in folder.iterdir()]
    )
    return {name: read_small(folder / name) or b"" for name in names}
