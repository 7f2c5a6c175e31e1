"""Metadata of the sample in the official formats of every release, V2 to V7.

V2 and V3 are tarballs of CSV files, in one folder for each release. From V4 on they are single CSV files, and
later releases replace some and share the rest. The model are the real files, not their documentation: CRLF
where they have it, no header where they have none.
"""

import gzip
import io
import json
import random
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sample.classes import BY_LABEL, CLASSES, DRAWN, FURTHER_NAMES, FURTHER_TRAINABLE, TRAINABLE, hierarchy

SPLITS = ("train", "validation", "test")
INDEX = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL"
)
LABELS = "ImageID,Source,LabelName,Confidence"
BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax"
ATTRIBUTES = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
ATTRIBUTE_KEYS = ("occluded", "truncated", "group_of", "depiction", "inside")  # in truth.json
CLICKS = "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"

LICENSE = "https://creativecommons.org/licenses/by/2.0/"
PAGES = "https://photos.example"  # of an image's own page
AUTHORS = (
    "Ada Ohlsen", "B. Quill, Jr.", "José Nuñez", "D&#x27;Arcy", "Foto &amp; Film", "Łucja „Lu” Żak", "小林",
)  # fmt: skip
TITLES = (
    "Field", "Morning, by the road", 'The "old" quarter', "Über den Dächern", "Fish &amp; chips",
    "it&#39;s late", "#park #sunday, again", " two blanks  ", "",
)  # fmt: skip

Image = dict[str, Any]  # an entry of truth.json
Lines = Iterable[str]


def write(directory: Path, images: Sequence[Image], originals_url: str) -> None:
    """Write every file of every release to `directory`, under its path below the official address."""
    ordered = sorted(images, key=lambda image: image["id"])
    for name, lines in files(ordered, originals_url):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text(lines))
    for folder in ("2017_07", "2017_11"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        for name, members in tarballs(ordered, originals_url):
            with open(directory / folder / f"{name}_{folder}.tar.gz", "wb") as raw:
                write_tarball(raw, [(f"{folder}/{inner}", text(lines)) for inner, lines in members])


def files(images: Sequence[Image], originals_url: str) -> Iterator[tuple[str, Lines]]:
    """Yield the path and the lines of each file of V4 to V7."""
    unsorted = list(images)
    random.Random("index order").shuffle(unsorted)
    for split, name in zip(SPLITS, ("train-images-boxable", "validation-images", "test-images"), strict=True):
        chosen = [i for i in unsorted if i["subset"] == split and (split != "train" or i["boxes"])]
        yield f"2018_04/{split}/{name}-with-rotation.csv", index(chosen, originals_url, rotation=True)
        boxes = [image for image in images if image["subset"] == split]
        yield f"2018_04/{split}/{split}-annotations-bbox.csv", box_rows(boxes, f"{BOXES},{ATTRIBUTES}")
        if split == "train":
            yield "v6/oidv6-train-annotations-bbox.csv", box_rows(boxes, f"{BOXES},{ATTRIBUTES},{CLICKS}")
        else:
            yield f"v5/{split}-annotations-bbox.csv", box_rows(boxes, f"{BOXES},{ATTRIBUTES}")
        yield f"v5/{split}-annotations-human-imagelabels-boxable.csv", label_rows(boxes, boxable=True)
        short = "val" if split == "validation" else split
        yield f"v7/oidv7-{short}-annotations-human-imagelabels.csv", label_rows(boxes, boxable=False)
    names = [f"{one.label},{quoted(one.later_name)}" for one in sorted(CLASSES, key=lambda one: one.label)]
    yield "2018_04/class-descriptions-boxable.csv", names
    yield "v5/class-descriptions-boxable.csv", names
    yield "v7/oidv7-class-descriptions-boxable.csv", ["LabelName,DisplayName", *names]
    yield "2018_04/bbox_labels_600_hierarchy.json", json.dumps(hierarchy(), indent=4).split("\n")


def tarballs(images: Sequence[Image], originals_url: str) -> Iterator[tuple[str, list[tuple[str, Lines]]]]:
    """Yield the name of each tarball of V2 and V3, and the path and lines of each file in it."""
    members: defaultdict[str, list[tuple[str, Lines]]] = defaultdict(list)
    for split in SPLITS:
        some = [image for image in images if image["subset"] == split]
        header = BOXES if split == "train" else f"{BOXES},{ATTRIBUTES}"
        for name, file, lines in (
            ("images", "images.csv", index(some, originals_url, rotation=False)),
            ("annotations_human_bbox", "annotations-human-bbox.csv", box_rows(some, header)),
            ("annotations_human", "annotations-human.csv", label_rows(some, boxable=False)),
        ):
            members[name].append((f"{split}/{file}", lines))
    names = {one.label: one.name for one in CLASSES} | FURTHER_NAMES
    trainable = [one.label for one in TRAINABLE]
    members["classes"] = [
        ("class-descriptions.csv", [f"{label},{quoted(name)}\r" for label, name in sorted(names.items())]),
        ("classes.txt", sorted(names)),
        ("classes-trainable.txt", sorted([*FURTHER_TRAINABLE, *trainable])),
        ("classes-bbox.txt", sorted(one.label for one in CLASSES)),
        ("classes-bbox-trainable.txt", trainable),
    ]
    yield from members.items()


def index(images: Iterable[Image], originals_url: str, rotation: bool) -> Iterator[str]:
    """Yield the lines of an image index; one with Rotation is of V4 or later, which quote less."""
    yield f"{INDEX},Rotation" if rotation else INDEX
    repeated = []
    for image in images:
        if image["indexed"]:
            row = index_row(image, originals_url, rotation)
            yield row
            if image["fault"] == "repeated_row":
                repeated.append(row)
    yield from repeated


def index_row(image: Image, originals_url: str, rotation: bool) -> str:
    rng = random.Random(image["id"])
    quote: Callable[[str], str] = quoted if rotation else always_quoted
    thumbnail = ""
    if image["thumbnail"]:
        thumbnail = f"{originals_url}/{image['id']}_z.jpg{rng.choice(('', '', '?zz=1'))}"
    return ",".join(
        [
            image["id"],
            image["subset"],
            f"{originals_url}/{image['id']}_o.jpg",
            f"{PAGES}/{rng.randrange(10**8)}/{rng.randrange(10**10)}",
            LICENSE,
            f"{PAGES}/people/{rng.randrange(10**8)}@N0{rng.randrange(10)}/",
            quote(rng.choice(AUTHORS)),
            quote(rng.choice(TITLES)),
            str(image["size"]),
            image["md5"],
            thumbnail,
            *([image["rotation"]] if rotation else []),
        ]
    )


def box_rows(images: Iterable[Image], header: str) -> Iterator[str]:
    """Yield the lines of a file of boxes with the columns of `header`, sorted by image and class."""
    yield header
    columns = header.split(",")
    for image in images:
        for box in sorted(image["boxes"], key=lambda box: (box["label"], box["x0"], box["y0"])):
            values = {"ImageID": image["id"], **box_values(box)}
            row = ",".join(values[column] for column in columns)
            yield row
            if image["fault"] == "repeated_box" and box is image["boxes"][0]:
                yield row


def box_values(box: dict[str, Any]) -> dict[str, str]:
    """Return the text of every column that a box can have."""
    x0, x1, y0, y1 = (f"{box[key]:.6f}" for key in ("x0", "x1", "y0", "y1"))
    values = {"Source": box["source"], "LabelName": box["label"], "Confidence": "1"}
    values |= {"XMin": x0, "XMax": x1, "YMin": y0, "YMax": y1}
    for column, key in zip(ATTRIBUTES.split(","), ATTRIBUTE_KEYS, strict=True):
        values[column] = str(box[key])
    middle_x, middle_y = (f"{(box[a] + box[b]) / 2:.6f}" for a, b in (("x0", "x1"), ("y0", "y1")))
    # The four extreme points: top, left, bottom, right; -1 if the box was not made from them.
    clicks = [middle_x, x0, middle_x, x1, y0, middle_y, y1, middle_y]
    for column, click in zip(CLICKS.split(","), clicks, strict=True):
        values[column] = click if box["source"] == "xclick" else "-1"
    return values


def label_rows(images: Iterable[Image], boxable: bool) -> Iterator[str]:
    """Yield verified image-level labels: 1 for a class with a box, 0 for some of the others."""
    yield LABELS
    for image in images:
        rng = random.Random(f"labels {image['id']}")
        present = {box["label"] for box in image["boxes"]}
        rows = [(label, 1) for label in present]
        rows += [(one.label, 0) for one in DRAWN if one.label not in present and rng.random() < 0.3]
        if not boxable:
            rows += [(label, int(rng.random() < 0.2)) for label in FURTHER_NAMES if rng.random() < 0.3]
        for label, confidence in sorted(rows):
            source = "verification" if label in BY_LABEL or rng.random() < 0.7 else "crowdsource-verification"
            yield f"{image['id']},{source},{label},{confidence}"


def quoted(value: str) -> str:
    """Quote a CSV field if necessary."""
    return always_quoted(value) if any(mark in value for mark in ',"\r\n') else value


def always_quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def text(lines: Lines) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def write_tarball(raw: io.BufferedIOBase | Any, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a .tar.gz with the same bytes every time: no owner, one date for all files."""
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o640
            member.mtime = 1510803180  # 2017-11-16, when V3 came out
            archive.addfile(member, io.BytesIO(data))
