"""What the environment says of the way to the internet, read once: requests would do so for each photo."""

import os
from urllib.request import getproxies

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from common.cli import InputError


def read_proxies() -> dict[str, str]:
    """Return the proxies of HTTP_PROXY and so on by scheme, and under "no" the hosts that go without."""
    proxies = {name: url for name, url in getproxies().items() if name in ("http", "https", "all", "no")}
    for name, url in proxies.items():
        if name != "no" and not url.lower().startswith(("http://", "https://")):
            raise InputError(f"{name.upper()}_PROXY is {url!r}, an http:// or https:// address was expected")
    return proxies


def ca_bundle() -> str:
    """Return the file or folder of the certificates that are trusted."""
    environment = os.environ.get
    bundle = environment("REQUESTS_CA_BUNDLE") or environment("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    if not os.path.exists(bundle):
        raise InputError(f"{bundle}: no such file, REQUESTS_CA_BUNDLE names certificates")
    return bundle
