"""Where the photos of an image index may be: which are on disk, and the addresses of the others.

A run holds each image once, in a dict from id to what is there of it: 150 bytes an image.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import InputError
from common.download.fetch import Source
from common.download.refusals import Refusals
from common.download.threads import Photo
from common.files.failures import Failure
from common.files.storage import names_in
from common.openimages.ids import image_file_name

if TYPE_CHECKING:
    from common.openimages.datapoints import IndexEntry

# What there is of a photo: nothing; one shrunk with other settings; one as it was fetched; one shrunk.
WANTED, STALE, THERE, FINISHED = range(4)  # those below THERE are to be fetched


def check_index(path: Path) -> dict[str, int]:
    """Return the images of the index, in order, as WANTED; InputError where an entry is wrong."""
    from common.openimages.datapoints import read_index

    images: dict[str, int] = {}
    for line, entry in read_index(path):
        if entry.id in images:
            raise InputError(f"{path}:{line}: image {entry.id} is there twice")
        images[entry.id] = WANTED
    return images


def mark_photos(there: dict[str, int], folder: Path) -> None:
    """Set the photos that are in the folder to THERE: one listing, however many are asked for."""
    suffix = image_file_name("")
    for name in names_in(folder):
        image_id = name.removesuffix(suffix)
        if image_id in there and image_id != name:
            there[image_id] = THERE


def photos_of(path: Path, there: dict[str, int], order: list[str], mirror: str) -> Iterator[Photo]:
    """Yield the photos of the index that are to be fetched, with their sources in order."""
    from common.openimages.datapoints import read_index

    for _, entry in read_index(path):
        if there.get(entry.id, THERE) < THERE:
            sources = (source_of(entry, name, mirror) for name in order)
            yield Photo(entry.id, tuple(source for source in sources if source))


def source_of(entry: "IndexEntry", name: str, mirror: str) -> Source | None:
    """Return one source of a photo, None where there is none; size and MD5 hold for the original alone."""
    if name == "mirror":
        address = f"{mirror}/{entry.subset}/{image_file_name(entry.id)}"
        return Source(name, address) if entry.subset else None
    if name == "thumbnail":
        return Source(name, entry.thumbnail_url) if entry.thumbnail_url else None
    return Source(name, entry.url, entry.size or None, entry.md5) if entry.url else None


def skip_refused(photo: Photo, refusals: Refusals) -> Photo | Failure:
    """Return the photo with the sources that are worth asking, or why there are none.

    A source whose photo came and could not be used is the last that is asked, then as now.
    """
    if not photo.sources:
        return Failure(photo.id, "no_source", "no address in the index for any --image_source")
    left: list[Source] = []
    refusal: Failure | None = None
    for source in photo.sources:
        if broken := refusals.find_broken(photo.id, source.url):
            refusal = broken
            break
        refusal = refusals.find(photo.id, source.url)
        if not refusal:
            left.append(source)
    return Photo(photo.id, tuple(left), refusal) if left else refusal or photo


def count_there(there: dict[str, int]) -> int:
    """Return how many photos need not be fetched."""
    return sum(state >= THERE for state in there.values())


def plan(photos: Iterator[Photo], there: dict[str, int], refusals: Refusals) -> dict[str, int]:
    """Return how many photos would be asked for, and the bytes of those whose size the index knows.

    The size is that of the original: it is known of the photos whose first source that is.
    """
    counts = Counter(images=len(there), already_there=count_there(there), to_download=0, refused=0)
    counts.update(size_known=0, bytes=0)
    for photo in photos:
        known = skip_refused(photo, refusals)
        if isinstance(known, Failure):
            counts["refused"] += 1
            continue
        size = known.sources[0].size
        counts.update(to_download=1, size_known=size is not None, bytes=size or 0)
    return counts
