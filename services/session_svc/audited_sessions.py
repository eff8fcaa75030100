"""Sessions whose writes are recorded in the audit log before they are made."""

from collections.abc import Callable, Mapping
from typing import Any

from access.binding import require
from access.caller import AGENTS_WRITE, current
from session_svc.metrics import Metrics
from session_svc.model.errors import SessionNotFound
from session_svc.model.session import (
    Erasure,
    Fork,
    NewSession,
    Purge,
    Removed,
    Session,
    SessionChange,
    SessionKey,
    SessionQuery,
)
from session_svc.ports import AgentStore, AuditLog, SessionStore, State
from session_svc.sessions import Sessions


class AuditedSessions(Sessions):
    """Sessions whose writes are recorded in the audit log first: no audit, no write. A write that fails afterwards is
    in the log too; a write that is not in the log was not made. Turns are not audited, since the session itself is
    their record. Of metadata only the names are recorded: the log outlives the session, and an erasure could not find a
    user in free text.
    """

    def __init__(self, store: SessionStore, agents: AgentStore, metrics: Metrics, audit: AuditLog) -> None:
        super().__init__(store, agents, metrics)
        self._audit = audit

    async def create(self, session: NewSession) -> Session:
        after: dict[str, Any] = {
            "agent_id": session.agent_id,
            "agent_uid": session.agent_uid,
            "metadata_keys": sorted(session.metadata),
        }
        after |= {"user_id": session.user_id, "idle_ttl_ms": session.idle_ms, "max_lifetime_ms": session.lifetime_ms}
        await self._record(session.key, "create", session.user_id, after=after)
        return await super().create(session)

    async def update(self, change: SessionChange) -> Session:
        before = await self.get(change.key, change.user_id)
        changed = {"idle_ttl_ms": change.idle_ms, "pinned_revision": change.pinned_revision}
        after: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
        if change.metadata is not None:
            after["metadata_keys"] = sorted(change.metadata)
        await self._record(change.key, "update", before.user_id, before=_state(before), after=_state(before) | after)
        return await super().update(change)

    async def delete(self, key: SessionKey, user_id: str, *, allow_missing: bool) -> None:
        try:
            before = await self.get(key, user_id)
        except SessionNotFound:
            if not allow_missing:
                raise
            return
        await self._record(key, "delete", before.user_id, before=_state(before))
        await super().delete(key, user_id, allow_missing=allow_missing)

    async def delete_turn(self, key: SessionKey, turn_id: str, user_id: str) -> Session:
        before = await self.get(key, user_id)
        await self._record(key, "delete_turn", before.user_id, before=_state(before) | {"turn_id": turn_id})
        return await super().delete_turn(key, turn_id, user_id)

    async def purge(self, purge: Purge, *, fence: bool) -> Removed:
        """Fencing an agent requires the right to delete it."""
        if fence:
            require(current(), AGENTS_WRITE)
        wanted = {"agent_id": purge.agent_id, "agent_uid": purge.agent_uid, "user_id": purge.user_id}
        before: dict[str, Any] = {name: value for name, value in wanted.items() if value} | {"fence_agent": fence}
        if purge.idle_longer_than_ms is not None:
            before["idle_longer_than_ms"] = purge.idle_longer_than_ms
        await self._audit.record(
            purge.project, "sessions.purge", "sessions", user_id=purge.user_id, before=before, after=None
        )
        return await super().purge(purge, fence=fence)

    async def fork(self, fork: Fork) -> Session:
        source = await self.get(fork.source, fork.user_id)
        after = {"forked_from": fork.source.session_id, "up_to_turn": fork.up_to, "user_id": source.user_id}
        await self._record(SessionKey(fork.source.project, fork.new_id), "fork", source.user_id, after=after)
        return await super().fork(fork)

    async def erase(self, user: SessionQuery) -> Erasure:
        """The event of the erasure itself is pseudonymised, too. The user's keys are revoked first, so that none can
        recreate what was removed.
        """
        resource = f"users/{user.user_id}"
        await self._audit.record(user.project, "users.erase", resource, user_id=user.user_id, before=None, after=None)
        keys = await self._audit.revoke_keys(user.project, user.user_id)
        erased = await super().erase(user)
        events = await self._audit.erase(user.project, user.user_id)
        return Erasure(erased.removed, erased.erase_ms, events, keys)

    async def _record(
        self, key: SessionKey, verb: str, user_id: str, *, before: State | None = None, after: State | None = None
    ) -> None:
        resource = f"sessions/{key.session_id}"
        await self._audit.record(key.project, f"sessions.{verb}", resource, user_id=user_id, before=before, after=after)


RECORDED: Mapping[str, Callable[..., object]] = {
    "CreateSession": AuditedSessions.create,
    "UpdateSession": AuditedSessions.update,
    "DeleteSession": AuditedSessions.delete,
    "DeleteSessions": AuditedSessions.purge,
    "DeleteTurn": AuditedSessions.delete_turn,
    "ForkSession": AuditedSessions.fork,
    "EraseUser": AuditedSessions.erase,
}
"""The RPCs of SessionService whose calls are recorded, by what records them."""


def _state(session: Session) -> dict[str, Any]:
    return {
        "agent_id": session.agent_id,
        "agent_uid": session.agent_uid,
        "user_id": session.user_id,
        "metadata_keys": sorted(session.metadata),
        "idle_ttl_ms": session.idle_ms,
        "pinned_revision": session.pinned_revision,
        "turn_count": session.last_turn,
    }
