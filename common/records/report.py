"""A page on what is in the records, made from the records themselves: one HTML file that needs no network."""

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files.whole_files import open_output
from common.records.preview import class_colour, record_boxes, record_photo

if TYPE_CHECKING:
    from PIL.Image import Image

TEMPLATE = Path(__file__).with_name("report.html.jinja")
GALLERY_BYTES = 8_000_000  # of the page, for photos with their boxes and names
PHOTO_BYTES, BOX_BYTES = 500, 600  # of the page at most, for what stands around a photo, for one of its boxes
CLASS_BYTES = 200  # of the page, for a class in the table
NAME_LENGTH = 40  # characters of a class's name where it stands at each box
GALLERY_PHOTOS = 96  # where few classes would take more
THUMBNAIL = 256  # pixels, longer side
MAX_BOXES = 20  # an image with more is counted in the last bar
SIZE_BINS, ASPECT_BINS, SIDE_BIN = 20, 24, 64  # bars, bars, pixels
ASPECT_RANGE = 3.0  # aspects from 1:8 to 8:1, as powers of two


@dataclass
class Statistics:
    """What one pass over the records counts; its size does not grow with their number."""

    gallery_share: int  # photos of each class that the gallery takes
    gallery_limit: int  # bytes
    records: int = 0
    boxes: Counter[int] = field(default_factory=Counter)  # by class id
    images: Counter[int] = field(default_factory=Counter)  # by class id
    boxes_per_image: Counter[int] = field(default_factory=Counter)
    box_sizes: Counter[int] = field(default_factory=Counter)
    aspects: Counter[int] = field(default_factory=Counter)
    sides: Counter[int] = field(default_factory=Counter)
    attributes: dict[str, Counter[int]] = field(default_factory=dict)  # by attribute, then value
    gallery: list[dict[str, Any]] = field(default_factory=list)
    gallery_bytes: int = 0
    shown: Counter[int] = field(default_factory=Counter)  # photos in the gallery by class id

    def add(self, record: dict[str, list[Any]]) -> None:
        from common.openimages.datapoints import ATTRIBUTES

        boxes = record_boxes(record)
        (width,), (height,) = record["image/width"], record["image/height"]
        self.records += 1
        self.boxes_per_image[min(len(boxes), MAX_BOXES)] += 1
        self.sides[max(width, height) // SIDE_BIN] += 1
        for number, xmin, xmax, ymin, ymax in boxes:
            self.boxes[number] += 1
            size = math.sqrt((xmax - xmin) * (ymax - ymin))
            self.box_sizes[min(int(size * SIZE_BINS), SIZE_BINS - 1)] += 1
            # A box may be a float's breadth wide: the records round what the datapoints tell apart.
            aspect = math.log2(max((xmax - xmin) * width, 1e-9) / max((ymax - ymin) * height, 1e-9))
            place = int((aspect + ASPECT_RANGE) / (2 * ASPECT_RANGE) * ASPECT_BINS)
            self.aspects[min(max(place, 0), ASPECT_BINS - 1)] += 1
        for name in ATTRIBUTES:
            self.attributes.setdefault(name, Counter()).update(record[f"image/object/{name}"])
        classes = {number for number, *_ in boxes}
        self.images.update(classes)
        if any(self.shown[number] < self.gallery_share for number in classes):
            self.show(record, boxes, classes)

    def show(self, record: dict[str, list[Any]], boxes: list[Any], classes: set[int]) -> None:
        """Take a photo into the gallery where there is room for it and its boxes, be they thousands."""
        room = self.gallery_limit - self.gallery_bytes - PHOTO_BYTES - BOX_BYTES * len(boxes)
        if room < 0 or len(photo := thumbnail(record_photo(record))) > room:
            return
        self.gallery_bytes = self.gallery_limit - room + len(photo)
        self.shown.update(classes)
        (width,), (height,) = record["image/width"], record["image/height"]
        self.gallery.append(
            {
                "id": record["image/source_id"][0].decode(), "photo": photo, "width": width, "height": height,
                "classes": " ".join(map(str, sorted(classes))),
                "boxes": [
                    {"number": number, "x": xmin * width, "y": ymin * height,
                     "width": (xmax - xmin) * width, "height": (ymax - ymin) * height}
                    for number, xmin, xmax, ymin, ymax in boxes
                ],
            }
        )  # fmt: skip


def thumbnail(photo: "Image") -> str:
    """Return a photo at no more than THUMBNAIL pixels as a base64 JPEG."""
    photo.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=75)
    return base64.b64encode(stream.getvalue()).decode()


def shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def css_colour(number: int) -> str:
    return "#" + bytes(class_colour(number)).hex()


def gather(records: Iterable[dict[str, list[Any]]], number_of_classes: int) -> Statistics:
    """Return what is counted in one pass over the records."""
    statistics = Statistics(
        max(1, GALLERY_PHOTOS // number_of_classes), max(0, GALLERY_BYTES - CLASS_BYTES * number_of_classes)
    )
    for record in records:
        statistics.add(record)
    return statistics


# --- drawing -------------------------------------------------------------------------------------------


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


def charts(statistics: Statistics) -> list[tuple[str, str]]:
    """Return title and base64 SVG of each chart."""
    numbers = list(range(min(statistics.boxes_per_image), MAX_BOXES + 1))
    sides = list(range(min(statistics.sides), max(statistics.sides) + 1))
    powers = [2 * ASPECT_RANGE * index / ASPECT_BINS - ASPECT_RANGE for index in range(ASPECT_BINS)]
    rows: tuple[tuple[str, str, Sequence[str], Sequence[int]], ...] = (
        (
            "Boxes per image", f"boxes ({MAX_BOXES}: {MAX_BOXES} or more)",
            [str(number) for number in numbers],
            [statistics.boxes_per_image[number] for number in numbers],
        ),
        (
            "Box sizes", "square root of the share of the image's area",
            [f"{index / SIZE_BINS:.2f}" for index in range(SIZE_BINS)],
            [statistics.box_sizes[index] for index in range(SIZE_BINS)],
        ),
        (
            "Box aspects", "width / height", [f"{2**power:.2g}" for power in powers],
            [statistics.aspects[index] for index in range(ASPECT_BINS)],
        ),
        (
            "Images by longer side", "pixels, from", [str(side * SIDE_BIN) for side in sides],
            [statistics.sides[side] for side in sides],
        ),
    )  # fmt: skip
    return [(title, bar_chart(labels, values, title, axis)) for title, axis, labels, values in rows]


def write_report(
    path: str | Path,
    statistics: Statistics,
    counts: dict[str, int],
    classes: Sequence[tuple[str, str]],
    losses: dict[str, dict[str, int]],
) -> None:
    """Write the page.

    `classes` are MID and name of each class in the order of their ids; `losses` the counts by reason, by
    where they come from. All text is escaped: names, ids and reasons are strangers' text.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    rows: list[dict[str, Any]] = [
        {"number": number, "mid": mid, "name": name, "boxes": statistics.boxes[number],
         "images": statistics.images[number], "shown": statistics.shown[number]}
        for number, (mid, name) in enumerate(classes, start=1)
    ]  # fmt: skip
    rows.sort(key=lambda row: (-row["boxes"], row["number"]))
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        counts=counts,
        classes=rows,
        names=dict(enumerate((shortened(name) for _, name in classes), start=1)),
        colours={number: css_colour(number) for number in range(1, len(classes) + 1)},
        charts=charts(statistics),
        attributes=statistics.attributes,
        losses=losses,
        gallery=statistics.gallery,
    )
    with open_output(path) as stream:
        stream.write(page.encode())
