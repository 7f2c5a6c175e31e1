"""The class hierarchy of V4 and later: the ancestors and descendants of each class.

As in the official expansion only `Subcategory` is followed, not `Part`, and the root is left out. A class can
have several parents and reach an ancestor in two ways; each ancestor counts once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.whole_files import open_input

ROOT = "/m/0bl9f"


def read_ancestors(path: str | Path) -> dict[str, set[str]]:
    """Return the ancestors of each class of the official hierarchy JSON, without the root."""
    with open_input(path) as stream:
        try:
            tree = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({error}), the class hierarchy was expected") from None
    ancestors: dict[str, set[str]] = {}
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]  # nodes, each with its ancestors
    while waiting:
        node, above = waiting.pop()
        if not isinstance(node, dict) or not isinstance(node.get("LabelName"), str):
            raise InputError(f"{path}: {json.dumps(node)[:80]}, an object with LabelName was expected")
        mid, children = node["LabelName"], node.get("Subcategory", [])
        if not isinstance(children, list):
            raise InputError(f"{path}: Subcategory of {mid} is not an array")
        ancestors.setdefault(mid, set()).update(above)
        below = above if mid == ROOT else above | {mid}
        waiting.extend((child, below) for child in children)
    ancestors.pop(ROOT, None)
    return ancestors


def descendants(ancestors: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the descendants of each class, given the ancestors of each."""
    below: dict[str, set[str]] = {}
    for mid, above in ancestors.items():
        for ancestor in above:
            below.setdefault(ancestor, set()).add(mid)
    return below
