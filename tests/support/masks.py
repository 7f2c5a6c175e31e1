"""Masks drawn by hand, the zips and datapoints that hold them, and step 5's output as pixels."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Shape = tuple[str, tuple[float, float, float, float]]  # disc, corner or tile, and x0, y0, x1, y1 in fractions


def drawn(shape: Shape, size: tuple[int, int]) -> Image.Image:
    """Return a shape as a 1-bit image of this width and height: the pixels whose centre is inside."""
    kind, (x0, y0, x1, y1) = shape
    x = ((np.arange(size[0]) + 0.5) / size[0] - x0) / (x1 - x0)  # 0 to 1 inside the shape's box
    y = (((np.arange(size[1]) + 0.5) / size[1] - y0) / (y1 - y0))[:, None]
    inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    if kind == "disc":
        inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25
    elif kind == "corner":  # an L, to be told from its mirror images
        inside &= (x < 0.3) | (y > 0.6)
    return Image.fromarray(inside)


def png(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def write_zips(folder: Path, members: dict[str, bytes], split: str = "train") -> None:
    """Write sixteen zips as a release has them; a member goes where its first digit says."""
    folder.mkdir(exist_ok=True)
    for digit in "0123456789abcdef":
        with zipfile.ZipFile(folder / f"{split}-masks-{digit}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                if name[0] == digit:
                    file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # without the time


def masked_point(image_id: str, masks: list[Any], **more: Any) -> dict[str, Any]:
    """Return a datapoint with a box for each mask; for None the box has no mask."""
    box = {"id": image_id, "label": "/m/01yrx", "x0": 0.25, "x1": 0.5, "y0": 0.125, "y1": 0.75}
    return {"id": image_id, "annotations": [box | ({"mask": mask} if mask else {}) for mask in masks], **more}


def real_masks(folder: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Put the real images and masks where step 5 expects them; return the datapoints, boxes as annotated."""
    with open(folder / "derived-object-segmentation.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    write_zips(
        tmp_path / "masks", {path.name: path.read_bytes() for path in folder.glob("*/segmentations/*.png")}
    )
    (tmp_path / "photos").mkdir()
    for path in folder.glob("*/images/*.jpg"):
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    points = []
    for image_id in dict.fromkeys(row["ImageID"] for row in rows):
        ours = [row for row in rows if row["ImageID"] == image_id]
        point = masked_point(image_id, [row["MaskPath"] for row in ours])
        for box, row in zip(point["annotations"], ours, strict=True):
            box |= {"x0": row["BoxXMin"], "x1": row["BoxXMax"], "y0": row["BoxYMin"], "y1": row["BoxYMax"]}
        points.append(point)
    return points


def write_points(path: Path, points: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(points))


def read_masks(path: Path) -> dict[str, list[Any]]:
    """Return the masks of each datapoint as arrays, None for a box without one."""
    from pycocotools import mask as coco_mask

    found: dict[str, list[Any]] = {}
    for point in json.loads(path.read_text()):
        masks = [box.get("mask") for box in point["annotations"]]
        assert all(mask["size"] == [point["height"], point["width"]] for mask in masks if mask)
        found[point["id"]] = [coco_mask.decode(mask).astype(bool) if mask else None for mask in masks]
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union."""
    assert one.shape == other.shape
    return (one & other).sum() / (one | other).sum()
