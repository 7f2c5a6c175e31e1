"""One image in, one RGB JPEG out: colours, formats, sizes, and images that cannot be used."""

import io
import struct
import subprocess
import sys
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageDraw

from common.files.failures import Failure
from common.images import process as process_module
from common.images.settings import ImageSettings, plan_fit
from common.images.tasks import ImageResult, ImageTask, process_batch
from tests.conftest import ROOT
from tests.support.exif import as_stored
from tests.support.icc_profiles import (
    cmyk_as_srgb,
    cmyk_profile,
    grey_as_srgb,
    grey_profile,
    rgb_as_srgb,
    rgb_profile,
)

RED, GREEN, BLUE, WHITE, BLACK = (220, 30, 40), (20, 160, 60), (30, 50, 210), (255, 255, 255), (0, 0, 0)


def quarters(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return red, green, blue and white quarters."""
    image = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(image)
    width, height = size
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=RED)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    draw.rectangle((0, height // 2, width // 2 - 1, height), fill=BLUE)
    return image if mode == "RGB" else image.convert(mode)


def saved(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def process(folder, target, **options) -> ImageResult | Failure:
    """Process the image one.jpg in a folder."""
    (result,) = process_batch([ImageTask("one", "one.jpg")], folder, target, ImageSettings(**options))
    return result


def processed(tmp_path, data: bytes, **options) -> Image.Image:
    """Return the image that these bytes become, an RGB JPEG in any case."""
    (tmp_path / "one.jpg").write_bytes(data)
    (tmp_path / "out").mkdir(exist_ok=True)
    assert isinstance(process(tmp_path, tmp_path / "out", **options), ImageResult)
    image = Image.open(tmp_path / "out" / "one.jpg")
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert "exif" not in image.info or image.getexif().get(0x0112, 1) == 1
    image.load()
    return image


def corners(image: Image.Image) -> list[Any]:
    """Return the colour in the middle of each quarter, row by row."""
    width, height = image.size
    return [image.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]


def close(seen, expected, tolerance: int) -> bool:
    pairs = zip(seen, expected, strict=True)
    return all(abs(a - b) <= tolerance for one, two in pairs for a, b in zip(one, two, strict=True))


def see_through() -> Image.Image:
    """Return the quarters, the red one fully transparent and the green one half."""
    image = quarters("RGBA")
    alpha = Image.new("L", image.size, 255)
    ImageDraw.Draw(alpha).rectangle((0, 0, 31, 23), fill=0)
    ImageDraw.Draw(alpha).rectangle((32, 0, 63, 23), fill=128)
    image.putalpha(alpha)
    return image


def sixteen_bit() -> Image.Image:
    image = Image.new("I;16", (64, 48))
    image.putdata([(x * 1024) for _ in range(48) for x in range(64)])
    return image


def sixteen_bit_big_endian() -> Image.Image:
    return Image.frombytes("I;16B", (64, 48), sixteen_bit().tobytes("raw", "I;16B"))


def png_with_16_bits_a_channel() -> bytes:
    """Return the quarters as a PNG of 48 bits a pixel, which Pillow reads and does not write."""
    rows = np.asarray(quarters()).astype(">u2") * 257
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    chunks = (b"IHDR" + struct.pack(">2I5B", 64, 48, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(data), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def transparent_palette() -> bytes:
    image = quarters().quantize(8)
    return saved(image, "PNG", transparency=image.getpixel((5, 5)))


def greys(*values: int) -> list[tuple[int, int, int]]:
    return [(value,) * 3 for value in values]


COLOURS = [RED, GREEN, BLUE, WHITE]
HALF_GREEN = tuple((value + 255) // 2 for value in GREEN)
GREY = corners(quarters("L").convert("RGB"))
ANIMATION = [Image.new("RGB", (64, 48), colour) for colour in (RED, GREEN)]


def straight_cmyk(image: Image.Image, icc: bytes = b"") -> bytes:
    """Return a CMYK JPEG without Adobe's marker, whose values are therefore not inverted."""
    data = saved(ImageChops.invert(image), "JPEG", quality=95, subsampling="4:4:4", icc_profile=icc)
    place = data.index(b"\xff\xee")
    return data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4]) :]


def ycck(image: Image.Image, icc: bytes = b"") -> bytes:
    """Return a CMYK JPEG as Photoshop writes it: 255 - CMY taken for inverted RGB and coded as YCbCr."""
    cyan, magenta, yellow, black = image.split()
    coded = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
    # Pillow inverts what it writes.
    inverted = Image.merge("CMYK", (*map(ImageChops.invert, coded), black))
    data = saved(inverted, "JPEG", quality=95, icc_profile=icc)
    place = data.index(b"Adobe")
    return data[: place + 11] + b"\2" + data[place + 12 :]


SOFT = [(150, 100, 90), (90, 140, 100), (100, 110, 160), (240, 240, 240)]  # inside sRGB once converted


def in_quarters(colours, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (2, 2))
    image.putdata(colours)
    return image.resize((64, 48), Image.Resampling.NEAREST)


def half_see_through(image: Image.Image) -> Image.Image:
    """Return an image with an alpha channel by its quarters: 0, 128, 255, 255."""
    image.putalpha(in_quarters([0, 128, 255, 255], "L"))
    return image


def on_white(colours) -> list[tuple[int, ...]]:
    """Return the colours of what half_see_through gives, on white."""
    half = tuple((value * 128 + 255 * 127) // 255 for value in colours[1])
    return [WHITE, half, *colours[2:]]


SOFT_QUARTERS = in_quarters(SOFT)
ADOBE_PROFILE = rgb_profile("Adobe RGB")
ADOBE_RGB = rgb_as_srgb("Adobe RGB", SOFT)
GREY_QUARTERS = SOFT_QUARTERS.convert("L")
GREY_PROFILE = grey_profile(1.6)
GREYS = grey_as_srgb(1.6, corners(GREY_QUARTERS.convert("RGB")))
PRINTED = [(204, 34, 51, 17), (51, 187, 34, 0), (17, 102, 204, 34), (0, 0, 0, 0)]  # on the profile's grid
CMYK_QUARTERS = in_quarters(PRINTED, "CMYK")
CMYK_PROFILE = cmyk_profile()
CMYK = cmyk_as_srgb(PRINTED)


def test_profiles_change_colours_beyond_what_the_table_tolerates_and_as_littlecms_does():
    for image, icc, expected in (
        (SOFT_QUARTERS, ADOBE_PROFILE, ADOBE_RGB),
        (GREY_QUARTERS, GREY_PROFILE, GREYS),
        (CMYK_QUARTERS, CMYK_PROFILE, CMYK),
    ):
        assert not close(corners(image.convert("RGB")), expected, tolerance=16)
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        reference = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert reference
        assert close(corners(reference), expected, tolerance=2)


# What comes in, and the colours of the four quarters that come out.
MODES = {
    "RGB JPEG": (saved(quarters(), "JPEG", quality=95), COLOURS),
    "progressive": (saved(quarters(), "JPEG", quality=95, progressive=True), COLOURS),
    "grey JPEG": (saved(quarters("L"), "JPEG", quality=95), GREY),
    "CMYK JPEG": (saved(quarters("CMYK"), "JPEG", quality=95), COLOURS),
    "PNG": (saved(quarters(), "PNG"), COLOURS),
    "grey PNG": (saved(quarters("L"), "PNG"), GREY),
    "palette": (saved(quarters().quantize(8), "PNG"), COLOURS),
    "palette with transparency": (transparent_palette(), [WHITE, GREEN, BLUE, WHITE]),
    "RGBA": (saved(see_through(), "PNG"), [WHITE, HALF_GREEN, BLUE, WHITE]),
    "LA": (saved(see_through().convert("LA"), "PNG"), [WHITE, greys((GREY[1][0] + 255) // 2)[0], *GREY[2:]]),
    "RGB with a transparent colour": (saved(quarters(), "PNG", transparency=RED), [WHITE, GREEN, BLUE, WHITE]),
    "16 bit PNG": (saved(sixteen_bit(), "PNG"), greys(64, 192, 64, 192)),
    "16 bit TIFF": (saved(sixteen_bit(), "TIFF"), greys(64, 192, 64, 192)),
    "16 bit TIFF, high byte first": (saved(sixteen_bit_big_endian(), "TIFF"), greys(64, 192, 64, 192)),
    "48 bit PNG": (png_with_16_bits_a_channel(), COLOURS),
    "1 bit": (saved(quarters("L").point(lambda v: v > 200 and 255, "1"), "PNG"), greys(0, 0, 0, 255)),
    "GIF": (saved(quarters(), "GIF"), COLOURS),
    "animated GIF": (saved(ANIMATION[0], "GIF", save_all=True, append_images=ANIMATION[1:]), [RED] * 4),
    "WebP": (saved(quarters(), "WEBP", lossless=True), COLOURS),
    "animated WebP": (saved(ANIMATION[0], "WEBP", save_all=True, append_images=ANIMATION[1:], lossless=True), [RED] * 4),
    "BMP": (saved(quarters(), "BMP"), COLOURS),
    "TIFF": (saved(quarters(), "TIFF"), COLOURS),
    "CMYK without Adobe's marker": (straight_cmyk(quarters("CMYK")), COLOURS),
    "YCCK": (ycck(quarters("CMYK")), COLOURS),
    "Adobe RGB JPEG": (saved(SOFT_QUARTERS, "JPEG", quality=95, icc_profile=ADOBE_PROFILE), ADOBE_RGB),
    "Adobe RGB PNG": (saved(SOFT_QUARTERS, "PNG", icc_profile=ADOBE_PROFILE), ADOBE_RGB),
    "Adobe RGB WebP": (saved(SOFT_QUARTERS, "WEBP", lossless=True, icc_profile=ADOBE_PROFILE), ADOBE_RGB),
    "Adobe RGB palette": (saved(SOFT_QUARTERS.quantize(4), "PNG", icc_profile=ADOBE_PROFILE), ADOBE_RGB),
    "Adobe RGB with transparency": (
        saved(half_see_through(in_quarters(SOFT)), "PNG", icc_profile=ADOBE_PROFILE), on_white(ADOBE_RGB)),
    "grey with a profile": (saved(GREY_QUARTERS, "JPEG", quality=95, icc_profile=GREY_PROFILE), GREYS),
    "LA with a profile": (saved(half_see_through(GREY_QUARTERS.copy()), "PNG", icc_profile=GREY_PROFILE), on_white(GREYS)),
    "CMYK with a profile": (
        saved(CMYK_QUARTERS, "JPEG", quality=95, subsampling="4:4:4", icc_profile=CMYK_PROFILE), CMYK),
    "CMYK with a profile, without Adobe's marker": (straight_cmyk(CMYK_QUARTERS, CMYK_PROFILE), CMYK),
    "YCCK with a profile": (ycck(CMYK_QUARTERS, CMYK_PROFILE), CMYK),
    "CMYK TIFF with a profile": (saved(CMYK_QUARTERS, "TIFF", icc_profile=CMYK_PROFILE), CMYK),
    "a profile that is none": (saved(quarters(), "JPEG", quality=95, icc_profile=b"not a profile" * 20), COLOURS),
    "a profile of other colours": (saved(quarters("L"), "JPEG", quality=95, icc_profile=ADOBE_PROFILE), GREY),
    "LAB TIFF": (saved(quarters("LAB"), "TIFF"), COLOURS),
    "YCbCr TIFF": (saved(quarters("YCbCr"), "TIFF"), COLOURS),
    "several pages": (saved(ANIMATION[0], "TIFF", save_all=True, append_images=ANIMATION[1:]), [RED] * 4),
    "animated PNG": (saved(ANIMATION[0], "PNG", save_all=True, append_images=ANIMATION[1:]), [RED] * 4),
    "WebP with transparency": (saved(see_through(), "WEBP", lossless=True), [WHITE, HALF_GREEN, BLUE, WHITE]),
    "TIFF with transparency": (saved(see_through(), "TIFF"), [WHITE, HALF_GREEN, BLUE, WHITE]),
    "CMYK TIFF": (saved(quarters("CMYK"), "TIFF"), COLOURS),
    "AVIF": (saved(quarters(), "AVIF", quality=100, subsampling="4:4:4"), COLOURS),
    "AVIF with transparency": (saved(see_through(), "AVIF", quality=100, subsampling="4:4:4"), [WHITE, HALF_GREEN, BLUE, WHITE]),
    "animated AVIF": (saved(ANIMATION[0], "AVIF", save_all=True, append_images=ANIMATION[1:], quality=100), [RED] * 4),
    "JPEG 2000": (saved(quarters(), "JPEG2000"), COLOURS),
    "JPEG 2000 without a container": (saved(quarters(), "JPEG2000", no_jp2=True), COLOURS),
    "grey JPEG 2000": (saved(quarters("L"), "JPEG2000"), GREY),
    "16 bit JPEG 2000": (saved(sixteen_bit(), "JPEG2000"), greys(64, 192, 64, 192)),
    "JPEG 2000 with transparency": (saved(see_through(), "JPEG2000"), [WHITE, HALF_GREEN, BLUE, WHITE]),
}  # fmt: skip


@pytest.mark.parametrize(("data", "colours"), MODES.values(), ids=MODES)
@pytest.mark.parametrize("max_side", [256, 32])
def test_every_format_becomes_rgb(tmp_path, data, colours, max_side):
    image = processed(tmp_path, data, max_side=max_side)
    assert image.size == ((64, 48) if max_side == 256 else (32, 24))
    assert close(corners(image), colours, tolerance=8), corners(image)


def turned_by_exif(image: Image.Image, orientation: int, form: str = "JPEG", **options) -> bytes:
    """Return a file of these stored pixels with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, form, exif=exif, **options)
    assert Image.open(io.BytesIO(data)).getexif().get(0x0112, 1) == orientation
    return data


TURNED = [
    ("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
]  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "options"), TURNED)
def test_exif_orientation_is_not_written_and_applied_only_if_asked_for(tmp_path, orientation, form, options):
    stored = turned_by_exif(as_stored(quarters(), orientation), orientation, form, **options)
    for max_side, size in ((256, (64, 48)), (32, (32, 24))):
        image = processed(tmp_path, stored, max_side=max_side, exif_upright=True)
        assert image.size == size
        assert close(corners(image), COLOURS, tolerance=8)
        image = processed(tmp_path, stored, max_side=max_side)
        assert image.size == (size if orientation < 5 else size[::-1])
        assert close(corners(image), corners(as_stored(quarters(), orientation)), tolerance=8)


ODD_EXIF = {  # the type (2 text, 3 a short) and value of the tag
    "of 0": struct.pack(">HIHH", 3, 1, 0, 0),
    "of 9": struct.pack(">HIHH", 3, 1, 9, 0),
    "as text": struct.pack(">HI4s", 2, 2, b"6"),
    "beyond the end": struct.pack(">HII", 3, 9, 1 << 30),
}


@pytest.mark.parametrize("tag", ODD_EXIF.values(), ids=ODD_EXIF)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, tag, form):
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHH", 8, 1, 0x0112) + tag + bytes(4)
    for exif_upright in (False, True):
        image = processed(tmp_path, saved(quarters(), form, exif=exif, quality=95), exif_upright=exif_upright)
        assert close(corners(image), COLOURS, tolerance=12)


def upright() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 1
    return saved(quarters(), "JPEG", exif=exif)


KEPT = {
    "exactly as large": saved(quarters(size=(256, 200)), "JPEG", quality=30),
    "smaller": saved(quarters(), "JPEG"),
    "progressive": saved(quarters(), "JPEG", progressive=True),
    "upright by its tag": upright(),
    "with a comment": saved(quarters(), "JPEG", comment=b"kept"),
    "with sRGB's profile": saved(quarters(), "JPEG", icc_profile=rgb_profile("sRGB")),
}


@pytest.mark.parametrize("data", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("into", ["", "other"])
def test_an_image_that_is_as_asked_keeps_its_bytes(tmp_path, data, into):
    (tmp_path / "one.jpg").write_bytes(data)
    (tmp_path / into).mkdir(exist_ok=True)
    before = (tmp_path / "one.jpg").stat()
    assert process(tmp_path, tmp_path / into).how == "unchanged"
    assert (tmp_path / into / "one.jpg").read_bytes() == data
    after = (tmp_path / "one.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_metadata_of_the_original_is_written(tmp_path):
    data = saved(quarters(), "JPEG", comment=b"secret", dpi=(300, 300), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    image = processed(tmp_path, data, max_side=32)
    assert set(image.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert image.info["jfif_density"] == (1, 1)


SIZES: dict[tuple[int, int], tuple[int, int]] = {
    (4000, 3000): (256, 192), (3000, 4000): (192, 256), (257, 257): (256, 256), (256, 1): (256, 1),
    (60_000, 3): (256, 1), (1, 60_000): (1, 256), (1, 1): (1, 1), (1023, 767): (256, 192),
}  # fmt: skip


@pytest.mark.parametrize(("size", "expected"), SIZES.items())
def test_the_longer_side_shrinks_to_max_side(size, expected):
    assert plan_fit(size, "longer", 256).canvas == expected


@pytest.mark.parametrize("precise", [False, True])
def test_shrinking_in_eighths_moves_nothing(tmp_path, precise):
    """The decoder pads 2250 rows / 8 to 282, which stand for 2256: the last ones must not be squeezed in."""
    waves = 128 + 100 * np.sin(np.arange(2250) / 2250 * 2 * np.pi * 24)
    image = Image.fromarray(np.repeat(waves.astype(np.uint8)[:, None], 3000, axis=1)).convert("RGB")
    slow = image.resize((256, 192), Image.Resampling.LANCZOS)
    seen = processed(tmp_path, saved(image, "JPEG", quality=95), quality=95, precise=precise)
    for first in (0, 64, 128):  # the eight waves of each third
        assert abs(phase(seen, first) - phase(slow, first)) < 0.02


def phase(image: Image.Image, first: int) -> float:
    """Return where waves of 8 rows stand in the 64 rows from `first`, in rows."""
    rows = np.asarray(image, float).mean(axis=(1, 2))[first : first + 64]
    return float(np.angle(rows @ np.exp(-2j * np.pi * np.arange(64) / 8))) * 8 / (2 * np.pi)


SHAPES = [(form, size) for form in ("PNG", "JPEG") for size in ((60_000, 3), (1, 3000), (1, 1))]


@pytest.mark.parametrize(("form", "size"), SHAPES)
def test_extreme_shapes_are_processed_too(tmp_path, form, size):
    image = processed(tmp_path, saved(Image.new("RGB", size, GREEN), form))
    assert image.size == plan_fit(size, "longer", 256).canvas
    assert close([image.getpixel((0, 0))], [GREEN], tolerance=8)


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its few bytes do not hold."""
    data = saved(Image.new("L", (8, 8)), "PNG")
    header = struct.pack(">4s2I5B", b"IHDR", width, height, 8, 0, 0, 0, 0)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def jpeg_claiming(width: int, height: int) -> bytes:
    data = saved(quarters(size=(400, 300)), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">2H", height, width) + data[place + 4 :]


def gif_claiming(width: int, height: int) -> bytes:
    data = saved(quarters(), "GIF")
    return data[:6] + struct.pack("<2H", width, height) + data[10:]


def float_tiff() -> bytes:
    return saved(Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)), "TIFF")


def jpeg2000_claiming(width: int, height: int, *, in_container: bool) -> bytes:
    """Return a JPEG 2000 file whose codestream, and its container's header if asked for, claim a size."""
    data = bytearray(saved(quarters(), "JPEG2000"))
    if in_container:
        place = data.index(b"ihdr") + 4
        data[place : place + 8] = struct.pack(">2I", height, width)
    place = data.index(b"\xff\x51") + 6  # SIZ: size, offset; size and offset of a tile
    data[place : place + 8] = data[place + 16 : place + 24] = struct.pack(">2I", width, height)
    return bytes(data)


def avif_claiming(width: int, height: int) -> bytes:
    data = saved(quarters(), "AVIF")
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">2I", width, height) + data[place + 8 :]


PHOTO = saved(quarters(size=(400, 300)), "JPEG")
PNG_PHOTO = saved(quarters(size=(400, 300)), "PNG")
UNUSABLE = {
    "an empty file": (b"", "truncated", "an empty file"),
    "half of it": (PHOTO[: len(PHOTO) // 2], "truncated", ""),
    "a few bytes short": (PHOTO[:-40], "truncated", ""),
    "half a PNG": (PNG_PHOTO[: len(PNG_PHOTO) // 2], "truncated", ""),
    "zeros": (bytes(5000), "unreadable", "not an image"),
    "half an AVIF": (saved(quarters(), "AVIF")[:-200], "unreadable", "AVIF image"),
    "half a JPEG 2000": (saved(quarters(), "JPEG2000")[:-200], "damaged", ""),
    "an AVIF bomb": (avif_claiming(16_000, 16_000), "too_large", "16000x16000, at most 178956970 pixels are decoded"),
    "a JPEG 2000 bomb": (jpeg2000_claiming(60_000, 60_000, in_container=True), "too_large", "60000x60000, at most"),
    "a JPEG 2000 bomb, hidden": (jpeg2000_claiming(60_000, 60_000, in_container=False), "damaged", ""),
    "a bomb": (png_claiming(60_000, 60_000), "too_large", "60000x60000, at most 178956970 pixels are decoded"),
    "a JPEG bomb": (jpeg_claiming(65_500, 65_500), "too_large", "65500x65500, at most 178956970 pixels are decoded"),
    "a GIF bomb": (gif_claiming(65_535, 65_535), "too_large", "65535x65535, at most 178956970 pixels are decoded"),
    "a JPEG taller than its image data": (jpeg_claiming(400, 3000), "damaged", ""),
    "a JPEG without width": (jpeg_claiming(0, 300), "unreadable", "0x300 pixels"),
    "a JPEG without height": (jpeg_claiming(400, 0), "unreadable", "400x0 pixels"),
    "a PNG without width": (png_claiming(0, 10), "unreadable", "PNG image that Pillow does not read"),
    "floating-point TIFF": (float_tiff(), "unreadable", "F: floating-point samples, of no known range"),
    "damaged PNG": (PNG_PHOTO[:60] + bytes(20) + PNG_PHOTO[80:], "damaged", ""),
    "too small": (saved(quarters(size=(40, 9)), "JPEG"), "too_small", "40x9, at least 10 expected"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason", "detail"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_image_has_a_reason_and_leaves_no_file(tmp_path, data, reason, detail):
    (tmp_path / "one.jpg").write_bytes(data)
    failure = process(tmp_path, tmp_path / "out", min_side=10)
    assert failure.reason == reason
    assert detail in failure.detail
    assert "\n" not in failure.detail
    assert [path.name for path in tmp_path.iterdir()] == ["one.jpg"]


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


NAMED = {
    "a web page": (b"<html><body>gone</body></html>", "HTML page"),
    "a web page of today": (b"\xef\xbb\xbf\n<!-- login -->\n<!DOCTYPE html>\n<html lang=en>", "HTML page"),
    "a web page of 2005": (b'<?xml version="1.0"?>\n<!DOCTYPE HTML PUBLIC "-//W3C//DTD XHTML 1.0//EN">', "HTML page"),
    "a web page that begins late": (b" " * 900 + b"<script>location = '/login'</script>", "HTML page"),
    "a store's answer": (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>', "XML document"),
    "a drawing": (b'<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg width="9">', "SVG drawing"),
    "an iPhone's photo": (box(b"ftyp", b"heic\0\0\0\0mif1MiHEmiafheic") + bytes(99), "HEIC image"),
    "a HEIC file by its brands": (box(b"ftyp", b"mif1\0\0\0\0mif1heic") + bytes(99), "HEIC image"),
    "an AVIF file by its brands": (box(b"ftyp", b"mif1\0\0\0\0mif1avif") + bytes(99), "AVIF image that Pillow does not read"),
    "a film": (box(b"ftyp", b"qt  \0\0\0\0qt  ") + bytes(99), "MP4 or QuickTime video"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "PostScript file"),
    "PDF": (b"%PDF-1.7\n", "PDF document"),
    "a zip": (b"PK\3\4" + bytes(99), "zip file"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "gzip file"),
    "Photoshop": (b"8BPS\0\1" + bytes(99), "Photoshop image"),
    "comments without end": (b"<!---->" * 999, "not an image"),
    "words": (b"Too many requests", "not an image"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "detail"), NAMED.values(), ids=NAMED)
def test_what_is_read_by_no_decoder_is_named_for_what_it_is(tmp_path, data, detail):
    (tmp_path / "one.jpg").write_bytes(data)
    failure = process(tmp_path, tmp_path / "out")
    assert (failure.reason, failure.detail) == ("unreadable", detail)


def test_a_file_that_does_not_exist_is_missing(tmp_path):
    assert process(tmp_path, tmp_path / "out").reason == "missing"


def test_a_file_above_the_limit_is_not_decoded(tmp_path, monkeypatch):
    data = saved(quarters(), "JPEG")
    monkeypatch.setattr(process_module, "MAX_FILE_SIZE", len(data))
    for more, reason in ((b"", ""), (b"\0", "too_large")):
        (tmp_path / "one.jpg").write_bytes(data + more)
        assert getattr(process(tmp_path, tmp_path), "reason", "") == reason


def test_what_pillow_warns_of_and_logs_does_not_reach_the_user(tmp_path):
    data = bytearray(saved(quarters(), "TIFF"))
    tag = data.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel: Pillow logs
    data[tag + 8 : tag + 10] = b"\xff\x7f"
    (tmp_path / "one.jpg").write_bytes(data)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x09"  # nine tags, and none follows: Pillow warns
    (tmp_path / "two.jpg").write_bytes(saved(quarters(), "JPEG", exif=exif))
    code = (
        "import sys; from pathlib import Path\nfrom common.images.tasks import *\n"
        "tasks = [ImageTask('one', 'one.jpg'), ImageTask('two', 'two.jpg')]\n"
        "for result in process_batch(tasks, Path(sys.argv[1]), Path(sys.argv[1]), ImageSettings()):\n"
        "    print(getattr(result, 'reason', '') or result.how)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("unreadable\nunchanged\n", "")


@cache
def whole(form: str) -> bytes:
    return saved(quarters(size=(300, 200)), form)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_of_any_kind_is_a_result(tmp_path_factory, form, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / "damage").mkdir(exist_ok=True)
    damaged = bytearray(whole(form))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / "one.jpg").write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    result = process(folder, folder / "damage", max_side=50)
    # Some damage cannot be found, or changes nothing that matters.
    if isinstance(result, Failure):
        assert result.reason in ("truncated", "damaged", "unreadable", "too_large")
