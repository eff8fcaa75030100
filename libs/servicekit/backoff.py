"""Exponential backoff with jitter."""

import asyncio
import random
from collections.abc import Awaitable, Callable


class Backoff:
    """Iterates over attempts: `async for _ in backoff:` runs at once, then pauses before every further attempt.

    Pauses grow from `first_seconds` to `max_seconds`, doubling; each is shortened at random by up to half, so that
    processes that lost the same peer do not all reconnect at once. An attempt that made progress calls `reset`; one
    that succeeded leaves the loop. A pause ends when the task is cancelled.
    """

    def __init__(
        self,
        first_seconds: float,
        max_seconds: float,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._sleep = sleep
        self._next_seconds = 0.0

    def reset(self) -> None:
        """Makes the next pause the shortest again."""
        self._next_seconds = self._first_seconds

    def __aiter__(self) -> "Backoff":
        return self

    async def __anext__(self) -> None:
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, self._max_seconds) if seconds else self._first_seconds
        if seconds:
            await self._sleep(seconds * random.uniform(0.5, 1.0))
