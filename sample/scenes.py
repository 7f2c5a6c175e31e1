"""Draw one image: a sky, a ground, and objects in the colour of their class, with exact boxes and masks."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, ImageChops, ImageDraw

from sample.classes import DRAWN, SampleClass

SIZES = ((640, 480), (800, 600), (480, 640), (1200, 800), (320, 300), (1024, 683), (600, 900), (400, 400))
NOISE_SPAN = 16  # colour levels from the darkest to the brightest grain
# Pale above, grey-brown below: the sky shows which side of a turned image is up.
SKIES = ((205, 220, 240), (225, 220, 230), (190, 210, 235), (235, 225, 215))
GROUNDS = ((150, 140, 125), (140, 145, 130), (160, 150, 145))
# Corners in fractions of the box. Each shape touches all four sides with an edge, not just a corner, so that
# JPEG keeps its extent.
POLYGONS = {
    "bench": ((0, 0), (1, 0), (1, 1), (0.8, 1), (0.8, 0.6), (0.2, 0.6), (0.2, 1), (0, 1)),
    "car": ((0.25, 0), (0.75, 0), (0.85, 0.4), (1, 0.45), (1, 1), (0, 1), (0, 0.45), (0.15, 0.4)),
    "diamond": ((0.35, 0), (0.65, 0), (1, 0.35), (1, 0.65), (0.65, 1), (0.35, 1), (0, 0.65), (0, 0.35)),
    "house": ((0.4, 0), (0.6, 0), (1, 0.4), (1, 1), (0, 1), (0, 0.4)),
    "person": ((0.3, 0), (0.7, 0), (0.7, 0.25), (1, 0.35), (1, 1), (0, 1), (0, 0.35), (0.3, 0.25)),
    "tree": (
        (0.4, 0), (0.6, 0), (1, 0.7), (1, 0.8), (0.6, 0.8), (0.6, 1),
        (0.4, 1), (0.4, 0.8), (0, 0.8), (0, 0.7),
    ),
}  # fmt: skip
# Pillow's ROTATE_ constants count counterclockwise; scenes are turned clockwise.
TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
LIGHT = 20  # colour levels between the two ends of the sky's gradient, and of the ground's

Size = tuple[int, int]  # width, height
Area = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the far edges outside


@dataclass(frozen=True)
class Box:
    """Box of one object, in fractions of width and height, with its attributes and its mask."""

    label: str
    x0: float
    x1: float
    y0: float
    y1: float
    occluded: int = 0
    truncated: int = 0
    group_of: int = 0
    depiction: int = 0
    inside: int = 0
    # The object's visible pixels, as a 1-bit image of the size of the scene.
    mask: Image.Image | None = field(default=None, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of an annotation: all but the mask."""
        return {name: value for name, value in vars(self).items() if name != "mask"}


def draw(
    seed: str, rotation: int = 0, classes: tuple[SampleClass, ...] = DRAWN
) -> tuple[Image.Image, list[Box]]:
    """Draw the scene of this seed; return the stored RGB pixels and the boxes in their frame.

    `rotation` (0, 90, 180, 270) is the turn, in degrees counterclockwise, that makes the stored pixels
    upright. Without `classes` no object is drawn.
    """
    rng = random.Random(seed)
    size = rng.choice(SIZES)
    image = background(rng, size)
    canvas = ImageDraw.Draw(image)
    boxes = []
    if classes:
        boxes = [draw_object(rng, canvas, size, cell, rng.choice(classes)) for cell in cells(rng, size)]
    image = ImageChops.add(image, grain(rng, size), 1, -NOISE_SPAN // 2)
    return turn(image, boxes, rotation)


def background(rng: random.Random, size: Size) -> Image.Image:
    width, height = size
    horizon = round(height * rng.uniform(0.4, 0.6))
    image = Image.new("RGB", size)
    for colour, top, bottom in ((rng.choice(SKIES), 0, horizon), (rng.choice(GROUNDS), horizon, height)):
        ramp = Image.linear_gradient("L").resize((width, bottom - top))
        channels = [ramp.point([level - LIGHT + v * LIGHT // 255 for v in range(256)]) for level in colour]
        image.paste(Image.merge("RGB", channels), (0, top))
    return image


def grain(rng: random.Random, size: Size) -> Image.Image:
    """Return noise of NOISE_SPAN levels; without it the files would be far smaller than real ones."""
    half = (size[0] // 2, size[1] // 2)
    noise = Image.frombytes("L", half, rng.randbytes(half[0] * half[1])).resize(size)
    noise = noise.point([v * NOISE_SPAN // 256 for v in range(256)])
    return Image.merge("RGB", (noise, noise, noise))


def cells(rng: random.Random, size: Size) -> list[Area]:
    """Return one to five areas of the image that do not overlap."""
    width, height = size
    columns, rows = (3, 2) if width >= height else (2, 3)
    grid = [
        (width * c // columns, height * r // rows, width * (c + 1) // columns, height * (r + 1) // rows)
        for r in range(rows)
        for c in range(columns)
    ]
    return rng.sample(grid, rng.randint(1, 5))


def draw_object(
    rng: random.Random, canvas: ImageDraw.ImageDraw, size: Size, cell: Area, kind: SampleClass
) -> Box:
    """Draw one object into its cell, sometimes cut by the image's edge, as a group, or behind a pole."""
    width, height = cell[2] - cell[0], cell[3] - cell[1]
    x0 = cell[0] + rng.randint(6, width // 5)
    y0 = cell[1] + rng.randint(6, height // 5)
    x1 = cell[2] - rng.randint(6, width // 5)
    y1 = cell[3] - rng.randint(6, height // 5)
    truncated = 0
    if cell[0] == 0 and rng.random() < 0.3:
        x0, truncated = 0, 1
    if cell[2] == size[0] and rng.random() < 0.3:
        x1, truncated = size[0], 1
    group = int(rng.random() < 0.1)
    pieces = [(x0, y0, x1, y1)]
    if group:
        middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
        pieces = [
            (a, b, c, d)
            for a, c in ((x0, middle_x - 4), (middle_x + 4, x1))
            for b, d in ((y0, middle_y - 4), (middle_y + 4, y1))
        ]
    assert kind.colour is not None
    mask = Image.new("1", size)
    stencil = ImageDraw.Draw(mask)
    for piece in pieces:
        fill(canvas, kind.shape, piece, kind.colour)
        fill(stencil, kind.shape, piece, 1)
    occluded = int(not group and rng.random() < 0.2)
    if occluded:
        left = x0 + (x1 - x0) * 2 // 5
        pole = (left, y0, left + (x1 - x0) // 10, y1 - 1)
        canvas.rectangle(pole, fill=(175, 175, 175))
        stencil.rectangle(pole, fill=0)
    corners = (round(x0 / size[0], 6), round(x1 / size[0], 6), round(y0 / size[1], 6), round(y1 / size[1], 6))
    depiction, inside = int(rng.random() < 0.05), int(rng.random() < 0.02)
    return Box(kind.label, *corners, occluded, truncated, group, depiction, inside, mask)


def fill(canvas: ImageDraw.ImageDraw, shape: str, box: Area, colour: tuple[int, int, int] | int) -> None:
    """Fill a shape that touches all four sides of its box."""
    x0, y0, x1, y1 = box[0], box[1], box[2] - 1, box[3] - 1  # Pillow's far corner is inside the shape
    if shape == "ellipse":
        canvas.ellipse((x0, y0, x1, y1), fill=colour)
        return
    corners = [(round(x0 + u * (x1 - x0)), round(y0 + v * (y1 - y0))) for u, v in POLYGONS[shape]]
    canvas.polygon(corners, fill=colour)


def turn(image: Image.Image, boxes: list[Box], rotation: int) -> tuple[Image.Image, list[Box]]:
    """Turn an upright scene clockwise by `rotation` degrees."""
    if rotation == 0:
        return image, boxes
    turned = []
    for box in boxes:
        assert box.mask
        x0, x1, y0, y1 = {
            90: (flip(box.y1), flip(box.y0), box.x0, box.x1),
            180: (flip(box.x1), flip(box.x0), flip(box.y1), flip(box.y0)),
            270: (box.y0, box.y1, flip(box.x1), flip(box.x0)),
        }[rotation]
        mask = box.mask.transpose(TURNS[rotation])
        turned.append(replace(box, x0=x0, x1=x1, y0=y0, y1=y1, mask=mask))
    return image.transpose(TURNS[rotation]), turned


def flip(fraction: float) -> float:
    return round(1 - fraction, 6)
