"""One request for an image: its bytes, checked against the index, or the reason why there are none."""

from __future__ import annotations

import hashlib
import ssl
import time
from base64 import b64encode
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any
from urllib.parse import urljoin, urlsplit

from requests.exceptions import ProxyError
from urllib3.exceptions import DecodeError, EmptyPoolError, HTTPError

from common.download.connections import (
    Attempt,
    Connections,
    RefusedAddressError,
    host_of,
    url_problem,
    without_blanks,
)
from common.download.types import TRANSIENT, Answer, DownloadSettings, ImageSource
from common.images.header import HTML, file_format, has_end

MAX_REDIRECTS = 5
PIECE = 1 << 20  # bytes read at a time, from most images all
JPEG = b"\xff\xd8\xff"
PLACEHOLDER = "photo_unavailable"  # where Flickr redirects when an image is gone
NO_AI = frozenset({"noai", "noimageai"})

_REASONS = {  # by status
    404: "gone", 410: "gone", 401: "forbidden", 402: "forbidden", 403: "forbidden", 451: "forbidden",
    407: "connection", 408: "timeout", 425: "server_error", 429: "rate_limited",
}  # fmt: skip
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def get_image(
    source: ImageSource, seconds: float, connections: Connections, settings: DownloadSettings
) -> Answer:
    """Return the answer to a request for an image, redirects followed, after at most `seconds`."""
    attempt, url = Attempt(seconds), source.url
    for _ in range(MAX_REDIRECTS + 1):
        if problem := url_problem(url):
            return Answer(reason="bad_url", detail=problem)
        try:
            with connections.get(url, attempt) as raw:
                location = raw.headers.get("Location")
                if raw.status == 200:
                    return _read_image(raw, source, settings)
                if raw.status not in _REDIRECTS or not location:
                    return _refusal(raw, frozenset({host_of(source.url), host_of(url)}))
            location = location.encode("latin-1").decode("utf-8", "replace")
            url = urljoin(url, without_blanks(location))
        except RefusedAddressError:  # as networks redirect to the page where one signs in
            return Answer(reason="connection", detail="redirected to a private address")
        except ValueError as error:
            return Answer(reason="bad_url", detail=str(error)[:200])
        except (HTTPError, OSError) as error:
            return _fault(error)
        if urlsplit(url).path.rpartition("/")[2].startswith(PLACEHOLDER):
            return Answer(reason="gone", detail="redirected to the placeholder")
    return Answer(reason="bad_url", detail=f"more than {MAX_REDIRECTS} redirects")


def _read_image(raw: Any, source: ImageSource, settings: DownloadSettings) -> Answer:
    if source.name == "original" and not settings.ignore_robots_tag:
        tags = raw.headers.getlist("X-Robots-Tag")
        if robots_refuse(tags, settings.user_agent):
            return Answer(reason="forbidden", detail=f"X-Robots-Tag: {', '.join(tags)}")
    most = settings.max_bytes
    if (raw.length_remaining or 0) > most:  # None where it is not known
        detail = f"{raw.length_remaining} bytes, --max_megabytes allows {most}"
        return Answer(reason="too_large", detail=detail)
    pieces: list[bytes] = []
    encoding = raw.headers.get("Content-Encoding", "")
    try:
        while sum(map(len, pieces)) <= most and (piece := raw.read(PIECE, bool(encoding))):
            pieces.append(piece)
    except DecodeError:
        return Answer(reason="not_an_image", detail=f"damaged {encoding} encoding")
    data = b"".join(pieces)
    if len(data) > most:
        return Answer(reason="too_large", detail=f"more than the {most} bytes of --max_megabytes")
    ends_by_close = raw.length_remaining is None and not raw.chunked
    if ends_by_close and JPEG.startswith(data[:3]) and len(data) != source.size and not has_end(data):
        return Answer(reason="connection", detail="closed before the end of the image", retry=True)
    return _checked(data, source, raw.headers.get("Content-Type", ""))


def robots_refuse(tags: list[str], user_agent: str) -> bool:
    """Tell whether X-Robots-Tag headers ask for no use in training, of everyone or of us by name.

    `noai, noimageai` as DeviantArt introduced them; `otherbot: noai` is for that bot alone.
    """
    ours = user_agent.partition("/")[0].lower()
    for tag in tags:
        name, colon, rest = tag.partition(":")
        if colon and "," not in name and name.strip().lower() not in ("unavailable_after", ours):
            continue
        if NO_AI & {word.strip().lower() for word in (rest if colon else tag).split(",")}:
            return True
    return False


def retry_after(headers: Any) -> float | None:
    """Return the seconds a Retry-After header asks for, of a date by the server's own clock."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    until = _timestamp(text)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _timestamp(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _checked(data: bytes, source: ImageSource, kind: str) -> Answer:
    """Return the answer with these bytes, checked against the index."""
    if not data:
        return Answer(reason="server_error", detail="200 OK, an empty body", retry=True)
    found = file_format(data)
    if not found.decoder:
        is_page = found is HTML or "html" in kind.lower()
        detail = f"{found.name}, {len(data)} bytes of {kind or 'unknown type'}"
        return Answer(reason="web_page" if is_page else "not_an_image", detail=detail)
    if source.size is not None and len(data) != source.size:
        return Answer(reason="changed", detail=f"{len(data)} bytes, the index says {source.size}")
    if source.md5 and b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode() != source.md5:
        return Answer(reason="changed", detail="the MD5 differs from the index")
    return Answer(data=data)


def _refusal(raw: Any, hosts: frozenset[str]) -> Answer:
    """Return the answer for a status other than 200, which these hosts gave."""
    status = raw.status
    detail = f"{status} {(raw.reason or responses.get(status, ''))[:60]}".strip()
    other = "server_error" if status >= 500 else "not_an_image" if 200 < status < 300 else "bad_url"
    reason = _REASONS.get(status, other)
    if reason not in TRANSIENT:
        return Answer(reason=reason, detail=detail)
    busy = hosts if status in (429, 503) else frozenset()
    return Answer(reason=reason, detail=detail, retry=True, busy=busy, wait=retry_after(raw.headers))


def _inner(error: BaseException) -> tuple[object, ...]:
    """Return where requests and urllib3 keep the exception that they wrap."""
    return getattr(error, "reason", None), *error.args, error.__cause__


def _fault(error: BaseException) -> Answer:
    """Return the answer for an exception of the connection, by its first cause."""
    root: BaseException = error
    while inner := [each for each in _inner(root) if isinstance(each, BaseException)]:
        root = inner[0]
    detail = f"{getattr(root, 'strerror', None) or root or type(root).__name__}"[:200]
    if isinstance(error, ProxyError):
        return Answer(reason="connection", detail=f"proxy: {detail}", retry=True)
    if isinstance(root, TimeoutError | EmptyPoolError):
        return Answer(reason="timeout", detail=detail, retry=True)
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Answer(reason="tls", detail=getattr(root, "verify_message", "") or root.reason or detail)
    return Answer(reason="connection", detail=detail, retry=True)
