"""Step 5's masks: rates a core, and the shares of reading, decoding, resizing and encoding.

    .venv/bin/python -m benchmarks.masks

The masks are 1-bit PNGs in a zip, of the official ones' widths and heights: random blobs in random boxes.
For each size of the images they go through `make_mask`, as in a worker, and then through its four parts one
by one. Times are CPU times of one core, the best of --rounds. Half a minute.
"""

import argparse
import io
import os
import random
import tempfile
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.tables import print_head, print_row
from common.images.masks import decode_mask, encode_mask, find_mask_files, fit_mask, make_mask
from common.images.settings import plan_fit

SIZES = ((1600, 1200), (1600, 1066), (1280, 960), (1024, 768), (800, 600), (720, 540))  # of official masks
SIDES = (256, 512, 1024)  # --max_side
PARTS = ("read", "decode", "resize", "encode")


def blob(size: tuple[int, int], rng: random.Random) -> bytes:
    """Return a mask whose outline is a disc with bays, in a random box."""
    sides = [side * rng.uniform(0.1, 0.9) for side in size]
    centre = [rng.uniform(part / 2, side - part / 2) for part, side in zip(sides, size, strict=True)]
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    bays = sum(rng.uniform(0, 0.15) * np.sin(angles * n + rng.uniform(0, 6)) for n in (2, 3, 5, 9))
    radius = 0.4 + bays / 3
    x = centre[0] + sides[0] * radius * np.cos(angles)
    y = centre[1] + sides[1] * radius * np.sin(angles)
    image = Image.new("1", size)
    ImageDraw.Draw(image).polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=1)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_masks(folder: Path, number: int) -> dict[str, tuple[int, int]]:
    """Write a zip of masks; return the name and size of each."""
    rng = random.Random(1)
    sizes = {f"a{n:015x}_m01yrx_{n:08x}.png": SIZES[n % len(SIZES)] for n in range(number)}
    with zipfile.ZipFile(folder / "train-masks-a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, size in sizes.items():
            file.writestr(name, blob(size, rng))
    return sizes


def measure(folder: Path, masks: dict[str, tuple[int, int]], side: int) -> list[float]:
    """Return the CPU seconds of `make_mask` over all masks, then those of each of its parts."""
    files = find_mask_files(folder)
    seconds = [0.0] * (1 + len(PARTS))
    for name, size in masks.items():
        fit = plan_fit(size, "longer", side)
        times = [time.process_time()]
        made = make_mask(files, name[:16], name, size, fit, 0)
        times.append(time.process_time())
        data = files.read(name[:16], name)
        assert data
        times.append(time.process_time())
        image = decode_mask(data)
        times.append(time.process_time())
        pixels = fit_mask(image, fit, 0)
        times.append(time.process_time())
        counts = encode_mask(pixels)
        times.append(time.process_time())
        assert made.counts == counts
        for place, (before, after) in enumerate(pairwise(times)):
            seconds[place] += after - before
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--masks", type=int, default=600, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        masks = write_masks(folder, args.masks)
        size = (folder / "train-masks-a.zip").stat().st_size / len(masks)
        print(f"{len(masks)} masks, {size:,.0f} bytes each in the zip; load {os.getloadavg()[0]:.1f}\n")
        print_head("longer side", "masks a second and core", *(f"{part}, %" for part in PARTS))
        measure(folder, dict(list(masks.items())[:20]), SIDES[0])  # imports
        for side in SIDES:
            whole, *parts = map(
                min, zip(*(measure(folder, masks, side) for _ in range(args.rounds)), strict=True)
            )
            shares = (f"{100 * part / sum(parts):.0f}" for part in parts)
            print_row(side, f"{len(masks) / whole:,.0f}", *shares)


if __name__ == "__main__":
    main()
