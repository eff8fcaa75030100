"""POST over HTTP/1.1 to one server, on connections that are kept: an eighth of the work of a general client.

It does what model providers need and refuses the rest: no redirects, no compression (none is asked for), no cookies.
"""

import asyncio
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

IDLE_SECONDS = 4.0
"""How long an idle connection is kept. Many servers close theirs after 5 s: one about to close must not be used."""

MAX_HEAD_BYTES = 64 * 1024
MAX_WAITING_BYTES = 256 * 1024
"""What has arrived and nobody has read; beyond it the server is not read from."""


class UpstreamError(Exception):
    """A call that failed below the level of HTTP statuses."""


class ConnectTimeout(UpstreamError):
    """No connection could be made in time."""


class ConnectFailed(UpstreamError):
    """No connection could be made."""


class Disconnected(UpstreamError):
    """The connection ended before the response did."""


class NotHttp(UpstreamError):
    """What came is not an HTTP response, or not one that was asked for."""


class Upstream:
    """The server of one base URL and the connections to it. Calls at a time are bounded by whoever makes them."""

    def __init__(self, base_url: str, *, connect_timeout: float) -> None:
        """Raises `ValueError` for a URL that carries credentials: they belong in a header."""
        url = urlsplit(base_url)
        if url.username is not None or url.password is not None:
            raise ValueError("its URL must not carry credentials")
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._tls else 80)
        self._connect_timeout = connect_timeout
        self._idle: list[tuple[float, _Connection]] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._authority = url.netloc
        self._path = url.path.rstrip("/")

    def head(self, path: str, headers: Mapping[str, str]) -> bytes:
        """Returns the head of a request below the base URL, without what depends on its body.

        Raises `ValueError` for a header that can't be sent.
        """
        lines = [f"POST {self._path}{path} HTTP/1.1", _field("Host", self._authority)]
        lines += [_field(name, value) for name, value in headers.items()]
        return "\r\n".join(lines).encode("latin-1")

    async def post(self, head: bytes, body: bytes) -> "Response":
        """Sends a request and returns its response once the head is there; close it, best as a context manager.

        Never sends twice. Raises `UpstreamError`; a cancelled call ends its connection.
        """
        connection = self._take() or await self._connect()
        connection.send(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        try:
            await connection.head()
        except BaseException:
            connection.abort()
            raise
        return Response(self, connection)

    def close(self) -> None:
        """Closes the idle connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for _, connection in self._idle:
            connection.abort()
        self._idle.clear()

    def give_back(self, connection: "_Connection") -> None:
        """Keeps a connection for the next call, if it can have one."""
        if not connection.reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), connection))
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._close_old)

    def _take(self) -> "_Connection | None":
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            since, connection = self._idle.pop()
            if connection.reusable and since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    _Connection,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise ConnectTimeout from None
        except OSError as error:  # TLS failures, too
            raise ConnectFailed from error
        return connection

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        kept = []
        for since, connection in self._idle:
            if connection.reusable and since > oldest:
                kept.append((since, connection))
            else:
                connection.abort()
        self._idle = kept
        self._sweep = loop.call_later(IDLE_SECONDS / 2, self._close_old) if kept else None


class Response:
    """A response whose head is there. Leaving it before its end closes the connection, so that the server stops."""

    __slots__ = ("_connection", "_upstream", "headers", "status")

    def __init__(self, upstream: Upstream, connection: "_Connection") -> None:
        self._upstream = upstream
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        """By lower-case names; of a repeated one the last."""

    async def read(self) -> bytes:
        """Returns the next part of the body as it arrived, b"" at its end. Raises `Disconnected` or `NotHttp`."""
        return await self._connection.read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._upstream.give_back(self._connection)


class _Connection(asyncio.Protocol):
    """One connection: a request, its response, and then perhaps the next request."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._paused = False
        self._head_bytes = 0
        self._has_head = True
        self._has_end = True
        self._bounded = False
        self._error: UpstreamError | None = None
        self._lost = False
        self._keeps = True
        self.status = 0
        self.headers: dict[str, str] = {}

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent: the response has ended, and the server keeps the connection."""
        return self._has_end and self._keeps and not self._parts and not self._lost and self._error is None

    def send(self, request: bytes) -> None:
        self._has_head = self._has_end = self._bounded = False
        self._head_bytes = 0
        self.status = 0
        self.headers = {}
        if self._transport is not None:
            self._transport.write(request)

    async def head(self) -> None:
        """Waits for the response's head. Raises `Disconnected`, `NotHttp`."""
        while not self._has_head:
            await self._more()

    async def read(self) -> bytes:
        if self._error is not None:
            raise self._error
        while not self._parts:
            if self._has_end:
                return b""
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        self._keeps = False
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._lost:
            raise Disconnected
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._has_end:
            self.abort()  # nobody has asked for anything
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(NotHttp(type(error).__name__))
            return
        if not self._has_head and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(NotHttp("a head that is too large"))
        elif self._waiting_bytes > MAX_WAITING_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._has_head and not self._bounded and exc is None:
            self._has_end = True  # this response ends with its connection (RFC 9112, 6.3)
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        headers = self.headers
        self._bounded = "content-length" in headers or "transfer-encoding" in headers
        self._has_head = self.status >= 200  # what is below announces the one that counts (RFC 9110, 15.2)
        if headers.get("content-encoding", "identity") != "identity":
            self._fail(NotHttp("an encoding that was not asked for"))

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if not self._has_head:
            self.headers = {}
            return
        self._keeps = self._keeps and self._parser.should_keep_alive()
        self._has_end = True

    def _fail(self, error: UpstreamError) -> None:
        self._error = error
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _field(name: str, value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"the header {name} holds what can't be sent")
    return f"{name}: {value}"
