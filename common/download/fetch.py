"""One photo asked for once, and what came of it: its bytes, or the reason there are none.

Reasons `gone`, `forbidden`, `changed`, `not_an_image`, `too_large` and `bad_url` are for good;
`rate_limited`, `server_error`, `timeout`, `connection` and `tls` are faults in passing.
"""

import hashlib
import re
import ssl
import time
import zlib
from base64 import b64encode
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http.client import HTTPException, responses
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3
from requests.utils import select_proxy, should_bypass_proxies
from urllib3.exceptions import HTTPError, LocationParseError, LocationValueError, ProxyError

from common.download.connections import Adapter, Response
from common.download.deadline import RefusedAddressError, Watch, Watchdog

FOR_GOOD = frozenset({"gone", "forbidden", "changed", "not_an_image", "too_large", "bad_url", "no_source"})
IN_PASSING = frozenset({"rate_limited", "server_error", "timeout", "connection", "tls"})
MAX_REDIRECTS = 5
MAX_URL = 8000  # characters; servers take less
PIECE = 1 << 20  # bytes read at a time where the length is not known
MAX_WAIT = 10**7  # seconds; no one means a longer Retry-After
JPEG = b"\xff\xd8\xff"
PLACEHOLDER = "photo_unavailable"  # where Flickr sends us when a photo is gone
NO_AI = frozenset({"noai", "noimageai"})

_FORBIDDEN = frozenset({401, 402, 403, 407, 451})
_PASSING = {408: "timeout", 425: "server_error", 429: "rate_limited"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]")


class Source(NamedTuple):
    """One address of a photo, and what is known of the bytes there."""

    name: str  # mirror, original or thumbnail
    url: str
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How photos are asked for; `proxies` and `ca_bundle` are the environment's, read once."""

    user_agent: str
    max_bytes: int
    max_per_host: int
    ignore_robots_tag: bool
    ca_bundle: str
    proxies: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt: `data`, or the reason why not."""

    data: bytes = b""
    reason: str = ""
    detail: str = ""
    retry: bool = False
    busy: bool = False  # the host has too much to do: 429 or 503
    wait: float | None = None  # seconds, by its Retry-After
    hosts: tuple[str, ...] = ()  # those that answered so, by host_of


class Fetcher:
    """The connections of one process, shared by its threads."""

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self.adapter = Adapter(settings.ca_bundle, settings.max_per_host)
        self.watchdog = Watchdog()
        self.headers = {
            "User-Agent": settings.user_agent,
            "Accept": "image/jpeg,*/*;q=0.5",
            "Accept-Encoding": "identity",
        }
        self.proxy_of: dict[str, str | None] = {}

    def close(self) -> None:
        self.adapter.close()
        self.watchdog.ended.set()

    def fetch(self, source: Source, seconds: float) -> Answer:
        """Ask for a photo once, following redirects, for at most `seconds`."""
        with self.watchdog.watch(seconds) as watch:
            answer = self._follow(source, watch)
        if watch.expired:
            return Answer(reason="timeout", detail="not whole within the deadline")
        return answer

    def _follow(self, source: Source, watch: Watch) -> Answer:
        url, first = source.url, host_of(source.url)
        for _ in range(MAX_REDIRECTS + 1):
            if problem := url_problem(url):
                return Answer(reason="bad_url", detail=problem)
            try:
                step = self._ask(url, source, watch)
            except RefusedAddressError:
                return Answer(reason="bad_url", detail="redirected to a private address")
            except (LocationParseError, LocationValueError, UnicodeError) as error:
                return Answer(reason="bad_url", detail=str(error))
            except (HTTPError, HTTPException, OSError) as error:
                return _fault(error)
            if isinstance(step, Answer):
                return replace(step, hosts=(first, host_of(url))) if step.busy else step
            url = step
            if urlsplit(url).path.rpartition("/")[2].startswith(PLACEHOLDER):
                return Answer(reason="gone", detail="redirected to the placeholder")
        return Answer(reason="bad_url", detail=f"more than {MAX_REDIRECTS} redirects")

    def _ask(self, url: str, source: Source, watch: Watch) -> Answer | str:
        """Return the answer to one request, or the address it sends us on to."""
        proxy = self._proxy(url)
        watch.proxied_to = urlsplit(url).hostname if proxy else None
        response = self.adapter.ask(host_of(url), url, proxy, self.headers, watch.left())
        try:
            status = response.status
            if status == 200:
                return self._photo(response, source)
            location = response.headers.get("Location")
            if status in _REDIRECTS and location:
                return _joined(url, location)
            return _refusal(status, response.reason, response.headers)
        finally:
            response.leave()

    def _photo(self, response: Response, source: Source) -> Answer:
        """Read and check a photo."""
        if source.name == "original" and not self.settings.ignore_robots_tag:
            tags = response.headers.get_all("X-Robots-Tag")
            if tags and robots_refuse(tags, self.settings.user_agent):
                return Answer(reason="forbidden", detail=f"X-Robots-Tag: {', '.join(tags)}")
        most = self.settings.max_bytes
        length = response.length  # None where it is not known
        if length is not None and length > most:
            return Answer(reason="too_large", detail=f"{length} bytes, at most {most} are taken")
        data = response.read(length) if length else b""
        if length is None:
            pieces = []
            size = 0
            while size <= most and (piece := response.read(PIECE)):
                pieces.append(piece)
                size += len(piece)
            data = b"".join(pieces)
        elif len(data) != length:
            return Answer(reason="connection", detail=f"{len(data)} of {length} bytes came", retry=True)
        if response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip"):
            try:
                data = zlib.decompressobj(31).decompress(data, most + 1)
            except zlib.error:
                return Answer(reason="not_an_image", detail="damaged gzip encoding")
        if len(data) > most:
            return Answer(reason="too_large", detail=f"more than {most} bytes")
        return _checked(data, source, response.headers.get("Content-Type", ""))

    def _proxy(self, url: str) -> str | None:
        host = host_of(url)
        if host not in self.proxy_of:
            proxies = self.settings.proxies
            bypass = should_bypass_proxies(url, no_proxy=proxies.get("no", ""))
            self.proxy_of[host] = None if bypass else select_proxy(url, proxies)
        return self.proxy_of[host]


def host_of(url: str) -> str:
    """Return scheme, host and port of a URL: what limits and pauses hold for."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}".lower()


def url_problem(url: str) -> str:
    """Return why a URL is not one we ask for, "" where it is."""
    if len(url) > MAX_URL:
        return f"an address of {len(url)} characters"
    if _BAD_IN_URL.search(url):
        return "white space or control characters in the address"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme.lower() not in ("http", "https"):
        return f"{parts.scheme[:20] or 'no scheme'}: only http and https addresses are fetched"
    if not parts.hostname or port == 0:
        return "no host in the address"
    if parts.username is not None or parts.password is not None:
        return "user name or password in the address"
    return ""


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


def _checked(data: bytes, source: Source, kind: str) -> Answer:
    """Return the answer with these bytes, held against what the index says of them."""
    if not data.startswith(JPEG):
        what = f"{len(data)} bytes of {kind or 'unknown type'}" if data else "an empty body"
        return Answer(reason="not_an_image", detail=f"{what}, a JPEG was expected")
    if source.size is not None and len(data) != source.size:
        return Answer(reason="changed", detail=f"{len(data)} bytes, the index says {source.size}")
    if source.md5 and b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode() != source.md5:
        return Answer(reason="changed", detail="the MD5 differs from the index")
    return Answer(data=data)


def _refusal(status: int, phrase: str | None, headers: Any) -> Answer:
    """Return the answer for a status other than 200."""
    detail = f"{status} {(phrase or responses.get(status, ''))[:60]}".strip()
    if status in (404, 410):
        return Answer(reason="gone", detail=detail)
    if status in _FORBIDDEN:
        return Answer(reason="forbidden", detail=detail)
    if status >= 500 or status in _PASSING:
        reason = _PASSING.get(status, "server_error")
        busy = status in (429, 503)
        return Answer(reason=reason, detail=detail, retry=True, busy=busy, wait=retry_after(headers))
    return Answer(reason="not_an_image" if 200 < status < 300 else "bad_url", detail=detail)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))
    except (ValueError, UnicodeError):
        return "bad:"  # url_problem says what there is to say


def _fault(error: BaseException) -> Answer:
    """Return the answer for an exception of the connection, by what is at its bottom."""
    chain = [error]
    while cause := _cause(chain[-1]):
        if cause in chain:
            break
        chain.append(cause)
    root = chain[-1]
    detail = f"{getattr(root, 'strerror', None) or root or type(root).__name__}"[:200]
    if any(isinstance(each, ProxyError) for each in chain):
        return Answer(reason="connection", detail=f"proxy: {detail}", retry=True)
    if isinstance(root, TimeoutError | urllib3.exceptions.EmptyPoolError):
        return Answer(reason="timeout", detail=detail, retry=True)
    if isinstance(root, ssl.SSLCertVerificationError):
        return Answer(reason="tls", detail=root.verify_message or detail)
    if isinstance(root, ssl.SSLError) and not isinstance(root, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Answer(reason="tls", detail=root.reason or detail)
    return Answer(reason="connection", detail=detail, retry=True)


def _cause(error: BaseException) -> BaseException | None:
    """Return the exception that another one wraps, in any of the ways of urllib3."""
    inner = [getattr(error, "reason", None), *error.args, error.__cause__]
    return next((each for each in inner if isinstance(each, BaseException)), None)
