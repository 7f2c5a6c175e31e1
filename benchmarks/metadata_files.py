"""Files like those of the V6 train split, of any size: their columns, quoting, order and statistics.

The table of masks has a row for 18 % of the boxes, in no order, with the box's coordinates as they are.

The real ones have 1,743,042 images and 14,610,229 boxes: boxes with six decimals and four clicks, sorted by
image; the index in another order, authors and titles in quotes, some with commas, quotes, entities and
letters beyond ASCII, 2 % of the thumbnails empty.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

IMAGES, BOXES = 1_743_042, 14_610_229
MASKS = 2_686_666
MASK_HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
CLASSES = [f"/m/0{number:04x}" for number in range(601)]
BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
)
INDEX_HEADER = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,"
    "Thumbnail300KURL,Rotation"
)
PART = 50_000  # images made at a time
WORDS = (
    "sunset", "IMG_2041", "the", "Café", "&quot;Rex&quot;", "Tokyo,", "日本", "cat's", "DSC00112", "at",
    "Market", "St.", "São", "Berlin", "2009", "of",
)  # fmt: skip
SHARES = 0.6, 0.2, 0.05, 0.05, 0.01  # of boxes that are occluded, truncated, ...; a tenth are unknown
ROTATIONS = {"0.0": 0.91, "90.0": 0.012, "180.0": 0.002, "270.0": 0.012, "": 0.064}
SIX = pa.array([f"{number / 1e6:.6f}" for number in range(1_000_001)] + ["-1.000000"])


def make(folder: Path, images: int) -> int:
    """Write boxes, index and class list for this number of images; return the number of boxes."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "boxes.csv", folder / "images.csv", folder / "classes.txt"
    paths[2].write_text("".join(f"{mid}\n" for mid in CLASSES))
    numbers = np.unique(rng.integers(0, 1 << 63, images * 2, dtype=np.uint64) * np.uint64(2))
    numbers = np.sort(rng.choice(numbers, images, replace=False))
    count = 0
    with open(paths[0], "wb") as boxes:
        boxes.write(f"{BOX_HEADER}\n".encode())
        for start in range(0, images, PART):
            part = numbers[start : start + PART]
            sizes = rng.geometric(IMAGES / BOXES, len(part))
            boxes.write(_box_rows(part, sizes, rng))
            count += int(sizes.sum())
    make_masks(paths[0], folder / "masks.csv", rng)
    rng.shuffle(numbers)
    with open(paths[1], "wb") as index:
        index.write(f"{INDEX_HEADER}\n".encode())
        for start in range(0, images, PART):
            index.write(_index_rows(numbers[start : start + PART], rng))
    return count


def make_masks(boxes: Path, masks: Path, rng: np.random.Generator) -> None:
    """Write the table of masks of some boxes, its rows in random order."""
    rows: list[str] = []
    with open(boxes, encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            if rng.random() < MASKS / BOXES:
                image_id, _, label, _, *corners = line.split(",", 8)[:8]
                name = f"{image_id}_{label[1:].replace('/', '')}_{len(rows):08x}"
                rows.append(f"{name}.png,{image_id},{label},{name[-8:]},{','.join(corners)},0.9,\n")
    rng.shuffle(rows)
    with open(masks, "w", encoding="utf-8") as stream:
        stream.write(f"{MASK_HEADER}\n")
        stream.writelines(rows)


def _ids(numbers: np.ndarray) -> pa.Array:
    return pa.array([f"{number:016x}" for number in numbers.tolist()])


def _pick(
    values: list[str], rng: np.random.Generator, count: int, weights: np.ndarray | None = None
) -> pa.Array:
    odds = None if weights is None else weights / weights.sum()
    return pa.array(values).take(pa.array(rng.choice(len(values), count, p=odds)))


def _lines(*fields: pa.Array) -> pa.Buffer:
    """Return rows of these fields, with commas between and a line end after each."""
    rows = pc.binary_join_element_wise(pc.binary_join_element_wise(*fields, ","), "\n", "")
    return pc.binary_join(pa.ListArray.from_arrays([0, len(rows)], rows), "")[0].as_buffer()


def _box_rows(numbers: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> pa.Buffer:
    count = int(sizes.sum())
    places = np.repeat(np.arange(len(numbers)), sizes)
    low, high = (rng.integers(0, 1_000_001, (2, count)) for _ in range(2))
    x, y = np.sort(low, axis=0), np.sort(high, axis=0)
    for edges in (x, y):
        edges[1] = np.maximum(edges[1], edges[0] + 1)
        edges[0][rng.random(count) < 0.08] = 0
        edges[1][rng.random(count) < 0.08] = 1_000_000
        edges[0] = np.minimum(edges[0], edges[1] - 1)
    clicked = rng.random(count) < 0.9
    clicks = [np.where(clicked, rng.integers(0, 1_000_001, count), 1_000_001) for _ in range(8)]
    weights = 1 / np.arange(1, len(CLASSES) + 1)
    return _lines(
        _ids(numbers).take(pa.array(places)),
        pa.array(["activemil", "xclick"]).take(pa.array(clicked.astype(np.int8))),
        _pick(CLASSES, rng, count, weights),
        _pick(["1"], rng, count),
        *(SIX.take(pa.array(edge)) for edge in (*x, *y)),
        *(_pick(["0", "1", "-1"], rng, count, np.array([0.9 - share, share, 0.1])) for share in SHARES),
        *(SIX.take(pa.array(click)) for click in clicks),
    )  # fmt: skip


def _index_rows(numbers: np.ndarray, rng: np.random.Generator) -> pa.Buffer:
    count = len(numbers)
    ids = _ids(numbers)

    def joined(*pieces: str | pa.Array) -> pa.Array:
        return pc.binary_join_element_wise(*pieces, "")

    def digits(number: int) -> pa.Array:
        return pa.array(rng.integers(10 ** (number - 1), 10**number, count)).cast(pa.string())

    def text(most: int) -> list[str]:
        words, lengths = rng.choice(WORDS, (count, most)).tolist(), rng.integers(1, most + 1, count).tolist()
        return [" ".join(row[:length]) for row, length in zip(words, lengths, strict=True)]

    titles = [f'{title} ""x""' if number % 100 == 0 else title for number, title in enumerate(text(5))]
    host = joined("https://farm", digits(1), ".staticflickr.com/", digits(4), "/", photo := digits(11), "_")
    user = joined(digits(8), "@N0", digits(1))
    thumbnail = joined(host, pc.utf8_slice_codeunits(ids, 3, 13), "_z.jpg")
    return _lines(
        ids,
        _pick(["train"], rng, count),
        joined(host, pc.utf8_slice_codeunits(ids, 0, 10), "_o.jpg"),
        joined("https://www.flickr.com/photos/", user, "/", photo),
        _pick(["https://creativecommons.org/licenses/by/2.0/"], rng, count),
        joined("https://www.flickr.com/people/", user, "/"),
        joined('"', pa.array(text(3)), '"'),
        joined('"', pa.array(titles), '"'),
        digits(7),
        joined(pc.utf8_slice_codeunits(joined(ids, ids), 0, 22), "=="),
        pc.if_else(pa.array(rng.random(count) < 0.02), "", thumbnail),
        _pick(list(ROTATIONS), rng, count, np.array(list(ROTATIONS.values()))),
    )  # fmt: skip


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2])))
