"""Images of an index: which exist in the folder, and the addresses of the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from common.cli import InputError, say
from common.download.outcomes import Refusals
from common.download.types import BadFile, ImageSource, WantedImage
from common.files.failures import Failure, read_failures
from common.files.places import folder_of, status
from common.openimages.datapoints import IndexEntry, read_index
from common.openimages.ids import ImageFiles, image_file_name, image_files

# The states of an image: missing; shrunk with other settings; as it was received; shrunk.
MISSING, STALE, PRESENT, FINISHED = range(4)  # those below PRESENT are to be downloaded
MAX_URL = 8000  # characters; servers take less

_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]")


def check_index(path: Path) -> dict[str, int]:
    """Return the images of the index, in order, as MISSING: 110 bytes each; InputError for a wrong entry."""
    images: dict[str, int] = {}
    for line, entry in read_index(path):
        if entry.id in images:
            raise InputError(f"{path}:{line}: duplicate image id {entry.id}")
        images[entry.id] = MISSING
    return images


def mark_present(states: dict[str, int], folder: Path, *, shrinks: bool) -> None:
    """Set the images that exist in the folder to PRESENT, by one listing; an empty file is missing."""
    there, files = folder_of(folder), None
    for image_id, name, listed in image_files(folder):
        if image_id in states and (found := listed or there.status(name)) and found.size:
            if states[image_id] == PRESENT:
                files = files or ImageFiles(folder)
                files.find(image_id)  # raises, unless both are one file
            if shrinks and name != image_file_name(image_id):
                wanted = "only <id>.jpg directly in the folder is resized in place"
                raise InputError(f"{folder}/{name}: {wanted}; run without --max_side")
            states[image_id] = PRESENT


def mark_bad(states: dict[str, int], folder: Path, path: Path) -> dict[str, BadFile]:
    """Return the files of the images that a list of failures names, by id, and set these images to STALE.

    A file that is newer than the list is left: it was downloaded again after the list was made.
    """
    bad: dict[str, BadFile] = {}
    files, there, listed, known, other = ImageFiles(folder), folder_of(folder), status(path), 0, ""
    for failure in read_failures(path):
        if (state := states.get(failure.id)) is None:
            other = failure.id
            continue
        known += 1
        name = files.find(failure.id)
        found = there.status(name) if state else None
        if not (found and listed and found.changed_at > listed.changed_at):
            bad[failure.id] = BadFile(name, failure.reason)
            states[failure.id] = min(state, STALE)
    if other and not known:
        raise InputError(f"{path}: none of its images is in the index, such as {other}")
    say(f"{path}: {len(bad)} of {known} images are to be downloaded")
    return bad


def count_present(states: dict[str, int]) -> int:
    return sum(state >= PRESENT for state in states.values())


def wanted_images(
    path: Path, states: dict[str, int], order: list[str], mirror: str,
    refusals: Refusals, bad: dict[str, BadFile],
) -> Iterator[WantedImage | Failure]:  # fmt: skip
    """Yield the images of the index to download, with their sources in order, or why there are none."""
    for _, entry in read_index(path):
        if states.get(entry.id, PRESENT) < PRESENT:
            sources = [source for name in order if (source := source_of(entry, name, mirror))]
            yield skip_refused(entry.id, sources, refusals, bad.get(entry.id))


def source_of(entry: IndexEntry, name: str, mirror: str) -> ImageSource | None:
    """Return one source of an image, None where it has none; size and MD5 hold for the original alone."""
    if name == "mirror":
        address = f"{mirror}/{entry.subset}/{image_file_name(entry.id)}" if entry.subset else ""
    else:
        address = (entry.thumbnail_url if name == "thumbnail" else entry.url) or ""
    if not (address := without_blanks(address)):
        return None
    return ImageSource(name, address, *((entry.size or None, entry.md5) if name == "original" else ()))


def skip_refused(
    image_id: str, sources: list[ImageSource], refusals: Refusals, bad: BadFile | None
) -> WantedImage | Failure:
    """Return an image with the sources that are worth asking, or why there are none.

    A source whose image was received but is unusable is the last that is asked, as in the run that found it;
    if the image is to replace a bad file, the next source is asked.
    """
    left: list[ImageSource] = []
    refusal: Failure | None = None
    for source in sources:
        if broken := refusals.find_broken(image_id, source.url):
            refusal = broken
            if not bad:
                break
        elif known := refusals.find(image_id, source.url):
            refusal = known
        else:
            refusal = None
            left.append(source)
    if left:
        return WantedImage(image_id, tuple(left), refusal, bad)
    return refusal or Failure(image_id, "no_source", "no address in the index for any --image_source")


def plan(images: Iterator[WantedImage | Failure], states: dict[str, int]) -> dict[str, int]:
    """Return how many images would be requested, and the bytes of those whose size the index knows.

    The size is that of the original: it is known of the images whose first source that is.
    """
    counts = {"images": len(states), "already_there": count_present(states)}
    counts |= dict.fromkeys(("to_download", "refused", "size_known", "bytes"), 0)
    for image in images:
        if isinstance(image, Failure):
            counts["refused"] += 1
        else:
            size = image.sources[0].size
            counts["to_download"] += 1
            counts["size_known"] += size is not None
            counts["bytes"] += size or 0
    return counts


def host_of(url: str) -> str:
    """Return scheme, host and port of a URL: limits and pauses hold for these."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}".lower()


def without_blanks(url: str) -> str:
    """Return an address without white space around it, and with its blanks percent-encoded."""
    return url.strip().replace(" ", "%20")


def url_problem(url: str) -> str:
    """Return why a URL is never requested, "" where it may be."""
    if len(url) > MAX_URL:
        return f"an address of {len(url)} characters"
    if _BAD_IN_URL.search(url):
        return "white space or control characters in the address"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme.lower() not in ("http", "https"):
        return f"{parts.scheme[:20] or 'no scheme'}: only http and https addresses are downloaded"
    if not parts.hostname or port == 0:
        return "no host in the address"
    if parts.username is not None or parts.password is not None:
        return "user name or password in the address"
    return ""
