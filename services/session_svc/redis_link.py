"""The one thing the store talks to Redis through: a pipeline of commands out, their replies in.

All calls of a process share one connection. What several calls send within one turn of the event loop goes out in one
write, and replies are matched to calls in order. That is a fraction of the work that a pool of connections makes.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import hiredis
import structlog

from servicekit.errors import Unavailable
from session_svc.redis_address import Command, RedisAddress, pack

CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
MOST_CALLS = 4096
MOST_UNSENT_BYTES = 64 * 1024 * 1024
WATCH_SECONDS = 0.25

Reply = Any
_NOT_YET = object()
_log = structlog.get_logger("session_svc.redis")


class RedisAway(Unavailable):
    """Redis can't be reached or does not answer; whether the commands took effect is not known."""

    def __init__(self) -> None:
        super().__init__("redis", retry_after=1.0)


class RedisFault(Exception):
    """Redis refused a command in a way that no caller can mend; the text stays inside this process."""


class RedisLink:
    """Sends commands over one shared connection, which it makes again whenever it breaks.

    A connection on which the next reply takes longer than `REPLY_SECONDS` is broken off, and all its calls fail; a call
    waits for those before it, so one behind k that are slow waits up to k times as long. Connecting takes up to
    `CONNECT_SECONDS`. While Redis is away calls fail at once.
    """

    def __init__(self, address: RedisAddress, *, name: str = "session_svc") -> None:
        self._address = address
        self._name = name
        self._connection: _Connection | None = None
        self._attempt: asyncio.Future[_Connection | None] | None = None
        self.generation = 0
        """Counts the connections made: another number means that Redis may have lost what it had not yet saved."""

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    async def send(self, *commands: Command) -> list[Reply]:
        """Returns the replies in order; an error that Redis answered stands as a `hiredis.ReplyError` in its place.

        The commands run in order, other callers' ones may come between. Raises `RedisAway`.
        """
        connection = self._connection
        if connection is None:
            connection = await self._connected()
        return await connection.send(commands)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["RedisLink"]:
        """Keeps the connection up while open. Entering does not wait for Redis."""
        self._begin_attempt()
        keeper = asyncio.create_task(self._keep_up(), name="redis link")
        try:
            yield self
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _connected(self) -> "_Connection":
        if self._attempt is None:
            raise RedisAway
        try:
            connection = await asyncio.wait_for(asyncio.shield(self._attempt), CONNECT_SECONDS)
        except TimeoutError:
            raise RedisAway from None
        if connection is None:
            raise RedisAway
        return connection

    async def _keep_up(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                attempt = self._begin_attempt()
                try:
                    connection = await self._connect()
                except (OSError, TimeoutError, RedisAway, RedisFault) as error:
                    attempt.set_result(None)
                    _log.warning("redis is away", error=type(error).__name__)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                pause = FIRST_PAUSE
                self.generation += 1
                self._connection = connection
                attempt.set_result(connection)
                await connection.broken.wait()
        finally:
            if self._connection is not None:
                self._connection.break_off()
            self._begin_attempt().set_result(None)

    def _begin_attempt(self) -> "asyncio.Future[_Connection | None]":
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.get_running_loop().create_future()
        return self._attempt

    def _lose(self) -> None:
        # At once, so that a caller who tries again waits for the next connection instead of failing on this one.
        self._connection = None
        self._begin_attempt()

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        address, tls = self._address, self._address.tls_context()
        connection = _Connection(self._lose)
        async with asyncio.timeout(CONNECT_SECONDS):
            if address.path:
                await loop.create_unix_connection(lambda: connection, address.path, ssl=tls)
            else:
                await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
            try:
                replies = await connection.send((*address.greeting(self._name), ("PING",)))
                for reply in replies:
                    if isinstance(reply, hiredis.ReplyError):
                        raise RedisFault(str(reply))
            except BaseException:
                connection.break_off()
                raise
        return connection


class _Call:
    """Commands that were sent together and wait for their replies, `since` they were sent or came to be the first."""

    __slots__ = ("future", "replies", "since", "size")

    def __init__(self, size: int, future: "asyncio.Future[list[Reply]]", since: float) -> None:
        self.size = size
        self.future = future
        self.since = since
        self.replies: list[Reply] = []


class _Connection(asyncio.Protocol):
    """One connection: writes are gathered per turn of the loop, replies belong to the calls in the order of sending."""

    def __init__(self, on_broken: Callable[[], None]) -> None:
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._calls: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.broken = asyncio.Event()

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Sends the commands and returns their replies. Raises `RedisAway`."""
        if self.broken.is_set() or len(self._calls) >= MOST_CALLS:
            raise RedisAway
        call = _Call(len(commands), self._loop.create_future(), self._loop.time())
        self._calls.append(call)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(pack(commands))
        return await call.future

    def break_off(self) -> None:
        """Ends the connection: every call that waits fails."""
        if self._transport is not None:
            self._transport.abort()
        self._fail()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to watch for replies that do not come."""
        self._transport = cast("asyncio.Transport", transport)
        self._watch = self._loop.call_later(WATCH_SECONDS, self._check)

    def data_received(self, data: bytes) -> None:
        """Hands replies to the calls that wait for them."""
        reader, calls = self._reader, self._calls
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOT_YET:
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
            _log.error("redis answered something that is not its protocol")
            self.break_off()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails every call that waits."""
        self._fail()

    def _flush(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is None or self.broken.is_set():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            self.break_off()

    def _check(self) -> None:
        if self._calls and self._loop.time() - self._calls[0].since > REPLY_SECONDS:
            _log.warning("redis does not answer")
            self.break_off()
            return
        self._watch = self._loop.call_later(WATCH_SECONDS, self._check)

    def _fail(self) -> None:
        if self.broken.is_set():
            return
        self.broken.set()
        self._on_broken()
        if self._watch is not None:
            self._watch.cancel()
        calls, self._calls = self._calls, deque()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(RedisAway())
