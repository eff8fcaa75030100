"""The target host of a request: Host and request target must agree, and be given once (RFC 9112, 3.2)."""

import re
from collections.abc import Sequence
from typing import Final

_NAME = rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|" + _NAME + rb")(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(?:[/?]|$)", re.IGNORECASE)
_DEFAULT_PORTS: Final = (b":80", b":443", b":")


def target_fault(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], version: str) -> str | None:
    """Returns what is wrong with whom a request is for; None for one that reads the same everywhere.

    `headers` have lower-case names.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return "the request has more than one Host"
    if not hosts and version != "1.0":
        return "the request has no Host"
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "the request's Host is none"
    if method == b"CONNECT":
        return None  # refused as any unknown method, whatever its target
    if b"#" in target:
        return "the request's target has a fragment"
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return None
    absolute = _ABSOLUTE.match(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]) or not absolute[1]:
        return "the request's target is neither a path nor a URL"
    if hosts and _bare(absolute[1]) != _bare(hosts[0]):
        return "the request's target and its Host name two hosts"
    return None


def _bare(host: bytes) -> bytes:
    host = host.lower()
    for port in _DEFAULT_PORTS:
        if host.endswith(port):
            return host.removesuffix(port)
    return host
