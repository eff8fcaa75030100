"""Bounded checks of keys that anybody can make up: few at once, and fair between sources."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from servicekit.errors import Unavailable
from servicekit.sites import site_of
from servicekit.watched_cache import RETRY_AFTER_SECONDS

MAX_STRANGERS: Final = 256
"""Checks running or waiting."""
STRANGERS_AT_ONCE: Final = 16
OF_ONE_SOURCE_AT_ONCE: Final = 8
MAX_OF_ONE_SOURCE: Final = 64
PATIENCE_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Source:
    """A source with checks running or waiting."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OF_ONE_SOURCE_AT_ONCE))
    checks: int = 0


class StrangerChecks:
    """Bounds: 16 checks at once, 8 per source; 256 running or waiting, 64 per source; 2 s of waiting."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._places = asyncio.Semaphore(STRANGERS_AT_ONCE)
        self._sources: dict[str, _Source] = {}
        self._checks = 0

    @asynccontextmanager
    async def place(self, source: str) -> AsyncIterator[None]:
        """Waits for a slot and holds it. Raises `Unavailable` if the queue is full, or the wait too long."""
        site = site_of(source)
        checks = self._sources.get(site) or _Source()
        if self._checks >= MAX_STRANGERS or checks.checks >= MAX_OF_ONE_SOURCE:
            raise self._no_room()
        self._sources[site] = checks
        checks.checks += 1
        self._checks += 1
        try:
            # The source's own slot first: a source with many checks waits without blocking others.
            await self._acquire(checks.places)
            try:
                await self._acquire(self._places)
                try:
                    yield
                finally:
                    self._places.release()
            finally:
                checks.places.release()
        finally:
            self._checks -= 1
            checks.checks -= 1
            if not checks.checks:
                del self._sources[site]

    async def _acquire(self, places: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise self._no_room() from None

    def _no_room(self) -> Unavailable:
        return Unavailable(self._peer, retry_after=RETRY_AFTER_SECONDS)
