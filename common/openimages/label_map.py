"""Label maps, which tell TensorFlow's detectors and evaluators the number of each class."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from common.cli import InputError
from common.files.whole_files import read_lines

# As in object_detection/protos/string_int_label_map.proto, without the fields that are passed over.
SCHEMA = """
name: "label_map.proto"
message_type {
  name: "Item"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "id" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
}
message_type {
  name: "LabelMap"
  field { name: "item" number: 1 type: TYPE_MESSAGE type_name: ".Item" label: LABEL_REPEATED }
}
"""


def read_label_map(path: str | Path) -> list[tuple[int, str]]:
    """Return the id and the name of each class of a label map in protobuf's text format."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto()))
    label_map = message_factory.GetMessageClass(pool.FindMessageTypeByName("LabelMap"))()
    try:
        text = "".join(line for _, line in read_lines(path))
        text_format.Parse(text, label_map, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise InputError(
            f"{path}:{error.GetLine()}: not a label map, items with id and name were expected"
        ) from None
    return [(item.id, item.name) for item in label_map.item]


def check_label_map(path: str | Path, texts: Iterable[str], classes_path: str | Path) -> None:
    """Raise InputError at the first class that a label map numbers or names otherwise than the class list."""
    for found, expected in zip_longest(sorted(read_label_map(path)), enumerate(texts, start=1)):
        if found != expected:
            raise InputError(
                f"{path}: {_item(found)}, but {_item(expected)} by the class list {classes_path}; make the "
                "label map and the records from the same list"
            )


def _item(item: tuple[int, str] | None) -> str:
    return f"id {item[0]} is {item[1]!r}" if item else "there is no further class"
