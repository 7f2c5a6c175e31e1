"""Step 5 against what people use in its place: speed, memory, quality of the files, damage found.

    .venv/bin/pip install -r requirements-bench.txt
    .venv/bin/python -m benchmarks.images

Photographs: those that scikit-image and scikit-learn ship, as they are (400 to 1411 pixels), and pieces of
them set side by side, 1024x768 (the size of the mirror's photos) and 3000x2000 (an original's). Each way runs
in a process of its own, file to file, one core; rates are by CPU time, the best of --rounds interleaved
rounds. Quality is that of the saved files, against full decoding and Lanczos. Takes about five minutes.
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
from pathlib import Path

import cv2
import numpy as np
import skimage
import sklearn
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.image_rivals import FINDERS, QUALITY, SIDE, WAYS
from sample.damage import DAMAGES

ROOT = Path(__file__).resolve().parent.parent
TILE = (512, 384)
DAMAGED = 400  # files of each kind of damage


def photographs() -> list[Image.Image]:
    """Return the colour photographs that scikit-learn and scikit-image ship."""
    sk, learn = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"
    names = ("rocket.jpg", "coffee.png", "astronaut.png", "chelsea.png", "motorcycle_left.png", "retina.jpg")
    paths = [learn / "china.jpg", learn / "flower.jpg", *(sk / name for name in names)]
    return [Image.open(path).convert("RGB") for path in paths]


def mosaic(photos: list[Image.Image], size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return pieces of photographs set side by side, most of them pixel for pixel."""
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
    """Run one way over all photos in this process; return photos a second and peak memory in MB."""
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


def peak_memory(pid: int) -> float:
    """Return the most memory in MB that a process has held; getrusage counts its parent's before exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measure(sets: dict[str, list[Path]], folder: Path, rounds: int) -> None:
    """Print the table of each set."""
    for name, paths in sets.items():
        best: dict[str, dict[str, float]] = {}
        for _ in range(rounds):
            for way in WAYS:
                out = folder / "out" / name / way.replace("/", " ")
                out.parent.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, "-m", "benchmarks.images", "--way", way, "--into", str(out)]
                done = subprocess.run(
                    [*command, *map(str, paths)], stdout=subprocess.PIPE, check=True, cwd=ROOT
                )
                result = json.loads(done.stdout)
                if way not in best or result["rate"] > best[way]["rate"]:
                    best[way] = result
        print(f"\n### {name}, {len(paths)} photographs\n")
        print("| way | photos/s | x usual | PSNR dB | SSIM | bytes | peak MB |")
        print("| --- |" + " ---: |" * 6)
        for way, result in best.items():
            made = [folder / "out" / name / way.replace("/", " ") / path.name for path in paths]
            speed = f"{result['rate']:.0f} | {result['rate'] / best[next(iter(WAYS))]['rate']:.2f}"
            print(f"| {way} | {speed} | {quality(paths, made)} | {result['peak']:.0f} |", flush=True)


def quality(paths: list[Path], made: list[Path]) -> str:
    """Return mean PSNR, SSIM and bytes of saved files, against full decoding and Lanczos."""
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


# --- the script itself ---------------------------------------------------------------------------


def measure_script(paths: list[Path], folder: Path, photos: int, cores: int) -> None:
    """Print rates of the whole script by number of workers, and of a second run."""
    (folder / "many").mkdir()
    points = [{"id": f"{number:08}", "annotations": []} for number in range(photos)]
    (folder / "many.json").write_text(json.dumps(points))
    for number in range(photos):
        os.link(paths[number % len(paths)], folder / "many" / f"{number:08}.jpg")
    print(f"\n### The script, {photos} photographs of 1024x768, start-up included\n")
    print("| run | photos/s | x one worker | peak MB, all processes |\n| --- | ---: | ---: | ---: |")
    one = 0.0
    for workers in range(1, cores + 1):
        rate, peak = run_script(folder, photos, workers, f"small{workers}")
        one = one or rate
        print(f"| --workers {workers} | {rate:.0f} | {rate / one:.2f} | {peak:.0f} |", flush=True)
    rate, peak = run_script(folder, photos, cores, "small1")
    print(f"| again, nothing left to do | {rate:.0f} | {rate / one:.2f} | {peak:.0f} |")


def run_script(folder: Path, photos: int, workers: int, into: str) -> tuple[float, float]:
    """Return photos a second, and the most memory in MB that the script and its workers held."""
    start = time.monotonic()
    script = subprocess.Popen(
        [
            sys.executable, "process_images.py", "--image_directory", folder / "many",
            "--image_saving_directory", folder / into, "--datapoints_input_path", folder / "many.json",
            "--datapoints_output_path", folder / "out.json", "--workers", str(workers),
        ],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    peaks: dict[int, float] = {}
    while script.poll() is None:
        children = Path(f"/proc/{script.pid}/task/{script.pid}/children")
        pids = [script.pid, *(map(int, children.read_text().split()) if children.exists() else ())]
        peaks |= {pid: max(peaks.get(pid, 0), peak_memory(pid)) for pid in pids}
        time.sleep(0.05)
    assert script.returncode == 0
    return photos / (time.monotonic() - start), sum(peaks.values())


# --- damage --------------------------------------------------------------------------------------


def measure_damage(paths: list[Path]) -> None:
    """Print how many percent of damaged files each decoder refuses, baseline and progressive."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    photos = [Image.open(path).convert("RGB") for path in paths[:20]]
    print(f"\n### Damaged files found, percent of {DAMAGED} each, baseline / progressive, 1024x768\n")
    print(f"| damage | {' | '.join(FINDERS)} |\n| --- |{' ---: |' * len(FINDERS)}")
    whole = {
        progressive: [jpeg(photo, progressive=progressive) for photo in photos]
        for progressive in (False, True)
    }
    for name, damage in DAMAGES.items():
        cells = []
        for finds in FINDERS.values():
            shares = []
            for files in whole.values():
                rng = random.Random(7)
                found = sum(finds(damage(files[n % len(files)], rng)) for n in range(DAMAGED))
                shares.append(f"{100 * found / DAMAGED:g}")
            cells.append(" / ".join(shares))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--photos", type=int, default=2000, help="for the whole script (default: %(default)s)"
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
        measure_damage(sets["1024x768"])
        measure(sets, folder, args.rounds)
        measure_script(sets["1024x768"], folder, args.photos, cores)


if __name__ == "__main__":
    main()
