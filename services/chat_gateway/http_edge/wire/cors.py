"""Pages of other origins that may call the HTTP API from browsers (Fetch standard, "CORS protocol")."""

from collections.abc import Collection
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

ANY: Final = "*"
EXPOSED: Final = (
    "Allow",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "Retry-After-Ms",
    "WWW-Authenticate",
    "X-Agent-Revision",
    "X-Parley-Provider",
    "X-RateLimit-Limit-Requests",
    "X-RateLimit-Remaining-Requests",
    "X-RateLimit-Reset-Requests",
    "X-Request-ID",
    "X-Session-Created",
    "X-Session-Expires",
    "X-Session-ID",
    "X-Should-Retry",
)
"""What of an answer's headers pages may read, beyond those that they always may."""

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_MAX_AGE = b"600"  # seconds; a change of the setting is seen by then
_VARY = (b"vary", b"Origin")
_VARY_PREFLIGHT = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_EXPOSED = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())


def with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Returns `app` for pages of these origins (`*`: all); `app` itself where there are none.

    Preflights of theirs are answered here, without credentials, which browsers don't send with them; everything that
    `app` answers, errors and streams, may be read by them. Cookies are not part of it: Parley knows none.
    """
    return _Cors(app, frozenset(origin.encode() for origin in origins)).serve if origins else app


class _Cors:
    def __init__(self, app: ASGIApp, origins: frozenset[bytes]) -> None:
        self._app = app
        self._origins = origins
        self._any = ANY.encode() in origins

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: Any = scope
        if asked["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed = self._allowed(asked["headers"])
        if allowed and asked["method"] == "OPTIONS":
            given = dict(asked["headers"])
            if b"access-control-request-method" in given:
                await _answer_preflight(allowed, given.get(b"access-control-request-headers"), send)
                return
        own = [_VARY, *allowed, _EXPOSED] if allowed else [_VARY]

        async def send_allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await self._app(scope, receive, send_allowing)

    def _allowed(self, headers: Any) -> list[tuple[bytes, bytes]]:
        given = [value for name, value in headers if name == b"origin"]
        if len(given) != 1 or not (self._any or given[0] in self._origins):
            return []
        return [(b"access-control-allow-origin", ANY.encode() if self._any else given[0])]


async def _answer_preflight(allowed: list[tuple[bytes, bytes]], asked: bytes | None, send: Send) -> None:
    headers = [
        _VARY_PREFLIGHT,
        *allowed,
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _MAX_AGE),
    ]
    if asked:  # clients have headers of their own, such as x-stainless-lang; what decides something is checked later
        headers.append((b"access-control-allow-headers", asked))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
