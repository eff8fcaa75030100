"""The context of one request in the edge, and responses in one piece."""

import contextvars
from collections.abc import Mapping
from typing import Final

from litestar.types import Receive, Send

from chat_gateway.http_edge.wire.connection_handle import ConnectionHandle
from chat_gateway.http_edge.wire.limit_headers import Headers
from servicekit.values import value

CLIENT_GONE: Final = 499
"""The status that is recorded, though not sent, when the client left first."""

_JSON = (b"content-type", b"application/json")


@value
class RequestContext:
    """One request, from its head on."""

    id: bytes
    """The caller's own `X-Request-ID`, or one that this process generated. Every answer carries it."""
    headers: Mapping[bytes, bytes]
    """Those that the edge reads, by their names in lower case."""
    connection: ConnectionHandle
    receive: Receive
    send: Send
    source: str = ""
    """The address that the connection comes from."""

    async def respond(self, status: int, body: bytes, headers: Headers) -> None:
        """Answers with a JSON body."""
        length = (b"content-length", b"%d" % len(body))
        head = [_JSON, length, (b"x-request-id", self.id), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


_current: contextvars.ContextVar[RequestContext] = contextvars.ContextVar("request")


def current_request() -> RequestContext:
    """Returns the request that the running task serves, for what the framework calls with its own values only."""
    return _current.get()


def set_current_request(context: RequestContext) -> None:
    """Makes `context` the running task's; the edge does, once for each request that it hands to the framework."""
    _current.set(context)
