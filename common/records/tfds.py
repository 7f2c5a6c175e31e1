"""Metadata for TensorFlow Datasets: dataset_info.json and features.json in the folder of the records.

With them tfds.builder_from_directory reads the folder. Their form is that of
tensorflow_datasets/core/proto/{dataset_info,feature}.proto (TFDS 4.9). TFDS's own write_metadata cannot be
used: it takes only files named by one template, does not write to our object stores, and drops the splits of
earlier runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.places import read_small, status
from common.files.whole_files import open_output
from common.records.examples import example_features, feature_kind
from common.records.types import RecordSet, Work

NAME = "open_images"
INFO = "dataset_info.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_.-]*)?")  # without what templates of TFDS interpret
_IMAGES = {"image/encoded": ("jpeg", "3"), "image/object/mask": ("png", "1")}  # encoding, channels
_CLASSES = "tensorflow_datasets.core.features"


def check_names(sets: Sequence[RecordSet]) -> None:
    """Raise InputError if TFDS cannot name these records or their folder holds another data set."""
    for records in sets:
        if not _FILE_NAME.fullmatch(records.path.name) or split_name(records.path) == "all":
            raise InputError(
                f"{records.path}: the name before the first dot becomes the TFDS split: letters, digits, "
                "_ and - were expected, and not all"
            )
        _read_splits(records.path.parent)
    if len({(records.path.parent, split_name(records.path)) for records in sets}) < len(sets):
        raise InputError(f"{sets[0].path}: training and evaluation records would be one split of TFDS")


def split_name(path: Path) -> str:
    """Return TFDS's name for the records at `path`: `train` for train.tfrecord."""
    return path.name.partition(".")[0]


def write_metadata(sets: Sequence[RecordSet], missing_masks: str | None) -> None:
    """Write both files into the folder of each set; existing splits of other runs stay listed."""
    for records in sets:
        folder, name = records.path.parent, split_name(records.path)
        splits = _read_splits(folder)
        splits[name] = {
            "name": name,
            "filepathTemplate": f"{records.path.name}-{{SHARD_X_OF_Y}}",
            "shardLengths": [str(shard["records"]) for shard in records.shards],
            "numBytes": str(sum(shard["bytes"] for shard in records.shards)),
        }
        info = {
            "name": NAME, "version": "1.0.0", "description": "Images of Open Images with their boxes.",
            "fileFormat": "tfrecord", "splits": [splits[name] for name in sorted(splits)],
        }  # fmt: skip
        for file, content in (("features.json", _features(missing_masks)), (INFO, info)):
            with open_output(folder / file) as stream:
                stream.write(json.dumps(content, indent=1).encode() + b"\n")


def _features(missing_masks: str | None) -> dict[str, Any]:
    """Return the types of all features; those with a value in a record without boxes are single values."""
    empty = example_features(Work("", "", 0, [], [], (0, 0)), b"", {}, {}, missing_masks=missing_masks)
    features = {name: _feature(name, single=bool(values)) for name, values in empty.items()}
    name = f"{_CLASSES}.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


def _feature(name: str, *, single: bool) -> dict[str, Any]:
    if not single:
        sequence = {"feature": _feature(name, single=True), "length": "-1"}
        return {"pythonClassName": f"{_CLASSES}.sequence_feature.Sequence", "sequence": sequence}
    if name in _IMAGES:
        encoding, channels = _IMAGES[name]
        shape = {"dimensions": ["-1", "-1", channels]}
        image = {"dtype": "uint8", "encodingFormat": encoding, "shape": shape}
        return {"pythonClassName": f"{_CLASSES}.image_feature.Image", "image": image}
    if feature_kind(name) == "bytes_list":
        return {"pythonClassName": f"{_CLASSES}.text_feature.Text", "text": {}}
    dtype = "int64" if feature_kind(name) == "int64_list" else "float32"
    tensor = {"dtype": dtype, "encoding": "none", "shape": {}}
    return {"pythonClassName": f"{_CLASSES}.scalar.Scalar", "tensor": tensor}


def _read_splits(folder: Path) -> dict[str, Any]:
    """Return the listed splits, by name, whose first file exists; InputError for another data set's file."""
    data = read_small(folder / INFO)
    if data is None:
        return {}
    splits = {}
    try:
        info = json.loads(data)
        if info["name"] != NAME:
            raise ValueError
        for split in info["splits"]:
            first = f"{0:05d}-of-{len(split['shardLengths']):05d}"
            if status(folder / split["filepathTemplate"].replace("{SHARD_X_OF_Y}", first)):
                splits[split["name"]] = split
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder / INFO}: not written by --tfds_metadata; give the records a folder of their own"
        ) from None
    return splits
