"""The in-memory twin of the PostgreSQL store: same promises, no durability. One writer at a time."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from config_svc.model.agent import AgentConfig, Revision
from config_svc.model.change import Change, ChangeType, FeedPosition
from config_svc.model.errors import AgentAlreadyExists, AgentNotFound, RevisionNotFound
from config_svc.model.filter import matches
from config_svc.model.provider import GatewayProviders
from config_svc.model.query import After, AgentQuery, SortValue, sort_value
from config_svc.model.spec_json import EncodedAgent
from config_svc.model.template import Template
from config_svc.ports.claim import Claim
from config_svc.ports.store import Transaction
from tests.doubles.config_svc.memory_access import MemoryAccess, MemoryAccessTransaction
from tests.doubles.config_svc.memory_tool_servers import MemoryToolServers, MemoryToolServerTransaction

T = TypeVar("T")


class MemoryTransaction(MemoryAccessTransaction, MemoryToolServerTransaction):
    """One transaction on a copy of the state."""

    async def claim(self, project: str, claim: Claim, *, expired_before: datetime) -> Claim | None:
        held = self._state.claims.get((project, claim.request_id))
        if held is not None and held.create_time >= expired_before:
            return held
        self._state.claims[project, claim.request_id] = claim
        return None

    async def live(self, project: str, agent_id: str) -> AgentConfig | None:
        return self._state.live(project, agent_id)

    async def by_uid(self, project: str, uid: str) -> AgentConfig | None:
        agent = self._state.agents.get(uid.lower())
        return agent if agent is not None and agent.project == project else None

    async def newest_deleted(self, project: str, agent_id: str, now: datetime) -> AgentConfig | None:
        found = [
            (agent.delete_time, agent.uid, agent)
            for agent in self._state.agents.values()
            if (agent.project, agent.id) == (project, agent_id)
            and agent.delete_time is not None
            and not _is_purged(agent, now)
        ]
        return max(found)[2] if found else None

    async def revision(self, uid: str, number: int) -> Revision | None:
        return self._state.revisions.get((uid, number))

    async def template(self, template_id: str, version: str) -> Template | None:
        return self._state.template(template_id, version)

    async def published_providers(self, now: datetime) -> Sequence[GatewayProviders]:
        return self._state.published(now)

    async def publish(self, template: Template) -> tuple[Template, bool]:
        key = template.id, template.version
        is_new = key not in self._state.templates
        return self._state.templates.setdefault(key, template), is_new

    async def purge(self, now: datetime, limit: int) -> Sequence[AgentConfig]:
        gone = [agent for agent in self._state.agents.values() if _is_purged(agent, now)][:limit]
        self._state.remove(gone)
        return gone

    async def insert(self, encoded: EncodedAgent) -> None:
        agent = encoded.agent
        if self._state.live(agent.project, agent.id) is not None:
            raise AgentAlreadyExists(agent.id)
        self._state.agents[agent.uid] = agent

    async def replace(self, encoded: EncodedAgent) -> None:
        agent = encoded.agent
        other = self._state.live(agent.project, agent.id)
        if agent.delete_time is None and other is not None and other.uid != agent.uid:
            raise AgentAlreadyExists(agent.id)
        self._state.agents[agent.uid] = agent

    async def add_revision(self, encoded: EncodedAgent, revision: Revision) -> None:
        self._state.revisions[encoded.agent.uid, revision.number] = revision

    async def announce(self, change: ChangeType, encoded: EncodedAgent, time: datetime) -> None:
        self._state.last += 1
        self._state.changes.append(Change(self._state.last, change, encoded.agent, time))

    async def announce_all(self, change: ChangeType, agents: Sequence[EncodedAgent], time: datetime) -> None:
        for encoded in agents:
            await self.announce(change, encoded, time)


class MemoryStore(MemoryAccess, MemoryToolServers):
    """Everything in this process' memory."""

    def __init__(self) -> None:
        super().__init__()
        self._feed = str(uuid.uuid4())
        self._committed = asyncio.Event()

    async def agent(
        self, project: str, agent_id: str, *, revision: int | None = None, uid: str | None = None
    ) -> AgentConfig:
        agent = self._state.live(project, agent_id)
        if agent is None or (uid is not None and agent.uid != uid.lower()):
            raise AgentNotFound(agent_id)
        if revision is None:
            return agent
        snapshot = self._state.revisions.get((agent.uid, revision))
        if snapshot is None:
            raise RevisionNotFound(agent_id, revision)
        return replace(agent, spec=snapshot.spec, revision=revision, update_time=snapshot.create_time)

    async def agents(self, query: AgentQuery, after: After | None, limit: int) -> Sequence[AgentConfig]:
        def key(agent: AgentConfig) -> tuple[SortValue, str]:
            return sort_value(agent, query.order), agent.uid

        found = [agent for agent in self._state.agents.values() if _matches(agent, query)]
        found.sort(key=key, reverse=query.order.descending)
        if after is not None:
            start = (after.value, after.uid)
            found = [agent for agent in found if (key(agent) < start if query.order.descending else key(agent) > start)]
        return found[:limit]

    async def revisions(self, uid: str, before: int | None, limit: int) -> Sequence[Revision]:
        found = [
            revision
            for (owner, number), revision in self._state.revisions.items()
            if owner == uid and (before is None or number < before)
        ]
        return sorted(found, key=lambda revision: revision.number, reverse=True)[:limit]

    async def template(self, template_id: str, version: str) -> Template | None:
        return self._state.template(template_id, version)

    async def templates(self, after: str, limit: int) -> Sequence[Template]:
        ids = sorted({template_id for template_id, _ in self._state.templates if template_id > after})
        return [template for one in ids[:limit] if (template := self._state.template(one, "")) is not None]

    async def publish_providers(self, published: GatewayProviders) -> None:
        self._state.providers.pop(published.gateway, None)
        if published.providers:
            self._state.providers[published.gateway] = published

    async def published_providers(self, now: datetime) -> Sequence[GatewayProviders]:
        return self._state.published(now)

    async def forget_providers(self, before: datetime) -> int:
        gone = [one.gateway for one in self._state.providers.values() if one.expire_time < before]
        for gateway in gone:
            del self._state.providers[gateway]
        return len(gone)

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self._writer:
            draft = self._state.copy()
            result = await work(MemoryTransaction(draft))
            self._state = draft
            self._committed.set()
            self._keys_committed.set()
            return result

    async def feed_position(self) -> FeedPosition:
        return FeedPosition(self._feed, self._state.last, self._state.compacted)

    async def position(self) -> FeedPosition:
        return await self.feed_position()

    async def changes(self, after: int, limit: int) -> Sequence[Change]:
        return [change for change in self._state.changes if change.sequence > after][:limit]

    @asynccontextmanager
    async def tail(self) -> AsyncIterator["MemoryStore"]:
        yield self

    async def wait(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._committed.wait()
        except TimeoutError:
            return
        self._committed.clear()

    async def forget_claims(self, before: datetime) -> int:
        async with self._writer:
            kept = {key: one for key, one in self._state.claims.items() if one.create_time >= before}
            gone, self._state.claims = len(self._state.claims) - len(kept), kept
            servers = self._state.tool_server_claims
            kept = {key: one for key, one in servers.items() if one.create_time >= before}
            gone, self._state.tool_server_claims = gone + len(servers) - len(kept), kept
            return gone

    async def compact(self, before: datetime, keep: int) -> int:
        async with self._writer:
            changes = self._state.changes
            old = max((change.sequence for change in changes if change.time < before), default=0)
            through = max(old, self._state.last - keep)
            if through <= self._state.compacted:
                return 0
            self._state.changes = [change for change in changes if change.sequence > through]
            self._state.compacted = through
            return len(changes) - len(self._state.changes)


def _matches(agent: AgentConfig, query: AgentQuery) -> bool:
    if agent.project != query.project or (query.filter is not None and not matches(agent, query.filter)):
        return False
    return agent.delete_time is None or (query.show_deleted and not _is_purged(agent, query.now))


def _is_purged(agent: AgentConfig, now: datetime) -> bool:
    return agent.purge_time is not None and agent.purge_time <= now
