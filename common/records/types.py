"""Types that the modules of step 7 share."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from common.openimages.datapoints import Annotation, ImageLabel


@dataclass(frozen=True)
class RecordSettings:
    """Settings of a run: which images become records, and what the records hold."""

    work_list: Path
    images: Path  # the folder
    ids: dict[str, int]  # of the trainable classes, by MID, from 1
    texts: dict[str, str]  # image/object/class/text, by MID
    keep_without_boxes: bool
    is_numbered: bool  # two images of one number are an error
    eval_fraction: float | None
    eval_subset: str | None
    compression: str  # GZIP or empty, as TensorFlow names it
    source_id: str  # image/source_id: id or number
    missing_masks: str | None  # what a box without a mask gets, empty or box; None if the run has no masks
    num_shards: int | None
    shard_bytes: int | None


class Work(msgspec.Struct):
    """One line of the work list: an image, and those of its boxes and labels that have a trainable class."""

    id: str
    file: str  # name of the image file
    bytes: int  # its size
    boxes: list[Annotation]
    image_labels: list[ImageLabel]
    size: tuple[int, int]  # width and height in pixels


def read_work(work_list: BinaryIO, offset: int) -> Work:
    work_list.seek(offset)
    return msgspec.json.decode(work_list.readline(), type=Work)


@dataclass
class RecordSet:
    """The records for training or those for evaluation, as lines of the work list."""

    path: Path
    offsets: array[int] = field(default_factory=lambda: array("Q"))  # bytes into the work list
    sizes: array[int] = field(default_factory=lambda: array("Q"))  # estimated bytes of each record
    digest: Any = field(default_factory=hashlib.sha256)  # of its lines
    shards: list[dict[str, Any]] = field(default_factory=list)  # once written, their entries in the manifest


@dataclass(frozen=True)
class ShardTask:
    """A shard to write, and its part of the work list: positions or, if no worker can read it, lines."""

    path: Path
    offsets: Sequence[int]  # bytes into the work list, one for each record
    lines: bytes = b""  # compressed by zlib
