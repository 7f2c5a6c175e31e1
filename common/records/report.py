"""Contact sheet (JPEG) and report (HTML that needs no network), made from the records themselves."""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from common.files.whole_files import open_output
from common.openimages.datapoints import ATTRIBUTES
from common.openimages.funnel import Stage, reasons
from common.records.verify import Record, record_boxes, record_id, record_image, record_masks

if TYPE_CHECKING:
    from jinja2 import Template

Corners = tuple[float, float, float, float]  # left, right, top, bottom
Place = tuple[float, float, float]  # left, top, width
Counters = dict[str, Counter[int]]  # by what they count

MASK_OPACITY = 110  # of 255
TEXT = 13  # pixels, height of a name on the contact sheet
FONT = "fonts/ttf/DejaVuSans.ttf"  # of matplotlib; Pillow's own lacks Ž and Greek

# Of the contact sheet.
TILE = 300  # pixels, side of the square that holds one image
GAP = 8  # pixels between images
COLUMNS, ROWS = 4, 4
IMAGES = COLUMNS * ROWS

# Of the report.
GALLERY_BYTES = 8_000_000  # of the page, for images with their boxes and names
FIGURE_BYTES = 500_000  # no further image is drawn for the gallery if there is less room
CLASS_BYTES = 200  # of the page, for a class in the table
NAME_LENGTH = 40  # characters of a class's name beside a box
GALLERY_IMAGES = 96  # at least one a class, and no more than this where there are few classes
NAME_SHARE = 0.08  # height of a name, of its image's height
THUMBNAIL = 256  # pixels, longer side
MAX_BOXES = 20  # an image with more is counted in the last bar
SIZE_BARS = 20
ASPECT_BARS = range(-12, 12)  # four for each doubling, from 1:8 to 8:1
SIDE_BAR = 64  # pixels


class DrawnBox(NamedTuple):
    """A box of an image; lengths are in pixels."""

    number: int  # class id
    corners: Corners
    mask: Image.Image | None  # 0 and 1
    name: Place | None = None  # without one it would cover that of a larger box


def draw_boxes(
    record: Record, names: Mapping[int, str], size: tuple[int, int], height: float
) -> list[DrawnBox]:
    """Return the boxes of a record in an image of this size, the largest first, with names of this height."""
    boxes: list[DrawnBox] = []
    for (number, x0, x1, y0, y1), mask in zip(record_boxes(record), record_masks(record, size), strict=True):
        corners = (x0 * size[0], x1 * size[0], y0 * size[1], y1 * size[1])
        boxes.append(DrawnBox(number, corners, mask))
    boxes.sort(key=lambda box: -_area(*box.corners))
    texts = [names[box.number] for box in boxes]
    places = place_names([box.corners for box in boxes], texts, size, height)
    return [box._replace(name=place) for box, place in zip(boxes, places, strict=True)]


def _area(left: float, right: float, top: float, bottom: float) -> float:
    return (right - left) * (bottom - top)


def place_names(
    corners: Sequence[Corners], names: Sequence[str], size: tuple[int, int], height: float
) -> list[Place | None]:
    """Return the place of the name of each box in an image of this size; earlier boxes choose first."""
    found: list[Place | None] = []
    for (x0, x1, y0, y1), name in zip(corners, names, strict=True):
        length = name_font().getlength(" ".join(name.split()))  # Pillow measures one line
        width = (length + 4) * height / (TEXT + 3)
        found.append(None)
        for left, top in product((x0, x1 - width), (y0 - height, y0, y1 - height, y1)):
            x, y = max(0.0, min(left, size[0] - width)), max(0.0, min(top, size[1] - height))
            taken = filter(None, found)
            if all(x + width <= a or a + other <= x or abs(y - b) >= height for a, b, other in taken):
                found[-1] = (x, y, width)
                break
    return found


@cache
def name_font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), FONT)), TEXT)


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class; consecutive classes differ most (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.61803398875 % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


# --- the contact sheet -----------------------------------------------------------------------------------


def write_preview(path: str | Path, records: Iterable[Record], names: Mapping[int, str]) -> None:
    """Write a contact sheet of up to IMAGES records as a JPEG; `names` are by class id."""
    tiles = [draw_tile(record, names) for record in records]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * (TILE + GAP) + GAP), "white")
    for index, tile in enumerate(tiles):
        left, top = GAP + index % columns * (TILE + GAP), GAP + index // columns * (TILE + GAP)
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
    with open_output(path) as stream:
        sheet.save(stream, "JPEG", quality=90)


def draw_tile(record: Record, names: Mapping[int, str]) -> Image.Image:
    """Return the image scaled to TILE pixels, with masks, boxes and names."""
    image = record_image(record)
    scale = TILE / max(image.size)
    tile = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(tile)
    boxes = draw_boxes(record, names, tile.size, TEXT + 3)
    for box in boxes:
        if box.mask:
            tile.paste(class_colour(box.number), mask=box.mask.point([0] + [MASK_OPACITY] * 255))
    for number, (x0, x1, y0, y1), _, _ in boxes:
        sides = (x0, y0, min(x1, tile.width - 1), min(y1, tile.height - 1))
        draw.rectangle(sides, outline=class_colour(number), width=2)
    for number, _, _, place in boxes:
        if place:
            left, top, width = place
            red, green, blue = colour = class_colour(number)
            is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 110  # luma of ITU-R BT.601
            draw.rectangle((left, top, left + width, top + TEXT + 3), fill=colour)
            text = " ".join(names[number].split())
            draw.text((left + 2, top), text, fill="black" if is_light else "white", font=name_font())
    return tile


# --- the report ------------------------------------------------------------------------------------------


def write_report(
    path: str | Path,
    records: Iterable[Record],
    classes: Sequence[tuple[str, str]],
    counts: Mapping[str, int],
    stages: Sequence[Stage],
    losses: Mapping[str, Mapping[str, int]],
) -> None:
    """Write the page.

    `classes` are MID and name of each class in the order of the class ids; `losses` are counts by reason that
    are not in the stages, of each list. All text is escaped: names, ids and reasons come from other people's
    files.
    """
    names = {
        number: name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
        for number, (_, name) in enumerate(classes, start=1)
    }
    counters, gallery = gather(records, names)
    rows = [(number, mid, name) for number, (mid, name) in enumerate(classes, start=1)]
    page = _template("report").render(
        counts=counts,
        stages=stages,
        reasons=reasons,
        counters=counters,
        classes=sorted(rows, key=lambda row: -counters["boxes"][row[0]]),
        names=names,
        charts=charts(counters),
        attributes=ATTRIBUTES,
        gallery=gallery,
        losses=[(where, *lost) for where, some in losses.items() for lost in Counter(some).most_common()],
    )
    with open_output(path) as stream:
        stream.write(page.encode())


@cache
def _template(name: str) -> Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )  # fmt: skip
    return environment.get_template(f"{name}.html.jinja")


def gather(records: Iterable[Record], names: Mapping[int, str]) -> tuple[Counters, list[str]]:
    """Return counts of one pass over the records, and the gallery: some of the images, as HTML.

    Neither grows with the number of records. `names` are those in the gallery, by class id.
    """
    counters: Counters = defaultdict(Counter)
    gallery: list[str] = []
    share = max(1, GALLERY_IMAGES // len(names))  # of each class in the gallery
    room = GALLERY_BYTES - CLASS_BYTES * len(names)
    for record in records:
        (width,), (height,) = record["image/width"], record["image/height"]
        boxes = record_boxes(record)
        classes = {number for number, *_ in boxes}
        counters["boxes"].update(number for number, *_ in boxes)
        counters["images"].update(classes)
        counters["boxes of an image"][min(len(boxes), MAX_BOXES)] += 1
        counters["sides"][max(width, height) // SIDE_BAR] += 1
        for _, xmin, xmax, ymin, ymax in boxes:
            size = math.sqrt((xmax - xmin) * (ymax - ymin))
            counters["sizes"][min(int(size * SIZE_BARS), SIZE_BARS - 1)] += 1
            # A box can have no width here: records hold 32-bit numbers, datapoints 64-bit ones.
            aspect = math.log2(max((xmax - xmin) * width, 1e-9) / max((ymax - ymin) * height, 1e-9))
            counters["aspects"][min(max(math.floor(4 * aspect), ASPECT_BARS[0]), ASPECT_BARS[-1])] += 1
        for name in ATTRIBUTES:
            counters[name].update(record[f"image/object/{name}"])
        if room > FIGURE_BYTES and any(counters["shown"][number] < share for number in classes):
            figure = draw_figure(record, names)
            if len(figure.encode()) <= room:
                room -= len(figure.encode())
                gallery.append(figure)
                counters["shown"].update(classes)
    return counters, gallery


def draw_figure(record: Record, names: Mapping[int, str]) -> str:
    """Return an image of at most THUMBNAIL pixels with its boxes, masks and names as HTML.

    In the PNG of a mask the object is translucent, in the colour of its class, on nothing.
    """
    image = record_image(record)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    height = NAME_SHARE * image.height
    boxes = draw_boxes(record, names, image.size, height)
    masks = []
    for box in boxes:
        if box.mask:
            box.mask.putpalette([0, 0, 0, *class_colour(box.number)])
            png = _base64(box.mask, "PNG", bits=1, transparency=bytes((0, MASK_OPACITY)))
            masks.append((box.number, png))
    return _template("figure").render(
        id=record_id(record), jpeg=_base64(image, "JPEG", quality=75), width=image.width, height=image.height,
        boxes=boxes, masks=masks, names=names, name_height=height, colour=class_colour,
    )  # fmt: skip


def _base64(image: Image.Image, image_format: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return base64.b64encode(stream.getvalue()).decode()


def charts(counters: Counters) -> list[tuple[str, str, list[tuple[object, int]]]]:
    """Return title, axis and bars (label and number) of each chart."""
    many, sizes = counters["boxes of an image"], counters["sizes"]
    aspects, sides = counters["aspects"], counters["sides"]
    return [
        ("Boxes per image", f"boxes ({MAX_BOXES}: {MAX_BOXES} or more)",
         [(bar, many[bar]) for bar in range(min(many), MAX_BOXES + 1)]),
        ("Box sizes", "square root of the share of the image's area",
         [(f"{bar / SIZE_BARS:.2f}", sizes[bar]) for bar in range(SIZE_BARS)]),
        ("Box aspects", "width / height", [(f"{2 ** (bar / 4):.2g}", aspects[bar]) for bar in ASPECT_BARS]),
        ("Images by longer side", "pixels, from",
         [(bar * SIDE_BAR, sides[bar]) for bar in range(min(sides), max(sides) + 1)]),
    ]  # fmt: skip
