"""What TensorFlow Datasets needs beside the records: dataset_info.json and features.json in their folder.

`tfds.builder_from_directory(folder)` reads them, without a line of code for this data set. Their form is that
of tensorflow_datasets/core/proto/{dataset_info,feature}.proto, read with TFDS 4.9.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.storage import status
from common.files.whole_files import open_output, read_small
from common.records.examples import example_features, feature_kind
from common.records.sets import RecordSet

DATASET, VERSION = "open_images", "1.0.0"
INFO, FEATURES = "dataset_info.json", "features.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_.-]*)?")  # what a template of TFDS takes as it stands
_CLASSES = "tensorflow_datasets.core.features"
_TYPES = {"int64_list": "int64", "float_list": "float32"}


def check_tfds_names(sets: Sequence[RecordSet]) -> None:
    """Raise InputError where TFDS could not name these records, or their folder holds another data set."""
    for records in sets:
        if not _FILE_NAME.fullmatch(records.path.name) or split_name(records.path) == "all":
            raise InputError(
                f"{records.path}: TFDS names a split by what stands before the first dot: letters, digits, "
                "_ and - were expected, and not all"
            )
        _read_info(records.path.parent / INFO)
    if len({(records.path.parent, split_name(records.path)) for records in sets}) < len(sets):
        raise InputError(f"{sets[0].path}: training and evaluation would be one split of TFDS")


def split_name(path: Path) -> str:
    """Return how TFDS calls the records of this name: `train` for train.tfrecord."""
    return path.name.partition(".")[0]


def write_tfds_metadata(sets: Sequence[RecordSet]) -> None:
    """Write both files into the folder of each set; splits that another run has written there stay listed."""
    for records in sets:
        folder = records.path.parent
        splits = [
            split
            for split in _read_info(folder / INFO)
            if split["name"] != split_name(records.path) and _is_there(split, folder)
        ]
        splits.append(
            {
                "name": split_name(records.path),
                "filepathTemplate": f"{records.path.name}-{{SHARD_X_OF_Y}}",
                "shardLengths": [str(shard["records"]) for shard in records.shards],
                "numBytes": str(sum(shard["bytes"] for shard in records.shards)),
            }
        )
        splits.sort(key=lambda split: str(split["name"]))
        info = {
            "name": DATASET, "version": VERSION, "description": "Photos of Open Images with their boxes.",
            "fileFormat": "tfrecord", "splits": splits,
        }  # fmt: skip
        for name, content in ((FEATURES, _features()), (INFO, info)):
            with open_output(folder / name) as stream:
                stream.write(json.dumps(content, indent=1).encode() + b"\n")


def _features() -> dict[str, Any]:
    from common.records.types import Work

    # A record without boxes: what has a value nonetheless is in every record once.
    empty = example_features(Work("", "", 0, [], []), b"", (0, 0), {}, {})
    features = {name: _feature(name) if values else _list(_feature(name)) for name, values in empty.items()}
    return {
        "pythonClassName": f"{_CLASSES}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _feature(name: str) -> dict[str, Any]:
    if name == "image/encoded":
        shape = {"dimensions": ["-1", "-1", "3"]}
        image = {"dtype": "uint8", "encodingFormat": "jpeg", "shape": shape}
        return {"pythonClassName": f"{_CLASSES}.image_feature.Image", "image": image}
    if feature_kind(name) == "bytes_list":
        return {"pythonClassName": f"{_CLASSES}.text_feature.Text", "text": {}}
    tensor = {"dtype": _TYPES[feature_kind(name)], "encoding": "none", "shape": {}}
    return {"pythonClassName": f"{_CLASSES}.scalar.Scalar", "tensor": tensor}


def _list(feature: dict[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_CLASSES}.sequence_feature.Sequence",
        "sequence": {"feature": feature, "length": "-1"},
    }


def _read_info(path: Path) -> list[dict[str, Any]]:
    """Return the splits that are listed already; InputError where the file is another data set's."""
    data = read_small(path)
    if data is None:
        return []
    try:
        info = json.loads(data)
        if info["name"] == DATASET:
            return [split for split in info["splits"] if isinstance(split["name"], str)]
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: not written by --tfds_metadata; give the records a folder of their own")


def _is_there(split: dict[str, Any], folder: Path) -> bool:
    """Tell whether the first file of a split that another run has listed is still there."""
    number = len(split.get("shardLengths", ()))
    name = str(split.get("filepathTemplate")).replace("{SHARD_X_OF_Y}", f"{0:05d}-of-{number:05d}")
    return status(folder / name) is not None
