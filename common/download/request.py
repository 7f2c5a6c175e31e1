"""One request for an image: its bytes, checked against the index, or the reason why there are none."""

from __future__ import annotations

import hashlib
import os
import ssl
import time
import zlib
from base64 import b64encode
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies

from requests import PreparedRequest
from requests.exceptions import InvalidURL, ProxyError, RequestException
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy, should_bypass_proxies
from urllib3.exceptions import EmptyPoolError, HTTPError

from common.cli import InputError
from common.download.connections import Adapter, Attempt, RefusedAddressError, is_public
from common.download.sources import host_of, url_problem, without_blanks
from common.download.types import Answer, DownloadSettings, ImageSource
from common.images.header import HTML, file_format
from common.images.jpeg import has_end

MAX_REDIRECTS = 5
PIECE = 1 << 20  # bytes read at a time, from most images all
MAX_REST = 1 << 16  # bytes read of an answer without an image, to keep its connection
MAX_WAIT = 10**7  # seconds; no one means a longer Retry-After
JPEG = b"\xff\xd8\xff"
PLACEHOLDER = "photo_unavailable"  # where Flickr redirects when an image is gone
NO_AI = frozenset({"noai", "noimageai"})

_FORBIDDEN = frozenset({401, 402, 403, 451})
_TRANSIENT = {407: "connection", 408: "timeout", 425: "server_error", 429: "rate_limited"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Requester:
    """The connections of one process, by the proxies and certificates of its environment."""

    def __init__(self, settings: DownloadSettings, max_per_host: int) -> None:
        self.settings = settings
        self.adapter = Adapter(_ca_bundle(), max_per_host)
        headers = {"Accept": "image/jpeg,*/*;q=0.5", "Accept-Encoding": "identity"}
        self.headers = CaseInsensitiveDict(headers | {"User-Agent": settings.user_agent})
        self.proxies = _read_proxies()
        self.proxy_of: dict[str, dict[str, str]] = {}  # by host

    def get(self, source: ImageSource, seconds: float) -> Answer:
        """Return the answer to a request for an image, redirects followed, after at most `seconds`."""
        attempt = Attempt(seconds)
        answer = self._follow(source, attempt)
        if answer.reason and time.monotonic() >= attempt.until:
            return Answer(reason="timeout", detail="not complete within the deadline", is_late=True)
        return answer

    def _follow(self, source: ImageSource, attempt: Attempt) -> Answer:
        url, first = source.url, host_of(source.url)
        for _ in range(MAX_REDIRECTS + 1):
            if problem := url_problem(url):
                return Answer(reason="bad_url", detail=problem)
            try:
                step = self._ask(url, source, attempt)
            except RefusedAddressError:  # as networks redirect to the page where one signs in
                return Answer(reason="connection", detail="redirected to a private address")
            except (InvalidURL, UnicodeError) as error:
                return Answer(reason="bad_url", detail=str(error)[:200])
            except (RequestException, HTTPError, OSError) as error:
                return _fault(error)
            if isinstance(step, Answer):
                return replace(step, hosts=(first, host_of(url))) if step.is_busy else step
            url = step
            if urlsplit(url).path.rpartition("/")[2].startswith(PLACEHOLDER):
                return Answer(reason="gone", detail="redirected to the placeholder")
        return Answer(reason="bad_url", detail=f"more than {MAX_REDIRECTS} redirects")

    def _ask(self, url: str, source: ImageSource, attempt: Attempt) -> Answer | str:
        """Return the answer to one request, or the address that it redirects to."""
        proxies = self._proxies(url)
        if proxies:
            attempt.enter(public=is_public(urlsplit(url).hostname or ""))
        request = PreparedRequest()
        request.prepare_url(url, None)
        request.method, request.headers = "GET", self.headers
        raw = self.adapter.send(request, stream=True, timeout=attempt, proxies=proxies).raw  # type: ignore[arg-type]
        try:
            location = raw.headers.get("Location")
            if raw.status == 200:
                return self._read_image(raw, source)
            if raw.status in _REDIRECTS and location:
                return _joined(url, location)
            return _refusal(raw)
        finally:
            _leave(raw)

    def _read_image(self, raw: Any, source: ImageSource) -> Answer:
        if source.name == "original" and not self.settings.ignore_robots_tag:
            tags = raw.headers.getlist("X-Robots-Tag")
            if robots_refuse(tags, self.settings.user_agent):
                return Answer(reason="forbidden", detail=f"X-Robots-Tag: {', '.join(tags)}")
        most = self.settings.max_bytes
        if (raw.length_remaining or 0) > most:  # None where it is not known
            detail = f"{raw.length_remaining} bytes, --max_megabytes allows {most}"
            return Answer(reason="too_large", detail=detail)
        pieces: list[bytes] = []
        while sum(map(len, pieces)) <= most and (piece := raw.read(PIECE)):
            pieces.append(piece)
        data = b"".join(pieces)
        encoding = raw.headers.get("Content-Encoding", "").lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            try:
                data = _decompressed(data, most + 1)
            except zlib.error:
                return Answer(reason="not_an_image", detail=f"damaged {encoding} encoding")
        if len(data) > most:
            return Answer(reason="too_large", detail=f"more than the {most} bytes of --max_megabytes")
        ends_by_close = raw.length_remaining is None and not raw.chunked
        if ends_by_close and JPEG.startswith(data[:3]) and len(data) != source.size and not has_end(data):
            return Answer(reason="connection", detail="closed before the end of the image", retry=True)
        return _checked(data, source, raw.headers.get("Content-Type", ""))

    def _proxies(self, url: str) -> dict[str, str]:
        """Return the proxy of a URL's host, as requests takes it."""
        host = host_of(url)
        if host not in self.proxy_of:
            bypass = should_bypass_proxies(url, no_proxy=self.proxies.get("no", ""))
            proxy = None if bypass else select_proxy(url, self.proxies)
            self.proxy_of[host] = {"all": proxy} if proxy else {}
        return self.proxy_of[host]


def _read_proxies() -> dict[str, str]:
    """Return the proxies of HTTP_PROXY and so on by scheme, and under "no" the hosts that need none."""
    proxies = {name: url for name, url in getproxies().items() if name in ("http", "https", "all", "no")}
    for name, url in proxies.items():
        if name != "no" and not url.lower().startswith(("http://", "https://")):
            raise InputError(f"{name.upper()}_PROXY is {url!r}, an http:// or https:// address was expected")
    return proxies


def _ca_bundle() -> str:
    """Return the file or folder of the trusted certificates."""
    environment = os.environ.get
    bundle = environment("REQUESTS_CA_BUNDLE") or environment("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    if not os.path.exists(bundle):
        raise InputError(f"{bundle}: no such file, REQUESTS_CA_BUNDLE names certificates")
    return bundle


def _decompressed(data: bytes, most: int) -> bytes:
    """Return at most that many bytes of gzip, zlib or, as some servers take "deflate", bare deflate data."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, most)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)


def _leave(raw: Any) -> None:
    """Give the connection of an answer back: open if the answer is read to its end or nearly, else closed."""
    length = raw.length_remaining
    if length is not None and length <= MAX_REST and raw.status not in (204, 304):
        raw.drain_conn()
    else:  # what follows a 204 would pass for the next answer
        raw.close()
    raw.release_conn()


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
        return float(min(int(text[:12]), MAX_WAIT))
    until = _timestamp(text)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return min(max(0.0, until - (time.time() if now is None else now)), MAX_WAIT)


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


def _refusal(raw: Any) -> Answer:
    """Return the answer for a status other than 200."""
    status = raw.status
    detail = f"{status} {(raw.reason or responses.get(status, ''))[:60]}".strip()
    if status in (404, 410):
        return Answer(reason="gone", detail=detail)
    if status in _FORBIDDEN:
        return Answer(reason="forbidden", detail=detail)
    if status >= 500 or status in _TRANSIENT:
        reason, is_busy = _TRANSIENT.get(status, "server_error"), status in (429, 503)
        return Answer(b"", reason, detail, retry=True, is_busy=is_busy, wait=retry_after(raw.headers))
    return Answer(reason="not_an_image" if 200 < status < 300 else "bad_url", detail=detail)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, without_blanks(location.encode("latin-1").decode("utf-8", "replace")))
    except (ValueError, UnicodeError):
        return "bad:"  # url_problem names what is wrong


def _fault(error: BaseException) -> Answer:
    """Return the answer for an exception of the connection, by its first cause."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in chain:
        chain.append(cause)
        inner = [getattr(cause, "reason", None), *cause.args, cause.__cause__]  # as requests and urllib3 wrap
        cause = next((each for each in inner if isinstance(each, BaseException)), None)
    root = chain[-1]
    detail = f"{getattr(root, 'strerror', None) or root or type(root).__name__}"[:200]
    if any(isinstance(each, ProxyError) for each in chain):
        return Answer(reason="connection", detail=f"proxy: {detail}", retry=True)
    if isinstance(root, TimeoutError | EmptyPoolError):
        return Answer(reason="timeout", detail=detail, retry=True)
    if isinstance(root, ssl.SSLCertVerificationError):
        return Answer(reason="tls", detail=root.verify_message or detail)
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Answer(reason="tls", detail=root.reason or detail)
    return Answer(reason="connection", detail=detail, retry=True)
