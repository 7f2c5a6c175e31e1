"""Ways to resize an image, and to detect that it is damaged, for benchmarks/images.py."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyvips
import simplejpeg
from PIL import Image

from common.files.places import replace_file
from common.images.decode import decode_jpeg
from common.images.header import BadImageError, read_jpeg_header
from common.images.process import process_bytes
from common.images.settings import ImageSettings, plan_fit

pyvips.cache_set_max(0)  # the second round would find the images of the first
SIDE = 256
QUALITY = ImageSettings().quality

# --- the ways ------------------------------------------------------------------------------------


def usual(source: Path, target: Path) -> None:
    """Do what most scripts do: verify, which finds almost nothing, open again, thumbnail."""
    with Image.open(source) as image:
        image.verify()
    with Image.open(source) as image:
        image.thumbnail((SIDE, SIDE))
        image.save(target, quality=QUALITY)


def pillow_full(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        size = plan_fit(image.size, "longer", SIDE).scaled
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(target, quality=QUALITY)


def pillow_gap(gap: float) -> Callable[[Path, Path], None]:
    def way(source: Path, target: Path) -> None:
        with Image.open(source) as image:
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=gap)
            image.save(target, quality=QUALITY)

    return way


def opencv_full(source: Path, target: Path) -> None:
    opencv(source, target, cv2.IMREAD_COLOR)


def opencv_reduced(source: Path, target: Path) -> None:
    width, height = Image.open(source).size
    factor = max(width, height) // SIDE
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flag = cv2.IMREAD_REDUCED_COLOR_8 if factor >= 8 else flags[4 if factor >= 4 else 2 if factor >= 2 else 1]
    opencv(source, target, flag)


def opencv(source: Path, target: Path, flag: int) -> None:
    image = cv2.imread(str(source), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None
    size = plan_fit((image.shape[1], image.shape[0]), "longer", SIDE).scaled
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def libvips(source: Path, target: Path) -> None:
    """Shrink on load, then Lanczos; strict, which is not the default."""
    image = pyvips.Image.thumbnail(str(source), SIDE, no_rotate=True, fail_on="warning")
    image.write_to_file(str(target), Q=QUALITY, keep="none")


def resize(source: Path, target: Path, settings: ImageSettings) -> None:
    replace_file(target, process_bytes(source.read_bytes(), settings)[0])


def ours(source: Path, target: Path) -> None:
    resize(source, target, ImageSettings(max_side=SIDE))


def ours_precise(source: Path, target: Path) -> None:
    resize(source, target, ImageSettings(max_side=SIDE, precise=True))


def limit(source: Path, target: Path) -> None:
    """Do the least possible: decode strictly to an eighth, grey, and write nothing."""
    simplejpeg.decode_jpeg(source.read_bytes(), "GRAY", min_width=1)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "usual script (verify, thumbnail)": usual,
    "Pillow, full decode, Lanczos": pillow_full,
    "Pillow thumbnail, Lanczos, gap 2": pillow_gap(2),
    "Pillow thumbnail, Lanczos, gap 1": pillow_gap(1),
    "OpenCV, full decode, area (img2dataset)": opencv_full,
    "OpenCV, reduced decode, area": opencv_reduced,
    "libvips thumbnail, strict": libvips,
    "process_images.py": ours,
    "process_images.py --precise": ours_precise,
    "limit: strict decode to 1/8 grey": limit,
}


# --- damage --------------------------------------------------------------------------------------


def pillow_finds(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except (OSError, SyntaxError):
        return True
    return False


def opencv_finds(data: bytes) -> bool:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None


def libvips_finds(data: bytes, fail_on: str = "none") -> bool:
    try:
        pyvips.Image.new_from_buffer(data, "", fail_on=fail_on).avg()
    except pyvips.Error:
        return True
    return False


def strict_libvips_finds(data: bytes) -> bool:
    return libvips_finds(data, "warning")


def simplejpeg_finds(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data)
    except (ValueError, KeyError):
        return True
    return False


def ours_finds(data: bytes) -> bool:
    try:
        decode_jpeg(data, read_jpeg_header(data), 8)
    except BadImageError:
        return True
    return False


FINDERS = {
    "Pillow, full decode": pillow_finds, "OpenCV": opencv_finds, "libvips": libvips_finds,
    "libvips, strict": strict_libvips_finds,
    "simplejpeg, strict": simplejpeg_finds, "process_images.py": ours_finds,
}  # fmt: skip
