"""Responses as server-sent events."""

import asyncio
from collections.abc import Callable
from typing import Final

from chat_gateway.http_edge.wire.bodies import ClientGone
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.limit_headers import Headers

KEEP_ALIVE: Final = b": keep-alive\n\n"

_HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def event(data: bytes) -> bytes:
    """Returns one event; `data` is a line."""
    return b"data: %b\n\n" % data


def with_id(event_id: str, data: bytes) -> bytes:
    """Returns an event with its id, by which a client that reconnects says where it was; as it is without one."""
    return b"id: %b\n%b" % (event_id.encode(), data) if event_id else data


class EventStream:
    """Writes the events of one answer, and waits for a client that reads slowly.

    Once it is open, a silence of `keep_alive_interval` seconds is broken by a comment. `on_gone` is called once, when
    the client has left or has taken nothing for `write_timeout` seconds. Nothing of the request's body may be unread.
    """

    __slots__ = (
        "_context",
        "_first",
        "_head",
        "_keep_alive_interval",
        "_last_write",
        "_lock",
        "_loop",
        "_on_gone",
        "_watcher",
        "_write_timeout",
        "_writing",
        "begun",
    )

    def __init__(
        self, context: RequestContext, keep_alive_interval: float, write_timeout: float, on_gone: Callable[[], None]
    ) -> None:
        self._context = context
        self._keep_alive_interval = keep_alive_interval
        self._write_timeout = write_timeout
        self._on_gone = on_gone
        self._head: Headers | None = None
        self._first = b""
        self._lock = asyncio.Lock()
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self._last_write = self._loop.time()
        self.begun = False
        """Whether the head is sent: from then on there is no other status."""
        self._watcher: asyncio.Task[None] | None = self._loop.create_task(self._watch())

    def open(self, headers: Headers, first: bytes) -> None:
        """Sets how the answer begins: its headers and first event.

        Both wait for the next event, or the first silence that is too long: until then a failure is an error with its
        own status, which clients know how to retry.
        """
        self._head = [*_HEADERS, (b"x-request-id", self._context.id), *headers]
        self._first = first

    def set_header(self, name: bytes, value: bytes) -> None:
        """Changes a header of an answer that is open; where its head is sent already, it stays as it is."""
        if self._head is not None:
            self._head = [*(one for one in self._head if one[0] != name), (name, value)]

    async def write(self, data: bytes) -> None:
        """Sends events; returns once the connection has room for more."""
        async with self._lock:
            self._last_write = self._loop.time()
            self._writing = True
            await self._send(data, more=True)
            self._writing = False

    async def end(self, data: bytes) -> None:
        """Sends the last events. Raises `ClientGone` when the client takes nothing for `write_timeout` seconds."""
        self.close()
        try:
            async with asyncio.timeout(self._write_timeout), self._lock:
                await self._send(data, more=False)
        except TimeoutError:
            raise ClientGone from None

    def close(self) -> None:
        """Stops watching the client: `on_gone` is not called any more. May be repeated."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _send(self, data: bytes, *, more: bool) -> None:
        if not self.begun:
            if self._head is None:
                raise RuntimeError("the stream is not open")
            self.begun = True
            await self._context.send({"type": "http.response.start", "status": 200, "headers": self._head})
            data = self._first + data
        await self._context.send({"type": "http.response.body", "body": data, "more_body": more})

    async def _watch(self) -> None:
        """Waits for the client to leave, breaks silences, and gives up on a client that does not read."""
        while True:
            bound = self._write_timeout if self._writing else self._keep_alive_interval
            try:
                async with asyncio.timeout_at(self._last_write + bound):
                    message = await self._context.receive()
            except TimeoutError:
                if self._writing:
                    if self._loop.time() - self._last_write >= self._write_timeout:
                        break
                elif not await self._keep_alive():
                    break
                continue
            if message["type"] == "http.disconnect":
                break
        self._on_gone()

    async def _keep_alive(self) -> bool:
        """Sends a comment if the stream is silent; false when the client does not take it."""
        if self._head is None:
            self._last_write = self._loop.time()  # before it is open there is nothing to say
        elif self._loop.time() - self._last_write >= self._keep_alive_interval:
            try:
                async with asyncio.timeout(self._write_timeout):
                    await self.write(KEEP_ALIVE)
            except TimeoutError:
                return False
        return True
