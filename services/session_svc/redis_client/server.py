"""The `Link` to one Redis server at a time, over one connection that all callers share."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Self, cast

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from servicekit.backoff import Backoff
from servicekit.supervision import cancel_and_wait, supervise
from session_svc.redis_client.link import Command, NotSent, RedisUnavailable, Reply
from session_svc.redis_client.url import Dial

CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
WATCH_SECONDS = 0.5
CATCH_UP_SECONDS = 0.2
MAX_CALLS = 4096
MAX_FAULT = 200
MAX_UNSENT_BYTES = 64 * 1024 * 1024
FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 1.0

_INCOMPLETE = object()
_pack: Any = hiredis.pack_command  # its stub takes tuples of one element only
log = structlog.get_logger("session_svc.redis")


class _Call:
    """Commands that were sent together and wait for their replies, `since` they were sent or came to be the first."""

    __slots__ = ("future", "replies", "since", "size")

    def __init__(self, size: int, future: "asyncio.Future[list[Reply]]", since: float) -> None:
        self.size = size
        self.future = future
        self.since = since
        self.replies: list[Reply] = []


class RedisLink(asyncio.Protocol):
    """Keeps one connection to the server that `dial` connects to; replies belong to calls in the order of sending.

    A call that finds no other waiting is written at once; what comes while replies are out is gathered per turn of the
    loop. Connecting takes up to `CONNECT_SECONDS`; between two attempts calls fail at once. When the next reply takes
    longer than `REPLY_SECONDS`, the connection is broken off, and all its calls fail; a call waits for those before it,
    so one behind k that are slow waits up to k times as long. Where this process stood still, what has come meanwhile
    is read first.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._transport: asyncio.Transport | None = None
        self._calls: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self.generation = 0
        self._fault = ""

    def start(self) -> Self:
        """Begins to keep the connection up, without waiting for it."""
        self._loop = asyncio.get_running_loop()
        self._attempt = self._loop.create_future()
        self._keeper = asyncio.create_task(supervise("redis link", self._keep_up), name="redis link")
        return self

    async def aclose(self) -> None:
        """Closes, and returns when an attempt to connect that was under way has cleaned up after itself."""
        self.abort()
        await cancel_and_wait(self._keeper)

    @property
    def busy(self) -> bool:
        return bool(self._calls)

    async def send(self, *commands: Command) -> list[Reply]:
        """Returns the replies to the commands, which run in order. Raises `RedisUnavailable`, `NotSent`."""
        if self._transport is None:
            await asyncio.wait([self._attempt], timeout=CONNECT_SECONDS)
            if self._transport is None:
                raise NotSent(self._fault)
        if len(self._calls) >= MAX_CALLS:
            raise NotSent
        call = _Call(len(commands), self._loop.create_future(), self._loop.time())
        self._calls.append(call)
        data = b"".join([_pack(command) for command in commands])
        if len(self._calls) == 1:
            self._write(data)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(data)
        return await call.future

    def send_in_order(self, *stages: Sequence[Command]) -> Coroutine[Any, Any, list[Reply]]:
        # One round trip, for one server runs everything in order anyway.
        return self.send(*[command for stage in stages for command in stage])

    async def ping(self) -> None:
        await self.send(("PING",))

    def demoted(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Breaks the connection off, if there is one: every call that waits fails."""
        if self._transport is None:
            return
        self._transport.set_protocol(asyncio.Protocol())  # what it still says is not for the next connection
        self._transport.abort()
        self._connection._close()
        self._transport = None
        # At once, so that a caller who tries again waits for the next connection instead of failing on this one.
        self._attempt = self._loop.create_future()
        self._lost.set_result(None)
        self._unsent.clear()
        calls, self._calls = self._calls, deque()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(RedisUnavailable())

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort()

    def data_received(self, data: bytes) -> None:
        reader, calls = self._reader, self._calls
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _INCOMPLETE:
                call = calls[0]
                call.replies.append(reply)
                if len(call.replies) == call.size:
                    calls.popleft()
                    if calls:
                        # What stood before it, a `WAIT` perhaps, took its own time: the bound is on each by itself.
                        calls[0].since = self._loop.time()
                    if not call.future.done():
                        call.future.set_result(call.replies)
        except (hiredis.ProtocolError, IndexError):
            log.error("redis_protocol_error")
            self.abort()

    def _flush(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
                self.abort()

    async def _keep_up(self) -> None:
        while True:
            self._take_over(await self._connect())
            try:
                await self._until_lost()
            finally:
                self.abort()  # also where this task ends, and nobody watches the connection any more

    async def _until_lost(self) -> None:
        while self._transport is not None:
            # A call that begins after the look at an idle connection is not overdue before the next look.
            await asyncio.wait([self._lost], timeout=WATCH_SECONDS if self._calls else REPLY_SECONDS)
            if self._overdue() and (late := self._calls[0]):
                await asyncio.wait([self._lost], timeout=CATCH_UP_SECONDS)
                if self._overdue() and self._calls[0] is late:
                    log.warning("redis_reply_timeout")
                    self.abort()

    def _overdue(self) -> bool:
        return bool(self._calls) and self._loop.time() - self._calls[0].since > REPLY_SECONDS

    def _take_over(self, connection: AbstractConnection) -> None:
        """Makes this what a connection that redis-py has made talks to; that only closes its transport from now on."""
        self._connection = connection
        self._lost = self._loop.create_future()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        writer = cast("asyncio.StreamWriter", connection._writer)
        self._transport = transport = cast("asyncio.Transport", writer.transport)
        transport.set_protocol(self)
        self.generation += 1
        self._attempt.set_result(None)
        if transport.is_closing():
            self.abort()

    async def _connect(self) -> AbstractConnection:
        async for _ in Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS):
            if self._attempt.done():
                self._attempt = self._loop.create_future()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._dial()
            except (OSError, TimeoutError, RedisError) as error:
                self._fault = (str(error) or type(error).__name__).partition("\n")[0][:MAX_FAULT]
                log.warning("redis_unreachable", error=self._fault)
            self._attempt.set_result(None)
        raise AssertionError
