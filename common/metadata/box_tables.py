"""The box annotations in columns: what `boxes` does row by row, for a block of rows at once.

Counts, order and every byte of the datapoints are those of the plain way; what is out of the ordinary is
left to it (NotPlainError).
"""

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from common.files.csv_files import parse_number
from common.files.json_files import to_json
from common.metadata.boxes import ROUNDING, BoxFilter
from common.metadata.csv_tables import (
    CODES,
    Block,
    NotPlainError,
    check_image_ids,
    codes_of,
    column,
    combined,
    json_elements,
    parse_block,
    values_of,
)
from common.openimages.datapoints import ATTRIBUTES, COORDINATES

PLAIN_NUMBER = r"^[0-9]\.[0-9]{1,14}$"  # at most 15 digits: without its last zeros it is what Python prints

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Boxes:
    """The kept boxes of some images; those of image i are rows starts[i] to starts[i + 1]."""

    table: pa.Table  # columns by their place in the file
    places: Mapping[str, int]
    starts: npt.NDArray[np.int64]

    @property
    def image_ids(self) -> list[str]:
        ids = column(self.table, self.places["ImageID"])
        return ids.take(pa.array(self.starts[:-1])).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self.table.num_rows  # type: ignore[no-any-return]

    def only(self, flags: Sequence[bool]) -> "Boxes":
        """Return the boxes of those images whose flag is set."""
        images = np.array(flags, bool)
        sizes = np.diff(self.starts)
        rows = self.table.filter(pa.array(np.repeat(images, sizes))).combine_chunks()
        return Boxes(rows, self.places, _starts(sizes[images]))

    def expanded(self, expand: Mapping[str, Sequence[str]]) -> "Boxes":
        """Return each box with a copy for each further class that `expand` gives to its own."""
        place = self.places["LabelName"]
        labels = column(self.table, place)
        families = [[label, *expand.get(label, ())] for label in values_of(labels)]
        first, codes = _starts(list(map(len, families))), codes_of(labels)
        copies = np.diff(first)[codes]
        rows = np.repeat(np.arange(len(codes)), copies)
        number_of_copy = np.arange(len(rows)) - np.repeat(np.cumsum(copies) - copies, copies)
        new = pa.DictionaryArray.from_arrays(
            pa.array((first[codes][rows] + number_of_copy).astype(np.int32)),
            pa.array([label for family in families for label in family], pa.string()),
        )
        table = self.table.take(pa.array(rows)).combine_chunks()
        table = table.set_column(table.schema.get_field_index(str(place)), str(place), new)
        return Boxes(table, self.places, _starts(copies)[self.starts])

    def classes(self) -> list[set[str]]:
        """Return the classes of each image's boxes."""
        labels = column(self.table, self.places["LabelName"])
        names = values_of(labels)
        images = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        found: list[set[str]] = [set() for _ in self.starts[1:]]
        for pair in np.unique(images * len(names) + codes_of(labels)).tolist():
            image, code = divmod(pair, len(names))
            found[image].add(names[code])
        return found


def _starts(sizes: Any) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def read_boxes(
    block: Block, header: Sequence[str], places: Mapping[str, int], wanted: BoxFilter, counts: Counter[str]
) -> Boxes:
    """Return the kept boxes of a block by image; counts as `boxes.grouped_boxes` does."""
    texts = [places[name] for name in COORDINATES.values()]
    coded = ("ImageID", "LabelName", "Confidence", *ATTRIBUTES.values(), "Source")
    kinds = {places[name]: CODES for name in coded if name in places} | dict.fromkeys(texts, pa.string())
    table = parse_block(block, len(header), kinds, empty_is_null=False)
    counts["rows"] += table.num_rows
    check_image_ids(column(table, places["ImageID"]).dictionary)
    for name in ATTRIBUTES.values():
        if name in places and not {"0", "1", "-1"}.issuperset(values_of(column(table, places[name]))):
            raise NotPlainError(f"{name} that is not 1, 0 or -1")
    if "Confidence" in places and None in map(parse_number, values_of(column(table, places["Confidence"]))):
        raise NotPlainError("Confidence that is no number")
    corners = []
    for place in texts:
        values, shortest = numbers(column(table, place))
        corners.append(values)
        table = table.set_column(table.schema.get_field_index(str(place)), str(place), shortest)
    keep = kept(table, places, corners, wanted, counts)
    images = codes_of(column(table, places["ImageID"]))
    again = repeated(block, keep, [images, codes_of(column(table, places["LabelName"])), *corners])
    counts["repeated_rows"] += int(again.sum())
    keep &= ~again
    images = images[keep]
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    return Boxes(table.filter(pa.array(keep)).combine_chunks(), places, np.append(starts, len(images)))


def numbers(texts: pa.Array) -> tuple[npt.NDArray[np.float64], pa.Array]:
    """Return the values of decimals, and each moved into [0, 1] as Python prints it."""
    plain = _plain(texts)
    shortest = pc.ascii_rtrim(texts, "0")
    values = np.asarray(pc.if_else(pa.array(plain), shortest, "2").cast(pa.float64())).copy()
    edge = plain & ((values == 0) | (values == 1))  # "0." and "1." by now
    odd = ~edge & ((values < 1e-4) | (values > 1))  # Python prints an exponent, or it is not plain
    printed = ["0.0", "1.0"]
    for row in np.flatnonzero(odd).tolist():
        value = parse_number(texts[row].as_py())
        if value is None:
            raise NotPlainError("a coordinate that is no number")
        values[row] = value
        printed.append(repr(min(max(value, 0.0), 1.0)))
    places = np.where(edge, values, 0).astype(np.int64)
    places[odd] = np.arange(2, len(printed))
    instead = edge | odd
    new = pa.array(printed).take(pa.array(places[instead]))
    return values, pc.replace_with_mask(shortest, pa.array(instead), new)


def _plain(texts: pa.Array) -> Flags:
    """Tell of each text whether it is PLAIN_NUMBER."""
    if not len(texts):
        return np.zeros(0, bool)
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1)
    lengths = np.diff(offsets)
    if lengths.min() >= 3 and lengths.max() <= 16:
        data = np.frombuffer(texts.buffers()[2], np.uint8, offsets[-1])
        points = data == ord(".")
        only_digits = data.min() >= ord(".") and data.max() <= ord("9") and not (data == ord("/")).any()
        if only_digits and points[offsets[:-1] + 1].all() and points.sum() == len(texts):
            return np.ones(len(texts), bool)  # nearly always, and in a third of the time of the pattern
    return np.asarray(pc.match_substring_regex(texts, PLAIN_NUMBER).to_numpy(zero_copy_only=False))


def kept(
    table: pa.Table, places: Mapping[str, int], corners: list[Any], wanted: BoxFilter, counts: Counter[str]
) -> Flags:
    """Tell of each row whether BoxFilter keeps it, and count by reason those it does not.

    Moves `corners` to the edge that they are a rounding beyond.
    """
    keep = rows_of(column(table, places["LabelName"]), wanted.classes.__contains__)
    counts["other_classes"] += len(keep) - int(keep.sum())

    def drop(reason: str, rows: Flags) -> None:
        nonlocal keep
        counts[reason] += int((keep & rows).sum())
        keep = keep & ~rows

    for values in corners:
        drop("outside_image", ~((values >= -ROUNDING) & (values <= 1 + ROUNDING)))
        np.clip(values, 0.0, 1.0, out=values)
    x0, x1, y0, y1 = corners
    width, height = x1 - x0, y1 - y0
    drop("without_area", (width <= 0) | (height <= 0))
    for key in wanted.exclude:
        drop(f"excluded_{key}", rows_of(column(table, places[ATTRIBUTES[key]]), lambda text: text == "1"))
    drop("too_small", np.minimum(width, height) < wanted.min_side)
    return keep


def rows_of(column: pa.DictionaryArray, holds: Callable[[str], bool]) -> Flags:
    """Tell of each row whether something holds of its value."""
    return np.array([holds(value) for value in values_of(column)], bool)[codes_of(column)]


def repeated(block: Block, keep: Flags, keys: list[Any]) -> Flags:
    """Tell of each kept row whether one before it has the same fields, all of them.

    Equal rows have equal `keys` and so equal hashes; only rows that share a hash are compared.
    """
    hashes = np.zeros(len(keep), np.uint64)
    for key in keys:
        hashes = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + key.view(np.uint64)
    again = np.zeros(len(keep), bool)
    in_order = np.sort(hashes[keep])
    shared = in_order[1:][in_order[1:] == in_order[:-1]]
    if not len(shared):
        return again
    lines = [line for line in block.data.decode().split("\n") if line.strip("\r")]
    seen = set()
    for row in np.flatnonzero(keep & np.isin(hashes, shared)).tolist():
        fields = tuple(next(csv.reader([lines[row]], strict=True)))
        again[row] = fields in seen
        seen.add(fields)
    return again


def points_json(boxes: Boxes, heads: Sequence[str]) -> memoryview:
    """Return the datapoints as JSON; `heads` are their keys between id and annotations."""
    table, places = boxes.table, boxes.places

    def told(name: str, key: str, value: Any) -> tuple[Any, list[str]]:
        values = column(table, places[name])
        return values, [f',"{key}":{to_json(value(text)).decode()}' for text in values_of(values)]

    before = [told("LabelName", "label", str)]
    if "Confidence" in places:
        before.append(told("Confidence", "confidence", confidence))
    after = [told(name, key, int) for key, name in ATTRIBUTES.items() if name in places]
    if "Source" in places:
        after.append(told("Source", "source", str))
    pieces: list[Any] = [combined(before)]
    for key, name in COORDINATES.items():
        pieces += [f',"{key}":', column(table, places[name])]
    if after:
        pieces.append(combined(after))
    rows = pc.binary_join_element_wise(*pieces, "")
    ids = pa.array(boxes.image_ids, pa.string())
    between = pc.binary_join_element_wise('},{"id":"', ids, '"', "")
    annotations = pc.binary_join(
        pa.ListArray.from_arrays(pa.array(boxes.starts.astype(np.int32)), rows), between
    )
    head = pa.array(heads, pa.string())
    points = pc.binary_join_element_wise(
        '{"id":"', ids, '"', head, ',"annotations":[{"id":"', ids, '"', annotations, "}]},\n", ""
    )
    return json_elements(points)


def confidence(text: str) -> float | int | None:
    value = parse_number(text)
    return int(value) if value is not None and value.is_integer() else value
