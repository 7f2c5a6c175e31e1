"""Geometry: where pixels and boxes go when an image is turned upright and resized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common.files.csv_files import parse_number

FITS = ("longer", "shorter", "pad", "stretch")
DIGITS = 6  # of a box's coordinates: under a hundredth of a pixel


@dataclass(frozen=True, slots=True)
class Fit:
    """Sizes (width, height) in pixels of a finished image."""

    scaled: tuple[int, int]  # without padding
    canvas: tuple[int, int]  # with padding, the same on either side

    @property
    def offset(self) -> tuple[int, int]:
        """Return the left and top padding."""
        return (self.canvas[0] - self.scaled[0]) // 2, (self.canvas[1] - self.scaled[1]) // 2


def parse_turn(rotation: Any) -> int | None:
    """Return a datapoint's rotation in degrees: 0 where it has none, None where it is not a quarter turn."""
    if rotation in (None, ""):
        return 0
    degrees = parse_number(rotation)
    return int(degrees) if degrees in (0, 90, 180, 270) else None


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


def move_box(box: dict[str, Any], turn: int, fit: Fit) -> dict[str, Any]:
    """Return an annotation with its box, in fractions of the image, turned counterclockwise and fitted."""
    x0, x1, y0, y1 = box["x0"], box["x1"], box["y0"], box["y1"]
    if turn == 90:
        x0, x1, y0, y1 = y0, y1, 1 - x1, 1 - x0
    elif turn == 180:
        x0, x1, y0, y1 = 1 - x1, 1 - x0, 1 - y1, 1 - y0
    elif turn == 270:
        x0, x1, y0, y1 = 1 - y1, 1 - y0, x0, x1
    if fit.scaled != fit.canvas:
        (width, height), (left, top) = fit.scaled, fit.offset
        x0, x1 = ((value * width + left) / fit.canvas[0] for value in (x0, x1))
        y0, y1 = ((value * height + top) / fit.canvas[1] for value in (y0, y1))
    elif turn == 0:
        return box
    moved = {"x0": x0, "x1": x1, "y0": y0, "y1": y1}
    rounded = {name: round(value, DIGITS) for name, value in moved.items()}
    has_area = rounded["x0"] < rounded["x1"] and rounded["y0"] < rounded["y1"]
    return box | (rounded if has_area else moved)
