"""Reasons for missed damage: a slow reader of baseline JPEGs, bit by bit, strictly by the standard."""

from collections.abc import Iterator

LEGAL = "legal to the last bit"
PAST_END = "runs past the end of a block"
NO_CODE = "an unknown code"
LEFT_OVER = "up to 7 bytes left over"
WHYS = (LEGAL, PAST_END, NO_CODE, LEFT_OVER)
DHT, SOF0, SOS = 0xC4, 0xC0, 0xDA


def why_missed(data: bytes) -> str:
    """Return the fault of a baseline file (one scan, no restarts) that libjpeg does not report.

    A block has 64 coefficients; changed bits make runs go past them, which libjpeg cuts off silently. Its
    fast path takes an unknown code for zero, and ignores the bits that it has read beyond the last block.
    Source: ITU-T T.81, F.2.2.
    """
    tables: dict[int, dict[str, int]] = {}
    for marker, body, end in segments(data):
        if marker == DHT:
            tables |= huffman_tables(body)
        elif marker == SOF0:
            height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            samplings = [(byte >> 4, byte & 15) for byte in body[7::3]]
        elif marker == SOS:
            chosen = [(tables[byte >> 4], tables[16 | byte & 15]) for byte in body[2:-3:2]]
            scan = end
    across, down = (8 * max(sampling[n] for sampling in samplings) for n in (0, 1))
    unit = [chosen[n] for n, (wide, high) in enumerate(samplings) for _ in range(wide * high)]
    bits = "".join(f"{byte:08b}" for byte in data[scan : data.rfind(b"\xff\xd9")].replace(b"\xff\0", b"\xff"))
    try:
        end, past_end = read_blocks(bits, unit * (-(-width // across) * -(-height // down)))
    except KeyError:
        return NO_CODE
    if past_end:
        return PAST_END
    return LEGAL if 0 <= len(bits) - end < 8 else LEFT_OVER


def read_blocks(bits: str, blocks: list[tuple[dict[str, int], dict[str, int]]]) -> tuple[int, bool]:
    """Return the end of the last block, and whether a run went past the end of a block.

    Raises KeyError for an unknown code.
    """
    place, past_end = 0, False
    for dc, ac in blocks:
        place, size = next_value(bits, place, dc)
        place, filled = place + size, 1
        while filled < 64:
            place, value = next_value(bits, place, ac)
            if value == 0:
                break
            place, filled = place + (value & 15), filled + (value >> 4) + 1
            past_end |= filled > 64
    return place, past_end


def segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, body and end of each segment before the image data."""
    marker, place = 0, 2
    while marker != SOS:
        marker, end = data[place + 1], place + 2 + int.from_bytes(data[place + 2 : place + 4])
        yield marker, data[place + 4 : end], end
        place = end


def huffman_tables(body: bytes) -> dict[int, dict[str, int]]:
    """Return the values of the codes of each table of a DHT segment."""
    tables: dict[int, dict[str, int]] = {}
    while body:
        code, values = 0, iter(body[17:])
        table = tables[body[0]] = {}
        for length in range(1, 17):
            for _ in range(body[length]):
                table[f"{code:0{length}b}"] = next(values)
                code += 1
            code <<= 1
        body = body[17 + len(table) :]
    return tables


def next_value(bits: str, place: int, table: dict[str, int]) -> tuple[int, int]:
    """Return the end of the code at `place`, and its value."""
    for end in range(place + 1, place + 17):
        value = table.get(bits[place:end])
        if value is not None:
            return end, value
    raise KeyError(place)
