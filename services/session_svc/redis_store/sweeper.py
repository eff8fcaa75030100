"""Keeps the indexes from filling up with sessions that are gone.

An index does not learn that a session has expired. So for every session that is made, a few members of its indexes are
looked at, taken at random: with three each, an index settles where at most a third of it is dead, whatever the number
of sessions, their lifetimes, or the length of the index.
"""

import asyncio
import itertools
from collections import deque

import structlog
from cachetools import LRUCache

from servicekit.errors import ServiceError
from session_svc.metrics import Metrics
from session_svc.redis_client.link import RedisFault
from session_svc.redis_store.indexes import IndexAdditions
from session_svc.redis_store.keys import project_index
from session_svc.redis_store.sessions import RedisSessions

LOOKS_A_SESSION = 3
MAX_LOOKS = 300
PAUSE_SECONDS = 1.0
SWEEPS_A_CENSUS = 15
CENSUS_LOOKS = 50
MAX_PROJECTS = 1000

log = structlog.get_logger("session_svc.sweeper")


class Sweeper:
    """Sweeps as many members as sessions are made, and reports to the metrics how many sessions live and have gone."""

    def __init__(self, sessions: RedisSessions, index_additions: IndexAdditions, metrics: Metrics) -> None:
        self._sessions = sessions
        self._index_additions = index_additions
        self._metrics = metrics
        self._alive: LRUCache[str, float] = LRUCache(MAX_PROJECTS)

    async def run(self) -> None:
        """Sweeps once a second until cancelled."""
        for number in itertools.count(1):
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.sweep()
                if number % SWEEPS_A_CENSUS == 0:
                    await self.census()
            except ServiceError as error:
                log.info("indexes_not_swept", reason=error.reason)

    async def sweep(self) -> int:
        """Looks at a sample of every index that sessions were added to; returns how many dead members it found.

        Indexes that an error kept from being looked at are left for the next time.
        """
        found = 0
        left = deque(self._index_additions.take())
        try:
            while left:
                project, index, count = left[0]
                try:
                    found += await self._look(project, index, min(LOOKS_A_SESSION * count, MAX_LOOKS))
                except RedisFault as error:  # of this index alone: the others are swept
                    self._metrics.damaged("index")
                    log.error("index_not_swept", error=str(error)[:200])
                left.popleft()
        finally:
            for project, index, count in left:
                self._index_additions.note(project, [index], count)
        return found

    async def census(self) -> None:
        """Looks at each project that sessions were made in, so that what expired while none was made shows too."""
        for project in list(self._alive):
            await self._look(project, project_index(project), CENSUS_LOOKS)

    async def _look(self, project: str, index: str, count: int) -> int:
        sample = await self._sessions.sweep_sample(project, index, count)
        if index == project_index(project):
            # Every session is in one of these, so that none is counted twice.
            self._alive[project] = sample.alive
            self._metrics.sampled(sum(self._alive.values()), sample.gone)
        return sample.gone
