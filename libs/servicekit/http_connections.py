"""Connections of aiohttp on which nothing but the answer to the last request counts, and its framing is bounded."""

import asyncio
import functools
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection

_MAX_FRAMING_BYTES = 128 * 1024
_FRAMING_SHARE = 2
"""Overhead of an answer beside its body: a number of bytes, and of bytes more per byte of the body."""
_NO_CAUSE = BaseException()


class NotHttp(aiohttp.ClientPayloadError):
    """What followed the head of a response is not the body of one."""


class AnswerProtocol(ResponseHandler):
    """Fails a body whose rest can't come at once: aiohttp would let its reader wait for its time to run out."""

    requests = 0
    answered = False
    """Whether any byte of the answer to the last request has arrived."""

    _received = 0
    _former: aiohttp.StreamReader | None = None

    def begin(self) -> None:
        """Resets the counts for the next request over this connection."""
        self.requests += 1
        self.answered = False
        self._received, self._former = 0, self._payload

    def data_received(self, data: bytes) -> None:
        self.answered = True
        super().data_received(data)
        self._received += len(data)
        body = self._payload.total_bytes if self._payload is not None and self._payload is not self._former else 0
        if self._received - body > _MAX_FRAMING_BYTES + _FRAMING_SHARE * body:
            # Heads that announce others (1xx), tiny chunks, extensions, trailers: each costs, and none is an answer.
            self.set_exception(NotHttp("TooMuchFraming"))
            if self.transport is not None:
                self.transport.abort()

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _NO_CAUSE) -> None:
        self._fail_body(NotHttp(type(exc_cause).__name__))
        super().set_exception(exc, exc_cause)

    def connection_lost(self, exc: BaseException | None) -> None:
        # Only a connection that is closed in order can be the end of a body without a length (RFC 9112, 6.3).
        if exc is not None:
            self._fail_body(aiohttp.ServerDisconnectedError())
        super().connection_lost(exc)

    def _fail_body(self, error: aiohttp.ClientError) -> None:
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(error)


class AnswerConnector(aiohttp.TCPConnector):
    """Never uses a connection on which unsolicited bytes arrived.

    aiohttp would take them for the answer to the next request: its pool looks only at whether a connection is open.
    """

    def __init__(self, **options: Any) -> None:
        """`options` are those of aiohttp's connector. Needs a running event loop."""
        super().__init__(**options)
        # A partial is invariant in what it makes.
        self._factory = functools.partial(AnswerProtocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if isinstance(protocol, AnswerProtocol):
                if protocol.should_close or not self.may_use(protocol):
                    is_new, is_open = not protocol.requests, protocol.is_connected()
                    connection.close()
                    if is_new:
                        # Another one would end in the same way: each costs a connection, and nothing bounds them.
                        raise NotHttp("SpokeFirst") if is_open else aiohttp.ServerDisconnectedError
                    continue
                protocol.begin()
                self.uses(protocol)
            return connection

    def may_use(self, protocol: AnswerProtocol) -> bool:
        """Whether a request may go over this connection; it is closed, and another taken, otherwise."""
        return True

    def uses(self, protocol: AnswerProtocol) -> None:
        """Called with the connection that a request goes over."""
