"""How a replica learns at once that a turn which waits here may begin: Redis pub/sub on a channel of its own."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator

import hiredis
import structlog
from cachetools import LRUCache

from servicekit.supervision import supervise
from session_svc.redis_client.address import Place, pack
from session_svc.redis_client.connection import CONNECT_SECONDS
from session_svc.redis_client.link import RedisFault, RedisUnavailable
from session_svc.redis_client.server import FIRST_PAUSE, LONGEST_PAUSE

PING_SECONDS = 5.0
SILENCE_SECONDS = 12.0
MAX_REMEMBERED = 1024

log = structlog.get_logger("session_svc.redis")


class RedisWakes:
    """Names the calls of this replica and wakes those that the scripts say may go on.

    In a cluster, what a script publishes reaches every node, and with that whoever listens to any of them. A message
    may be lost (with the connection) or come twice: whoever waits asks the store again either way.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._replica = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Event] = {}
        self._early: LRUCache[str, None] = LRUCache(MAX_REMEMBERED)

    def new_call(self) -> str:
        """Returns the name of a call, from which the scripts know whom to wake."""
        return f"{self._replica}.{next(self._numbers)}"

    async def wait(self, call: str, timeout: float) -> None:
        """Returns when the call was woken, also if that was before, and at the latest after `timeout` seconds."""
        if self._early.pop(call, self) is None:
            return
        event = self._waiting[call] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiting[call]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["RedisWakes"]:
        """Listens while open; reconnects by itself."""
        listener = asyncio.create_task(supervise("redis wakes", self._listen), name="redis wakes")
        try:
            yield self
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._subscription() as (reader, writer):
                    pause = FIRST_PAUSE
                    await self._receive(reader, writer)
            except (OSError, TimeoutError, EOFError, hiredis.HiredisError, RedisUnavailable, RedisFault) as error:
                log.warning("wake channel is away", error=type(error).__name__)
            self._wake_all()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    @contextlib.asynccontextmanager
    async def _subscription(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with asyncio.timeout(CONNECT_SECONDS):
            address = await self._place.find()
            tls = address.tls_context()
            if address.path:
                reader, writer = await asyncio.open_unix_connection(address.path, ssl=tls)
            else:
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
        try:
            greeting = address.greeting("session_svc_wakes")
            writer.write(pack((*greeting, ("SUBSCRIBE", f"wake:{self._replica}"))))
            yield reader, writer
        finally:
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        replies, heard = hiredis.Reader(), loop.time()
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    data = await reader.read(65536)
            except TimeoutError:
                if loop.time() - heard > SILENCE_SECONDS:
                    raise
                writer.write(pack((("PING",),)))
                continue
            if not data:
                raise EOFError
            heard = loop.time()
            replies.feed(data)
            while (reply := replies.gets()) is not False:
                self._handle(reply)

    def _handle(self, reply: object) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, _, payload = reply
        if kind == b"subscribe":
            self._wake_all()  # what was published while nobody listened is lost
        elif kind == b"message":
            self._wake(payload.decode())

    def _wake(self, call: str) -> None:
        event = self._waiting.get(call)
        if event is not None:
            event.set()
            return
        self._early[call] = None

    def _wake_all(self) -> None:
        for event in self._waiting.values():
            event.set()
