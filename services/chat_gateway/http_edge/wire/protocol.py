"""uvicorn's HTTP protocol with bounds on a request's head, and with our error body for what is not HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from chat_gateway.http_edge.wire.errors import MalformedBody, encode_error

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT = 30.0
"""Seconds for a request's line and headers to arrive, unless the server says otherwise. Counted from the connection or
the first byte; an idle connection between requests has uvicorn's keep-alive timeout instead."""

_CONNECTION: Final = "parley.connection"

_STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}


class SharedState(ServerState):
    """What the connections of one server share."""

    def __init__(self, head_timeout: float = HEAD_TIMEOUT) -> None:
        super().__init__()
        self.head_timeout = head_timeout
        self.retiring = False
        """Whether every answer that has not begun is the last one of its connection (`Connection: close`)."""


class ConnectionHandle:
    """What a request may do with its connection that ASGI has no messages for."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: "BoundedHttpProtocol", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    @property
    def has_body(self) -> bool:
        """Whether all of the body has arrived: then `receive` returns it, and does not wait."""
        return not self._cycle.more_body

    def watch(self, when_gone: Callable[[], None]) -> None:
        """Calls `when_gone` once the client has left: now, if it has. Saves a task that waits in `receive`.

        Only for the request that is served, and after its body has been read.
        """
        connection = self._connection
        connection.flow.resume_reading()  # a connection that is not read from is not seen to end
        connection.when_gone = when_gone
        if connection.lost:
            when_gone()

    def unwatch(self) -> None:
        """Stops watching. May be repeated."""
        self._connection.when_gone = None


def connection_of(scope: Any) -> ConnectionHandle:
    """Returns the connection of a request that a `BoundedHttpProtocol` received."""
    handle: ConnectionHandle = scope[_CONNECTION]
    return handle


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Closes it when a head is larger than `MAX_HEAD_BYTES` or takes too long.

    Requests get theirs by `connection_of`.
    """

    server_state: SharedState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self.lost = False
        self.when_gone: Callable[[], None] | None = None
        """What the request that is served now wants called when the client leaves."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer of the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer, and notifies the request that is served."""
        self._stop_timer()
        super().connection_lost(exc)
        self.lost = True
        if self.when_gone is not None:
            self.when_gone()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        if self.cycle is not None and self.server_state.retiring:
            self.cycle.keep_alive = False
        self.scope[_CONNECTION] = ConnectionHandle(self, self.cycle)  # type: ignore[typeddict-unknown-key]

    def data_received(self, data: bytes) -> None:
        """Takes bytes, while the head that they belong to is within its bounds."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"the request's headers are larger than {MAX_HEAD_BYTES} bytes")
        elif self._head_timer is None:
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP."""
        self._refuse(400, "the request is not HTTP/1.1 that can be read")

    def _refuse(self, status: int, message: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # else the bytes would land inside another answer
            body = encode_error(MalformedBody(message))
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(_STATUS_LINES[status] + head + body)
        self.transport.close()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.server_state.head_timeout, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_timeout(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(408, "the request's headers took too long")
