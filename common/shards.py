"""Files of records that belong together, and the manifest that says what they were made from."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.cli import say
from common.files import open_output


def shard_paths(path: Path, number: int | None) -> list[Path]:
    """Return the paths NAME-00000-of-00010 and so on, or `path` itself where no number is given."""
    if number is None:
        return [path]
    return [path.with_name(f"{path.name}-{index:05d}-of-{number:05d}") for index in range(number)]


def read_manifest(path: Path, inputs: str) -> dict[str, dict[str, Any]]:
    """Return the finished files of a run on the same inputs, by name."""
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["inputs"] != inputs:
            return {}
        shards = {shard["file"]: shard for shard in manifest["shards"]}
        return {
            name: shard
            for name, shard in shards.items()
            if (file := path.with_name(name)).is_file() and file.stat().st_size == shard["bytes"]
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        say(f"{path}: no manifest of ours, the records are made anew")
        return {}


def write_manifest(path: Path, inputs: str, shards: dict[str, dict[str, Any]]) -> None:
    """Write the hash of what the records are made from, and the files that are finished."""
    manifest = {"inputs": inputs, "shards": [shards[name] for name in sorted(shards)]}
    with open_output(path) as stream:
        stream.write(json.dumps(manifest, indent=1).encode() + b"\n")


def remove_older(path: Path, kept: Sequence[Path]) -> None:
    """Remove the shards of this name that are not of the set just finished."""
    shard = re.compile(re.escape(path.name) + r"(-[0-9]{5}-of-[0-9]{5})?")
    for file in path.parent.iterdir():
        if shard.fullmatch(file.name) and file not in kept:
            file.unlink()
