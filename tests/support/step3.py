"""Headers, rows, evil inputs and results of step 3, for all its tests."""

import json

TRAIN_V3 = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax"
V4 = TRAIN_V3 + ",IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
TRAIN_V6 = V4 + ",XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
INDEX_V3 = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL"
)
INDEX_V4 = INDEX_V3 + ",Rotation"
A, B, C = "000000000000000a", "000000000000000b", "000000000000000c"
CAT, DOG, TREE = "/m/01yrx", "/m/0bt9lr", "/m/07j7r"
MAMMAL, PET, ANIMAL = "/m/04rky", "/m/068hy", "/m/0jbk"


def box(image: str = A, label: str = CAT, corners: str = "0.1,0.2,0.3,0.4", more: str = "") -> str:
    return f"{image},xclick,{label},1,{corners}{more}"


def entry(image: str = A, rotation: str | None = None, title: str = "Tïtle") -> str:
    row = f'{image},train,http://host/{image}.jpg,http://page,http://cc,http://me,"Ann, ""A""",{title},123,bWQ1,'
    return row + (f",{rotation}" if rotation is not None else "")


def table(header: str, *rows: str) -> str:
    return "".join(f"{line}\n" for line in (header, *rows))


def results(tmp_path):
    return tuple(json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("points", "images"))


GOOD, INDEX = table(TRAIN_V3, box()), table(INDEX_V3, entry())
EVIL = {
    "short row": (GOOD + f"{A},xclick,{CAT},1,0.1,0.2,0.3\n", INDEX, "boxes.csv:3: 7 fields, 8 were expected"),
    "extra field": (GOOD + box(more=",0") + "\n", INDEX, "boxes.csv:3: 9 fields, 8 were expected"),
    "empty number": (GOOD + box(corners=",0.2,0.3,0.4") + "\n", INDEX, "boxes.csv:3: XMin is '', a number was"),
    "word for a number": (GOOD + box(corners="0.1,x,0,1") + "\n", INDEX, "boxes.csv:3: XMax is 'x', a number was"),
    "nan": (GOOD + box(corners="nan,1,0,1") + "\n", INDEX, "boxes.csv:3: XMin is 'nan', a number was expected"),
    "too large a number": (GOOD + box(corners="1e400,1,0,1") + "\n", INDEX, "boxes.csv:3: XMin is '1e400'"),
    "underscore in a number": (GOOD + box(corners="0_1,1,0,1") + "\n", INDEX, "boxes.csv:3: XMin is '0_1'"),
    "digits of another script": (GOOD + box(corners="٠,1,0,1") + "\n", INDEX, "boxes.csv:3: XMin is '٠'"),
    "attribute out of range": (
        table(V4, box(more=",2,0,0,0,0")), INDEX, "boxes.csv:2: IsOccluded is '2', 1, 0 or -1 was expected",
    ),
    "missing column": (GOOD.replace("XMax", "Xmax"), INDEX, "boxes.csv:1: no column XMax; the header has ImageID,"),
    "repeated column": (
        GOOD.replace("Source", "XMin"), INDEX, "boxes.csv:1: duplicate column name in the header",
    ),
    "open quote": (GOOD + f'"{A},xclick\n', INDEX, "boxes.csv:3: unexpected end of data"),
    "NUL byte": (GOOD + box(label="/m/\0") + "\n", INDEX, "boxes.csv:3: a NUL byte, text was expected"),
    "cut last line": (GOOD[:-1], INDEX, "boxes.csv:2: no line end after the last row; is the file cut short?"),
    "lone carriage returns": (GOOD.replace("\n", "\r"), INDEX, "boxes.csv:1: a carriage return inside a line"),
    "UTF-16": (GOOD.encode("utf-16"), INDEX, "boxes.csv: UTF-16 text, UTF-8 was expected: save it as UTF-8"),
    "Latin-1": (GOOD.encode() + b"\xe4\n", INDEX, "boxes.csv:3: not UTF-8 text"),
    "semicolons": (GOOD.replace(",", ";"), INDEX, "boxes.csv:1: columns separated by semicolons, commas were expected"),
    "tabs in the index": (GOOD, INDEX.replace(",", "\t"), "images.csv:1: columns separated by tabs, commas were"),
    "empty file": ("", INDEX, "boxes.csv: an empty file, a header with ImageID, LabelName,"),
    "header only": (TRAIN_V3 + "\n", INDEX, "boxes.csv: no boxes in it"),
    "other classes only": (
        table(TRAIN_V3, box(label=TREE)), INDEX,
        "no box to keep: asked for 2 classes (/m/0bt9lr, /m/01yrx), the file has 1 classes (/m/07j7r)",
    ),
    "path for an id": (table(TRAIN_V3, box("../a")), INDEX, "boxes.csv:2: ImageID '../a', an image id was expected"),
    "empty index": (GOOD, "", "images.csv: an empty file, a header with ImageID, OriginalURL"),
    "index with header only": (GOOD, INDEX_V3 + "\n", "images.csv: no images in it"),
    "path for an id in the index": (GOOD, table(INDEX_V3, entry("/etc")), "images.csv:2: ImageID '/etc', an image"),
    "size that is no number": (GOOD, INDEX.replace(",123,", ",12x,"), "images.csv:2: OriginalSize is '12x', a number was"),
    "rotation that is no number": (GOOD, table(INDEX_V4, entry(rotation="up")), "images.csv:2: Rotation is 'up'"),
    "no image in the index": (GOOD, table(INDEX_V3, entry(B)), "images.csv: none of the 1 images with boxes"),
}  # fmt: skip
