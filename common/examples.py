"""One datapoint and its encoded image as the features of a tf.train.Example.

The names, types and values are those that the Object Detection API's and Model Garden's decoders read
(object_detection/data_decoders/tf_example_decoder.py, official/vision/dataloaders/tf_example_decoder.py).
"""

import hashlib
from typing import Any

ATTRIBUTES = ("occluded", "truncated", "depiction", "inside")

Values = list[bytes] | list[int] | list[float]


def example_features(
    point: dict[str, Any],
    boxes: list[dict[str, Any]],
    image: bytes,
    size: tuple[int, int],
    ids: dict[str, int],
    texts: dict[str, str],
) -> dict[str, Values]:
    """Return each feature's list of values, all of bytes, of int or of float.

    `boxes` are those annotations of the datapoint whose class is in `ids`; `size` is width and height in
    pixels; `texts` are what class/text says of a MID. All lists of boxes have one length; group_of is 0 where
    it is unknown, the other attributes -1.
    """
    width, height = size
    encoded_format = b"png" if image.startswith(b"\x89PNG") else b"jpeg"
    extension = {b"png": "png", b"jpeg": "jpg"}[encoded_format]
    group_of = [int(_attribute(box, "group_of") == 1) for box in boxes]
    verified = [label for label in point.get("image_labels", []) if label["label"] in ids]
    return {
        "image/encoded": [image],
        "image/format": [encoded_format],
        "image/filename": [f"{point['id']}.{extension}".encode()],
        "image/source_id": [point["id"].encode()],
        "image/key/sha256": [hashlib.sha256(image).hexdigest().encode()],
        "image/height": [height],
        "image/width": [width],
        "image/object/bbox/xmin": [box["x0"] for box in boxes],
        "image/object/bbox/xmax": [box["x1"] for box in boxes],
        "image/object/bbox/ymin": [box["y0"] for box in boxes],
        "image/object/bbox/ymax": [box["y1"] for box in boxes],
        "image/object/class/label": [ids[box["label"]] for box in boxes],
        "image/object/class/text": [texts[box["label"]].encode() for box in boxes],
        "image/object/group_of": group_of,
        "image/object/is_crowd": group_of,
        "image/object/area": [
            (box["x1"] - box["x0"]) * width * (box["y1"] - box["y0"]) * height for box in boxes
        ],
        "image/object/difficult": [0] * len(boxes),
        "image/object/weight": [1.0] * len(boxes),
        **{f"image/object/{name}": [_attribute(box, name) for box in boxes] for name in ATTRIBUTES},
        "image/class/label": [ids[label["label"]] for label in verified],
        "image/class/text": [texts[label["label"]].encode() for label in verified],
        "image/class/confidence": [float(label["confidence"]) for label in verified],
    }


def record_bytes(boxes: list[dict[str, Any]], image_bytes: int) -> int:
    """Return about how many bytes a record takes: its photo, the features' names, and each box."""
    return image_bytes + 1000 + 80 * len(boxes)


def _attribute(box: dict[str, Any], name: str) -> int:
    """Return an attribute as annotated: 1, 0, or -1 where it is unknown or missing."""
    value = box.get(name, -1)
    return int(value) if str(value) in ("0", "1") else -1
