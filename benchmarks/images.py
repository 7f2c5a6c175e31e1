"""Step 5 compared with what people use instead: speed, memory, quality of the files, damage found.

    .venv/bin/pip install -r requirements-bench.txt
    .venv/bin/python -m benchmarks.images

The images are photographs that scikit-image and scikit-learn ship, unchanged (400 to 1411 pixels), and
mosaics of them: 1024x768 and 1024x683 (sizes of the mirror) and 3000x2000 (an original). Each way runs in a
process of its own, file to file, on one core; rates are by CPU time, the best of --rounds interleaved
rounds. Quality is that of the saved files, compared with full decoding and Lanczos. Then the script itself:
rates by workers, the cost of passing tasks, and a second run over 300,000 finished images (--files; 1 GB
of disk for the copies). About twelve minutes.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import skimage
import sklearn
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.image_rivals import FINDERS, QUALITY, SIDE, WAYS, ours_finds
from benchmarks.image_script import measure_again, measure_script, peak_memory
from benchmarks.jpeg_bits import WHYS, why_missed
from benchmarks.tables import print_in_short
from sample.damage import DAMAGES

ROOT = Path(__file__).resolve().parent.parent
TILE = (512, 384)
DAMAGED = 200  # files of each kind of damage, quality and process
EXPLAINED = 32  # of the missed files: each takes a fifth of a second
QUALITIES = (75, 85, 92)  # more bits a block change what can be detected


def photographs() -> list[Image.Image]:
    """Return the colour photographs that scikit-learn and scikit-image ship."""
    sk, learn = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"
    names = ("rocket.jpg", "coffee.png", "astronaut.png", "chelsea.png", "motorcycle_left.png", "retina.jpg")
    paths = [learn / "china.jpg", learn / "flower.jpg", *(sk / name for name in names)]
    return [Image.open(path).convert("RGB") for path in paths]


def mosaic(photos: list[Image.Image], size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return a mosaic of pieces of photographs, most of them unscaled."""
    image = Image.new("RGB", size)
    for y in range(0, size[1], TILE[1]):
        for x in range(0, size[0], TILE[0]):
            photo = rng.choice(photos)
            width, height = min(TILE[0], photo.width), min(TILE[1], photo.height)
            left, top = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
            image.paste(photo.crop((left, top, left + width, top + height)).resize(TILE), (x, y))
    return image


def jpeg(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 92, **options})
    return stream.getvalue()


def make_sets(folder: Path) -> dict[str, list[Path]]:
    """Write the photographs' files, by set."""
    photos, rng = photographs(), random.Random(1)
    sets = {
        "as shipped": photos,
        "1024x768": [mosaic(photos, (1024, 768), rng) for _ in range(24)],
        "1024x683": [mosaic(photos, (1024, 683), rng) for _ in range(12)],
        "3000x2000": [mosaic(photos, (3000, 2000), rng) for _ in range(6)],
    }
    paths: dict[str, list[Path]] = {}
    for name, images in sets.items():
        (folder / name).mkdir()
        paths[name] = [folder / name / f"{number}.jpg" for number in range(len(images))]
        for path, image in zip(paths[name], images, strict=True):
            path.write_bytes(jpeg(image))
    return paths


# --- speed and quality ----------------------------------------------------------------------------


def run_way(name: str, paths: list[Path], folder: Path) -> dict[str, float]:
    """Run one way over all images in this process; return images a second and peak memory in MB."""
    cv2.setNumThreads(1)
    folder.mkdir(exist_ok=True)
    WAYS[name](paths[0], folder / "warm.jpg")
    (folder / "warm.jpg").unlink(missing_ok=True)
    times = []
    for _ in range(3):
        for path in folder.iterdir():
            path.unlink()  # replacing a file costs more than making one
        start = time.process_time()
        for path in paths:
            WAYS[name](path, folder / path.name)
        times.append(time.process_time() - start)
    return {"rate": len(paths) / min(times), "peak": peak_memory(os.getpid())}


def measure(sets: dict[str, list[Path]], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Print the table of each set; return the images a second of each way, by set."""
    rates: dict[str, dict[str, float]] = {}
    for name, paths in sets.items():
        best: dict[str, dict[str, float]] = {}
        for _ in range(rounds):
            for way in WAYS:
                out = folder / "out" / name / way.replace("/", " ")
                out.parent.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, "-m", "benchmarks.images", "--way", way, "--into", str(out)]
                done = subprocess.run(
                    [*command, *map(str, paths)], stdout=subprocess.PIPE, check=True, cwd=ROOT,
                    env={**os.environ, "VIPS_CONCURRENCY": "1"},
                )  # fmt: skip
                result = json.loads(done.stdout)
                if way not in best or result["rate"] > best[way]["rate"]:
                    best[way] = result
        rates[name] = {way: result["rate"] for way, result in best.items()}
        print(f"\n### {name}, {len(paths)} images\n")
        print("| way | images/s | x usual | PSNR dB | SSIM | bytes | peak MB |")
        print("| --- |" + " ---: |" * 6)
        for way, result in best.items():
            made = [folder / "out" / name / way.replace("/", " ") / path.name for path in paths]
            speed = f"{result['rate']:.0f} | {result['rate'] / best[next(iter(WAYS))]['rate']:.2f}"
            print(f"| {way} | {speed} | {quality(paths, made)} | {result['peak']:.0f} |", flush=True)
    return rates


def print_figures(rates: dict[str, dict[str, float]]) -> None:
    """Print the summary: our rate, with and without --precise, and the others."""
    usual, limit = "usual script (verify, thumbnail)", "limit: strict decode to 1/8 grey"
    shown = {
        ("1024x768", "process_images.py"): (usual, "libvips", limit),
        ("3000x2000", "process_images.py"): (usual,),
    }
    print_in_short([
        (f"{way}, images of {name} a second and core", rates[name][way],
         [(rival, rates[name][rival]) for rival in rates[name] if rival.startswith(names)])
        for (name, way), names in shown.items()
    ])  # fmt: skip


def quality(paths: list[Path], made: list[Path]) -> str:
    """Return mean PSNR, SSIM and bytes of saved files, compared with full decoding and Lanczos."""
    if not made[0].exists():
        return "- | - | -"
    psnr, ssim = [], []
    for path, small in zip(paths, made, strict=True):
        with Image.open(path) as image, Image.open(small) as seen:
            expected = np.asarray(image.convert("RGB").resize(seen.size, Image.Resampling.LANCZOS))
            got = np.asarray(seen.convert("RGB"))
            psnr.append(peak_signal_noise_ratio(expected, got))
            ssim.append(structural_similarity(expected, got, channel_axis=2))
    size_on_disk = np.mean([path.stat().st_size for path in made])
    return f"{np.mean(psnr):.2f} | {np.mean(ssim):.4f} | {size_on_disk:.0f}"


# --- damage --------------------------------------------------------------------------------------


def measure_damage(paths: list[Path]) -> None:
    """Print the percentage of damaged files that each decoder refuses, baseline and progressive."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    photos = [Image.open(path).convert("RGB") for path in paths[:20]]
    print(f"\n### Damaged files found, percent of {DAMAGED} each, baseline / progressive, 1024x768\n")
    print(f"| damage | quality | {' | '.join(FINDERS)} |\n| --- |{' ---: |' * (1 + len(FINDERS))}")
    total: dict[tuple[str, str], int] = {}
    reasons: list[str] = []
    for quality in QUALITIES:
        baseline, progressive = (
            [jpeg(photo, quality=quality, progressive=progressive) for photo in photos]
            for progressive in (False, True)
        )
        for name in DAMAGES:
            cells = []
            for finder, finds in FINDERS.items():
                found = [sum(map(finds, damaged(files, name))) for files in (baseline, progressive)]
                total[name, finder] = total.get((name, finder), 0) + sum(found)
                cells.append(" / ".join(f"{100 * number / DAMAGED:g}" for number in found))
            print(f"| {name} | {quality} | {' | '.join(cells)} |", flush=True)
            missed = [data for data in damaged(baseline, name) if not ours_finds(data)]
            reasons.append(f"| {name} | {quality} | {len(missed)} |{shares(missed)}")
    every = 2 * len(QUALITIES) * DAMAGED
    for name in DAMAGES:
        cells = [f"{100 * total[name, finder] / every:.1f}" for finder in FINDERS]
        print(f"| {name} | all {every} | {' | '.join(cells)} |", flush=True)
    print("\n### Damaged baseline files that process_images.py missed, and why, percent\n")
    print(f"| damage | quality | missed | {' | '.join(WHYS)} |\n| --- |{' ---: |' * (2 + len(WHYS))}")
    print("\n".join(reasons), flush=True)


def damaged(files: list[bytes], name: str) -> Iterator[bytes]:
    """Yield DAMAGED damaged files, the same ones each time."""
    rng = random.Random(7)
    return (DAMAGES[name](files[n % len(files)], rng) for n in range(DAMAGED))


def shares(missed: list[bytes]) -> str:
    """Return the percentage of these files, or of the first EXPLAINED, missed for each reason."""
    found = [why_missed(data) for data in missed[:EXPLAINED]]
    return " ".join(f" {100 * found.count(why) / max(len(found), 1):.0f} |" for why in WHYS)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what C code writes to stderr: OpenCV's libjpeg prints a line for each damaged file."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--photos", type=int, default=2000, help="for the whole script (default: %(default)s)"
    )
    parser.add_argument(
        "--files", type=int, default=300_000, help="for the second run (default: %(default)s)"
    )
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(run_way(args.way, args.paths, args.into)))
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}; to a longer side of {SIDE}, JPEG quality {QUALITY}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = make_sets(folder)
        with quiet_stderr():
            measure_damage(sets["1024x768"])
        rates = measure(sets, folder, args.rounds)
        measure_script(sets["1024x768"], folder, args.photos, cores, args.rounds)
        measure_again(folder, args.files, jpeg(Image.new("RGB", (32, 24), "navy")), cores)
    print_figures(rates)


if __name__ == "__main__":
    main()
