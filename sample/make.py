r"""Make a small Open Images release: metadata in the official formats, and drawn images.

    python3 -m sample.make --directory demo/sample

Writes to DIR:
    release/                  the target of OPEN_IMAGES_URL: the files of V2 to V7, under the official paths
    mirror/SPLIT/ID.jpg       the images of the mirror, at most 1024 pixels wide and high
    photos/ID_o.jpg, ID_z.jpg the originals and thumbnails; an empty file is an image that is gone
    truth.json                "images", one a line: the drawn objects, their boxes and their exact masks, the
                              masks that are published, the fault of the file, and the result to expect of
                              each step
    settings.json             the settings of the sample; written last

60 images are 9 MB and take two seconds. Above 300 images the scenes repeat under new ids, as hard links:
50,000 images are 310 MB and take half a minute. The same seed, number and originals_url give the same bytes
(of images: with the same version of Pillow). A second run does nothing; with other settings it replaces the
sample in DIR. `plan.py` lists the faults.
"""

import base64
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL
from PIL import Image, ImageDraw

from common.cli import InputError, make_parser, print_counts, run, whole_number
from common.files.whole_files import locked_folder
from sample import masks, release, scenes
from sample.classes import BY_LABEL, DRAWN
from sample.plan import Plan, plans

IMAGES = 60
SEED = 1
ORIGINALS_URL = "http://127.0.0.1:8652"
QUALITY = 88  # of the originals' JPEG
MIRROR_QUALITY = 80
MIRROR_SIDE = 1024  # pixels, the longer side
THUMBNAIL_SIDE = 640
EXIF_ORIENTATION = 0x0112
QUARTER_TURN = 6  # an orientation that viewers turn by 90 degrees; the steps must not
PLACEHOLDERS = ("photo_unavailable.png", "photo_unavailable_l.png")
PLACEHOLDER_FOLDER = "pw/images/en-us"
FOLDERS = ("release", "mirror", "photos")
OURS = {*FOLDERS, "truth.json", "settings.json", ".lock", ".lock.owner"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--directory", required=True, metavar="DIR", help="folder for the sample")
    parser.add_argument(
        "--images", type=whole_number(1), default=IMAGES, help="number of images (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=SEED, help="default: %(default)s")
    parser.add_argument(
        "--originals_url", default=ORIGINALS_URL, metavar="URL",
        help="address of the photos/ folder for the image index; sample.serve changes it if the port is in "
        "use (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    settings = {
        "images": args.images,
        "seed": args.seed,
        "originals_url": args.originals_url.rstrip("/"),
        "pillow": PIL.__version__,
        "code": code_hash(),
    }
    with locked_folder(args.directory) as directory:
        if not is_made(directory, settings):
            clear(directory)
            make(directory, settings)
    print_counts({"images": args.images, "seed": args.seed}, went_out=["images"], line_only=["seed"])


def code_hash() -> str:
    """Return a hash of this package, so that a sample of an older version is replaced."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def is_made(directory: Path, settings: dict[str, Any]) -> bool:
    """Return whether the folder holds a sample with these settings, at any address."""
    try:
        found = json.loads((directory / "settings.json").read_text("utf-8"))
    except FileNotFoundError:
        return False
    return {**found, "originals_url": ""} == {**settings, "originals_url": ""}


def clear(directory: Path) -> None:
    """Remove an older sample; refuse a folder that holds anything else."""
    strange = [path.name for path in directory.iterdir() if path.name not in OURS]
    if strange:
        raise InputError(f"{directory}: holds {strange[0]}, an empty folder or an older sample was expected")
    (directory / "settings.json").unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(directory / name, ignore_errors=True)


def make(directory: Path, settings: dict[str, Any]) -> None:
    """Draw and write everything to an empty folder."""
    pngs: dict[str, bytes] = {}
    images = list(make_images(directory, settings["images"], settings["seed"], pngs))
    write_placeholders(directory / "photos" / PLACEHOLDER_FOLDER)
    write_truth(directory, images)
    masks.write(directory / "release/v5", images, release.SPLITS, pngs)
    write_release(directory, images, settings)


def write_release(directory: Path, images: Sequence[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write release/ but for the masks, for the originals_url in `settings`, and the settings."""
    release.write(directory / "release", images, settings["originals_url"])
    (directory / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def write_truth(directory: Path, images: Sequence[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(image, ensure_ascii=False) for image in images)
    (directory / "truth.json").write_text(f'{{"images": [\n{lines}\n]}}\n', "utf-8")


def read_truth(directory: Path) -> list[dict[str, Any]]:
    """Return the images of a sample's truth.json."""
    images: list[dict[str, Any]] = json.loads((directory / "truth.json").read_text("utf-8"))["images"]
    return images


def make_images(directory: Path, images: int, seed: int, pngs: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """Write the files of each image and yield its entry of truth.json; add its masks to `pngs`, by box id."""
    (directory / "photos").mkdir(parents=True)
    for split in release.SPLITS:
        (directory / "mirror" / split).mkdir(parents=True)
    first: dict[str, dict[str, Any]] = {}  # by scene
    for plan in plans(images, seed):
        paths = image_paths(directory, plan)
        if plan.scene not in first:
            entry = first[plan.scene] = make_image(plan, paths, pngs)
        else:
            model = first[plan.scene]
            entry = {**model, "id": plan.id}
            link_image(image_paths(directory, replace(plan, id=model["id"])), paths)
        yield entry


def image_paths(directory: Path, plan: Plan) -> dict[str, Path]:
    """Return the path of an image at each source."""
    return {
        "original": directory / "photos" / f"{plan.id}_o.jpg",
        "thumbnail": directory / "photos" / f"{plan.id}_z.jpg",
        "mirror": directory / "mirror" / plan.subset / f"{plan.id}.jpg",
    }


def link_image(existing: dict[str, Path], new: dict[str, Path]) -> None:
    for name, path in existing.items():
        if path.exists():
            os.link(path, new[name])


def make_image(plan: Plan, paths: dict[str, Path], pngs: dict[str, bytes]) -> dict[str, Any]:
    """Draw one image, write its files for each source, and return its entry of truth.json."""
    kinds = [one for one in DRAWN if one.trainable == (plan.fault != "untrainable")]
    if plan.fault == "no_boxes":
        kinds = []
    image, boxes = scenes.draw(plan.scene, plan.degrees, tuple(kinds))
    original = encode(image, plan.fault, QUALITY)
    found = sources(plan)
    contents = {
        "original": other_image(plan) if plan.fault == "changed" else original,
        "mirror": encode(shrunk(image, MIRROR_SIDE), plan.fault, MIRROR_QUALITY),
        "thumbnail": encode(shrunk(image, THUMBNAIL_SIDE), plan.fault, MIRROR_QUALITY),
    }
    for name, path in paths.items():
        if found[name] != "gone":
            path.write_bytes(contents[name])
        elif name != "mirror" and plan.fault in ("gone", "original_gone"):
            path.touch()
    published = list(masks.publish(plan, boxes, image.width, image.height))
    pngs.update((mask["box_id"], png) for mask, png in published)
    outcome = found["mirror"] if found["mirror"] == "ok" else found["original"]
    processed = "truncated" if plan.fault == "truncated" else "ok"
    return {
        "id": plan.id,
        "subset": plan.subset,
        "fault": plan.fault,
        "width": image.width,
        "height": image.height,
        "rotation": plan.rotation,
        "thumbnail": plan.thumbnail,
        "indexed": plan.fault != "no_index_row",
        "size": len(original),
        "md5": base64.b64encode(hashlib.md5(original).digest()).decode(),
        "sources": found,
        "download": outcome,
        "process": processed if outcome == "ok" else "missing",
        "boxes": list(truth_boxes(plan, boxes)),
        "masks": [mask for mask, _ in published],
    }


def sources(plan: Plan) -> dict[str, str]:
    """Return the outcome at each source: ok, or the reason of the failure."""
    mirror = original = "ok"
    if plan.fault in ("gone", "not_found", "original_gone"):
        original = "gone"
    thumbnail = original if plan.thumbnail else "no_source"
    if plan.fault == "changed":
        original = "changed"
    if plan.fault in ("gone", "not_found", "changed", "not_mirrored", "no_boxes"):
        mirror = "gone"
    return {"mirror": mirror, "original": original, "thumbnail": thumbnail}


def truth_boxes(plan: Plan, boxes: Sequence[scenes.Box]) -> Iterator[dict[str, Any]]:
    """Yield each box with its colour, source and mask; boxes of activemil have unknown attributes."""
    for number, box in enumerate(boxes):
        source = ("xclick", "activemil")[number % 3 == 2] if plan.subset == "train" else "freeform"
        if source == "activemil":
            box = replace(box, occluded=-1, truncated=-1, group_of=-1, depiction=-1, inside=-1)
        assert box.mask
        mask = masks.rle(box.mask)
        yield {**box.as_dict(), "source": source, "colour": BY_LABEL[box.label].colour, "mask": mask}


def shrunk(image: Image.Image, side: int) -> Image.Image:
    smaller = image.copy()
    smaller.thumbnail((side, side), Image.Resampling.BICUBIC)
    return smaller


def other_image(plan: Plan) -> bytes:
    return encode(scenes.draw(f"{plan.scene} changed")[0], "", QUALITY)


def encode(image: Image.Image, fault: str, quality: int) -> bytes:
    """Return the image as a file, with its fault if that is one of the file."""
    stream = io.BytesIO()
    if fault == "png":
        image.save(stream, "PNG")
    elif fault == "exif":
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = QUARTER_TURN
        image.save(stream, "JPEG", quality=quality, exif=exif)
    else:
        mode = {"cmyk": "CMYK", "grey": "L"}.get(fault, "RGB")
        image.convert(mode).save(stream, "JPEG", quality=quality)
    data = stream.getvalue()
    return data[: len(data) * 2 // 3] if fault == "truncated" else data


def write_placeholders(directory: Path) -> None:
    """Write the image that Flickr shows in place of one that is gone."""
    image = Image.new("RGB", (500, 374), (243, 245, 246))
    ImageDraw.Draw(image).text(
        (250, 187), "This photo is no longer available", fill=(90, 90, 90), anchor="mm"
    )
    directory.mkdir(parents=True)
    for name in PLACEHOLDERS:
        image.save(directory / name)


if __name__ == "__main__":
    run(main)
