"""Contact sheet (JPEG) and report (HTML that needs no network), made from the records themselves."""

from __future__ import annotations

import base64
import colorsys
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from common.cli import InputError
from common.files.whole_files import open_output
from common.images.header import DECODE_ERRORS
from common.openimages.datapoints import ATTRIBUTES

Record = dict[str, list[Any]]  # features by name
Box = tuple[int, float, float, float, float]  # class id, xmin, xmax, ymin, ymax

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


def record_masks(record: Record, size: tuple[int, int]) -> list[Image.Image | None]:
    """Return the mask of each box, 0 and 1 at this size, None for an empty one or a record without masks."""
    masks: list[Image.Image | None] = [None] * len(record["image/object/class/label"])
    for place, encoded in enumerate(record.get("image/object/mask", ())):
        with Image.open(io.BytesIO(encoded)) as image:
            mask = image.resize(size, Image.Resampling.NEAREST)
        if mask.getbbox():
            masks[place] = mask
    return masks


def draw_record(record: Record, names: dict[int, str]) -> Image.Image:
    """Return the image scaled to TILE pixels, with masks, boxes and names, large boxes first."""
    import matplotlib

    image = record_image(record)
    scale = TILE / max(image.size)
    tile = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw, font = ImageDraw.Draw(tile), ImageFont.truetype(str(Path(matplotlib.get_data_path(), FONT)), TEXT)
    boxes = record_boxes(record)
    for (number, *_), mask in zip(boxes, record_masks(record, tile.size), strict=True):
        if mask:
            tile.paste(class_colour(number), mask=mask.point([0] + [MASK_OPACITY] * 255))
    for number, xmin, xmax, ymin, ymax in sorted(boxes, key=_area, reverse=True):
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
                    {"number": number, "x": xmin * width, "y": ymin * height, "mask": mask,
                     "width": (xmax - xmin) * width, "height": (ymax - ymin) * height}
                    for (number, xmin, xmax, ymin, ymax), mask in zip(boxes, masks, strict=True)
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


def charts(statistics: Statistics) -> list[tuple[str, str]]:
    """Return title and base64 SVG of each chart."""
    sides = statistics.sides
    aspects = [2 ** (2 * ASPECT_RANGE * index / ASPECT_BINS - ASPECT_RANGE) for index in range(ASPECT_BINS)]
    per_image = range(min(statistics.boxes_per_image), MAX_BOXES + 1)
    by_side = range(min(sides), max(sides) + 1)
    size_labels = [f"{index / SIZE_BINS:.2f}" for index in range(SIZE_BINS)]
    rows: list[tuple[str, str, Iterable[int], list[str], Counter[int]]] = [
        ("Boxes per image", f"boxes ({MAX_BOXES}: {MAX_BOXES} or more)", per_image, list(map(str, per_image)),
         statistics.boxes_per_image),
        ("Box sizes", "square root of the share of the image's area", range(SIZE_BINS), size_labels,
         statistics.box_sizes),
        ("Box aspects", "width / height", range(ASPECT_BINS), [f"{aspect:.2g}" for aspect in aspects],
         statistics.aspects),
        ("Images by longer side", "pixels, from", by_side, [str(side * SIDE_BIN) for side in by_side], sides),
    ]  # fmt: skip
    return [
        (title, bar_chart(labels, [counter[index] for index in bins], title, axis))
        for title, axis, bins, labels, counter in rows
    ]


def bar_chart(labels: Sequence[str], values: Sequence[int], title: str, axis: str) -> str:
    """Return a bar chart as a base64 SVG, the same bytes for the same numbers."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({"svg.hashsalt": title, "font.size": 9}):
        figure = Figure(figsize=(5.2, 2.8), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(values)), values, width=0.9, color="#3366aa")
        step = max(1, len(labels) // 8)
        axes.set_xticks(range(0, len(labels), step), labels[::step])
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel(axis)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return base64.b64encode(stream.getvalue()).decode()


def write_report(
    path: str | Path,
    statistics: Statistics,
    counts: dict[str, int],
    classes: Sequence[tuple[str, str]],
    losses: dict[str, dict[str, int]],
) -> None:
    """Write the page.

    `classes` are MID and name of each class in the order of the class ids; `losses` are counts by source and
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
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        counts=counts,
        classes=sorted(rows, key=lambda row: (-row["boxes"], row["number"])),
        names={row["number"]: row["short"] for row in rows},
        colours={row["number"]: "#" + bytes(class_colour(row["number"])).hex() for row in rows},
        charts=charts(statistics),
        attributes=statistics.attributes,
        losses=losses,
        gallery=statistics.gallery,
    )
    with open_output(path) as stream:
        stream.write(page.encode())
