"""A line of step 7's work list: what one record is made of."""

import msgspec

from common.openimages.datapoints import Annotation, ImageLabel


class Work(msgspec.Struct):
    """An image, the boxes and labels whose class is trained on, and the image's file."""

    id: str
    file: str  # its name
    bytes: int
    boxes: list[Annotation]
    image_labels: list[ImageLabel]
    size: tuple[int, int] | None = None  # width and height in pixels by the datapoint, where it has them
