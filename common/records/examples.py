"""Features of a tf.train.Example: one datapoint and its encoded image.

Names, types and values are those that the decoders of the Object Detection API and Model Garden read
(object_detection/data_decoders/tf_example_decoder.py, official/vision/dataloaders/tf_example_decoder.py).
"""

from __future__ import annotations

import hashlib
import io
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import msgspec
from PIL import Image

from common.cli import InputError
from common.images.masks import encode_mask
from common.openimages.datapoints import ATTRIBUTES, Annotation, Mask
from common.openimages.ids import image_number
from common.records.types import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RLE = 3  # zlib's strategy for runs: masks take as little as at level 9, in a fifth of its time
Values = list[bytes] | list[int] | list[float]


def example_features(
    work: Work, image: bytes, ids: dict[str, int], texts: dict[str, str], source_id: str = "id",
    missing_masks: str | None = None,
) -> dict[str, Values]:  # fmt: skip
    """Return the values of each feature, of the type that `feature_kind` names.

    `ids` and `texts` are class/label and class/text of each MID; `source_id` is id or number. All lists of
    boxes have the same length. An unknown group_of is 0, as readers expect; the others stay -1. Without
    `missing_masks` there are no features of masks. InputError for a damaged mask.
    """
    width, height = work.size
    encoded_format, extension = ("png", "png") if image.startswith(b"\x89PNG") else ("jpeg", "jpg")
    boxes, labels = work.boxes, work.image_labels
    attributes = {name: [getattr(box, name) for box in boxes] for name in ATTRIBUTES}
    attributes["group_of"] = [max(value, 0) for value in attributes["group_of"]]
    areas: list[float] = [(box.x1 - box.x0) * width * (box.y1 - box.y0) * height for box in boxes]
    masks: dict[str, Values] = {}
    if missing_masks:
        pngs: list[bytes] = []
        for place, box in enumerate(boxes):
            if box.mask or missing_masks == "box":
                pixels = mask_pixels(box, work, missing_masks)
                areas[place] = float(pixels.sum()) if box.mask else areas[place]
                pngs.append(mask_png(Image.fromarray(pixels)))
            else:  # most boxes of a release
                pngs.append(empty_png(work.size))
        weights = [1.0 if box.mask else 0.0 for box in boxes]
        masks = {"image/object/mask": pngs, "image/object/mask/weight": weights}
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
        "image/object/area": areas,
        **masks,
        "image/object/difficult": [0] * len(boxes),
        "image/object/weight": [1.0] * len(boxes),
        "image/class/label": [ids[label.label] for label in labels],
        "image/class/text": [texts[label.label].encode() for label in labels],
        "image/class/confidence": [label.confidence for label in labels],
    }


@cache
def feature_kind(name: str) -> str:
    """Return the name of the list in tf.train.Feature that holds the values of a feature."""
    if name.endswith(("/text", "/encoded", "/format", "/filename", "/source_id", "/sha256", "/mask")):
        return "bytes_list"
    if "/bbox/" in name or name.endswith(("/area", "/weight", "/confidence")):
        return "float_list"
    return "int64_list"


# --- masks -----------------------------------------------------------------------------------------------


def mask_pixels(box: Annotation, work: Work, missing_masks: str) -> NDArray[np.uint8]:
    """Return the mask of a box, 0 and 1, in height rows of width pixels; InputError for a damaged encoding.

    A box without a mask gets an empty one or, if `missing_masks` is box, all of its pixels, at least one.
    """
    import numpy as np
    from pycocotools import mask as coco_mask

    width, height = work.size
    if isinstance(box.mask, Mask):
        try:
            found: NDArray[np.uint8] = coco_mask.decode(msgspec.to_builtins(box.mask))
        except ValueError:
            found = np.empty((0, 0), np.uint8)
        # It leaves pixels undefined that no run reaches: the encoding of such pixels is another one.
        if encode_mask(found) != box.mask.counts:
            raise InputError(
                f"image {work.id}: a mask of {box.label} is not COCO's run-length encoding "
                f"of {width}x{height} pixels: {box.mask.counts:.40}"
            )
        return found
    pixels = np.zeros((height, width), np.uint8, order="F")
    if missing_masks == "box":
        left, top = min(round(box.x0 * width), width - 1), min(round(box.y0 * height), height - 1)
        pixels[top : max(round(box.y1 * height), top + 1), left : max(round(box.x1 * width), left + 1)] = 1
    return pixels


def mask_png(mask: Image.Image) -> bytes:
    """Return a mask as an 8-bit grey PNG."""
    stream = io.BytesIO()
    mask.save(stream, "PNG", compress_level=6, compress_type=RLE)
    return stream.getvalue()


@lru_cache(maxsize=1000)
def empty_png(size: tuple[int, int]) -> bytes:
    """Return an empty mask of this width and height as a PNG."""
    return mask_png(Image.new("L", size))
