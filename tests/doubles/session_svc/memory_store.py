"""Sessions and agents in memory: the twin of the Redis adapters."""

import secrets

from servicekit.errors import InvalidArgument, Violation
from session_svc.model.errors import (
    AgentDeleted,
    SessionAlreadyExists,
    SessionBusy,
    SessionNotFound,
    StoredTurnNotFound,
    TurnNotLast,
)
from session_svc.model.session import (
    AgentIncarnation,
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
    Usage,
)
from session_svc.model.turn import BeginTurn, TurnPage, TurnQuery
from session_svc.model.window import fit_window
from session_svc.redis_store.turn_codec import EarlyCalls
from tests.doubles.session_svc.memory_state import MemoryState, Stored


class MemorySessions:
    """The `SessionStore` in memory."""

    def __init__(self, state: MemoryState, early_calls: EarlyCalls = lambda data: ()) -> None:
        self._state = state
        self._early_calls = early_calls

    async def create(self, session: NewSession) -> Session:
        state, key = self._state, session.key
        if (key.project, session.agent_uid) in state.fences:
            raise AgentDeleted(session.agent_id)
        if state.load(key) is not None:
            raise SessionAlreadyExists(key.session_id)
        state.touch(key, session.agent_id, session.agent_uid)
        begin = BeginTurn(
            key=key,
            agent_id=session.agent_id,
            agent_uid=session.agent_uid,
            turn_id="",
            user_id=session.user_id,
            idle_ms=session.idle_ms,
            lifetime_ms=session.lifetime_ms,
            metadata=session.metadata,
        )
        stored = state.add(key, begin)
        stored.new = False
        return state.change(stored, pinned_revision=session.pinned_revision)

    async def get(self, key: SessionKey, user_id: str = "") -> Session:
        return self._found(key, user_id).session

    async def update(self, change: SessionChange) -> Session:
        stored = self._found(change.key, change.user_id)
        if change.metadata is not None:
            self._state.change(stored, metadata=dict(change.metadata))
        if change.pinned_revision is not None:
            self._state.change(stored, pinned_revision=change.pinned_revision)
        if change.idle_ms is not None:
            session = stored.session
            expire_ms = min(session.activity_ms + change.idle_ms, session.created_ms + session.lifetime_ms)
            self._state.change(stored, idle_ms=change.idle_ms, expire_ms=expire_ms)
            self._state.keep_children(change.key, expire_ms)
        return self._found(change.key, change.user_id).session

    async def delete(self, key: SessionKey, user_id: str = "") -> Removed:
        session = self._found(key, user_id).session
        self._state.remove(key)
        self._state.hand_over(key)
        children = self._remove_children(key)
        return Removed(1 + children.sessions, session.turn_count + children.turns)

    async def list_sessions(self, query: SessionQuery, size: int, after: ListPosition | None = None) -> SessionPage:
        found: list[Session] = []
        position = after
        for activity_ms, session_id in self._places(query, after):
            if len(found) == size:
                return SessionPage(found, position)
            position = ListPosition(activity_ms, session_id)
            stored = self._state.load(SessionKey(query.project, session_id))
            if stored is not None and _fits(stored.session, query):
                found.append(stored.session)
        return SessionPage(found, None)

    async def turns(self, query: TurnQuery) -> TurnPage:
        stored = self._found(query.key, query.user_id)
        ordered = stored.turns[::-1] if query.newest_first else stored.turns
        if query.start is not None:
            start = query.start
            ordered = [turn for turn in ordered if (turn.number <= start) == query.newest_first or turn.number == start]
        page, rest = ordered[: query.size], ordered[query.size :]
        return TurnPage([turn.turn for turn in page], rest[0].number if rest else None, stored.session.expire_ms)

    async def turn(self, key: SessionKey, turn_id: str, user_id: str = "") -> tuple[bytes, Session]:
        stored = self._found(key, user_id)
        for turn, (_, one) in zip(reversed(stored.turns), reversed(stored.leases), strict=True):
            if one == turn_id:
                return turn.turn, stored.session
        raise StoredTurnNotFound(turn_id)

    async def number_of_turn(self, key: SessionKey, turn_id: str) -> tuple[int, Session]:
        stored = self._found(key, "")
        for turn, (_, one) in zip(reversed(stored.turns), reversed(stored.leases), strict=True):
            if one == turn_id:
                return turn.number, stored.session
        raise StoredTurnNotFound(turn_id)

    async def delete_turn(self, key: SessionKey, turn_id: str, user_id: str = "") -> Session:
        deleted, _ = await self.turn(key, turn_id, user_id)
        stored, state = self._found(key, user_id), self._state
        if state.held(stored):
            raise SessionBusy(key.session_id, 1.0)
        if stored.leases[-1][1] != turn_id:
            raise TurnNotLast(turn_id)
        turn = stored.turns.pop()
        stored.leases.pop()
        stored.done = ""
        stored.outcomes = {name: one for name, one in stored.outcomes.items() if one.number < turn.number}
        state.journals.pop(key, None)
        session = stored.session
        messages = session.message_count - turn.message_count
        begun = tuple(self._early_calls(deleted))
        return state.change(
            stored, last_turn=turn.number - 1, message_count=messages, history_digest=b"", begun_calls=begun
        )

    async def purge(self, purge: Purge) -> Removed:
        sessions = turns = 0
        for key in list(self._state.sessions):
            stored = self._state.load(key)
            if stored is not None and key.project == purge.project and self._purged(stored, purge):
                self._state.remove(key)
                self._state.hand_over(key)
                children = self._remove_children(key)
                sessions += 1 + children.sessions
                turns += stored.session.turn_count + children.turns
        return Removed(sessions, turns)

    async def fork(self, fork: Fork) -> Session:
        stored, state = self._found(fork.source, fork.user_id), self._state
        source = stored.session
        last = fork.up_to or source.last_turn
        if source.turn_count and not source.first_turn <= last <= source.last_turn:
            bounds = f"must be 0, or {source.first_turn} to {source.last_turn}"
            raise InvalidArgument([Violation("up_to_turn", bounds)])
        key = SessionKey(fork.source.project, fork.new_id)
        made = state.load(key)
        if made is not None and made.new and state.held(made):
            raise SessionBusy(key.session_id, (made.until_ms - state.now()) / 1000)
        await self.create(
            NewSession(
                key=key,
                agent_id=fork.agent_id or source.agent_id,
                agent_uid=fork.agent_uid or source.agent_uid,
                user_id=source.user_id,
                idle_ms=source.idle_ms,
                lifetime_ms=source.lifetime_ms,
                pinned_revision=source.pinned_revision,
                metadata=source.metadata,
            )
        )
        copy = state.sessions[key]
        copied = [place for place, turn in enumerate(stored.turns) if turn.number <= last]
        if fork.window_messages:
            newest = [stored.turns[place] for place in reversed(copied)]
            window = fit_window(newest, fork.window_messages, 2**30, continues=fork.continues, within_chain=True)
            copied = copied[-max(len(window), 1) :]
        copy.turns = [stored.turns[place] for place in copied]
        copy.leases = [(0, stored.leases[place][1]) for place in copied]
        copy.done = f"fork-{secrets.token_hex(8)}"
        return state.change(
            copy,
            first_turn=copy.turns[0].number if copy.turns else source.first_turn,
            last_turn=last,
            message_count=sum(turn.message_count for turn in copy.turns),
            agent_revision=source.agent_revision,
            usage=Usage(),
        )

    def _remove_children(self, parent: SessionKey) -> Removed:
        sessions = turns = 0
        for key in [key for key, one in self._state.parents.items() if one == parent]:
            del self._state.parents[key]
            stored = self._state.load(key)
            if stored is not None:
                self._state.remove(key)
                self._state.hand_over(key)
                sessions, turns = sessions + 1, turns + stored.session.turn_count
            below = self._remove_children(key)
            sessions, turns = sessions + below.sessions, turns + below.turns
        return Removed(sessions, turns)

    def _found(self, key: SessionKey, user_id: str) -> Stored:
        stored = self._state.load(key)
        if stored is None or (user_id and stored.session.user_id != user_id):
            raise SessionNotFound(key.session_id)
        return stored

    def _places(self, query: SessionQuery, after: ListPosition | None) -> list[tuple[int, str]]:
        places = [(score, key.session_id) for key, score in self._state.order.items() if key.project == query.project]
        if after is not None:
            places = [place for place in places if place < (after.activity_ms, after.session_id)]
        return sorted(places, reverse=True)

    def _purged(self, stored: Stored, purge: Purge) -> bool:
        session = stored.session
        if purge.idle_longer_than_ms is not None:
            if self._state.held(stored):
                return False
            if session.activity_ms > self._state.now() - purge.idle_longer_than_ms:
                return False
        query = SessionQuery(purge.project, purge.agent_id, purge.user_id)
        return _fits(session, query) and purge.agent_uid in ("", session.agent_uid)


class MemoryAgents:
    """The `AgentStore` in memory."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def fence(self, incarnation: AgentIncarnation) -> None:
        self._state.fences.add((incarnation.project, incarnation.agent_uid))

    async def unfence(self, incarnation: AgentIncarnation) -> None:
        self._state.fences.discard((incarnation.project, incarnation.agent_uid))

    async def agents(self) -> list[AgentIncarnation]:
        return list(self._state.agents)

    async def cursor(self) -> str:
        return self._state.cursor

    async def keep_cursor(self, cursor: str) -> None:
        self._state.cursor = cursor


def _fits(session: Session, query: SessionQuery) -> bool:
    return (not query.agent_id or session.agent_id == query.agent_id) and (
        not query.user_id or session.user_id == query.user_id
    )
