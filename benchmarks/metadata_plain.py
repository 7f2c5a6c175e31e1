"""Step 3 in the plain way: files as lists of dicts from `csv`, grouped in a dict, then `json.dump`."""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

COORDINATES = {"x0": "XMin", "x1": "XMax", "y0": "YMin", "y1": "YMax"}
ATTRIBUTES = {
    "occluded": "IsOccluded", "truncated": "IsTruncated", "group_of": "IsGroupOf", "depiction": "IsDepiction",
    "inside": "IsInside",
}  # fmt: skip
INDEX = {
    "id": "ImageID", "subset": "Subset", "url": "OriginalURL", "landing_url": "OriginalLandingURL",
    "license": "License", "author_profile_url": "AuthorProfileURL", "author": "Author", "title": "Title",
    "size": "OriginalSize", "md5": "OriginalMD5", "thumbnail_url": "Thumbnail300KURL", "rotation": "Rotation",
}  # fmt: skip


def plain(
    boxes_path: Path, index_path: Path, classes_path: Path, points_path: Path, images_path: Path
) -> None:
    """Write the datapoints and the index of the images that have boxes."""
    classes = set(classes_path.read_text().split())
    with open(boxes_path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with open(index_path, encoding="utf-8", newline="") as stream:
        index = {row["ImageID"]: row for row in csv.DictReader(stream)}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["LabelName"] in classes and row["ImageID"] in index:
            box = {"id": row["ImageID"], "label": row["LabelName"], "confidence": int(row["Confidence"])}
            box |= {key: float(row[name]) for key, name in COORDINATES.items()}
            box |= {key: int(row[name]) for key, name in ATTRIBUTES.items()}
            box["source"] = row["Source"]
            groups.setdefault(row["ImageID"], []).append(box)
    points = []
    for image_id, boxes in groups.items():
        point = {"id": image_id, "subset": index[image_id]["Subset"]}
        if index[image_id]["Rotation"]:
            point["rotation"] = float(index[image_id]["Rotation"])
        points.append(point | {"annotations": boxes})
    images = []
    for image_id, row in index.items():
        if image_id in groups:
            image = {key: row[name] for key, name in INDEX.items() if row[name]}
            image["size"] = int(image["size"])
            if "rotation" in image:
                image["rotation"] = float(image["rotation"])
            images.append(image)
    for path, elements in ((points_path, points), (images_path, images)):
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(elements, stream, ensure_ascii=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in (
        "annotations_input_path", "image_index_input_path", "trainable_classes_path", "point_output_path",
        "image_index_output_path",
    ):  # fmt: skip
        parser.add_argument(f"--{flag}", type=Path)
    plain(*vars(parser.parse_args()).values())
