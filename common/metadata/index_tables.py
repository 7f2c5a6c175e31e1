"""The image index in columns: what `image_index` does row by row, for a block of rows at once.

Order and every byte are those of the plain way; what is out of the ordinary is left to it (NotPlainError).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.files.json_files import to_json
from common.metadata.csv_tables import (
    Block,
    NotPlainError,
    block_rows,
    check_image_ids,
    column,
    json_elements,
    map_blocks,
    open_blocks,
    parse_block,
)
from common.metadata.image_index import (
    ATTRIBUTION,
    NUMBERS,
    ImageIds,
    ImageSet,
    Kept,
    checked_images,
    index_columns,
    number_of,
)

WHOLE_NUMBER = r"^(0|[1-9][0-9]{0,14})$"  # as JSON has it
ESCAPED = r'["\\\x00-\x1f]'  # the characters that JSON escapes


@dataclass(frozen=True)
class _Reader:
    path: str
    width: int  # columns
    keys: dict[int, str]  # of each place

    def check(self, block: Block) -> None:
        """Raise the InputError of the first wrong line of a block, if there is one."""
        for _ in checked_images(self.path, self.keys, block_rows(self.path, block, self.width)):
            pass

    def parse(self, block: Block, keys: Sequence[str]) -> dict[str, pa.Array]:
        """Return the checked columns of these keys, in the order of the file."""
        places = {place: key for place, key in self.keys.items() if key in keys}
        table = parse_block(block, self.width, dict.fromkeys(places, pa.string()), empty_is_null=True)
        found = {key: column(table, place) for place, key in places.items()}
        check_image_ids(found["id"])
        for key in NUMBERS:
            if key in found:
                found[key] = _numbers(key, found[key])
        return found


@contextmanager
def _open_index(path: str) -> Iterator[tuple[_Reader, Iterator[Block]]]:
    with open_blocks(path, keep_together=False) as (header, blocks):
        keys = index_columns(path, header)
        if len(set(keys.values())) != len(keys):
            raise NotPlainError("two columns for one key")
        yield _Reader(path, len(header), keys), blocks


def _numbers(key: str, texts: pa.Array) -> pa.Array:
    """Return numbers as JSON has them."""
    if key == "size" and pc.all(pc.match_substring_regex(texts, WHOLE_NUMBER)).as_py() is not False:
        return texts  # None: all are empty
    distinct = texts.dictionary_encode()
    printed = []
    for text in distinct.dictionary.to_pylist():
        value = number_of(key, text)
        if value is None:
            raise NotPlainError(f"{key} that is no number")
        printed.append(to_json(value).decode())
    return pa.array(printed, pa.string()).take(distinct.indices)


def read_images(path: str, counts: Counter[str]) -> ImageIds:
    """Return the images of an index, and count its rows and repeated ids."""
    images, rows = ImageIds(), 0
    with _open_index(path) as (reader, blocks):

        def work(block: Block) -> tuple[list[str], list[Any], list[Any]]:
            found = reader.parse(block, ("id", "subset", *NUMBERS))
            nothing = pa.nulls(len(found["id"]), pa.string())
            subset, rotation = (found.get(key, nothing) for key in ("subset", "rotation"))
            return found["id"].to_pylist(), subset.to_pylist(), rotation.cast(pa.float64()).to_pylist()

        for ids, subsets, rotations in map_blocks(work, blocks, reader.check):
            rows += len(ids)
            images.update(zip(ids, zip(subsets, rotations, strict=True), strict=True))
    counts["index_rows"] += rows  # not before all were plain
    counts["repeated_ids"] += rows - len(images.codes)
    return images


def kept_images(path: str, wanted: ImageSet) -> Iterator[Kept]:
    """Yield the images that are in `wanted`, each once and taken out of it."""
    with _open_index(path) as (reader, blocks):

        def work(block: Block) -> tuple[dict[str, pa.Array], pa.Array]:
            found = reader.parse(block, tuple(reader.keys.values()))
            keep = pa.array(wanted.contain(found["id"].to_pylist()), pa.bool_())
            found = {key: texts.filter(keep) for key, texts in found.items()}
            return found, _lines(found)

        for found, lines in map_blocks(work, blocks, reader.check):
            new = [wanted.take(image_id) for image_id in found["id"].to_pylist()]
            if not all(new):  # a row of an image that was written already
                found = {key: texts.filter(pa.array(new)) for key, texts in found.items()}
                lines = lines.filter(pa.array(new))
            if len(lines):
                yield json_elements(lines), _attributions(found)


def _attributions(found: dict[str, pa.Array]) -> Iterator[Sequence[str]]:
    nothing = pa.nulls(len(found["id"]), pa.string())
    yield from zip(*(found.get(key, nothing).fill_null("").to_pylist() for key in ATTRIBUTION), strict=True)


def _lines(found: dict[str, pa.Array]) -> pa.Array:
    """Return each image as JSON, empty fields left out."""
    pieces: list[Any] = ["{"]
    comma_before = False
    for key, texts in found.items():
        mark = "" if key in NUMBERS else '"'
        texts = texts if key in NUMBERS else _escaped(texts)
        start = f"{to_json(key).decode()}:{mark}"
        if key == "id":  # the one that is never empty: commas before it follow, commas after it precede
            pieces.append(pc.binary_join_element_wise(start, texts, mark, ""))
            comma_before = True
        elif comma_before:
            pieces.append(pc.binary_join_element_wise("," + start, texts, mark, ""))
        else:
            pieces.append(pc.binary_join_element_wise(start, texts, mark + ",", ""))
    return pc.binary_join_element_wise(*pieces, "},\n", "", null_handling="skip")


def _escaped(texts: pa.Array) -> pa.Array:
    """Return texts as they stand in a JSON string."""
    some = np.asarray(pc.match_substring_regex(texts, ESCAPED).fill_null(False))
    if not some.any():
        return texts
    new = [to_json(text)[1:-1].decode() for text in texts.filter(pa.array(some)).to_pylist()]
    return pc.replace_with_mask(texts, pa.array(some), pa.array(new))
