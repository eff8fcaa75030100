"""Rules for URLs and headers of HTTP requests that the gateway sends for users."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from servicekit.errors import Violations

MAX_HEADERS = 32
MAX_URL = 2048

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
_URL = re.compile(r"[\x21-\x7e]+")
_OF_THE_PROTOCOL = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the gateway sets by itself."""


def check_url(found: Violations, path: str, url: str) -> None:
    """Reports anything but an absolute `http:` or `https:` URL without credentials and fragment."""
    if not url:
        found.add(path, "is required")
    elif len(url) > MAX_URL:
        found.add(path, f"must have at most {MAX_URL} characters")
    elif not _is_url(url):
        found.add(path, "must be a URL of http: or https: with a host, without credentials and fragment")


def check_headers(found: Violations, path: str, headers: Mapping[str, str]) -> None:
    """Reports too many headers, invalid or reserved names, and values that are not printable."""
    if len(headers) > MAX_HEADERS:
        found.add(path, f"must have at most {MAX_HEADERS} entries")
    seen: set[str] = set()
    for name, value in sorted(headers.items()):
        check_header_name(found, path, name)
        if name.lower() == "authorization":
            found.add(path, "must not hold Authorization: `auth` says how to authenticate")
        if name.lower() in seen:
            found.add(path, f"{name[:80]!r} is a duplicate: names of headers are the same in upper and lower case")
        seen.add(name.lower())
        if not _HEADER_VALUE.fullmatch(value):
            found.add(f"{path}.{name[:80]}", "must have at most 1024 characters, printable ASCII")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            _URL.fullmatch(url) is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and "@" not in parts.netloc
            and "#" not in url
            and "\\" not in url
        )
    except ValueError:
        return False


def check_header_name(found: Violations, path: str, name: str) -> None:
    """Reports an invalid header name, and one that the gateway sets itself."""
    if not _TOKEN.fullmatch(name):
        found.add(path, f"{name[:80]!r} is not the name of a header (RFC 9110): 1 to 128 letters, digits and '-'")
    elif name.lower() in _OF_THE_PROTOCOL:
        found.add(path, f"{name!r} is set by the gateway itself")
