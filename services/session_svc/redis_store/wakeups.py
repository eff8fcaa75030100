"""Wakes waiting turns at once by Redis pub/sub, on a channel per replica."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator

import structlog
from cachetools import LRUCache
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from servicekit.backoff import Backoff
from servicekit.supervision import cancel_and_wait, supervise
from session_svc.redis_client.server import CONNECT_SECONDS, FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS
from session_svc.redis_client.url import Dial

PING_SECONDS = 5.0
MAX_PINGS = 3
MAX_REMEMBERED = 1024

log = structlog.get_logger("session_svc.redis")


class RedisWakes:
    """Names the waiters of this replica and wakes those that the scripts say may go on.

    In a cluster, what a script publishes reaches every node, and with that whoever listens to any of them. A message
    may be lost (with the connection) or come twice: whoever waits asks the store again either way.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._replica = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Event] = {}
        self._early: LRUCache[str, None] = LRUCache(MAX_REMEMBERED)

    def new_waiter_id(self) -> str:
        """Returns the id of a waiter, from which the scripts know whom to wake."""
        return f"{self._replica}.{next(self._numbers)}"

    async def wait(self, waiter_id: str, timeout: float) -> None:
        """Returns when the waiter was woken, also if that was before, and at the latest after `timeout` seconds."""
        if self._early.pop(waiter_id, self) is None:
            return
        event = self._waiting[waiter_id] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiting[waiter_id]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["RedisWakes"]:
        """Listens while open; reconnects by itself."""
        listener = asyncio.create_task(supervise("redis wakes", self._listen), name="redis wakes")
        try:
            yield self
        finally:
            await cancel_and_wait(listener)

    async def _listen(self) -> None:
        backoff = Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        async for _ in backoff:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await self._dial()
                try:
                    await connection.send_command("SUBSCRIBE", f"wake:{self._replica}", check_health=False)
                    backoff.reset()
                    await self._receive(connection)
                finally:
                    await connection.disconnect(nowait=True)
            except (OSError, TimeoutError, RedisError) as error:
                log.warning("wake_channel_unreachable", error=str(error) or type(error).__name__)
            self._wake_all()

    async def _receive(self, connection: AbstractConnection) -> None:
        pings = 0
        while pings < MAX_PINGS:
            reply = await connection.read_response(timeout=PING_SECONDS)
            if reply is None:
                pings += 1
                await connection.send_command("PING", check_health=False)
                continue
            pings = 0
            if reply[0] == b"subscribe":
                self._wake_all()  # messages published without a listener are lost
            elif reply[0] == b"message":
                self._wake(reply[2].decode(errors="replace"))
        raise TimeoutError

    def _wake(self, waiter_id: str) -> None:
        event = self._waiting.get(waiter_id)
        if event is not None:
            event.set()
            return
        self._early[waiter_id] = None

    def _wake_all(self) -> None:
        for event in self._waiting.values():
            event.set()
