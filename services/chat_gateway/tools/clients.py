"""The open clients of tool servers: shared by turns, bounded in number, closed when idle."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from chat_gateway.tools.server import ServerClient, ServerUnavailable

SWEEP_SECONDS = 15.0
CLOSE_SECONDS = 4.5
"""For all at the end: less than a stop of the process allows, more than a command takes to be killed."""

Key = tuple[str | int, ...]
"""What must be the same for a client to be shared: project, server, revision, credentials."""


@dataclass(slots=True)
class _Open:
    client: ServerClient
    users: int = 0
    idle_since: float = 0.0


class Clients:
    """Clients by key. Beyond `limit`, the one that was idle for longest makes room; where all are used, none does."""

    def __init__(self, limit: int, idle_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def use(self, key: Key, make: Callable[[], ServerClient]) -> AbstractAsyncContextManager[ServerClient]:
        """Yields the client of a key, made where there is none. Raises `ServerUnavailable` where there is no room."""
        return _Use(self, key, make)

    def begin(self, key: Key, make: Callable[[], ServerClient]) -> _Open:
        """Returns the client of a key as used; `end` must follow. Raises `ServerUnavailable`."""
        found = self._open.get(key)
        if found is None:
            if len(self._open) >= self._limit:
                self._make_room()
            found = self._open[key] = _Open(make())
        self._open.move_to_end(key)
        found.users += 1
        return found

    def end(self, used: _Open) -> None:
        """Ends what `begin` began."""
        used.users -= 1
        used.idle_since = self._clock()

    async def sweep(self) -> None:
        """Closes idle clients, for ever; meant to be a background task."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.close_idle()

    def close_idle(self) -> None:
        """Begins to close what has been idle for long enough."""
        ended = self._clock() - self._idle_seconds
        for key in [key for key, one in self._open.items() if not one.users and one.idle_since <= ended]:
            self._close(key)

    async def close(self) -> None:
        """Closes every client, used or not, within `CLOSE_SECONDS`."""
        for key in list(self._open):
            self._close(key)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)

    def _make_room(self) -> None:
        key = next((key for key, one in self._open.items() if not one.users), None)
        if key is None:
            raise ServerUnavailable(f"can't be connected to now: all {self._limit} connections are in use")
        self._close(key)

    def _close(self, key: Key) -> None:
        task = asyncio.get_running_loop().create_task(self._open.pop(key).client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Use(AbstractAsyncContextManager[ServerClient]):
    """One use of a client: no generator, which the event loop would note down and finalize."""

    __slots__ = ("_clients", "_key", "_make", "_used")

    def __init__(self, clients: Clients, key: Key, make: Callable[[], ServerClient]) -> None:
        self._clients = clients
        self._key = key
        self._make = make

    async def __aenter__(self) -> ServerClient:
        self._used = self._clients.begin(self._key, self._make)
        return self._used.client

    async def __aexit__(self, *_: object) -> None:
        self._clients.end(self._used)
