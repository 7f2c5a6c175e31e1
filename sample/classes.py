"""Classes of the sample: MIDs of Open Images, each with the colour of its objects."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SampleClass:
    """A class with boxes, or an ancestor of such classes."""

    label: str  # the MID
    name: str  # in the descriptions of V2 and V3
    colour: tuple[int, int, int] | None = None  # None: no object of this class is drawn
    shape: str = ""
    trainable: bool = True  # in classes-bbox-trainable.txt of V2 and V3
    name_v7: str = ""  # if later releases changed it

    @property
    def later_name(self) -> str:
        return self.name_v7 or self.name


# In the order of classes-bbox-trainable.txt, which is not sorted. Any two colours, and any colour and
# background (scenes.py), differ by at least 100 in one channel.
CLASSES = (
    SampleClass("/m/01g317", "Person", (220, 30, 45), "person"),
    SampleClass("/m/07j7r", "Tree", (15, 115, 40), "tree"),
    SampleClass("/m/07yv9", "Vehicle"),
    SampleClass("/m/0jbk", "Animal"),
    SampleClass("/m/0k4j", "Car", (25, 60, 215), "car"),
    SampleClass("/m/03jm5", "House", (125, 15, 150), "house"),
    SampleClass("/m/0138tl", "Toy"),
    SampleClass("/m/0bt9lr", "Dog", (95, 45, 5), "ellipse"),
    SampleClass("/m/01yrx", "Cat", (250, 135, 10), "diamond"),
    SampleClass("/m/01j51", "Balloon", (255, 85, 200), "ellipse"),
    SampleClass("/m/0cvnqh", "Bench", (45, 45, 55), "bench"),
    SampleClass("/m/0kmg4", "Teddy bear", (10, 195, 205), "ellipse"),
    SampleClass("/m/076lb9", "Bench", (250, 235, 20), "bench", name_v7="Training bench"),
    # Invented: a class with boxes and a name that is hard to quote. The MID ends in "_", as /m/039xj_ does.
    SampleClass("/m/0zzsmp_", 'Rocket, "Žofka" type', (0, 0, 95), "tree"),
    SampleClass("/m/02wmf", "Flying disc", (150, 255, 40), "ellipse", trainable=False),
)
DRAWN = tuple(one for one in CLASSES if one.colour)
TRAINABLE = tuple(one for one in CLASSES if one.trainable)
# Masks exist for some of the classes only: for 350 of 601 in the official release.
SEGMENTABLE = tuple(one for one in DRAWN if one.name not in ("Tree", "House"))
BY_LABEL = {one.label: one for one in CLASSES}

# Image-level classes without boxes, all invented; each name has a quirk of the real list.
FURTHER_NAMES = {
    "/m/0zzsmp1": "Landscape",
    "/m/0zzsmp2": "Sun, moon and stars",
    "/m/0zzsmp3": 'Cabin "old mill"',
    "/m/0zzsmp4": "Painter's easel",
    "/m/0zzsmp5": "Café crème",
    "/m/0zzsmp6": " Heath",
    "/m/0zzsmp7": "Road – gravel ",
    "/m/0zzsmp8": "Salt & pepper",
}
FURTHER_TRAINABLE = ("/m/0zzsmp1", "/m/0zzsmp2", "/m/0zzsmp5")


def node(label: str, *children: dict[str, Any], parts: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    tree: dict[str, Any] = {"LabelName": label}
    if children:
        tree["Subcategory"] = list(children)
    if parts:
        tree["Part"] = list(parts)
    return tree


def hierarchy() -> dict[str, Any]:
    """Return the class tree in the form of bbox_labels_600_hierarchy.json, with the traps of the real one.

    Flying disc and teddy bear have two parents. Human face is a part of Person and a subclass of nothing.
    Sports equipment appears twice (a naive expansion finds it twice as an ancestor). Carnivore, mammal, bear,
    building and furniture are ancestors that are not classes of the sample.
    """
    sports = node("/m/05y5lj", node("/m/02wmf"), node("/m/076lb9"))
    return node(
        "/m/0bl9f",
        node("/m/0zzsmp_"),
        node("/m/0138tl", node("/m/01j51"), node("/m/02wmf"), node("/m/0kmg4")),
        node("/m/01g317", parts=(node("/m/0dzct"),)),
        node("/m/05s2s", node("/m/07j7r")),
        sports,
        node("/m/07yv9", node("/m/01prls", node("/m/0k4j"))),
        node("/m/0c_jw", node("/m/0cvnqh")),
        node("/m/0cgh4", node("/m/03jm5"), parts=(sports,)),
        node(
            "/m/0jbk",
            node(
                "/m/04rky",
                node("/m/01lrl", node("/m/0bt9lr"), node("/m/01yrx"), node("/m/01dws", node("/m/0kmg4"))),
            ),
        ),
        node("/m/0dzct"),
    )
