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


def entry(image: str = A, rotation: str | None = None) -> str:
    row = (
        f'{image},train,http://host/{image}.jpg,http://page,http://cc,http://me,"Ann, ""A""",Tïtle,123,bWQ1,'
    )
    return row + (f",{rotation}" if rotation is not None else "")


def table(header: str, *rows: str) -> str:
    return "".join(f"{line}\n" for line in (header, *rows))


def results(tmp_path):
    return tuple(json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("points", "images"))


GOOD, INDEX = table(TRAIN_V3, box()), table(INDEX_V3, entry())
