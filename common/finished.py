"""Which photos of a folder are finished: whole, made from the same original with the same settings.

Photos carry no settings, so their folder does, in `process_settings.json`. Beside it `.process_finished` has
a line for each finished photo: its original's size and time, and how it was turned. In place the original is
the photo itself.
"""

import json
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.cli import InputError
from common.files import drop_cut_line, open_output, read_lines

SETTINGS_NAME = "process_settings.json"
_STAMP = re.compile(r"([A-Za-z0-9._-]+) ([0-9]{1,19}) (-?[0-9]{1,20}) ([0-9]{1,3})")


def make_stamp(image_id: str, path: Path, turn: int) -> str:
    """Return what a photo is made from: its original's size and time, and its turn; "" without one."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{image_id} {status.st_size} {status.st_mtime_ns} {turn}"


class FinishedImages:
    """The stamps of a locked folder's finished photos; other settings than the folder's are refused."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
        self.journal = folder / ".process_finished"
        self.known: dict[str, int] = {}  # id -> the rest of its stamp in one number, to save room
        path = folder / SETTINGS_NAME
        before = _read_settings(path)
        if before is not None and before != settings and not overwrite:
            raise InputError(
                f"{path}: the photos in this folder were made with {_differences(before, settings)}; "
                "--overwrite makes them anew"
            )
        if before != settings:
            self.journal.unlink(missing_ok=True)
            with open_output(path) as stream:
                stream.write(json.dumps(settings, indent=2).encode() + b"\n")
        if self.journal.exists():
            drop_cut_line(self.journal)
            for line, text in read_lines(self.journal):
                match = _STAMP.fullmatch(text.rstrip("\n"))
                if not match:
                    raise InputError(
                        f"{self.journal}:{line}: {text[:80]!r}, id, size, time and turn were expected"
                    )
                self.known[match[1]] = _number(match)

    def __enter__(self) -> Self:
        self.stream = open(self.journal, "ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def has(self, stamp: str) -> bool:
        """Tell whether the photo with this stamp is finished; each id is asked for once, then forgotten."""
        match = _STAMP.fullmatch(stamp)
        # Whoever counts ids meanwhile needs the room.
        return match is not None and self.known.pop(match[1], None) == _number(match)

    def add(self, stamps: list[str]) -> None:
        """Note finished photos, in one write."""
        self.stream.write("".join(f"{stamp}\n" for stamp in stamps).encode())


def _number(match: re.Match[str]) -> int:
    return (int(match[3]) << 64 | int(match[2])) << 9 | int(match[4])


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not the settings of a folder of photos; remove it to make them anew")
    return settings


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return what differs, as `max_side 256, not 512`."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)}, not {after.get(name)}" for name in names)
