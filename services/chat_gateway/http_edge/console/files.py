"""The console's files, read once into memory and served by name: no path of a request ever reaches a file system."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import MethodNotAllowed, RouteNotFound
from chat_gateway.http_edge.wire.refusal import refuse
from servicekit.values import value

CONSOLE_PATH: Final = "/console"

_FOLDER = Path(__file__).with_name("static")
_INDEX = "index.html"
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".json": b"application/json",
    ".txt": b"text/plain; charset=utf-8",
}
_METHODS = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)

Headers = list[tuple[bytes, bytes]]


@value
class _File:
    body: bytes
    etag: bytes
    headers: Headers


class ConsoleFiles:
    """Answers requests below `/console`. The files hold nothing secret, so they need no credentials."""

    def __init__(self, files: Mapping[str, bytes], login_origins: Iterable[str] = ()) -> None:
        connect = " ".join(["'self'", *dict.fromkeys(login_origins)])
        self._safety: Headers = [
            (b"content-security-policy", _POLICY.format(connect=connect).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        self._files = {f"{CONSOLE_PATH}/{name}": self._file(name, body) for name, body in files.items()}
        index = self._files[f"{CONSOLE_PATH}/{_INDEX}"]
        self._files[CONSOLE_PATH] = self._files[f"{CONSOLE_PATH}/"] = index

    @classmethod
    def read(cls, login_origins: Iterable[str] = ()) -> Self:
        """Returns the files of this package; the page may also send requests to `login_origins`."""
        found = (path for path in sorted(_FOLDER.rglob("*")) if path.suffix in _TYPES)
        return cls({path.relative_to(_FOLDER).as_posix(): path.read_bytes() for path in found}, login_origins)

    @staticmethod
    def takes(path: str) -> bool:
        """Returns whether a request for the path is the console's to answer."""
        return path == CONSOLE_PATH or path.startswith(f"{CONSOLE_PATH}/")

    async def serve(self, scope: Any, context: RequestContext) -> int:
        """Answers a request, and returns the status."""
        method, path = scope["method"], scope["path"]
        if method not in _METHODS:
            return await refuse(MethodNotAllowed(method, path, "GET, HEAD"), context)
        file = self._files.get(path)
        if file is None:
            return await refuse(RouteNotFound(method, path), context)
        known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        fresh = {one.strip().removeprefix(b"W/") for one in known.split(b",")}
        status = 304 if file.etag in fresh or b"*" in fresh else 200
        head = [*file.headers, (b"x-request-id", context.id)]
        if status == 200:
            head.append((b"content-length", b"%d" % len(file.body)))
        body = file.body if status == 200 and method == "GET" else b""
        await context.send({"type": "http.response.start", "status": status, "headers": head})
        await context.send({"type": "http.response.body", "body": body, "more_body": False})
        return status

    def _file(self, name: str, body: bytes) -> _File:
        etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
        kind = _TYPES[Path(name).suffix]
        # Asked for again each time, which costs a 304: a page never runs on files of two releases for long.
        return _File(
            body, etag, [(b"content-type", kind), (b"etag", etag), (b"cache-control", b"no-cache"), *self._safety]
        )


def origin_of(url: str) -> str:
    """Returns the origin of a URL, as a Content-Security-Policy names it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
