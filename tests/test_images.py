"""One photo in, one RGB JPEG out: colours, formats, sizes, and what cannot be used."""

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from common.bad_image import BadImageError
from common.fit import plan_fit
from common.images import ImageSettings, process_image
from tests.conftest import ROOT

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


def processed(tmp_path, data: bytes, **options) -> Image.Image:
    """Return the photo that these bytes become, an RGB JPEG in any case."""
    (tmp_path / "in.jpg").write_bytes(data)
    process_image(tmp_path / "in.jpg", tmp_path / "out.jpg", ImageSettings(**options))
    image = Image.open(tmp_path / "out.jpg")
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


def straight_cmyk() -> bytes:
    """Return a CMYK JPEG without Adobe's marker, whose values are therefore not inverted."""
    data = saved(ImageChops.invert(quarters("CMYK")), "JPEG", quality=95, subsampling="4:4:4")
    place = data.index(b"\xff\xee")
    return data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4]) :]


def ycck() -> bytes:
    """Return a CMYK JPEG as Photoshop writes it: 255 - CMY taken for inverted RGB and coded as YCbCr."""
    cyan, magenta, yellow, black = quarters("CMYK").split()
    coded = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
    # Pillow inverts what it writes.
    data = saved(Image.merge("CMYK", (*map(ImageChops.invert, coded), black)), "JPEG", quality=95)
    place = data.index(b"Adobe")
    return data[: place + 11] + b"\2" + data[place + 12 :]


# CIE XYZ of each primary, D50, as in the profiles' own documents, and the exponent.
PRIMARIES = {
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256),
    "sRGB": (((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)), 2.2),
}  # fmt: skip


def profile(name: str, space: str = "RGB ") -> bytes:
    """Return an ICC profile, version 2, of these primaries (or grey of this exponent)."""
    primaries, exponent = PRIMARIES[name]

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(round(value * 65536).to_bytes(4) for value in values)

    curve = b"curv\0\0\0\0" + (1).to_bytes(4) + round(exponent * 256).to_bytes(2) + b"\0\0"
    text = name.encode() + b"\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + len(text).to_bytes(4) + text + bytes(78),
        b"wtpt": xyz((0.9642, 1, 0.8249)),
    }
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        for colour, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags |= {colour + b"XYZ": xyz(primary), colour + b"TRC": curve}
    table, body = len(tags).to_bytes(4), b""
    for tag, data in tags.items():
        table += tag + (128 + 4 + 12 * len(tags) + len(body)).to_bytes(4) + len(data).to_bytes(4)
        body += data + bytes(-len(data) % 4)
    header = bytes(8) + b"\2\x10\0\0mntr" + space.encode() + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += xyz((0.9642, 1, 0.8249))[8:] + bytes(48)
    return (128 + len(table) + len(body)).to_bytes(4) + header[4:] + table + body


def as_srgb(name: str, colours) -> list[tuple[int, ...]]:
    """Return what colours in these primaries are in sRGB: IEC 61966-2-1, worked out here."""
    primaries, exponent = PRIMARIES[name]
    linear = (np.array(colours) / 255) ** exponent @ np.array(primaries)
    linear = np.clip(linear @ np.linalg.inv(np.array(PRIMARIES["sRGB"][0])), 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [tuple(colour) for colour in (encoded * 255).round().astype(int).tolist()]


SOFT = [(150, 100, 90), (90, 140, 100), (100, 110, 160), (240, 240, 240)]  # inside sRGB once converted


def soft_quarters() -> Image.Image:
    image = Image.new("RGB", (2, 2))
    image.putdata(SOFT)
    return image.resize((64, 48), Image.Resampling.NEAREST)


def linear_grey() -> tuple[bytes, list[Any]]:
    image = soft_quarters().convert("L")
    data = saved(image, "JPEG", quality=95, icc_profile=profile("Adobe RGB", "GRAY"))
    return data, as_srgb("Adobe RGB", corners(image.convert("RGB")))


ADOBE_RGB = as_srgb("Adobe RGB", SOFT)
assert max(abs(a - b) for a, b in zip(ADOBE_RGB[1], SOFT[1], strict=True)) > 20
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
    "CMYK without Adobe's marker": (straight_cmyk(), COLOURS),
    "YCCK": (ycck(), COLOURS),
    "Adobe RGB JPEG": (saved(soft_quarters(), "JPEG", quality=95, icc_profile=profile("Adobe RGB")), ADOBE_RGB),
    "Adobe RGB PNG": (saved(soft_quarters(), "PNG", icc_profile=profile("Adobe RGB")), ADOBE_RGB),
    "grey with a profile": linear_grey(),
    "a profile that is none": (saved(quarters(), "JPEG", quality=95, icc_profile=b"not a profile" * 20), COLOURS),
    "a profile of other colours": (saved(quarters("L"), "JPEG", quality=95, icc_profile=profile("Adobe RGB")), GREY),
    "LAB TIFF": (saved(quarters("LAB"), "TIFF"), COLOURS),
    "YCbCr TIFF": (saved(quarters("YCbCr"), "TIFF"), COLOURS),
    "several pages": (saved(ANIMATION[0], "TIFF", save_all=True, append_images=ANIMATION[1:]), [RED] * 4),
    "animated PNG": (saved(ANIMATION[0], "PNG", save_all=True, append_images=ANIMATION[1:]), [RED] * 4),
    "WebP with transparency": (saved(see_through(), "WEBP", lossless=True), [WHITE, HALF_GREEN, BLUE, WHITE]),
    "TIFF with transparency": (saved(see_through(), "TIFF"), [WHITE, HALF_GREEN, BLUE, WHITE]),
    "CMYK TIFF": (saved(quarters("CMYK"), "TIFF"), COLOURS),
}  # fmt: skip


@pytest.mark.parametrize(("data", "colours"), MODES.values(), ids=MODES)
@pytest.mark.parametrize("max_side", [256, 32])
def test_every_format_becomes_rgb(tmp_path, data, colours, max_side):
    image = processed(tmp_path, data, max_side=max_side)
    assert image.size == ((64, 48) if max_side == 256 else (32, 24))
    assert close(corners(image), colours, tolerance=8), corners(image)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("max_side", [256, 32])
def test_exif_orientation_is_neither_applied_nor_handed_on(tmp_path, orientation, max_side):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = processed(tmp_path, saved(quarters(), "JPEG", quality=95, exif=exif), max_side=max_side)
    assert close(corners(image), COLOURS, tolerance=8)
    assert image.width > image.height
    assert 0x0112 not in image.getexif()


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
    "with sRGB's profile": saved(quarters(), "JPEG", icc_profile=profile("sRGB")),
}


@pytest.mark.parametrize("data", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("name", ["same.jpg", "other.jpg"])
def test_what_already_is_as_asked_keeps_its_bytes(tmp_path, data, name):
    (tmp_path / "same.jpg").write_bytes(data)
    before = (tmp_path / "same.jpg").stat()
    assert process_image(tmp_path / "same.jpg", tmp_path / name, ImageSettings()).how == "unchanged"
    assert (tmp_path / name).read_bytes() == data
    after = (tmp_path / "same.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_nothing_of_the_original_but_its_pixels_is_handed_on(tmp_path):
    data = saved(quarters(), "JPEG", comment=b"secret", dpi=(300, 300), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    image = processed(tmp_path, data, max_side=32)
    assert set(image.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert image.info["jfif_density"] == (1, 1)


SIZES: dict[tuple[int, int], tuple[int, int]] = {
    (4000, 3000): (256, 192), (3000, 4000): (192, 256), (257, 257): (256, 256), (256, 1): (256, 1),
    (60_000, 3): (256, 1), (1, 60_000): (1, 256), (1, 1): (1, 1), (1023, 767): (256, 192),
}  # fmt: skip


@pytest.mark.parametrize(("size", "expected"), SIZES.items())
def test_the_longer_side_shrinks_to_what_is_asked(size, expected):
    assert plan_fit(size, 0, "longer", 256).canvas == expected


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
def test_extreme_shapes_are_photos_too(tmp_path, form, size):
    image = processed(tmp_path, saved(Image.new("RGB", size, GREEN), form))
    assert image.size == plan_fit(size, 0, "longer", 256).canvas
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


PHOTO = saved(quarters(size=(400, 300)), "JPEG")
PNG_PHOTO = saved(quarters(size=(400, 300)), "PNG")
UNUSABLE = {
    "nothing in it": (b"", "truncated", "an empty file"),
    "half of it": (PHOTO[: len(PHOTO) // 2], "truncated", ""),
    "a few bytes short": (PHOTO[:-40], "truncated", ""),
    "half a PNG": (PNG_PHOTO[: len(PNG_PHOTO) // 2], "truncated", ""),
    "a web page": (b"<html><body>gone</body></html>", "unreadable", "not an image"),
    "zeros": (bytes(5000), "unreadable", "not an image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "unreadable", "not an image"),
    "a bomb": (png_claiming(60_000, 60_000), "too_large", "60000x60000, at most 178956970 pixels are decoded"),
    "a JPEG bomb": (jpeg_claiming(65_500, 65_500), "too_large", "65500x65500, at most 178956970 pixels are decoded"),
    "a GIF bomb": (gif_claiming(65_535, 65_535), "too_large", "65535x65535, at most 178956970 pixels are decoded"),
    "a JPEG taller than its picture": (jpeg_claiming(400, 3000), "damaged", ""),
    "a JPEG without width": (jpeg_claiming(0, 300), "unreadable", "0x300 pixels"),
    "a JPEG without height": (jpeg_claiming(400, 0), "unreadable", "400x0 pixels"),
    "a PNG without width": (png_claiming(0, 10), "unreadable", "not an image"),
    "floating-point TIFF": (float_tiff(), "unreadable", "F: floating-point samples, of no known range"),
    "damaged PNG": (PNG_PHOTO[:60] + bytes(20) + PNG_PHOTO[80:], "damaged", ""),
    "too small": (saved(quarters(size=(40, 9)), "JPEG"), "too_small", "40x9, at least 10 expected"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason", "detail"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_has_a_reason_and_leaves_nothing(tmp_path, data, reason, detail):
    (tmp_path / "in.jpg").write_bytes(data)
    with pytest.raises(BadImageError) as caught:
        process_image(tmp_path / "in.jpg", tmp_path / "out.jpg", ImageSettings(min_side=10))
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    assert "\n" not in caught.value.detail
    assert [path.name for path in tmp_path.iterdir()] == ["in.jpg"]


def test_a_file_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(BadImageError) as caught:
        process_image(tmp_path / "in.jpg", tmp_path / "out.jpg", ImageSettings())
    assert caught.value.reason == "missing"


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "in.jpg", "wb") as stream:
        stream.truncate((1 << 28) + 1)
    with pytest.raises(BadImageError) as caught:
        process_image(tmp_path / "in.jpg", tmp_path / "out.jpg", ImageSettings())
    assert caught.value.reason == "too_large"


def test_a_bad_photo_is_said_once_in_its_outcome(tmp_path):
    """Pillow logs on some TIFFs: no stray line of that reaches the user."""
    data = bytearray(saved(quarters(), "TIFF"))
    tag = data.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel
    data[tag + 8 : tag + 10] = b"\xff\x7f"
    (tmp_path / "in.jpg").write_bytes(data)
    code = (
        "import sys; from pathlib import Path\nfrom common.images import *\n"
        "try: process_image(Path(sys.argv[1]), Path('out.jpg'), ImageSettings())\n"
        "except BadImageError as bad: print(bad.reason)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "in.jpg")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("unreadable\n", "")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_of_any_kind_is_an_outcome(tmp_path_factory, form, data):
    folder = tmp_path_factory.getbasetemp()
    photo = bytearray(saved(quarters(size=(300, 200)), form))
    for _ in range(data.draw(st.integers(1, 8))):
        photo[data.draw(st.integers(0, len(photo) - 1))] = data.draw(st.integers(0, 255))
    (folder / "in.jpg").write_bytes(photo[: data.draw(st.integers(0, len(photo)))])
    try:
        process_image(folder / "in.jpg", folder / "out.jpg", ImageSettings(max_side=50))
    except BadImageError as bad:
        reason = bad.reason
    else:
        reason = "none: the damage cannot be told, or did not change a thing that matters"
    assert reason.startswith(("none", "truncated", "damaged", "unreadable", "too_large"))
