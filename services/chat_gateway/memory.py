"""A budget for the memory of large requests."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chat_gateway.model.errors import TurnQueueFull

PATIENCE_SECONDS = 10.0
RETRY_SECONDS = 2.0


class MemoryBudget:
    """A budget of bytes. If it is exhausted, callers wait in order of arrival, within a bound. Small requests do not
    use it. `on_release` is called after each release.
    """

    def __init__(
        self, max_bytes: int, *, patience: float = PATIENCE_SECONDS, on_release: Callable[[], None] | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._patience = patience
        self._on_release = on_release
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """Takes this many bytes, at most the whole budget; returns how many. Raises `TurnQueueFull`."""
        size = min(size, self.max_bytes)
        if not self._waiting and self.used + size <= self.max_bytes:
            self.used += size
            return size
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size, turn)
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._patience):
                await turn
            return size
        except TimeoutError:
            self._leave(place)
            raise TurnQueueFull("large requests", self.max_bytes, RETRY_SECONDS) from None
        except asyncio.CancelledError:
            self._leave(place)
            raise

    def release(self, size: int) -> None:
        """Releases this many bytes."""
        self.used -= size
        self._admit()
        if size and self._on_release is not None:
            self._on_release()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Holds this many bytes while open. Raises as `take`."""
        taken = await self.take(size)
        try:
            yield
        finally:
            self.release(taken)

    def _leave(self, place: tuple[int, "asyncio.Future[None]"]) -> None:
        size, turn = place
        if turn.done() and not turn.cancelled():
            self.release(size)  # granted at the moment when the wait was given up
            return
        if place in self._waiting:
            self._waiting.remove(place)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.used + self._waiting[0][0] <= self.max_bytes:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)
