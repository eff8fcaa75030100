"""Projects, API keys and the audit log of the in-memory twin."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from config_svc.model.agent import AgentConfig
from config_svc.model.api_key import ApiKey, Use
from config_svc.model.audit import AuditEvent, AuditQuery
from config_svc.model.errors import ProjectAlreadyExists
from config_svc.model.project import Project
from config_svc.ports.access import KeyChange
from contract.fields import DEFAULT_PROJECT
from tests.doubles.config_svc.memory_state import State

_DEFAULT_UID = "00000000-0000-4000-8000-000000000000"


class MemoryAccessTransaction:
    """The part of a transaction that is not about agent configs, on a copy of the state."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def hold_project(self, project: str) -> Project | None:
        found = self._state.projects.get(project)
        return found if found is not None and found.delete_time is None else None

    async def hold_keys_of(self, project: str) -> Project | None:
        return await self.hold_project(project)

    async def lock_project(self, project: str) -> Project | None:
        return self._state.projects.get(project)

    async def insert_project(self, project: Project) -> None:
        if project.id in self._state.projects:
            raise ProjectAlreadyExists(project.id)
        self._state.projects[project.id] = project
        self._state.first_changes[project.id] = self._state.last

    async def mark_project(self, project: Project) -> None:
        self._state.projects[project.id] = project

    async def remove_agents(self, project: str, limit: int) -> Sequence[AgentConfig]:
        own = [agent for agent in self._state.agents.values() if agent.project == project]
        gone = sorted(own, key=lambda agent: (agent.id, agent.uid))[:limit]
        self._state.remove(gone)
        return gone

    async def remove_project(self, project: Project) -> bool:
        if any(agent.project == project.id for agent in self._state.agents.values()):
            return False
        if any(server.project == project.id for server in self._state.tool_servers.values()):
            return False
        if await self.unrevoked_keys(project.uid, 1):
            return False
        del self._state.projects[project.id]
        return True

    async def insert_key(self, key: ApiKey, key_hash: bytes) -> None:
        self._state.keys[key.id] = key
        self._state.hashes[key_hash] = key.id

    async def lock_key(self, project: str, key_id: str) -> ApiKey | None:
        life = self._state.projects.get(project)
        key = self._state.keys.get(key_id)
        return key if key is not None and life is not None and key.project_uid == life.uid else None

    async def end_keys(self, keys: Sequence[ApiKey], time: datetime) -> None:
        for key in keys:
            stored = self._state.keys[key.id]
            self._state.keys[key.id] = replace(stored, expire_time=key.expire_time, revoke_time=key.revoke_time)
            self._state.last_key_change += 1
            self._state.key_changes.append(KeyChange(self._state.last_key_change, key.id, time))

    async def unrevoked_keys(self, project_uid: str, limit: int, user_id: str = "") -> Sequence[ApiKey]:
        found = [key for key in self._state.keys.values() if key.project_uid == project_uid and key.revoke_time is None]
        return sorted((key for key in found if user_id in ("", key.user_id)), key=_key_place)[:limit]

    async def live_keys(self, project_uid: str, now: datetime) -> int:
        own = [key for key in self._state.keys.values() if key.project_uid == project_uid]
        return sum(not key.ended(now) for key in own)

    async def record(self, events: Sequence[AuditEvent]) -> None:
        known = {event.event_id for event, _ in self._state.events} - {None}
        for event in events:
            if event.event_id in known:
                continue
            self._state.last_event += 1
            life = self._state.projects.get(event.project)
            stored = replace(event, sequence=self._state.last_event)
            self._state.events.append((stored, life.uid if life is not None else None))

    async def events_of_user(self, project: str, user_id: str, limit: int) -> Sequence[AuditEvent]:
        own = [event for event, _ in self._state.events if event.project == project]
        return [event for event in own if user_id in event.subjects][:limit]

    async def rewrite_event(self, event: AuditEvent) -> None:
        self._state.events = [
            (event if one.sequence == event.sequence else one, uid) for one, uid in self._state.events
        ]

    async def erase_author(self, project: str, author: str, pseudonym: str) -> None:
        own = {agent.uid for agent in self._state.agents.values() if agent.project == project}
        for key, revision in self._state.revisions.items():
            if key[0] in own and revision.author == author:
                self._state.revisions[key] = replace(revision, author=pseudonym)
        servers = {one.uid for one in self._state.tool_servers.values() if one.project == project}
        for key, snapshot in self._state.tool_server_revisions.items():
            if key[0] in servers and snapshot.author == author:
                self._state.tool_server_revisions[key] = replace(snapshot, author=pseudonym)


class MemoryAccess:
    """Reads of projects, API keys and the audit log, and writes that stand by themselves."""

    def __init__(self) -> None:
        default = Project(DEFAULT_PROJECT, _DEFAULT_UID, "", datetime(2000, 1, 1, tzinfo=UTC))
        self._state = State(projects={default.id: default})
        self._writer = asyncio.Lock()
        self._keys_committed = asyncio.Event()

    async def project(self, project: str) -> Project | None:
        return self._state.projects.get(project)

    async def projects(self, after: str, limit: int, *, in_deletion: bool = False) -> Sequence[Project]:
        found = [one for one in self._state.projects.values() if one.id > after]
        shown = [one for one in found if one.delete_time is not None or not in_deletion]
        return sorted(shown, key=lambda one: one.id)[:limit]

    async def missing_projects(self, uids: Sequence[str]) -> Sequence[str]:
        there = {project.uid for project in self._state.projects.values()}
        return [uid for uid in uids if uid not in there]

    async def first_change(self, project: str) -> int:
        return self._state.first_changes.get(project, 0)

    async def secret(self, name: str, made: bytes) -> bytes:
        return self._state.secrets.setdefault(name, made)

    async def key_by_hash(self, hashes: Sequence[bytes]) -> tuple[ApiKey, bytes] | None:
        for one in hashes:
            key = self._state.keys.get(self._state.hashes.get(one, ""))
            life = self._state.projects.get(key.project) if key is not None else None
            if key is not None and life is not None and life.uid == key.project_uid and life.delete_time is None:
                return key, one
        return None

    async def key(self, project: str, key_id: str) -> ApiKey | None:
        key = self._state.keys.get(key_id)
        named = project or (key.project if key is not None else "")
        return await MemoryAccessTransaction(self._state).lock_key(named, key_id)

    async def keys(self, project: str, after: tuple[datetime, str] | None, limit: int) -> Sequence[ApiKey]:
        life = self._state.projects.get(project)
        own = [key for key in self._state.keys.values() if life is not None and key.project_uid == life.uid]
        return sorted((key for key in own if after is None or _key_place(key) > after), key=_key_place)[:limit]

    async def note_uses(self, uses: Sequence[Use]) -> None:
        async with self._writer:
            for use in uses:
                key = self._state.keys.get(use.key_id)
                if key is None:
                    continue
                if key.last_used_time is None or key.last_used_time < use.time:
                    self._state.keys[key.id] = replace(key, last_used_time=use.time)
                if use.new_hash is not None:
                    kept = {one: key_id for one, key_id in self._state.hashes.items() if key_id != key.id}
                    self._state.hashes = {**kept, use.new_hash: key.id}

    async def forget_keys(self, before: datetime, limit: int) -> int:
        async with self._writer:
            ends = {
                key.id: [end for end in (key.expire_time, key.revoke_time) if end] for key in self._state.keys.values()
            }
            gone = [key_id for key_id, found in ends.items() if found and min(found) < before][:limit]
            for key_id in gone:
                del self._state.keys[key_id]
            return len(gone)

    async def forget_key_changes(self, before: datetime) -> int:
        async with self._writer:
            kept = [change for change in self._state.key_changes if change.time >= before]
            gone, self._state.key_changes = len(self._state.key_changes) - len(kept), kept
            return gone

    @asynccontextmanager
    async def key_tail(self) -> AsyncIterator["MemoryKeyTail"]:
        yield MemoryKeyTail(self)

    async def key_changes(self, after: int, limit: int) -> Sequence[KeyChange]:
        """Returns the oldest changes with a sequence over `after`, in order."""
        return [change for change in self._state.key_changes if change.sequence > after][:limit]

    async def key_committed(self, timeout: float) -> None:
        """Returns when a transaction was committed, at the latest after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._keys_committed.wait()
        except TimeoutError:
            return
        self._keys_committed.clear()

    async def audit_events(
        self, query: AuditQuery, before: tuple[datetime, int] | None, limit: int
    ) -> Sequence[AuditEvent]:
        found = [event for event, uid in self._state.events if _matches(event, uid, query)]
        older = [one for one in found if before is None or (one.time, one.sequence) < before]
        return sorted(older, key=lambda one: (one.time, one.sequence), reverse=True)[:limit]

    async def forget_audit_events(self, before: datetime, limit: int) -> int:
        async with self._writer:
            gone = {event.sequence for event, _ in [one for one in self._state.events if one[0].time < before][:limit]}
            self._state.events = [one for one in self._state.events if one[0].sequence not in gone]
            return len(gone)


class MemoryKeyTail:
    """Implements `config_svc.ports.access.KeyTail`."""

    def __init__(self, access: MemoryAccess) -> None:
        self._access = access

    async def newest(self) -> int:
        changes = await self._access.key_changes(0, 1_000_000)
        return changes[-1].sequence if changes else 0

    async def key_changes(self, after: int, limit: int) -> Sequence[KeyChange]:
        return await self._access.key_changes(after, limit)

    async def wait(self, timeout: float) -> None:
        await self._access.key_committed(timeout)


def _key_place(key: ApiKey) -> tuple[datetime, str]:
    return key.create_time, key.id


def _ended_before(key: ApiKey, time: datetime) -> bool:
    return any(end is not None and end < time for end in (key.expire_time, key.revoke_time))


def _matches(event: AuditEvent, project_uid: str | None, query: AuditQuery) -> bool:
    return (
        event.project == query.project
        and query.project_uid in (None, project_uid)
        and query.actor in ("", event.actor)
        and query.resource in ("", event.resource)
        and (query.start is None or event.time >= query.start)
        and (query.end is None or event.time < query.end)
    )
