"""Keeps the indexes from filling up with sessions that are gone.

Nobody tells an index that a session has expired. So for every session that is made, a few members of its indexes are
looked at, taken at random: with three each, an index settles where at most a third of it is dead, whatever the number
of sessions, their lifetimes, or the length of the index.
"""

import asyncio
from collections import deque

import structlog

from servicekit.errors import ServiceError
from session_svc.redis_sessions import RedisSessions
from session_svc.redis_store import Births

LOOKS_A_SESSION = 3
MOST_LOOKS = 300
PAUSE_SECONDS = 1.0

_log = structlog.get_logger("session_svc.sweeper")


class Sweeper:
    """Sweeps as many members as sessions are made."""

    def __init__(self, sessions: RedisSessions, births: Births) -> None:
        self._sessions = sessions
        self._births = births

    async def run(self) -> None:
        """Sweeps once a second until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.sweep()
            except ServiceError as error:
                _log.info("indexes were not swept", reason=error.reason)

    async def sweep(self) -> int:
        """Looks at a sample of every index that sessions were added to; returns how many dead members it found.

        Indexes that an error kept from being looked at are left for the next time.
        """
        found = 0
        left = deque(self._births.take())
        try:
            while left:
                project, index, count = left[0]
                found += await self._sessions.sweep_sample(project, index, min(LOOKS_A_SESSION * count, MOST_LOOKS))
                left.popleft()
        finally:
            for project, index, count in left:
                self._births.note(project, [index], count)
        return found
