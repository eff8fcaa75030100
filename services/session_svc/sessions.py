"""Use cases of sessions: fenced removal, and export and erasure of a user."""

import time
from collections.abc import AsyncIterator

from session_svc.metrics import Metrics
from session_svc.model.errors import SessionNotFound
from session_svc.model.session import (
    AgentIncarnation,
    Erasure,
    Fork,
    ListPosition,
    NewSession,
    Purge,
    Removed,
    Session,
    SessionChange,
    SessionKey,
    SessionPage,
    SessionQuery,
)
from session_svc.model.turn import TurnPage, TurnQuery
from session_svc.ports import AgentStore, SessionStore

EXPORT_PAGE = 50


class Sessions:
    """The use cases of sessions, as documented in `SessionStore` unless stated otherwise."""

    def __init__(self, store: SessionStore, agents: AgentStore, metrics: Metrics) -> None:
        self._store = store
        self._agents = agents
        self._metrics = metrics

    async def create(self, session: NewSession) -> Session:
        created = await self._store.create(session)
        self._metrics.created()
        return created

    async def get(self, key: SessionKey, user_id: str) -> Session:
        return await self._store.get(key, user_id)

    async def list_sessions(self, query: SessionQuery, size: int, after: ListPosition | None) -> SessionPage:
        return await self._store.list_sessions(query, size, after)

    async def update(self, change: SessionChange) -> Session:
        return await self._store.update(change)

    async def delete(self, key: SessionKey, user_id: str, *, allow_missing: bool) -> None:
        """Removes the session. Raises `SessionNotFound` unless it may be missing."""
        try:
            removed = await self._store.delete(key, user_id)
        except SessionNotFound:
            if not allow_missing:
                raise
            return
        self._metrics.deleted(removed.sessions, "caller")

    async def purge(self, purge: Purge, *, fence: bool) -> Removed:
        """Removes the sessions that fit. With `fence` no turn starts on the agent's uid from before the removal on."""
        if fence:
            await self._agents.fence(AgentIncarnation(purge.project, purge.agent_id, purge.agent_uid))
        removed = await self._store.purge(purge)
        self._metrics.deleted(removed.sessions, "purge")
        return removed

    async def turns(self, query: TurnQuery) -> TurnPage:
        return await self._store.turns(query)

    async def turn(self, key: SessionKey, turn_id: str, user_id: str) -> tuple[bytes, Session]:
        return await self._store.turn(key, turn_id, user_id)

    async def delete_turn(self, key: SessionKey, turn_id: str, user_id: str) -> Session:
        return await self._store.delete_turn(key, turn_id, user_id)

    async def fork(self, fork: Fork) -> Session:
        return await self._store.fork(fork)

    async def export(self, user: SessionQuery) -> AsyncIterator[Session | bytes]:
        """Yields each of the user's sessions, followed by its serialized turns, oldest first."""
        position: ListPosition | None = None
        while True:
            page = await self._store.list_sessions(user, EXPORT_PAGE, position)
            for session in page.sessions:
                yield session
                async for turn in self._all_turns(session.key, user.user_id):
                    yield turn
            position = page.next
            if position is None:
                return

    async def erase(self, user: SessionQuery) -> Erasure:
        """Removes all of the user's sessions; returns a receipt."""
        removed = await self._store.purge(Purge(user.project, user_id=user.user_id))
        self._metrics.deleted(removed.sessions, "erase")
        return Erasure(removed, int(time.time() * 1000))

    async def _all_turns(self, key: SessionKey, user_id: str) -> AsyncIterator[bytes]:
        start: int | None = None
        while True:
            try:
                page = await self._store.turns(TurnQuery(key, user_id, start))
            except SessionNotFound:
                return  # it ended meanwhile
            for turn in page.turns:
                yield turn
            start = page.next
            if start is None:
                return
