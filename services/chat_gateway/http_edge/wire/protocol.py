"""uvicorn's HTTP protocol with bounds on everything that a client sends or leaves unread, before the application.

What ends a request's head ends its headers: trailers are read, counted, and dropped. An upgrade is never taken, and so
ignored (RFC 9110, 7.8).
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from chat_gateway.http_edge.wire import refused_requests as refused
from chat_gateway.http_edge.wire.connection_handle import CONNECTION, ConnectionHandle
from chat_gateway.http_edge.wire.connections import Admission, ConnectionLimits, Connections, Source
from chat_gateway.http_edge.wire.targets import target_fault
from chat_gateway.http_edge.wire.unframed import without_chunks
from servicekit.unread import MAX_UNREAD_BYTES, STREAM_BYTES, Stalled, making_room

HEAD_TIMEOUT = 30.0
"""Seconds for a request's line and headers to arrive, unless the server says otherwise. Counted from the connection or
the first byte; an idle connection between requests has uvicorn's keep-alive timeout instead."""
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0
"""How much and how long an unwanted body is read and discarded. Closing at once would reset the connection, and the
client, still sending, would never see the answer."""
WRITE_TIMEOUT = 60.0
"""Seconds after which a client that takes nothing of what was written is cut off, unless the server says otherwise."""

_HEALTH_HEAD_TIMEOUT = 2.0
_SLICE = 16 * 1024
"""Bytes that are parsed at a time: how exactly what belongs to which message is counted."""
_FRAMING_SHARE = 16
"""Bytes of framing (chunk sizes, extensions, trailers) that a byte of a body may take, beyond `MAX_HEAD_BYTES`."""
_SLOWEST_WRITE = 10
"""How many write timeouts a client may take for what fills the connection's buffer, whatever progress it makes."""
_FRAMING_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class SharedState(ServerState):
    """What the connections of one server share. `health_only` serves those that are beyond the limits."""

    def __init__(
        self,
        health_only: ASGIApp,
        head_timeout: float = HEAD_TIMEOUT,
        write_timeout: float = WRITE_TIMEOUT,
        limits: ConnectionLimits | None = None,
        max_unread_bytes: int = MAX_UNREAD_BYTES,
    ) -> None:
        super().__init__()
        self.max_unread_bytes = max_unread_bytes
        self.health_only = health_only
        self.head_timeout = head_timeout
        self.write_timeout = write_timeout
        self.counted = Connections(limits or ConnectionLimits())
        self.retiring = False
        """Whether every answer that has not begun is the last one of its connection (`Connection: close`)."""

    def cut_off_stalled(self, now: float) -> None:
        """Ends connections whose client does not read what was written. To be called often, with the loop's time.

        While more than `max_unread_bytes` are unread, clients that read nothing have less time.
        """
        connections = [one for one in list(self.connections) if isinstance(one, BoundedHttpProtocol)]
        stalled = [(how, one) for one in connections if (how := one.check_writing(now)) is not None]
        for connection in making_room(stalled, self.max_unread_bytes, now):
            connection.cut_off()


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. What can't be read any further is refused, once everything before it is answered.

    A body that is not there when its request is answered is waited for and dropped, within `LINGER_SECONDS` and
    `LINGER_BYTES`. Requests get their connection by `connection_of`.
    """

    server_state: SharedState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source: Source | None = None
        self._health_only = False
        self._in_head = True
        self._in_body = False
        self._replaying = False
        self._messages = 0
        self._head_bytes = self._body_bytes = self._framing_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        """Of the head that arrives, or of the rest of a request that is answered."""
        self._deaf = False
        """Whether nothing that arrives is read any more."""
        self._refusal: refused.RefusedRequest | None = None
        """What the client is answered once the requests before are."""
        self._serving: RequestResponseCycle | None = None
        self._stalled: Stalled | None = None
        self.lost = False
        self.when_gone: Callable[[], None] | None = None
        """What the request that is served now wants called when the client leaves."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection, and starts the timer of the first head."""
        super().connection_made(transport)
        admission, source = self.server_state.counted.enter(self, self.client[0] if self.client else "")
        if admission is Admission.NOTHING:
            self._deaf = True
            transport.abort()
            return
        self._source = source
        self._health_only = admission is Admission.HEALTH
        if self._health_only:
            self.app = self.server_state.health_only
        self._start_timer(self._head_timeout(), self._on_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer, and notifies the request that is served."""
        self._stop_timer()
        self._leave()
        super().connection_lost(exc)
        self.lost = True
        if self._serving is not None and not self._serving.response_complete:
            self._serving.disconnected = True
            self._serving.message_event.set()
        if self.when_gone is not None:
            self.when_gone()

    def evict(self) -> None:
        """Closes the connection, which serves no request, for another one."""
        self._source = None
        self._deaf = True
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Takes bytes, while what they belong to is within its bounds."""
        if len(data) <= _SLICE:
            self._read(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            self._read(view[start : start + _SLICE])

    def _read(self, data: bytes | memoryview) -> None:
        if self._deaf or self.transport.is_closing():
            return
        messages, body_bytes, was_in_body = self._messages, self._body_bytes, self._in_body
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, refused.RefusedRequest) else refused.NOT_HTTP)
            return
        except httptools.HttpParserError:
            self._refuse(refused.NOT_HTTP)
            return
        if self._in_head:
            begun = self._messages - messages
            if begun == 0 or (begun == 1 and not was_in_body):  # else the most of it belongs to messages before
                self._head_bytes += len(data)
            if self._head_bytes > refused.MAX_HEAD_BYTES:
                self._refuse(refused.HEAD_TOO_LARGE)
            elif self._timer is None:
                self._start_timer(self._head_timeout(), self._on_slow_head)
        elif self._in_body:
            self._framing_bytes += max(0, len(data) - max(0, self._body_bytes - body_bytes))
            if self._framing_bytes > refused.MAX_HEAD_BYTES + _FRAMING_SHARE * self._body_bytes:
                self._refuse(refused.TOO_MUCH_FRAMING)

    def _parse(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._read_on_without_upgrade()

    def _read_on_without_upgrade(self) -> None:
        # The parser has ended the message with its head. It is given the framing again, without what made it do so.
        framing = b"".join(b"%b: %b\r\n" % pair for pair in self.headers if pair[0] in _FRAMING_HEADERS)
        if self.scope["method"] == "CONNECT" and self.cycle is not None:
            self.cycle.keep_alive = False
        self._replaying = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        finally:
            self._replaying = False

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._replaying:
            return
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._messages += 1
        self._in_head = True
        self._head_bytes = self._body_bytes = self._framing_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Takes a part of the request's target."""
        if not self._replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; a trailer is none."""
        if self._replaying or not self._in_head:
            return
        if len(self.headers) >= refused.MAX_HEADERS:
            raise refused.TOO_MANY_HEADERS
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._replaying:
            return
        if len(self.pipeline) >= refused.MAX_PIPELINED:
            raise refused.TOO_MANY_REQUESTS
        if self._head_bytes and refused.is_too_large(self.url, self.headers):  # its last bytes came with its end
            raise refused.HEAD_TOO_LARGE
        version = self.parser.get_http_version()
        self._check_framing(version)
        fault = target_fault(self.parser.get_method(), self.url, self.headers, version)
        if fault is not None:
            raise refused.RefusedRequest(400, fault)
        self._stop_timer()
        super().on_headers_complete()
        self._in_head = False
        self._in_body = True
        if self._source is not None:
            self._source.idle.pop(self, None)
        if self.server_state.retiring or self._health_only:
            self.cycle.keep_alive = False
        self.scope[CONNECTION] = ConnectionHandle(self, self.cycle)  # type: ignore[typeddict-unknown-key]

    def _check_framing(self, version: str) -> None:
        """Refuses what a proxy may have read another body in (RFC 9112, 6.1), before anything is served."""
        if version not in ("1.1", "1.0"):
            raise refused.UNKNOWN_VERSION
        for name, value in self.headers:
            if name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
                raise refused.UNKNOWN_CODING

    def on_body(self, body: bytes) -> None:
        """Takes a part of a body; one that was answered already is dropped."""
        self._body_bytes += len(body)
        super().on_body(body)
        if self._body_bytes > LINGER_BYTES and self.cycle.response_complete:
            self._close()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.parser.should_upgrade():
            return  # it is read on
        self._in_body = False
        super().on_message_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self.cycle.more_body = False
            self._stop_timer()
            self._keep_alive()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._serving = cycle
        super()._start_asgi_task(cycle, without_chunks(app, cycle) if cycle.scope["http_version"] == "1.0" else app)

    def on_response_complete(self) -> None:
        """Goes on with the next request; what is left of an answered one has to arrive soon."""
        answered = self._serving
        super().on_response_complete()
        if self.transport.is_closing() or self._serving is not answered:
            return
        if self._refusal is not None:
            self._write_refusal(self._refusal)
        elif answered is not None and answered.more_body:
            self._unset_keepalive_if_required()
            self._mark_idle()
            self._start_timer(LINGER_SECONDS, self._close)
        else:
            self._mark_idle()

    def check_writing(self, now: float) -> Stalled | None:
        """Returns how the connection waits for its client, if it does. Ends it if that takes nothing, or not enough."""
        if not (waiting := self.transport.get_write_buffer_size()) or not self._is_waiting_for_client():
            self._stalled = None
            return None
        timeout = self.server_state.write_timeout
        since, progress, left = self._stalled or (now, now, waiting)
        if waiting < left:
            progress = now
        self._stalled = Stalled(since, progress, waiting)
        if now - progress > timeout or now - since > _SLOWEST_WRITE * timeout:
            self.cut_off()
            return None
        streams = self._serving is not None and not self._serving.response_complete
        return self._stalled._replace(waiting=max(waiting, STREAM_BYTES)) if streams else self._stalled

    def cut_off(self) -> None:
        """Ends the connection at once."""
        self._deaf = True
        self.transport.abort()

    def _is_waiting_for_client(self) -> bool:
        idle = self._serving is None or self._serving.response_complete
        return idle or self.flow.write_paused or self.transport.is_closing()

    def _refuse(self, refusal: refused.RefusedRequest) -> None:
        """Reads nothing more, and refuses the request that is being read once those before it are answered."""
        self._stop_timer()
        self._deaf = True
        if self.transport.is_closing():
            return
        broken = self.cycle if self._in_body and not self.cycle.response_complete else None
        if broken is not None and broken is not self._serving:
            self.pipeline.popleft()
            broken = None
        if broken is None:
            if self._serving is None or self._serving.response_complete:
                self._write_refusal(refusal)
            else:
                self._refusal = refusal
            return
        begun = broken.response_started
        broken.disconnected = True  # its handler's answer has no reader
        broken.message_event.set()
        if begun:
            self._close()
        else:
            self._write_refusal(refusal)

    def _write_refusal(self, refusal: refused.RefusedRequest) -> None:
        self.transport.write(refusal.answer())
        self._finish_sending()

    def _finish_sending(self) -> None:
        """Closes once the client has, or had time to: a close while it sends would undo the answer."""
        self._unset_keepalive_if_required()
        self._mark_idle()
        if self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
            self._start_timer(LINGER_SECONDS, self._close)
        else:
            self._close()

    def _close(self) -> None:
        self._stop_timer()
        self._deaf = True
        if not self.transport.is_closing():
            self.transport.close()

    def _keep_alive(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _mark_idle(self) -> None:
        if self._source is not None:
            self._source.idle[self] = None

    def _leave(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            self.server_state.counted.leave(self, source)

    def _head_timeout(self) -> float:
        whole = self.server_state.head_timeout
        return min(whole, _HEALTH_HEAD_TIMEOUT) if self._health_only else whole

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_slow_head(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(refused.HEAD_TOO_SLOW)
