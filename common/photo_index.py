"""Where the photos of an image index may be: which are on disk, and the addresses of the others."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.downloader import Photo
from common.failures import Failure
from common.fetch import Source
from common.json_files import read_json
from common.openimages import image_file_name, is_image_id, parse_number
from common.refusals import Refusals


def photos_in(folder: Path) -> set[str]:
    """Return the names in the folder that look like photos: one listing, however many are asked for."""
    suffix = image_file_name("")
    with os.scandir(folder) as entries:
        return {entry.name.removesuffix(suffix) for entry in entries if entry.name.endswith(suffix)}


def check_index(path: Path, there: set[str]) -> dict[str, bool]:
    """Return whether each image of the index, in order, is there; InputError where an entry is wrong."""
    images: dict[str, bool] = {}
    image_id: Any
    for line, entry in read_json(path):
        where = f"{path}:{line}"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: an object with id and url was expected")
        image_id = entry.get("id")
        if not is_image_id(image_id):
            raise InputError(f"{where}: id {image_id!r:.80}, an image id of A-Z a-z 0-9 . _ - was expected")
        for key in ("url", "subset", "thumbnail_url", "md5"):
            if not isinstance(entry.get(key), str | None):
                raise InputError(f"{where}: {key} of {image_id} is {entry[key]!r:.80}, text was expected")
        if image_id in images:
            raise InputError(f"{where}: image {image_id} is there twice")
        images[image_id] = image_id in there
        there.discard(image_id)
    if not images:
        raise InputError(f"{path}: no images in it")
    return images


def photos_of(path: Path, there: dict[str, bool], order: list[str], mirror: str) -> Iterator[Photo]:
    """Yield the photos of the index that are not there, with their sources in order."""
    for _, entry in read_json(path):
        if there.get(entry["id"]) is False:
            sources = (source_of(entry, name, mirror) for name in order)
            yield Photo(entry["id"], tuple(source for source in sources if source))


def source_of(entry: dict[str, Any], name: str, mirror: str) -> Source | None:
    """Return one source of a photo, None where there is none; size and MD5 hold for the original alone."""
    if name == "mirror":
        subset = entry.get("subset")
        return Source(name, f"{mirror}/{subset}/{image_file_name(entry['id'])}") if subset else None
    if name == "thumbnail":
        return Source(name, entry["thumbnail_url"]) if entry.get("thumbnail_url") else None
    size = parse_number(entry.get("size"))
    return (
        Source(name, entry["url"], int(size) if size else None, entry.get("md5"))
        if entry.get("url")
        else None
    )


def skip_refused(photo: Photo, refusals: Refusals) -> Photo | Failure:
    """Return the photo with the sources that are worth asking, or why there are none."""
    if not photo.sources:
        return Failure(photo.id, "no_source", "no address in the index for any --image_source")
    before = [refusals.find(photo.id, source.url) for source in photo.sources]
    left = tuple(source for source, refusal in zip(photo.sources, before, strict=True) if not refusal)
    return Photo(photo.id, left) if left else before[-1] or photo
