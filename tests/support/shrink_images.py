"""Images of every kind for step 4 with --max_side."""

import io
from typing import Any

from PIL import Image

from sample.scenes import draw


def encoded(
    kind: str, number: int, size: tuple[int, int] | None = None, mode: str = "RGB", **options: Any
) -> bytes:
    image = draw(str(number))[0]
    stream = io.BytesIO()
    (image.resize(size) if size else image).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(number: int, size: tuple[int, int] | None = None, mode: str = "RGB", **options: Any) -> bytes:
    return encoded("JPEG", number, size, mode, quality=95, **options)


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(300) + data[middle + 300 :]


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


GOOD = {
    "large": jpeg(1),
    "progressive": jpeg(2, (600, 400), progressive=True),
    "small": jpeg(3, (150, 100)),
    "narrow": jpeg(4, (900, 60)),
    "grey": jpeg(5, (600, 400), mode="L"),
    "cmyk": jpeg(6, (400, 600), mode="CMYK"),
    "turned": jpeg(7, (150, 100), exif=turned()),
    **{
        kind: encoded(kind, 10, (210, 140))
        for kind in ("PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")
    },
}
BROKEN = {
    "cut": (jpeg(8, (600, 400))[:9000], "truncated"),
    "damaged": (damaged(jpeg(9)), "damaged"),
    "nonsense": (b"\xff\xd8\xff" + b"no photo" * 20, "truncated"),
}
PHOTOS = GOOD | {image_id: data for image_id, (data, _) in BROKEN.items()}
