"""Features of a tf.train.Example: one datapoint and its encoded image.

Names, types and values are those that the decoders of the Object Detection API and Model Garden read
(object_detection/data_decoders/tf_example_decoder.py, official/vision/dataloaders/tf_example_decoder.py).
"""

from __future__ import annotations

import hashlib
from functools import cache

from common.openimages.datapoints import ATTRIBUTES
from common.openimages.ids import image_number
from common.records.types import Work

Values = list[bytes] | list[int] | list[float]


def example_features(
    work: Work,
    image: bytes,
    size: tuple[int, int],
    ids: dict[str, int],
    texts: dict[str, str],
    source_id: str = "id",
) -> dict[str, Values]:
    """Return the values of each feature, of the type that `feature_kind` names.

    `size` is width and height in pixels; `ids` and `texts` are class/label and class/text of each MID;
    `source_id` is id or number. All lists of boxes have the same length. An unknown group_of is 0, as readers
    expect; the others stay -1.
    """
    width, height = size
    encoded_format, extension = ("png", "png") if image.startswith(b"\x89PNG") else ("jpeg", "jpg")
    boxes, labels = work.boxes, work.image_labels
    attributes = {name: [getattr(box, name) for box in boxes] for name in ATTRIBUTES}
    attributes["group_of"] = [max(value, 0) for value in attributes["group_of"]]
    return {
        "image/encoded": [image],
        "image/format": [encoded_format.encode()],
        "image/filename": [f"{work.id}.{extension}".encode()],
        "image/source_id": [(str(image_number(work.id)) if source_id == "number" else work.id).encode()],
        "image/key/sha256": [hashlib.sha256(image).hexdigest().encode()],
        "image/height": [height],
        "image/width": [width],
        "image/object/bbox/xmin": [box.x0 for box in boxes],
        "image/object/bbox/xmax": [box.x1 for box in boxes],
        "image/object/bbox/ymin": [box.y0 for box in boxes],
        "image/object/bbox/ymax": [box.y1 for box in boxes],
        "image/object/class/label": [ids[box.label] for box in boxes],
        "image/object/class/text": [texts[box.label].encode() for box in boxes],
        **{f"image/object/{name}": values for name, values in attributes.items()},
        "image/object/is_crowd": attributes["group_of"],
        "image/object/area": [(box.x1 - box.x0) * width * (box.y1 - box.y0) * height for box in boxes],
        "image/object/difficult": [0] * len(boxes),
        "image/object/weight": [1.0] * len(boxes),
        "image/class/label": [ids[label.label] for label in labels],
        "image/class/text": [texts[label.label].encode() for label in labels],
        "image/class/confidence": [label.confidence for label in labels],
    }


@cache
def feature_kind(name: str) -> str:
    """Return the name of the list in tf.train.Feature that holds the values of a feature."""
    if name.endswith(("/text", "/encoded", "/format", "/filename", "/source_id", "/sha256")):
        return "bytes_list"
    if "/bbox/" in name or name.endswith(("/area", "/weight", "/confidence")):
        return "float_list"
    return "int64_list"
