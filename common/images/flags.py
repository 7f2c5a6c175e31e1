"""How photos are verified and shrunk, on the command line: the flags of steps 4 and 5."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from common.cli import whole_number
from common.images.process import MAX_JPEG_SIDE, ImageSettings

_FITS = {
    "longer, shorter": "this side is at most --max_side, nothing is enlarged",
    "pad": "a square of --max_side with the photo on black",
    "stretch": "a square of --max_side that the photo is pulled to fill",
}


def add_image_flags(parser: argparse.ArgumentParser, fits: Sequence[str], max_side_help: str = "") -> None:
    """Add the flags; with `max_side_help` photos are left as they are unless --max_side is given."""
    add = parser.add_argument
    add(
        "--max_side", type=whole_number(1, most=MAX_JPEG_SIDE), metavar="PIXELS",
        default=None if max_side_help else 256,
        help=max_side_help or "longer side at most, or what --fit says (default: %(default)s)",
    )  # fmt: skip
    add(
        "--min_side", type=whole_number(1), default=1, metavar="PIXELS",
        help="photos with a shorter side below this are left out as too_small (default: %(default)s)",
    )  # fmt: skip
    add(
        "--fit", choices=fits, default="longer",
        help="; ".join(f"{fit}: {text}" for fit, text in _FITS.items() if fit.split(",")[0] in fits)
        + " (default: %(default)s)",
    )  # fmt: skip
    add(
        "--quality", type=whole_number(1, most=100), default=85, metavar="1-100",
        help="of the JPEGs, whose colours are at full resolution (default: %(default)s)",
    )  # fmt: skip
    add("--precise", action="store_true", help="shrink as exactly as the slow way does, at 0.6 of the speed")
    add("--keep_damaged", action="store_true", help="keep photos with damage in the picture")


def given_image_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags, but for --max_side, whose value is not their default."""
    default = asdict(ImageSettings())
    names = ("min_side", "fit", "quality", "precise", "keep_damaged")
    return [f"--{name}" for name in names if getattr(args, name) != default[name]]


def image_settings(args: argparse.Namespace) -> ImageSettings:
    """Return the settings that the flags ask for."""
    default = asdict(ImageSettings())
    return ImageSettings(**{name: getattr(args, name, default[name]) for name in default})
