"""The `Link` to one Redis server at a time.

All calls of a process share one connection to a server. What several calls send within one turn of the event loop goes
out in one write, and replies are matched to calls in order. That is a fraction of the work that a pool of connections
makes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Self

import structlog

from servicekit.supervision import supervise
from session_svc.redis_client.address import Place
from session_svc.redis_client.connection import CONNECT_SECONDS, Connection, connect
from session_svc.redis_client.link import Command, NotSent, RedisFault, RedisUnavailable, Reply

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

log = structlog.get_logger("session_svc.redis")


class RedisLink:
    """Sends commands over one shared connection to the server at a place, which it makes again whenever it breaks.

    A connection on which the next reply takes longer than `REPLY_SECONDS` is broken off, and all its calls fail; a call
    waits for those before it, so one behind k that are slow waits up to k times as long. Finding the server and
    connecting take up to `CONNECT_SECONDS`. While Redis is away calls fail at once.
    """

    def __init__(self, place: Place, *, name: str = "session_svc") -> None:
        self._place = place
        self._name = name
        self._connection: Connection | None = None
        self._attempt: asyncio.Future[Connection | None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.generation = 0

    @property
    def busy(self) -> bool:
        """Whether calls wait for their replies."""
        return self._connection is not None and self._connection.waiting

    async def send(self, *commands: Command) -> list[Reply]:
        """See `Link.send_in_order`: all in one stage, and in order. Raises `RedisUnavailable`, `NotSent`."""
        connection = self._connection
        if connection is None:
            connection = await self._connected()
        return await connection.send(commands)

    async def send_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        """See `Link`. One round trip, for one server runs everything in order anyway."""
        connection = self._connection
        if connection is None:
            connection = await self._connected()
        return await connection.send([command for stage in stages for command in stage])

    async def ping(self) -> None:
        await self.send(("PING",))

    def demoted(self) -> None:
        if self._connection is not None:
            self._connection.break_off()

    def start(self) -> None:
        """Begins to keep the connection up, without waiting for it."""
        self._begin_attempt()
        self._keeper = asyncio.create_task(supervise("redis link", self._keep_up), name="redis link")

    async def close(self) -> None:
        """Ends the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Keeps the connection up while open. Entering does not wait for Redis."""
        self.start()
        try:
            yield self
        finally:
            await self.close()

    async def _connected(self) -> Connection:
        if self._attempt is None:
            raise NotSent
        try:
            connection = await asyncio.wait_for(asyncio.shield(self._attempt), CONNECT_SECONDS)
        except TimeoutError:
            raise NotSent from None
        if connection is None:
            raise NotSent
        return connection

    async def _keep_up(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                attempt = self._begin_attempt()
                try:
                    connection = await self._connect()
                except (OSError, TimeoutError, RedisUnavailable, RedisFault) as error:
                    attempt.set_result(None)
                    why = str(error) if isinstance(error, RedisFault) else type(error).__name__
                    log.warning("redis is away", error=why)
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

    def _begin_attempt(self) -> "asyncio.Future[Connection | None]":
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.get_running_loop().create_future()
        return self._attempt

    def _lose(self) -> None:
        # At once, so that a caller who tries again waits for the next connection instead of failing on this one.
        self._connection = None
        self._begin_attempt()

    async def _connect(self) -> Connection:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await connect(await self._place.find(), self._name, self._lose)
