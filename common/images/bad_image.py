"""A photo that cannot be used is an outcome, and what decoders raise on one."""

import struct
import zlib

# Pillow's decoders raise these, and nothing else was seen, on files that are not what they say they are.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    IndexError, KeyError, TypeError, OverflowError, AttributeError, ZeroDivisionError,
)  # fmt: skip


# Why a photo whose bytes are there cannot be used.
REASONS = ("truncated", "damaged", "unreadable", "too_large", "too_small")


class BadImageError(Exception):
    """This photo cannot be used: `reason` is one of REASONS or missing, `detail` a short line for people.

    `in_passing`: not for a fault of its bytes; the next run looks at it again.
    """

    def __init__(self, reason: str, detail: str = "", *, in_passing: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.in_passing = in_passing
