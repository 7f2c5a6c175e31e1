"""Which images are for training and which for evaluation."""

import argparse
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.openimages.datapoints import Datapoint


@dataclass(frozen=True)
class Split:
    """The rule that keeps images out for evaluation: a share of them, those of a subset, or none."""

    fraction: float | None
    subset: str | None

    def is_for_evaluation(self, point: "Datapoint") -> bool:
        if self.fraction is not None:
            return in_fraction(point.id, self.fraction)
        return self.subset is not None and point.subset == self.subset


def in_fraction(image_id: str, fraction: float) -> bool:
    """Tell whether an image is in this share of all, by its id alone; a larger share holds the smaller."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8]) < fraction * 2**64


def share(text: str) -> float:
    """Return a number between 0 and 1: an argparse type."""
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1, such as 0.1")
    return float(text)
