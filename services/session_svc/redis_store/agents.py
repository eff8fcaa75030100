"""What session_svc remembers of agents, in Redis."""

from session_svc.model.session import LONGEST_LIFETIME_MS, AgentIncarnation
from session_svc.redis_store.durability import Durability
from session_svc.redis_store.indexes import now_ms
from session_svc.redis_store.keys import AGENTS_KEY, CURSOR_KEY, fence_key
from session_svc.redis_store.script_runner import RedisScripts

BATCH = 1000

FENCE_MS = LONGEST_LIFETIME_MS + 24 * 60 * 60 * 1000
"""How long a fence stays: longer than any session can live that was there when it was set."""


class RedisAgents:
    """The `AgentStore` on Redis."""

    def __init__(self, scripts: RedisScripts, durability: Durability | None = None) -> None:
        self._scripts = scripts
        self._durability = durability or Durability([scripts])

    async def fence(self, incarnation: AgentIncarnation) -> None:
        await self._durability.keep(
            ("SET", fence_key(incarnation.project, incarnation.agent_uid), incarnation.agent_id, "PX", FENCE_MS)
        )

    async def unfence(self, incarnation: AgentIncarnation) -> None:
        await self._scripts.run(("DEL", fence_key(incarnation.project, incarnation.agent_uid)))

    async def agents(self) -> list[AgentIncarnation]:
        await self._scripts.run(("ZREMRANGEBYSCORE", AGENTS_KEY, "-inf", now_ms() - FENCE_MS))
        found: list[AgentIncarnation] = []
        read = 0
        while True:
            [members] = await self._scripts.run(("ZRANGE", AGENTS_KEY, read, read + BATCH - 1))
            for member in members:
                parts = member.decode(errors="replace").rsplit(":", 2)
                if len(parts) == 3:
                    found.append(AgentIncarnation(*parts))
            read += len(members)
            if len(members) < BATCH:
                return found

    async def cursor(self) -> str:
        [cursor] = await self._scripts.run(("GET", CURSOR_KEY))
        return cursor.decode(errors="replace") if cursor else ""

    async def keep_cursor(self, cursor: str) -> None:
        await self._scripts.run(("SET", CURSOR_KEY, cursor))
