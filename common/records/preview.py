"""A contact sheet of records: their images with boxes and names drawn, in one JPEG."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from common.cli import InputError
from common.files.whole_files import open_output
from common.images.header import DECODE_ERRORS

TILE = 300  # pixels, side of the square that holds one image
GAP = 8  # pixels between images
COLUMNS, ROWS = 4, 4
IMAGES = COLUMNS * ROWS
TEXT = 13  # pixels, height of a name
FONT = "fonts/ttf/DejaVuSans.ttf"  # of matplotlib; Pillow's own lacks Ž and Greek

Record = dict[str, list[Any]]  # features by name
Box = tuple[int, float, float, float, float]  # class id, xmin, xmax, ymin, ymax


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class; consecutive classes differ most (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.61803398875 % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_colour(background: tuple[int, int, int]) -> str:
    """Return black or white, whichever is easier to read on a colour (by its luma, ITU-R BT.601)."""
    red, green, blue = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"


def write_preview(path: str | Path, records: Iterable[Record], names: dict[int, str]) -> None:
    """Write a contact sheet of the first IMAGES records as a JPEG; `names` are by class id."""
    tiles = [draw_record(record, names) for record in islice(records, IMAGES)]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * (TILE + GAP) + GAP), "white")
    for index, tile in enumerate(tiles):
        left, top = GAP + index % columns * (TILE + GAP), GAP + index // columns * (TILE + GAP)
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
    with open_output(path) as stream:
        sheet.save(stream, "JPEG", quality=90)


def record_id(record: Record) -> str:
    """Return the id of a record's image; image/source_id can be its number."""
    name: bytes = record["image/filename"][0]
    return name.decode().rpartition(".")[0]


def record_image(record: Record) -> Image.Image:
    """Return a record's image, RGB; InputError names one that cannot be decoded."""
    try:
        with Image.open(io.BytesIO(record["image/encoded"][0])) as image:
            return image.convert("RGB")
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(
            f"image {record_id(record)} cannot be decoded ({error}); run process_images.py"
        ) from None


def record_boxes(record: Record) -> list[Box]:
    corners = (record[f"image/object/bbox/{name}"] for name in ("xmin", "xmax", "ymin", "ymax"))
    return list(zip(record["image/object/class/label"], *corners, strict=True))


def draw_record(record: Record, names: dict[int, str]) -> Image.Image:
    """Return the image scaled to TILE pixels, with its boxes and their names, large boxes first."""
    import matplotlib

    image = record_image(record)
    scale = TILE / max(image.size)
    tile = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw, font = ImageDraw.Draw(tile), ImageFont.truetype(str(Path(matplotlib.get_data_path(), FONT)), TEXT)
    for number, xmin, xmax, ymin, ymax in sorted(record_boxes(record), key=_area, reverse=True):
        left, right = xmin * (tile.width - 1), xmax * (tile.width - 1)
        top, bottom = ymin * (tile.height - 1), ymax * (tile.height - 1)
        colour = class_colour(number)
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        name = " ".join(names[number].split())  # a name can contain line ends; Pillow measures one line
        width = draw.textlength(name, font)
        text_left = max(0, min(left, tile.width - width - 4))
        text_top = min(max(0, top - TEXT - 3), tile.height - TEXT - 3)
        draw.rectangle((text_left, text_top, text_left + width + 4, text_top + TEXT + 3), fill=colour)
        draw.text((text_left + 2, text_top), name, fill=text_colour(colour), font=font)
    return tile


def _area(box: Box) -> float:
    _, xmin, xmax, ymin, ymax = box
    return (xmax - xmin) * (ymax - ymin)
