"""The class hierarchy of V4 and later: which classes are kinds of which.

Follows `Subcategory` alone, since parts are no kinds, and leaves the root out, as the official expansion
does. A class can stand in several places and so have an ancestor twice; sets take it once.
"""

import json
from pathlib import Path
from typing import Any

from common.cli import InputError
from common.files.whole_files import open_input

ROOT = "/m/0bl9f"


def read_ancestors(path: str | Path) -> dict[str, set[str]]:
    """Return the ancestors of each class of the official hierarchy JSON, the root left out."""
    with open_input(path) as stream:
        try:
            tree = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({error}), the class hierarchy was expected") from None
    ancestors: dict[str, set[str]] = {}
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]  # nodes, and what is above each
    while waiting:
        node, above = waiting.pop()
        if not isinstance(node, dict) or not isinstance(node.get("LabelName"), str):
            raise InputError(f"{path}: {json.dumps(node)[:80]}, an object with LabelName was expected")
        mid = node["LabelName"]
        ancestors.setdefault(mid, set()).update(above)
        children = node.get("Subcategory", [])
        if not isinstance(children, list):
            raise InputError(f"{path}: Subcategory of {mid} is no array")
        below = above if mid == ROOT else above | {mid}
        waiting.extend((child, below) for child in children)
    ancestors.pop(ROOT, None)
    return ancestors


def descendants(ancestors: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the descendants of each class, from the ancestors of each."""
    below: dict[str, set[str]] = {}
    for mid, above in ancestors.items():
        for ancestor in above:
            below.setdefault(ancestor, set()).add(mid)
    return below
