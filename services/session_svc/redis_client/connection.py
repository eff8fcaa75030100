"""One connection to one Redis server: pipelines of commands out, their replies in."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import hiredis
import structlog

from session_svc.redis_client.address import RedisAddress, pack
from session_svc.redis_client.link import Command, RedisFault, RedisUnavailable, Reply

CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
MAX_CALLS = 4096
MAX_UNSENT_BYTES = 64 * 1024 * 1024
WATCH_SECONDS = 0.25

_NOT_YET = object()
log = structlog.get_logger("session_svc.redis")


async def connect(address: RedisAddress, name: str, on_broken: Callable[[], None] = lambda: None) -> "Connection":
    """Returns a connection that was greeted. Raises `OSError`, `TimeoutError`, `RedisUnavailable`, `RedisFault`."""
    loop = asyncio.get_running_loop()
    connection, tls = Connection(on_broken), address.tls_context()
    if address.path:
        await loop.create_unix_connection(lambda: connection, address.path, ssl=tls)
    else:
        await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
    check: Command = ("ROLE",) if address.primary_only else ("PING",)
    try:
        replies = await connection.send((*address.greeting(name), check))
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise RedisFault(str(reply))
        if address.primary_only and replies[-1][0] != b"master":
            raise RedisFault("it is not the primary")
    except BaseException:
        connection.break_off()
        raise
    return connection


async def ask(address: RedisAddress, name: str, *commands: Command) -> list[Reply]:
    """Returns the replies of a server over a connection of their own. Raises what `connect` does."""
    connection = await connect(address, name)
    try:
        return await connection.send(commands)
    finally:
        connection.break_off()


class _Call:
    """Commands that were sent together and wait for their replies, `since` they were sent or came to be the first."""

    __slots__ = ("future", "replies", "since", "size")

    def __init__(self, size: int, future: "asyncio.Future[list[Reply]]", since: float) -> None:
        self.size = size
        self.future = future
        self.since = since
        self.replies: list[Reply] = []


class Connection(asyncio.Protocol):
    """One connection: replies belong to the calls in the order of sending.

    A call that finds no other waiting is written at once; what comes while replies are out is gathered per turn of the
    loop.
    """

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
        """Sends the commands and returns their replies. Raises `RedisUnavailable`."""
        if self.broken.is_set() or len(self._calls) >= MAX_CALLS:
            raise RedisUnavailable
        call = _Call(len(commands), self._loop.create_future(), self._loop.time())
        alone = not self._calls
        self._calls.append(call)
        if alone:
            self._write(pack(commands))
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(pack(commands))
        return await call.future

    @property
    def waiting(self) -> bool:
        """Whether calls wait for their replies."""
        return bool(self._calls)

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
            log.error("redis answered something that is not its protocol")
            self.break_off()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails every call that waits."""
        self._fail()

    def _flush(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is None or self.broken.is_set():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.break_off()

    def _check(self) -> None:
        if self._calls and self._loop.time() - self._calls[0].since > REPLY_SECONDS:
            log.warning("redis does not answer")
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
                call.future.set_exception(RedisUnavailable())
