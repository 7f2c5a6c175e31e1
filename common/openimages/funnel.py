"""The funnel from rows to records: the numbers that each step leaves beside its output, and what it lost.

A step writes the stages that it knows: its own, and those that it found beside its inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from common.cli import say, say_table
from common.files.places import parse_path, read_small, replace_file, status

DOWNLOAD_NAME = "download_counts.json"  # in the folder of images


@dataclass(frozen=True)
class Stage:
    """A number that a step came to, and by reason what it lost on the way."""

    step: int
    name: str  # rows or kept boxes; or of images: images, downloaded, verified, records
    came_in: int
    went_out: int
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def is_boxes(self) -> bool:
        """Report whether the numbers are of boxes, not of images."""
        return self.name in ("rows", "kept boxes")


def lost_of(counts: Mapping[str, int], reasons: Iterable[str]) -> dict[str, int]:
    """Return the counts of these reasons that are not 0, the largest first."""
    found = {reason: counts[reason] for reason in reasons if counts.get(reason)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def counts_path(output: str | Path) -> Path:
    """Return the path of the counts of an output: beside it, NAME.counts.json."""
    place = parse_path(output)
    return place.with_name(f"{place.name}.counts.json")


def write_stages(path: Path, stages: Sequence[Stage], output: str | Path | None = None) -> None:
    """Write the stages, complete or not at all, with the size of the output, by which it is known later."""
    found = status(parse_path(output)) if output else None
    content = {"bytes": found.size if found else None, "stages": list(map(asdict, stages))}
    replace_file(path, json.dumps(content, indent=1).encode() + b"\n")


def read_stages(points: str | Path, images: Path) -> list[Stage]:
    """Return the stages beside datapoints and, of step 4, in a folder of images; none that do not belong."""
    place = parse_path(points)
    found = status(place)
    stages = _read(counts_path(place), found.size if found else None)
    if not any(stage.step == 4 for stage in stages):
        stages += _read(images / DOWNLOAD_NAME, None)
    return sorted(stages, key=lambda stage: stage.step)


def _read(path: Path, size: int | None) -> list[Stage]:
    """Return the stages in a file; none if it is missing, of an output of another size, or damaged."""
    data = read_small(path)
    try:
        content = json.loads(data) if data else {"bytes": None, "stages": []}
        return [Stage(**stage) for stage in content["stages"]] if content["bytes"] == size else []
    except (ValueError, KeyError, TypeError):
        say(f"{path}: not the counts of a step, they are left out")
        return []


def add_stage(stages: Sequence[Stage], last: Stage) -> list[Stage]:
    """Return the stages followed by that of a step that read datapoints.

    Those of another number of images are of other runs: they are dropped. What step 4 could not download is
    missing in the next step: it is listed once.
    """
    download = [stage for stage in stages[-1:] if stage.step == 4]
    before = stages[: len(stages) - len(download)]
    if before and before[-1].went_out != last.came_in:
        before = []
    download = [stage for stage in download if stage.came_in == last.came_in]
    for stage in download:
        missing = max(0, last.lost.get("missing", 0) - sum(stage.lost.values()))
        last = replace(last, lost=lost_of(last.lost | {"missing": missing}, last.lost))
    return [*before, *download, last]


def say_funnel(stages: Sequence[Stage]) -> None:
    """Print the funnel to stderr, if there is more than one stage."""
    if len(stages) > 1:
        say("From rows to records:" if stages[0].step == 3 else "From images to records:")
        say_table([(stage.name, stage.went_out, reasons(stage)) for stage in stages])


def reasons(stage: Stage) -> str:
    """Return what a stage lost, as text."""
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in stage.lost.items())
