"""Damage inside a JPEG is found; harmless oddities of real cameras' files pass."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from common.images.decode import decode_jpeg
from common.images.header import BadImageError, read_jpeg_header
from sample.damage import DAMAGES, random_bytes, zeros
from sample.scenes import draw
from tests.conftest import ROOT

SCENE = draw("jpeg")[0].crop((0, 0, 320, 240))


@pytest.fixture(scope="module")
def large():
    """Return noise, weaker at finer scales, as detail is in photographs."""
    rng = random.Random(4)
    image = Image.new("RGB", (512, 384))
    for cell in (128, 32, 16, 4, 2):
        size = (512 // cell, 384 // cell)
        noise = Image.frombytes("RGB", size, rng.randbytes(size[0] * size[1] * 3))
        image = Image.blend(
            image, noise.resize(image.size, Image.Resampling.BICUBIC), 0.5 if cell > 4 else 0.1
        )
    return image


def jpeg(image: Image.Image = SCENE, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    return stream.getvalue()


def decoded(data: bytes, **options) -> tuple[Image.Image, str]:
    return decode_jpeg(data, read_jpeg_header(data), 8, **options)


def reason(data: bytes) -> str:
    """Return why these bytes are refused, "" where they are not."""
    try:
        decoded(data)
    except BadImageError as bad:
        return bad.reason
    return ""


PLAIN = jpeg()
PROGRESSIVE = jpeg(progressive=True)


def insert(data: bytes, place: int, more: bytes) -> bytes:
    return data[:place] + more + data[place:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def stray(data: bytes) -> bytes:
    """Insert bytes between two segments, behind JFIF's and Adobe's."""
    return insert(data, data.index(b"\xff\xdb"), b"stray")


def multi_picture() -> bytes:
    stream = io.BytesIO()
    SCENE.save(stream, "MPO", save_all=True, append_images=[SCENE.resize((240, 160))])
    return stream.getvalue()


TABLE = PLAIN.index(b"\xff\xdb")  # the first segment that is not JFIF's
CMYK = jpeg(SCENE.convert("CMYK"))
YCCK = CMYK.replace(
    b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"
)  # other colours, by Adobe's marker alone
assert YCCK != CMYK
ODD = {
    "nothing": PLAIN,
    "progressive": PROGRESSIVE,
    "restart markers": jpeg(restart_marker_blocks=3),
    "restart markers, progressive": jpeg(restart_marker_rows=1, progressive=True),
    "junk after the end": PLAIN + b"\0" * 500 + b"junk",
    "another file after the end": PLAIN + PLAIN[:900],
    "several images": multi_picture(),
    "fill bytes": insert(PLAIN, TABLE, b"\xff" * 7),
    "fill bytes before the end": insert(PLAIN, len(PLAIN) - 2, b"\xff" * 7),
    "stray bytes in the header": stray(PLAIN),
    "stray zeros in the header": insert(PLAIN, TABLE, bytes(12)),
    "stray bytes in the header, progressive": stray(PROGRESSIVE),
    "stray bytes in the header, CMYK": stray(CMYK),
    "stray bytes in the header, YCCK": stray(YCCK),
    "bytes before the end": insert(PLAIN, len(PLAIN) - 2, b"\x12\x34\x56"),
    "a blank after the end": PLAIN + bytes(3000),
    "large flat areas": jpeg(Image.new("RGB", (1000, 800), "navy"), progressive=True),
    "large flat areas, tables made for them": jpeg(Image.new("RGB", (1000, 800), "navy"), optimize=True),
    "zeros before the end": insert(PLAIN, len(PLAIN) - 2, bytes(16)),
    "JFIF 3.7": PLAIN[:11] + b"\3\7" + PLAIN[13:],
    "EXIF of 60,000 bytes": insert(PLAIN, 2, segment(0xE1, b"Exif\0\0" + bytes(60_000))),
    "EXIF that is none": insert(PLAIN, 2, segment(0xE1, b"Exif\0\0" + b"\xff" * 99)),
    "a comment": insert(PLAIN, TABLE, segment(0xFE, b"taken in May")),
    "an empty segment": insert(PLAIN, TABLE, segment(0xEC, b"")),
    "no JFIF": PLAIN[:2] + PLAIN[TABLE:],
    "grey": jpeg(SCENE.convert("L")),
    "CMYK": CMYK,
    "YCCK": YCCK,
    "RGB inside": jpeg(keep_rgb=True),
    "4:4:4": jpeg(subsampling="4:4:4"),
    "4:2:2": jpeg(subsampling="4:2:2"),
    "odd size": jpeg(SCENE.resize((479, 317))),
    "one pixel": jpeg(SCENE.resize((1, 1))),
    "one column": jpeg(SCENE.resize((1, 99))),
    "flat": jpeg(Image.new("RGB", (300, 200), "navy")),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_harmless_oddities_pass(data):
    image, _ = decoded(data)
    with Image.open(io.BytesIO(data)) as expected:
        assert image.size == expected.size
        if expected.mode == "CMYK":  # Pillow and we agree on the inverted values of Adobe
            assert image.tobytes() == expected.tobytes()
        else:
            assert difference(image, expected.convert(image.mode)) < 1


def difference(one: Image.Image, two: Image.Image) -> float:
    """Return the mean difference of two images' samples."""
    return float(np.abs(np.asarray(one, int) - np.asarray(two, int)).mean())


# What Pillow cannot write: a red, green, blue and white quarter by `cjpeg -quality 90 -sample 4x2` and so on.
RARE = sorted((ROOT / "tests" / "data" / "jpeg").glob("*.jpg"))


@pytest.mark.parametrize("path", RARE, ids=[path.stem for path in RARE])
def test_rare_kinds_of_jpeg_pass(path):
    image, _ = decoded(path.read_bytes())
    seen = [image.getpixel(place) for place in ((24, 16), (72, 16), (24, 48), (72, 48))]
    colours = [(220, 30, 40), (20, 160, 60), (30, 50, 210), (255, 255, 255)]
    assert np.abs(np.array(seen) - np.array(colours)).max() <= 8
    assert reason(path.read_bytes()[:-100]) == "truncated"


# The least share that is found, baseline and progressive, in noise; benchmarks/images.py has photographs.
# (Any bits are a valid refinement scan of a progressive file.)
SHARES = {
    "500 random bytes": (0.99, 0.98),
    "2,000 zero bytes": (1, 1),
    "16 flipped bits": (0.95, 0.98),
    "100 bytes deleted": (0.8, 0.8),
    "cut off": (1, 1),
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(large, progressive, name):
    rng = random.Random(5)
    whole = jpeg(large, progressive=progressive)
    found = [reason(DAMAGES[name](whole, rng)) for _ in range(100)]
    assert sum(bool(one) for one in found) >= SHARES[name][progressive] * 100
    assert set(found) <= ({"truncated"} if name == "cut off" else {"", "damaged"})


HEADERS = ["stray bytes in the header", "JFIF 3.7", "EXIF of 60,000 bytes", "fill bytes", "restart markers"]


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("damage", [random_bytes, zeros])
def test_an_oddity_does_not_hide_damage(name, damage):
    rng = random.Random(6)
    found = [reason(damage(ODD[name], rng)) for _ in range(20)]
    assert found.count("damaged") >= 19


@pytest.mark.parametrize("end", [b"\x12\x34\x56", bytes(16)])
@pytest.mark.parametrize("damage", [random_bytes, zeros])
def test_bytes_before_the_end_do_not_hide_damage(damage, end):
    rng = random.Random(7)
    damaged = [insert(one, len(one) - 2, end) for one in (damage(PLAIN, rng) for _ in range(20))]
    assert [reason(data) for data in damaged].count("damaged") >= 19


def test_a_single_byte_before_the_end_passes_only_if_it_is_zero():
    """After damage the decoder leaves over bytes of any value."""

    def padded(padding: bytes) -> bytes:
        return insert(PLAIN, len(PLAIN) - 2, padding)

    unseen = next(length for length in range(16) if decoded(padded(bytes(length + 1)))[1])
    assert "1 extraneous bytes" in decoded(padded(bytes(unseen + 1)))[1]
    assert reason(padded(b"\x12" * unseen)) == ""
    assert reason(padded(b"\x12" * unseen + b"\x34")) == "damaged"


REFUSED = {
    "stray bytes before a restart marker": (
        insert(ODD["restart markers"], ODD["restart markers"].index(b"\xff\xd3"), b"abc" * 9), "damaged",
    ),
    "more bytes before the end": (insert(PLAIN, len(PLAIN) - 2, bytes(40)), "damaged"),
    "no end marker": (PLAIN[:-2], "truncated"),
    "start and end alone": (b"\xff\xd8\xff\xd9" + bytes(9), "damaged"),
    "start alone": (b"\xff\xd8", "truncated"),
    "ends inside its header": (PLAIN[:100], "truncated"),
    "a segment of length 1": (insert(PLAIN, TABLE, b"\xff\xec\0\1"), "damaged"),
    "12 bits a sample": (PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "unreadable"),
    "two frames": (insert(PLAIN, PLAIN.index(b"\xff\xc0"), PLAIN[PLAIN.index(b"\xff\xc0") :][:19]), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(data, expected):
    assert reason(data) == expected


def test_a_damaged_image_can_be_kept():
    data = random_bytes(PLAIN, random.Random(8))
    image, oddity = decoded(data, keep_damaged=True)
    assert oddity.startswith("damaged: ")
    assert image.size == SCENE.size
    with pytest.raises(BadImageError):
        decoded(data[:-5000], keep_damaged=True)


ENDS = {
    "baseline": PLAIN,
    "progressive": PROGRESSIVE,
    "restart markers": ODD["restart markers"],
    "an odd header": stray(PLAIN),
    "padding": insert(PLAIN, len(PLAIN) - 2, bytes(16)),
    "CMYK": CMYK,
}


@pytest.mark.parametrize("whole", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("missing", [1, 2])
def test_an_image_without_its_end_marker_alone_can_be_kept(whole, missing):
    cut = whole[:-missing]
    assert reason(cut) == "truncated"
    image, oddity = decoded(cut, keep_damaged=True)
    assert oddity.startswith("damaged: Premature end of JPEG file")
    assert image.tobytes() == decoded(whole)[0].tobytes()


@pytest.mark.parametrize("whole", [PLAIN, PROGRESSIVE, CMYK], ids=["baseline", "progressive", "CMYK"])
def test_an_image_that_lacks_more_than_its_end_marker_is_not_kept(whole):
    for missing in (*range(4, 40), 500, len(whole) // 2):
        with pytest.raises(BadImageError, match="truncated"):
            decoded(whole[:-missing], keep_damaged=True)
