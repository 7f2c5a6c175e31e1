"""One datapoint and its encoded image as the features of a tf.train.Example.

The names, types and values are those that the Object Detection API's and Model Garden's decoders read
(object_detection/data_decoders/tf_example_decoder.py, official/vision/dataloaders/tf_example_decoder.py).
"""

import hashlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.openimages.datapoints import Annotation
    from common.records.types import Work

Values = list[bytes] | list[int] | list[float]


def example_features(
    work: "Work", image: bytes, size: tuple[int, int], ids: dict[str, int], texts: dict[str, str]
) -> dict[str, Values]:
    """Return each feature's list of values, all of the kind that `feature_kind` says.

    The classes of `work` are in `ids`. `size` is width and height in pixels; `texts` are what class/text says
    of a MID. All lists of boxes have one length; group_of is 0 where it is unknown, the other attributes -1.
    """
    from common.openimages.datapoints import ATTRIBUTES

    width, height = size
    encoded_format = b"png" if image.startswith(b"\x89PNG") else b"jpeg"
    extension = {b"png": "png", b"jpeg": "jpg"}[encoded_format]
    boxes, labels = work.boxes, work.image_labels
    attributes = {name: [getattr(box, name) for box in boxes] for name in ATTRIBUTES}
    attributes["group_of"] = [max(value, 0) for value in attributes["group_of"]]
    return {
        "image/encoded": [image],
        "image/format": [encoded_format],
        "image/filename": [f"{work.id}.{extension}".encode()],
        "image/source_id": [work.id.encode()],
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
    """Return the list of a tf.train.Feature that holds the values of this feature."""
    if name.endswith(("/text", "/encoded", "/format", "/filename", "/source_id", "/sha256")):
        return "bytes_list"
    if "/bbox/" in name or name.endswith(("/area", "/weight", "/confidence")):
        return "float_list"
    return "int64_list"


def record_bytes(boxes: "list[Annotation]", image_bytes: int) -> int:
    """Return about how many bytes a record takes: its photo, the features' names, and each box."""
    return image_bytes + 1000 + 80 * len(boxes)
