"""ICC profiles (ICC.1:2001-04, version 2), and the sRGB values of their colours, calculated independently."""

import numpy as np

# CIE XYZ of each primary, D50, as in the documents of the profiles, and the exponent.
PRIMARIES = {
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256),
    "sRGB": (((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)), 2.2),
}  # fmt: skip
WHITE = (0.9642, 1, 0.8249)  # D50
# Invented inks: the linear red, green and blue that full coverage of each lets through.
INKS = ((0.03, 0.35, 0.70), (0.65, 0.05, 0.20), (0.90, 0.75, 0.04), (0.03, 0.03, 0.03))
GRID = 16  # levels along each ink: a table of 393 kB, many segments of a JPEG, as with real presses


def rgb_profile(name: str) -> bytes:
    """Return the profile of these primaries."""
    primaries, exponent = PRIMARIES[name]
    tags = {b"desc": _text(name), b"wtpt": _xyz(WHITE)}
    for colour, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags |= {colour + b"XYZ": _xyz(primary), colour + b"TRC": _curve(exponent)}
    return _profile(b"mntrRGB XYZ ", tags)


def grey_profile(exponent: float) -> bytes:
    """Return the profile of grey with this exponent."""
    tags = {b"desc": _text("grey"), b"wtpt": _xyz(WHITE), b"kTRC": _curve(exponent)}
    return _profile(b"mntrGRAYXYZ ", tags)


def cmyk_profile() -> bytes:
    """Return the profile of INKS, a table from CMYK to CIE L*a*b* like those of presses."""
    levels = np.linspace(0, 1, GRID)
    inks = np.stack(np.meshgrid(levels, levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 4)
    lab = _lab(_through(inks) @ np.array(PRIMARIES["sRGB"][0]))
    table = np.round((lab + np.array((0, 128, 128))) * (652.8, 256, 256)).astype(">u2")
    ramp = b"\0\0\xff\xff"
    identity = b"".join(value.to_bytes(4) for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 16))
    lut = b"mft2" + bytes(4) + bytes((4, 3, GRID, 0)) + identity + b"\0\2\0\2"
    lut += ramp * 4 + table.tobytes() + ramp * 3
    return _profile(b"prtrCMYKLab ", {b"desc": _text("inks"), b"wtpt": _xyz(WHITE), b"A2B0": lut})


def rgb_as_srgb(name: str, colours) -> list[tuple[int, ...]]:
    """Return the sRGB values of colours in these primaries."""
    primaries, exponent = PRIMARIES[name]
    linear = (np.array(colours) / 255) ** exponent @ np.array(primaries)
    return _encoded(np.clip(linear @ np.linalg.inv(np.array(PRIMARIES["sRGB"][0])), 0, 1))


def grey_as_srgb(exponent: float, colours) -> list[tuple[int, ...]]:
    """Return the sRGB values of greys with this exponent."""
    return _encoded((np.array(colours) / 255) ** exponent)


def cmyk_as_srgb(colours) -> list[tuple[int, ...]]:
    """Return the sRGB values of colours in INKS, 255 for full coverage."""
    return _encoded(_through(np.array(colours) / 255))


def _through(inks):
    """Return the linear red, green and blue that coverages from 0 to 1 let through."""
    return np.prod(1 - inks[..., None] * (1 - np.array(INKS)), axis=-2)


def _encoded(linear) -> list[tuple[int, ...]]:
    """Return linear sRGB as 8 bits: IEC 61966-2-1."""
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [tuple(colour) for colour in (encoded * 255).round().astype(int).tolist()]


def _lab(xyz):
    """Return CIE XYZ as L*a*b*, both D50: CIE 15."""
    share = xyz / WHITE
    x, y, z = np.where(share > 216 / 24389, np.cbrt(share), (share * 24389 / 27 + 16) / 116).T
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


# --- the bytes -----------------------------------------------------------------------------------


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(round(value * 65536).to_bytes(4) for value in values)


def _curve(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + (1).to_bytes(4) + round(exponent * 256).to_bytes(2) + b"\0\0"


def _text(name: str) -> bytes:
    text = name.encode() + b"\0"
    return b"desc\0\0\0\0" + len(text).to_bytes(4) + text + bytes(78)


def _profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of this class, colour space and connection space, with these tags."""
    table, body = len(tags).to_bytes(4), b""
    for tag, data in tags.items():
        table += tag + (128 + 4 + 12 * len(tags) + len(body)).to_bytes(4) + len(data).to_bytes(4)
        body += data + bytes(-len(data) % 4)
    header = bytes(8) + b"\2\x10\0\0" + kind + bytes(12) + b"acsp" + bytes(28)
    header += _xyz(WHITE)[8:] + bytes(48)
    return (128 + len(table) + len(body)).to_bytes(4) + header[4:] + table + body
