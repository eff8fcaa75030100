"""uvicorn's HTTP protocol with bounds on a request's head, and with our error body for what is no HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from chat_gateway.http_edge.errors_json import MalformedBody, encode_error

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT = 30.0
"""Seconds for a request's line and headers to arrive, counted from the connection or the first byte. An idle connection
between requests has uvicorn's keep-alive timeout instead."""

_STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}


class RetirableState(ServerState):
    """What the connections of one server share."""

    retiring = False
    """Whether every answer that has not begun is the last one of its connection (`Connection: close`)."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Closes it when a head is larger than `MAX_HEAD_BYTES` or takes longer than `HEAD_TIMEOUT`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time of the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the time."""
        self._stop_timer()
        super().connection_lost(exc)

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
        if self.cycle is not None and getattr(self.server_state, "retiring", False):
            self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        """Takes bytes, as long as the head that they belong to is within its bounds."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"the request's headers are larger than {MAX_HEAD_BYTES} bytes")
        elif self._head_timer is None:
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
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
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_timeout(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(408, "the request's headers took too long")
