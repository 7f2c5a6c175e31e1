"""Where a photo's pixels and boxes go: turned upright, shrunk or fitted into a square."""

from dataclasses import dataclass
from typing import Any

from common.files.csv_files import parse_number

FITS = ("longer", "shorter", "pad", "stretch")
DIGITS = 6  # of a box's coordinates: a thousandth of a pixel, whatever the photo


@dataclass(frozen=True, slots=True)
class Fit:
    """How a photo of one size becomes one of another; sizes are (width, height) in pixels."""

    turned: tuple[int, int]  # the photo after turning, before scaling
    scaled: tuple[int, int]  # the photo itself, in the result
    canvas: tuple[int, int]  # the result, with what pads it
    offset: tuple[int, int]  # of the photo in the result


def parse_turn(rotation: Any) -> int | None:
    """Return a datapoint's rotation as degrees, 0 where there is none, None where it is no quarter turn."""
    if rotation in (None, ""):
        return 0
    degrees = parse_number(rotation)
    return int(degrees) if degrees in (0, 90, 180, 270) else None


def plan_fit(size: tuple[int, int], turn: int, fit: str, max_side: int) -> Fit:
    """Return where a photo of `size` goes when it is turned by `turn` degrees and fitted.

    `longer`, `shorter`: that side is at most `max_side`, and nothing is enlarged. `pad`, `stretch`: a square
    of `max_side` with the photo in the middle, or pulled to fill it; small ones are enlarged, as
    tf.image.resize_with_pad does.
    """
    width, height = size if turn % 180 == 0 else size[::-1]
    square = (max_side, max_side)
    if fit == "stretch":
        return Fit((width, height), square, square, (0, 0))
    side = min(width, height) if fit == "shorter" else max(width, height)
    if fit != "pad" and side <= max_side:
        return Fit((width, height), (width, height), (width, height), (0, 0))
    scaled = (max(1, round(width * max_side / side)), max(1, round(height * max_side / side)))
    if fit != "pad":
        return Fit((width, height), scaled, scaled, (0, 0))
    offset = ((max_side - scaled[0]) // 2, (max_side - scaled[1]) // 2)
    return Fit((width, height), scaled, square, offset)


def move_box(box: dict[str, Any], turn: int, fit: Fit) -> dict[str, Any]:
    """Return an annotation with its box, in fractions of the photo, turned counterclockwise and fitted."""
    x0, x1, y0, y1 = box["x0"], box["x1"], box["y0"], box["y1"]
    if turn == 90:
        x0, x1, y0, y1 = y0, y1, 1 - x1, 1 - x0
    elif turn == 180:
        x0, x1, y0, y1 = 1 - x1, 1 - x0, 1 - y1, 1 - y0
    elif turn == 270:
        x0, x1, y0, y1 = 1 - y1, 1 - y0, x0, x1
    if fit.scaled != fit.canvas:
        x0, x1 = ((value * fit.scaled[0] + fit.offset[0]) / fit.canvas[0] for value in (x0, x1))
        y0, y1 = ((value * fit.scaled[1] + fit.offset[1]) / fit.canvas[1] for value in (y0, y1))
    elif turn == 0:
        return box
    moved = {"x0": x0, "x1": x1, "y0": y0, "y1": y1}
    rounded = {name: round(value, DIGITS) for name, value in moved.items()}
    has_area = rounded["x0"] < rounded["x1"] and rounded["y0"] < rounded["y1"]
    return box | (rounded if has_area else moved)
