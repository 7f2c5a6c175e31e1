"""The split and the fault of each image, at fixed positions, the same for every seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 60  # images; the positions of ROTATIONS repeat with each block
SCENES = 5 * BLOCK  # images; after these the scenes repeat under new ids

# Position in the first of five blocks: fault. So a sample of 60 shows every fault, and a large sample has
# about as few as the real data set. Of five positions the fourth is in validation, the fifth in test.
FAULTS = {
    1: "gone",  # mirror 404, original redirects to the placeholder
    10: "gone",
    13: "gone",
    34: "gone",
    2: "not_found",  # mirror and original 404
    23: "not_found",
    5: "truncated",  # the file ends early at every source, with the size and MD5 of the index
    21: "truncated",
    33: "truncated",
    44: "truncated",
    6: "png",  # a PNG named .jpg, which is taken
    7: "cmyk",
    28: "cmyk",
    11: "grey",
    38: "grey",
    12: "exif",  # an orientation tag, which the boxes ignore
    43: "exif",
    15: "changed",  # mirror 404, original is another image than in the index
    16: "original_gone",  # only the mirror has it
    53: "original_gone",
    17: "not_mirrored",  # only the original exists
    20: "no_boxes",
    29: "no_boxes",
    48: "no_boxes",
    25: "no_index_row",
    26: "repeated_row",  # the index lists it twice
    30: "repeated_box",  # one of its boxes is listed twice
    31: "untrainable",  # no class of its boxes is trainable in V2 and V3
}
# Position in the first of five blocks: what is wrong with one of the image's masks.
MASK_FAULTS = {
    0: "empty",  # a PNG without a single pixel
    22: "empty",
    32: "empty",
    41: "no_box",  # a further mask, where no box is
    51: "no_box",
}
ROTATIONS = {8: 90, 35: 90, 36: 180, 40: 270}  # by position in every block
UNKNOWN_ROTATION = 9  # the Rotation of every ninth image is empty
NO_THUMBNAIL = 27  # every 27th image has no thumbnail


@dataclass(frozen=True)
class Plan:
    """The settings of one image."""

    id: str  # 16 hexadecimal digits
    subset: str
    scene: str  # the seed of the drawing; images of one scene are the same file
    fault: str  # a value of FAULTS, or "" for none
    mask_fault: str  # a value of MASK_FAULTS, or "" for none
    degrees: int  # by which the scene is turned
    rotation: str  # the index's column
    thumbnail: bool


def plans(images: int, seed: int) -> Iterator[Plan]:
    """Yield a plan for each image, with ids drawn from the seed."""
    rng = random.Random(f"ids {seed}")
    seen = set()
    for number in range(images):
        image_id = f"{rng.getrandbits(64):016x}"
        while image_id in seen:
            image_id = f"{rng.getrandbits(64):016x}"
        seen.add(image_id)
        drawing = number % SCENES
        degrees = ROTATIONS.get(drawing % BLOCK, 0)
        known = degrees or drawing % UNKNOWN_ROTATION
        yield Plan(
            id=image_id,
            subset={3: "validation", 4: "test"}.get(number % 5, "train"),
            scene=f"{seed}/{drawing}",
            fault=FAULTS.get(drawing, ""),
            mask_fault=MASK_FAULTS.get(drawing, ""),
            degrees=degrees,
            rotation=f"{degrees:.1f}" if known else "",
            thumbnail=drawing % NO_THUMBNAIL != 4,
        )
