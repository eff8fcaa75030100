"""The common part of both feeds: following the database, and waking streams."""

import asyncio
from datetime import timedelta

from prometheus_client import Gauge

from servicekit.errors import InvalidArgument, Violation


class Following:
    """Whether the database is followed now, which `up` shows, and a wake-up for streams when that or more changes."""

    def __init__(self, up: Gauge) -> None:
        self._up = up
        self._healthy = False
        self.fault = ""
        """Why the database could not be followed the last time, for operators."""
        self._moved = asyncio.Event()
        self._reached = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether the database is followed now, and so available."""
        return self._healthy

    async def reached(self) -> None:
        """Returns once the database has been followed for the first time."""
        await self._reached.wait()

    def _set_followed(self, healthy: bool) -> bool:
        """Records whether the database is followed; returns whether that is a change."""
        if healthy == self._healthy:
            return False
        self._healthy = healthy
        self._up.set(healthy)
        self._wake()
        if healthy:
            self._reached.set()
        return True

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def checked_interval(heartbeat: timedelta, shortest: timedelta, longest: timedelta) -> float:
    """Returns the seconds between the heartbeats of a watch. Raises InvalidArgument where they are out of bounds."""
    if not shortest <= heartbeat <= longest:
        bounds = f"{shortest.total_seconds():g}s to {longest.total_seconds():g}s"
        raise InvalidArgument([Violation("heartbeat_interval", f"must be from {bounds}")])
    return heartbeat.total_seconds()
