"""Instance masks of the sample in the official form: one CSV file a split, and the PNGs in 16 zips a split.

As in the real files, the rows are in no order, and nothing but image, class and coordinates leads from a mask
to its box. The PNGs are 1-bit grey and of another size than the image. The last two columns are empty outside
of train.
"""

import io
import random
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sample.classes import SEGMENTABLE
from sample.plan import Plan
from sample.scenes import Box

HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
DIGITS = "0123456789abcdef"  # a zip holds the masks of the image ids that begin with its digit
# Pixels, the longer side of an image's masks: 720 to 1600 in the official files, for images of 1024; these
# have 640. Officially only boxes of more than 40x80 pixels have a mask; every box of the sample is larger.
SIDES = (450, 500, 640, 800, 1000)
SHARE_OF_IMAGES = 0.8  # that have masks, if an object of theirs can have one
SHARE_OF_BOXES = 0.8  # that have a mask in these images
DECIMALS = {"train": 6, "validation": 4, "test": 4}  # the boxes have 6, so outside of train they differ a bit
DATE = (2019, 5, 8, 0, 0, 0)  # of the members of the zips: when V5 came out
LABELS = sorted(one.label for one in SEGMENTABLE)

# Element of "masks" in an image's entry of truth.json: label, box_id, the coordinates x0 to y1, size (width,
# height), box (position in "boxes", null for a mask without one), and whether the mask is empty.
Mask = dict[str, Any]


def publish(plan: Plan, boxes: Sequence[Box], width: int, height: int) -> Iterator[tuple[Mask, bytes]]:
    """Yield each mask that the release publishes of an image of this size in pixels, and its PNG."""
    rng = random.Random(f"masks {plan.scene}")
    size = mask_size(rng, width, height)
    fault = plan.mask_fault
    if rng.random() >= SHARE_OF_IMAGES and not fault:
        return
    for number, box in enumerate(boxes):
        box_id, further_id = (f"{rng.getrandbits(32):08x}" for _ in range(2))
        if box.label not in LABELS or box.group_of or box.depiction or box.inside:
            continue
        if rng.random() >= SHARE_OF_BOXES and not fault:
            continue
        corners = {"x0": box.x0, "x1": box.x1, "y0": box.y0, "y1": box.y1}
        mask = {"label": box.label, "box_id": box_id, **corners, "size": size, "box": number, "empty": False}
        assert box.mask
        if fault == "empty":
            yield {**mask, "empty": True}, png(Image.new("1", size))
        else:
            grey = box.mask.convert("L").resize(size, Image.Resampling.BOX)
            yield mask, png(grey.point(lambda level: 255 * (level >= 128), "1"))
        if fault == "no_box":
            halved = {name: round(value / 2, 6) for name, value in corners.items()}
            yield {**mask, "box_id": further_id, **halved, "box": None}, png(rectangle(size, **halved))
        fault = ""


def mask_size(rng: random.Random, width: int, height: int) -> tuple[int, int]:
    """Return width and height of an image's masks; their ratio differs from the image's by less than 1 %."""
    if rng.randrange(16) == 0:
        return width, height
    long = rng.choice(SIDES)
    short = long * min(width, height) // max(width, height) - rng.randrange(2)
    return (long, short) if width >= height else (short, long)


def rle(mask: Image.Image) -> dict[str, Any]:
    """Return the pixels of a 1-bit image in COCO's compressed run-length encoding."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def path_of(image_id: str, mask: Mask) -> str:
    """Return the name of a mask's PNG; the label may itself end in "_"."""
    return f"{image_id}_{mask['label'].replace('/', '')}_{mask['box_id']}.png"


def write(
    directory: Path, images: Sequence[dict[str, Any]], splits: Sequence[str], pngs: dict[str, bytes]
) -> None:
    """Write the masks of each split to `directory`, the v5 folder of the release; `pngs` are by box id."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "classes-segmentation.txt").write_text("".join(f"{label}\n" for label in LABELS))
    for split in splits:
        pairs = [
            (image["id"], mask) for image in images if image["subset"] == split for mask in image["masks"]
        ]
        random.Random("mask order").shuffle(pairs)
        rows = "".join(row(image_id, mask, split) for image_id, mask in pairs)
        (directory / f"{split}-annotations-object-segmentation.csv").write_text(f"{HEADER}\n{rows}")
        (directory / f"{split}-masks").mkdir(exist_ok=True)
        for digit in DIGITS:
            with zipfile.ZipFile(directory / f"{split}-masks/{split}-masks-{digit}.zip", "w") as archive:
                for image_id, mask in pairs:
                    if image_id.startswith(digit):
                        member = zipfile.ZipInfo(path_of(image_id, mask), DATE)
                        archive.writestr(member, pngs[mask["box_id"]])


def row(image_id: str, mask: Mask, split: str) -> str:
    """Return a line of the CSV file; numbers lose the zeros at their end, as in the official files."""
    corners = [str(round(mask[name], DECIMALS[split])) for name in ("x0", "x1", "y0", "y1")]
    last = ["", ""]
    if split == "train":
        rng = random.Random(path_of(image_id, mask))
        clicks = []
        for _ in range(rng.randint(3, 12)):
            x, y = rng.uniform(mask["x0"], mask["x1"]), rng.uniform(mask["y0"], mask["y1"])
            clicks.append(f"{x:.5f} {y:.5f} {rng.randrange(2)}")
        last = [f"{rng.uniform(0.5, 1):.5f}", ";".join(clicks)]
    fields = [path_of(image_id, mask), image_id, mask["label"], mask["box_id"], *corners, *last]
    return ",".join(fields) + "\n"


def rectangle(size: tuple[int, int], x0: float, x1: float, y0: float, y1: float) -> Image.Image:
    mask = Image.new("1", size)
    ImageDraw.Draw(mask).rectangle((x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]), fill=1)
    return mask


def png(mask: Image.Image) -> bytes:
    stream = io.BytesIO()
    mask.save(stream, "PNG")
    return stream.getvalue()
