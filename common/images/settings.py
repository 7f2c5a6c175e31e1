"""Settings of checking and resizing images: the flags that set them, and the sizes that follow from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.cli import say, whole_number

MAX_JPEG_SIDE = 65_500  # pixels, libjpeg's limit
FITS = ("longer", "shorter", "pad", "stretch")
_FITS = {
    "longer, shorter": "this side is at most --max_side, nothing is enlarged",
    "pad": "a square of --max_side with the image on black",
    "stretch": "a square of --max_side that the image is stretched to fill",
}


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Settings that the bytes of a finished image depend on; its folder remembers them."""

    max_side: int = 256  # pixels, of the side that `fit` names
    # At full colour resolution 85 makes files as large as 90 at half, 1 dB closer to the original.
    quality: int = 85  # of JPEGs, 1 to 100
    min_side: int = 1  # pixels; images with a shorter side below this are too_small
    fit: str = "longer"  # one of FITS
    format: str = "jpeg"  # or png
    precise: bool = False
    keep_damaged: bool = False
    rotate_upright: bool = False
    exif_upright: bool = False

    def remembered(self) -> dict[str, Any]:
        """Return the settings as a folder remembers them: exif_upright only if set, as older versions."""
        return {name: value for name, value in asdict(self).items() if value or name != "exif_upright"}


@dataclass(frozen=True, slots=True)
class Fit:
    """Sizes (width, height) in pixels of a finished image."""

    scaled: tuple[int, int]  # without padding
    canvas: tuple[int, int]  # with padding, the same on either side

    @property
    def offset(self) -> tuple[int, int]:
        """Return the left and top padding."""
        return (self.canvas[0] - self.scaled[0]) // 2, (self.canvas[1] - self.scaled[1]) // 2


def plan_fit(size: tuple[int, int], fit: str, max_side: int) -> Fit:
    """Return the sizes of an image of `size` pixels, turned already, after it is resized.

    `longer`, `shorter`: this side is at most `max_side`; nothing is enlarged. `pad`, `stretch`: a square of
    `max_side`, the image in its middle or stretched to fill it; small images are enlarged, as
    tf.image.resize_with_pad does.
    """
    width, height = size
    square = (max_side, max_side)
    if fit == "stretch":
        return Fit(square, square)
    side = min(width, height) if fit == "shorter" else max(width, height)
    if fit != "pad" and side <= max_side:
        return Fit((width, height), (width, height))
    scaled = (max(1, round(width * max_side / side)), max(1, round(height * max_side / side)))
    return Fit(scaled, square if fit == "pad" else scaled)


def add_image_flags(parser: argparse.ArgumentParser, fits: Sequence[str], max_side_help: str = "") -> None:
    """Add the flags; with `max_side_help` --max_side has no default, and images stay as they are without."""
    add = parser.add_argument
    add("--max_side", type=whole_number(1, most=MAX_JPEG_SIDE), metavar="PIXELS",
        default=None if max_side_help else 256,
        help=max_side_help or "largest longer side, or see --fit (default: %(default)s)")  # fmt: skip
    add("--min_side", type=whole_number(1), default=1, metavar="PIXELS",
        help="leave out images with a shorter side below this (too_small; default: %(default)s)")  # fmt: skip
    offered = [f"{fit}: {text}" for fit, text in _FITS.items() if fit.split(",")[0] in fits]
    add("--fit", choices=fits, default="longer", help="; ".join(offered) + " (default: %(default)s)")
    add("--quality", type=whole_number(1, most=100), default=85, metavar="1-100",
        help="of the JPEGs (default: %(default)s)")  # fmt: skip
    add("--precise", action="store_true",
        help="decode larger and resize with Lanczos: sharper, 0.6 times the speed")  # fmt: skip
    add("--keep_damaged", action="store_true", help="keep images that are damaged or lack only their end")
    add("--exif_upright", action="store_true",
        help="turn images by their EXIF orientation, for boxes drawn on upright images")  # fmt: skip


def given_image_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags, except --max_side, whose value is not the default."""
    default = asdict(ImageSettings(max_side=args.max_side))
    return [f"--{name}" for name, value in asdict(image_settings(args)).items() if value != default[name]]


def image_settings(args: argparse.Namespace) -> ImageSettings:
    """Return the settings that the flags set."""
    default = asdict(ImageSettings())
    return ImageSettings(**{name: getattr(args, name, default[name]) for name in default})


def warn_of_exif(turned: int, settings: ImageSettings, *, has_rotation: bool, in_place: bool) -> None:
    """Tell why boxes may be beside their objects, if --exif_upright does not suit the datapoints."""
    beside = "their boxes may be beside the objects"
    if turned and settings.exif_upright and has_rotation:
        why = "Open Images, whose datapoints have a rotation, draws boxes on the stored pixels"
        say(f"{turned} images were turned by EXIF, {beside}: {why}; leave out --exif_upright")
    if turned and not settings.exif_upright and not has_rotation:
        where = " on the originals, the images here have no EXIF any more" if in_place else ""
        upright = f"if they were drawn on upright images, use --exif_upright --overwrite{where}"
        say(f"{turned} images have an EXIF orientation that was not applied, {beside}: {upright}")
