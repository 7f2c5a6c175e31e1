"""Contact sheet (JPEG) and report (HTML that needs no network), made from the records themselves."""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from common.files.whole_files import open_output
from common.openimages.datapoints import ATTRIBUTES
from common.openimages.funnel import STEPS, Stage, lost_of, reasons
from common.records.verify import Box, Record, record_boxes, record_id, record_image, record_masks

Corners = tuple[float, float, float, float]  # left, right, top, bottom

# Of the contact sheet.
TILE = 300  # pixels, side of the square that holds one image
GAP = 8  # pixels between images
COLUMNS, ROWS = 4, 4
IMAGES = COLUMNS * ROWS
TEXT = 13  # pixels, height of a name
FONT = "fonts/ttf/DejaVuSans.ttf"  # of matplotlib; Pillow's own lacks Ž and Greek

# Of the report.
TEMPLATE = Path(__file__).with_name("report.html.jinja")
GALLERY_BYTES = 8_000_000  # of the page, for images with their boxes and names
# Of the page at most, for the HTML around an image, for one of its boxes, around the data of a mask.
IMAGE_BYTES, BOX_BYTES, MASK_BYTES = 500, 600, 150
CLASS_BYTES = 200  # of the page, for a class in the table
NAME_LENGTH = 40  # characters of a class's name beside a box
GALLERY_IMAGES = 96  # at least one a class, and no more than this where there are few classes
NAME_SHARE = 0.08  # height of a name, of its image's height
THUMBNAIL = 256  # pixels, longer side
MASK_OPACITY = 110  # of 255
MAX_BOXES = 20  # an image with more is counted in the last bar
SIZE_BINS, ASPECT_BINS, SIDE_BIN = 20, 24, 64  # bars, bars, pixels
ASPECT_RANGE = 3.0  # aspects from 1:8 to 8:1, as powers of two


# --- the contact sheet -----------------------------------------------------------------------------------


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


@lru_cache
def name_font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), FONT)), TEXT)


def place_names(
    corners: Sequence[Corners], names: Sequence[str], size: tuple[int, int], height: float
) -> list[tuple[float, float, float] | None]:
    """Return left, top and width of the name of each box, None where it would cover that of a larger one.

    Corners, the size of the image and the height of a name are in pixels.
    """
    found: list[tuple[float, float, float] | None] = [None] * len(corners)
    taken: list[tuple[float, float, float]] = []
    for place in sorted(range(len(corners)), key=lambda place: -_area(corners[place])):
        x0, x1, y0, y1 = corners[place]
        name = " ".join(names[place].split())  # Pillow measures one line
        width = (name_font().getlength(name) + 4) * height / (TEXT + 3)
        for left, top in product((x0, x1 - width), (y0 - height, y0, y1 - height, y1)):
            left, top = max(0.0, min(left, size[0] - width)), max(0.0, min(top, size[1] - height))
            if all(left + width <= x or x + other <= left or abs(top - y) >= height for x, y, other in taken):
                taken.append((left, top, width))
                found[place] = taken[-1]
                break
    return found


def draw_record(record: Record, names: dict[int, str]) -> Image.Image:
    """Return the image scaled to TILE pixels, with masks, boxes and names, large boxes first."""
    image = record_image(record)
    scale = TILE / max(image.size)
    tile = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(tile)
    boxes = record_boxes(record)
    for (number, *_), mask in zip(boxes, record_masks(record, tile.size), strict=True):
        if mask:
            tile.paste(class_colour(number), mask=mask.point([0] + [MASK_OPACITY] * 255))
    boxes.sort(key=lambda box: -_area(box[1:]))
    width, height = tile.width - 1, tile.height - 1
    corners = [(x0 * width, x1 * width, y0 * height, y1 * height) for _, x0, x1, y0, y1 in boxes]
    for (number, *_), (x0, x1, y0, y1) in zip(boxes, corners, strict=True):
        draw.rectangle((x0, y0, x1, y1), outline=class_colour(number), width=2)
    texts = [" ".join(names[number].split()) for number, *_ in boxes]
    places = place_names(corners, texts, tile.size, TEXT + 3)
    for (number, *_), name, place in zip(boxes, texts, places, strict=True):
        if place:
            left, top, length = place
            colour = class_colour(number)
            draw.rectangle((left, top, left + length, top + TEXT + 3), fill=colour)
            draw.text((left + 2, top), name, fill=text_colour(colour), font=name_font())
    return tile


def _area(corners: Sequence[float]) -> float:
    x0, x1, y0, y1 = corners
    return (x1 - x0) * (y1 - y0)


# --- the report ------------------------------------------------------------------------------------------


@dataclass
class Statistics:
    """Counts of one pass over the records; their size does not grow with the number of records."""

    gallery_share: int  # images of each class in the gallery
    gallery_limit: int  # bytes
    records: int = 0
    boxes: Counter[int] = field(default_factory=Counter)  # by class id
    images: Counter[int] = field(default_factory=Counter)  # by class id
    boxes_per_image: Counter[int] = field(default_factory=Counter)
    box_sizes: Counter[int] = field(default_factory=Counter)
    aspects: Counter[int] = field(default_factory=Counter)
    sides: Counter[int] = field(default_factory=Counter)
    attributes: dict[str, Counter[int]] = field(
        default_factory=lambda: {key: Counter() for key in ATTRIBUTES}
    )
    gallery: list[dict[str, Any]] = field(default_factory=list)
    gallery_bytes: int = 0
    shown: Counter[int] = field(default_factory=Counter)  # images in the gallery by class id

    def add(self, record: Record) -> None:
        boxes = record_boxes(record)
        (width,), (height,) = record["image/width"], record["image/height"]
        self.records += 1
        self.boxes_per_image[min(len(boxes), MAX_BOXES)] += 1
        self.sides[max(width, height) // SIDE_BIN] += 1
        for number, xmin, xmax, ymin, ymax in boxes:
            self.boxes[number] += 1
            size = math.sqrt((xmax - xmin) * (ymax - ymin))
            self.box_sizes[min(int(size * SIZE_BINS), SIZE_BINS - 1)] += 1
            # A box can have no width here: records hold 32-bit numbers, datapoints 64-bit ones.
            aspect = math.log2(max((xmax - xmin) * width, 1e-9) / max((ymax - ymin) * height, 1e-9))
            place = int((aspect + ASPECT_RANGE) / (2 * ASPECT_RANGE) * ASPECT_BINS)
            self.aspects[min(max(place, 0), ASPECT_BINS - 1)] += 1
        for name, counter in self.attributes.items():
            counter.update(record[f"image/object/{name}"])
        classes = {number for number, *_ in boxes}
        self.images.update(classes)
        if any(self.shown[number] < self.gallery_share for number in classes):
            self.show(record, boxes, classes)

    def show(self, record: Record, boxes: list[Box], classes: set[int]) -> None:
        """Add an image to the gallery if there is room for it and all of its boxes."""
        room = self.gallery_limit - self.gallery_bytes - IMAGE_BYTES - BOX_BYTES * len(boxes)
        if room < 0:
            return
        jpeg, masks = thumbnail(record)
        added = len(jpeg) + sum(MASK_BYTES + len(mask) for mask in masks if mask)
        if added > room:
            return
        self.gallery_bytes = self.gallery_limit - room + added
        self.shown.update(classes)
        (width,), (height,) = record["image/width"], record["image/height"]
        self.gallery.append(
            {
                "id": record_id(record), "jpeg": jpeg, "width": width, "height": height,
                "classes": " ".join(map(str, sorted(classes))),
                "boxes": [
                    {"number": number, "mask": mask,
                     "corners": (x0 * width, x1 * width, y0 * height, y1 * height)}
                    for (number, x0, x1, y0, y1), mask in zip(boxes, masks, strict=True)
                ],
            }
        )  # fmt: skip


def gather(records: Iterable[Record], number_of_classes: int) -> Statistics:
    """Return the statistics of one pass over the records."""
    statistics = Statistics(
        max(1, GALLERY_IMAGES // number_of_classes), max(0, GALLERY_BYTES - CLASS_BYTES * number_of_classes)
    )
    for record in records:
        statistics.add(record)
    return statistics


def thumbnail(record: Record) -> tuple[str, list[str]]:
    """Return an image of at most THUMBNAIL pixels as a JPEG and the mask of each box as a PNG, in base64.

    The object is translucent, in the colour of its class, on nothing. An empty mask is empty text.
    """
    image = record_image(record)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    found = []
    masks = record_masks(record, image.size)
    for mask, number in zip(masks, record["image/object/class/label"], strict=True):
        if mask:
            mask.putpalette([0, 0, 0, *class_colour(number)])
        found.append(_base64(mask, "PNG", bits=1, transparency=bytes((0, MASK_OPACITY))) if mask else "")
    return _base64(image, "JPEG", quality=75), found


def _base64(image: Image.Image, image_format: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return base64.b64encode(stream.getvalue()).decode()


def charts(statistics: Statistics) -> list[dict[str, Any]]:
    """Return title, axis and bars (label and number) of each chart."""
    sides, many = statistics.sides, statistics.boxes_per_image
    aspects = [2 ** (2 * ASPECT_RANGE * index / ASPECT_BINS - ASPECT_RANGE) for index in range(ASPECT_BINS)]
    sizes = [f"{index / SIZE_BINS:.2f}" for index in range(SIZE_BINS)]
    found: list[tuple[str, str, Iterable[tuple[int, Any]], Counter[int]]] = [
        ("Boxes per image", f"boxes ({MAX_BOXES}: {MAX_BOXES} or more)",
         ((index, index) for index in range(min(many), MAX_BOXES + 1)), many),
        ("Box sizes", "square root of the share of the image's area", enumerate(sizes), statistics.box_sizes),
        ("Box aspects", "width / height", ((index, f"{aspect:.2g}") for index, aspect in enumerate(aspects)),
         statistics.aspects),
        ("Images by longer side", "pixels, from",
         ((side, side * SIDE_BIN) for side in range(min(sides), max(sides) + 1)), sides),
    ]  # fmt: skip
    return [
        {"title": title, "axis": axis, "bars": [(label, counter[index]) for index, label in bins]}
        for title, axis, bins, counter in found
    ]


def losses_by_step(
    stages: Sequence[Stage], lists: Mapping[str, Counter[str]], others: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Return what each step lost, by reason: as its counts say or, without them, its list of failures.

    `others` are losses of step 7 that are not images.
    """
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for path, listed in lists.items():
        step = 5 if "missing" in listed or "process" in Path(path).name else 4
        if step not in {stage.step for stage in stages}:
            found[step] += listed
    for stage in stages:
        found[stage.step].update(stage.lost)
    found[7].update(others)
    some = sorted(step for step in found if found[step].total())
    return {f"step {step}, {STEPS[step]}": lost_of(found[step], found[step]) for step in some}


def write_report(
    path: str | Path,
    statistics: Statistics,
    counts: dict[str, int],
    classes: Sequence[tuple[str, str]],
    losses: dict[str, dict[str, int]],
    stages: Sequence[Stage] = (),
) -> None:
    """Write the page.

    `classes` are MID and name of each class in the order of the class ids; `losses` are counts by step and
    reason. All text is escaped: names, ids and reasons come from other people's files.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    rows: list[dict[str, Any]] = [
        {"number": number, "mid": mid, "name": name, "boxes": statistics.boxes[number],
         "images": statistics.images[number], "shown": statistics.shown[number],
         "short": name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"}
        for number, (mid, name) in enumerate(classes, start=1)
    ]  # fmt: skip
    names = {row["number"]: row["short"] for row in rows}
    for image in statistics.gallery:
        boxes, size = image["boxes"], (image["width"], image["height"])
        texts = [names[box["number"]] for box in boxes]
        image["names"] = place_names([box["corners"] for box in boxes], texts, size, NAME_SHARE * size[1])
    first = {stage.is_boxes: stage.went_out for stage in reversed(stages)}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        counts=counts,
        funnel=[
            (stage, reasons(stage), 100 * stage.went_out / max(1, first[stage.is_boxes])) for stage in stages
        ],
        classes=sorted(rows, key=lambda row: (-row["boxes"], row["number"])),
        names=names,
        colours={row["number"]: "#" + bytes(class_colour(row["number"])).hex() for row in rows},
        charts=charts(statistics),
        attributes=statistics.attributes,
        losses=losses,
        gallery=statistics.gallery,
        name_share=NAME_SHARE,
    )
    with open_output(path) as stream:
        stream.write(page.encode())
