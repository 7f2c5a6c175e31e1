"""Arguments, contents and results of step 5 on an object store."""

from pathlib import Path

from common.files.json_files import json_writer
from common.files.places import folder_of, parse_path, read_small
from tests.support.step5 import JOURNALS, point

JPEG = ".jpg"


def flags(place: Path | str, *more: object, into: str | None = "small") -> list[str]:
    saving = ["--image_saving_directory", f"{place}/{into}"] if into else []
    every = [
        "--image_directory", f"{place}/photos", *saving,
        "--datapoints_input_path", f"{place}/points.json.gz",
        "--datapoints_output_path", f"{place}/out.json.gz", "--workers", 1, *more,
    ]  # fmt: skip
    return [str(each) for each in every]


def fill(place: Path | str, photos: dict[str, bytes], ids: list[str]) -> None:
    """Write images and their datapoints to a folder, local or on a store."""
    named = {f"{image_id}{JPEG}": data for image_id, data in photos.items()}
    if isinstance(place, Path):
        (place / "photos").mkdir(parents=True)
        for name, data in named.items():
            (place / "photos" / name).write_bytes(data)
    else:
        folder_of(parse_path(f"{place}/photos")).write_many(named.items())
    with json_writer(f"{place}/points.json.gz") as write:
        for image_id in ids:
            write(point(image_id))


def contents(place: Path | str) -> dict[str, bytes]:
    """Return the files of a place without journals and locks."""
    if isinstance(place, Path):
        files = [path for path in place.rglob("*") if path.is_file()]
        found = {str(path.relative_to(place)): path.read_bytes() for path in files}
    else:
        found = {}
        for folder in ("", "photos", "small"):
            where = parse_path(f"{place}/{folder}")
            for name in folder_of(where).list(""):
                found[f"{folder}/{name}".lstrip("/")] = read_small(where / name) or b""
    return {name: data for name, data in found.items() if not name.rpartition("/")[2].startswith(JOURNALS)}
