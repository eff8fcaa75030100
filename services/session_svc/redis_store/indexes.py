"""The indexes of sessions, and the set of agents that have some.

They are written before a session exists, may hold members that do not exist (any more), and never decide whether one
does.
"""

import time
from dataclasses import dataclass

from cachetools import LRUCache

from session_svc.redis_client.link import Command
from session_svc.redis_store.keys import AGENTS_KEY
from session_svc.redis_store.script_runner import RedisScripts

REMEMBER_AGENT_SECONDS = 3600.0
MAX_AGENTS = 10_000
MAX_INDEXES = 10_000


class KnownAgents:
    """Which agents this replica has put into Redis' set of agents lately, so that not every turn writes it again."""

    def __init__(self, scripts: RedisScripts) -> None:
        self._scripts = scripts
        self._seen: LRUCache[str, tuple[int, float]] = LRUCache(MAX_AGENTS)

    def command(self, project: str, agent_id: str, agent_uid: str) -> Command | None:
        """Returns what puts an agent there; None when it is there."""
        member = f"{project}:{agent_id}:{agent_uid}"
        now = time.monotonic()
        generation, until = self._seen.get(member, (0, 0.0))
        if until > now and generation == self._scripts.generation:
            return None
        self._seen[member] = (self._scripts.generation, now + REMEMBER_AGENT_SECONDS)
        return ("ZADD", AGENTS_KEY, now_ms(), member)

    def forget(self, project: str, agent_id: str, agent_uid: str) -> None:
        """Notes that the agent may not have been written: Redis refused, or was unavailable."""
        self._seen.pop(f"{project}:{agent_id}:{agent_uid}", None)


class IndexAdditions:
    """Counts sessions made or refused, by project and index; of too many indexes the least recent are forgotten."""

    def __init__(self) -> None:
        self._counts: LRUCache[tuple[str, str], int] = LRUCache(MAX_INDEXES)

    def note(self, project: str, indexes: list[str], count: int = 1) -> None:
        """Counts a session, or several."""
        for index in indexes:
            self._counts[project, index] = self._counts.get((project, index), 0) + count

    def take(self) -> list[tuple[str, str, int]]:
        """Returns project, index and count of all, and resets them."""
        taken = [(project, index, count) for (project, index), count in self._counts.items()]
        self._counts.clear()
        return taken


def now_ms() -> int:
    """Returns this machine's time, which only orders lists: whatever is decided, scripts decide by Redis' own."""
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True)
class Sample:
    """How many members of an index were looked at, how many of those are gone, and how many there were in all."""

    looked: int
    gone: int
    members: int

    @property
    def alive(self) -> float:
        """How many of all members live, as far as the sample says."""
        return self.members * (1 - self.gone / self.looked) if self.looked else 0.0
