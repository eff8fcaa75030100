"""Sessions in Redis: single ones by script, many by way of the indexes."""

import contextlib
import json
from collections.abc import Sequence

from servicekit.errors import InvalidArgument, Violation
from session_svc.model.errors import (
    AgentDeleted,
    SessionAlreadyExists,
    SessionBusy,
    SessionDamaged,
    SessionNotFound,
    StoredTurnNotFound,
    TurnDamaged,
    TurnNotLast,
)
from session_svc.model.session import (
    LONGEST_LIFETIME_MS,
    Fork,
    ListPosition,
    NewSession,
    Purge,
    Removed,
    Session,
    SessionBounds,
    SessionChange,
    SessionKey,
    SessionPage,
    SessionQuery,
)
from session_svc.model.turn import TurnPage, TurnQuery
from session_svc.redis_client.link import Command, RedisUnavailable, Reply
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.children import Children
from session_svc.redis_store.durability import Durability, TooFewReplicas
from session_svc.redis_store.forks import PAGE_BYTES, TURNS_A_READ, Forks
from session_svc.redis_store.index_pages import Candidate, IndexPages, candidates_of
from session_svc.redis_store.indexes import IndexAdditions, KnownAgents, Sample, now_ms
from session_svc.redis_store.keys import children_index, fence_key, index_keys, narrowest_index, turns_key
from session_svc.redis_store.parts import RedisParts
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.session_codec import metadata_text, session_of
from session_svc.redis_store.turn_codec import (
    EarlyCalls,
    IsTurn,
    id_sum,
    id_sum_of,
    number_of,
    stored_turn,
)
from session_svc.redis_store.turns import RedisTurns

MAX_LOOKED_AT = 2000
MAX_TRIES = 3
SWEEP_GRACE_MS = 5 * 60 * 1000
CLOCK_SKEW_MS = 5 * 60 * 1000

_NOTHING = (0, 0)
"""What the deletion of a session answers that does not fit."""


class RedisSessions:
    """The `SessionStore` on Redis. Without `compressing`, what a fork copies is stored as it is, too."""

    def __init__(
        self,
        scripts: RedisScripts,
        turns: RedisTurns,
        limits: SessionBounds,
        index_additions: IndexAdditions,
        durability: Durability | None = None,
        *,
        compressing: bool = True,
        is_turn: IsTurn = lambda data: True,
        early_calls: EarlyCalls = lambda data: (),
        parts: RedisParts | None = None,
    ) -> None:
        self._scripts = scripts
        self._pages = IndexPages(scripts)
        self._is_turn = is_turn
        self._early_calls = early_calls
        self._turns = turns
        self._limits = limits
        self._agents = KnownAgents(scripts)
        self._children = Children(scripts)
        self._index_additions = index_additions
        self._durability = durability or Durability([scripts])
        self._compressing = compressing
        self._parts = parts or RedisParts(scripts)
        self._forks = Forks(scripts, turns, self._parts, limits, self, compressing=compressing, is_turn=is_turn)

    async def create(self, session: NewSession) -> Session:
        key, score = session.key, now_ms()
        indexes = index_keys(key.project, session.agent_id, session.user_id)
        agent = None
        if session.agent_uid:
            agent = self._agents.command(key.project, session.agent_id, session.agent_uid)
        create = calls.Create(
            agent_id=session.agent_id,
            agent_uid=session.agent_uid,
            user=session.user_id,
            metadata=metadata_text(session.metadata),
            idle_ms=session.idle_ms,
            lifetime_ms=session.lifetime_ms,
            pinned=session.pinned_revision,
        )
        try:
            *_, answer, fenced = await self._scripts.run_in_order(
                [*(("ZADD", index, score, key.session_id) for index in indexes), *((agent,) if agent else ())],
                [self._scripts.command(key, create)],
                [("GET", fence_key(key.project, session.agent_uid))],
            )
        except RedisUnavailable:
            self._agents.forget(key.project, session.agent_id, session.agent_uid)
            raise
        # Also what is refused may have made an index, which is removed only by sweeping.
        self._index_additions.note(key.project, indexes)
        if fenced:
            await self._scripts.run(self._delete_command(key, Purge(key.project, agent_uid=session.agent_uid)))
            raise AgentDeleted(session.agent_id)
        reply = reply_of(calls.Create, answer)
        if type(reply) is not replies.SessionOk:
            raise SessionAlreadyExists(key.session_id)
        return session_of(key, reply.session)

    async def get(self, key: SessionKey, user_id: str = "") -> Session:
        [answer] = await self._scripts.run(self._scripts.command(key, calls.Read(user_id)))
        return _found(key, answer)

    async def update(self, change: SessionChange) -> Session:
        update = calls.Update(
            user=change.user_id,
            metadata="-" if change.metadata is None else metadata_text(change.metadata),
            idle_ms="-" if change.idle_ms is None else change.idle_ms,
            pinned="-" if change.pinned_revision is None else change.pinned_revision,
        )
        [answer] = await self._scripts.run(self._scripts.command(change.key, update))
        changed = _found(change.key, answer)
        if change.idle_ms is not None:
            await self._children.keep(change.key, changed.expire_ms)
        return changed

    async def delete(self, key: SessionKey, user_id: str = "") -> Removed:
        command = self._delete_command(key, Purge(key.project, user_id=user_id), by_key=True)
        answer, kept = await self._durability.run(command)
        if answer[0] != 1:
            raise SessionNotFound(key.session_id)
        children = await self._remove_children(key.project, [key.session_id])
        if not kept:
            raise TooFewReplicas
        return Removed(answer[0] + children.sessions, answer[1] + children.turns)

    async def list_sessions(self, query: SessionQuery, size: int, after: ListPosition | None = None) -> SessionPage:
        index = narrowest_index(query.project, query.agent_id, query.user_id)
        found: list[Session] = []
        looked_at, position, more = 0, after, True
        while more and looked_at < MAX_LOOKED_AT:
            candidates, more = await self._pages.newest(index, position)
            looked_at += len(candidates)
            for candidate, session in await self._read(query.project, index, candidates):
                if len(found) == size:
                    return SessionPage(found, position)
                position = ListPosition(candidate[1], candidate[0])
                if session is not None and _fits(session, query):
                    found.append(session)
            if candidates:
                position = ListPosition(candidates[-1][1], candidates[-1][0])
        return SessionPage(found, position if more else None)

    async def turns(self, query: TurnQuery) -> TurnPage:
        session = await self.get(query.key, query.user_id)
        step = -1 if query.newest_first else 1
        begin = session.last_turn if query.newest_first else session.first_turn
        number = begin if query.start is None else query.start
        if not query.newest_first:
            number = max(number, session.first_turn)
        with_parts = session.part_bytes > 0 and not query.omit_parts
        found: list[bytes] = []
        size_bytes = 0
        while session.first_turn <= number <= session.last_turn and len(found) < query.size:
            count = min(TURNS_A_READ, query.size - len(found))
            low, high = (number - count + 1, number) if step < 0 else (number, number + count - 1)
            elements = await self.read_turns(session, max(low, session.first_turn), high)
            for element in elements[::step]:
                stored = stored_turn(element)
                turn = stored.turn(self._is_turn)
                size_bytes += stored.size + (self._part_bytes(turn) if with_parts else 0)
                if found and size_bytes > PAGE_BYTES:
                    return await self._page(session, found, stored.number, with_parts)
                found.append(turn)
                number = stored.number + step
            if not elements:
                break
        more = session.first_turn <= number <= session.last_turn
        return await self._page(session, found, number if more else None, with_parts)

    def _part_bytes(self, turn: bytes) -> int:
        return sum(part.size for part in self._parts.form.named(turn))

    async def _page(self, session: Session, turns: list[bytes], after: int | None, with_parts: bool) -> TurnPage:
        if with_parts:
            turns = await self._parts.filled(session.key, turns)
        return TurnPage(turns, after, session.expire_ms)

    async def turn(self, key: SessionKey, turn_id: str, user_id: str = "") -> tuple[bytes, Session]:
        session = await self.get(key, user_id)
        turn = stored_turn(await self._element(session, turn_id)).turn(self._is_turn)
        if session.part_bytes:
            [turn] = await self._parts.filled(key, [turn])
        return turn, session

    async def number_of_turn(self, key: SessionKey, turn_id: str) -> tuple[int, Session]:
        session = await self.get(key)
        return number_of(await self._element(session, turn_id)), session

    async def _element(self, session: Session, turn_id: str) -> bytes:
        wanted, high = id_sum(turn_id), session.last_turn
        while high >= session.first_turn:
            low = max(high - TURNS_A_READ + 1, session.first_turn)
            for element in reversed(await self.read_turns(session, low, high)):
                if id_sum_of(element) == wanted:
                    return element
            high = low - 1
        raise StoredTurnNotFound(turn_id)

    async def delete_turn(self, key: SessionKey, turn_id: str, user_id: str = "") -> Session:
        deleted, _ = await self.turn(key, turn_id, user_id)
        begun = self._early_calls(deleted)
        call = calls.Cut(user_id, id_sum(turn_id), json.dumps(begun) if begun else "")
        answer, kept = await self._durability.run(self._scripts.command(key, call))
        reply = reply_of(calls.Cut, answer)
        match reply:
            case replies.Busy(ms):
                raise SessionBusy(key.session_id, ms / 1000)
            case replies.NotLast():
                raise TurnNotLast(turn_id)
            case replies.Missing():
                raise SessionNotFound(key.session_id)
        if not kept:
            raise TooFewReplicas
        return session_of(key, reply.session)

    async def purge(self, purge: Purge) -> Removed:
        index = narrowest_index(purge.project, purge.agent_id, purge.user_id)
        # Sessions that begin meanwhile move to the end: a bound keeps the walk from following them for ever.
        end = now_ms() - (purge.idle_longer_than_ms or 0) + CLOCK_SKEW_MS
        if not purge.idle_longer_than_ms:  # all: those, too, that another replica wrote whose clock is far ahead
            end = max(end, await self._pages.last_score(index))
        sessions = turns = 0
        position: Candidate | None = None
        while True:
            candidates = await self._pages.oldest(index, position, end)
            if not candidates:
                return Removed(sessions, turns)
            position = candidates[-1]
            keys = [SessionKey(purge.project, member) for member, _ in candidates]
            answers = await self._scripts.run_each(*(self._delete_command(key, purge) for key in keys))
            answers = [_NOTHING if isinstance(answer, SessionDamaged) else answer for answer in answers]
            gone = [c for c, answer in zip(candidates, answers, strict=True) if answer[0] != 0]
            sessions += sum(max(answer[0], 0) for answer in answers)
            turns += sum(answer[1] for answer in answers)
            children = await self._remove_children(purge.project, [member for member, _ in gone])
            sessions, turns = sessions + children.sessions, turns + children.turns
            await self._sweep(index, gone)

    async def fork(self, fork: Fork) -> Session:
        source = await self.get(fork.source, fork.user_id)
        last = fork.up_to or source.last_turn
        if source.turn_count and not source.first_turn <= last <= source.last_turn:
            bounds = f"must be 0, or {source.first_turn} to {source.last_turn}"
            raise InvalidArgument([Violation("up_to_turn", bounds)])
        return await self._forks.fork(fork, source, last)

    async def sweep_sample(self, project: str, index: str, count: int) -> Sample:
        """Looks at `count` members of an index taken at random and takes out those that are gone."""
        pairs, _, members = await self._scripts.run(
            ("ZRANDMEMBER", index, count, "WITHSCORES"),
            ("PEXPIRE", index, LONGEST_LIFETIME_MS + SWEEP_GRACE_MS),
            ("ZCARD", index),
        )
        read = await self._read(project, index, candidates_of(pairs))
        return Sample(len(read), sum(session is None for _, session in read), members)

    async def _remove_children(self, project: str, session_ids: Sequence[str]) -> Removed:
        """Removes the sessions that hang on these, and those that hang on them; their index goes last."""
        if not session_ids:
            return Removed(0, 0)
        indexes = [children_index(project, one) for one in session_ids]
        members = await self._scripts.run_each(*(("ZRANGE", index, 0, -1) for index in indexes))
        names = [name.decode(errors="replace") for found in members if isinstance(found, list) for name in found]
        keys = [SessionKey(project, name) for name in names]
        if not keys:
            return Removed(0, 0)
        answers = await self._scripts.run_each(*(self._delete_command(key, Purge(project)) for key in keys))
        answers = [_NOTHING if isinstance(answer, SessionDamaged) else answer for answer in answers]
        # Ids of children are made of their parents', and so go deeper only so far.
        below = await self._remove_children(project, [name for name in names if name not in session_ids])
        await self._scripts.run_each(
            *(("UNLINK", index) for index, found in zip(indexes, members, strict=True) if found)
        )
        sessions = sum(max(answer[0], 0) for answer in answers)
        return Removed(sessions + below.sessions, sum(answer[1] for answer in answers) + below.turns)

    async def read_turns(self, session: Session, low: int, high: int) -> list[bytes]:
        """Returns the elements of these turns, oldest first, fewer where the oldest have been dropped meanwhile."""
        if low > high:
            return []
        first = session.first_turn
        for _ in range(MAX_TRIES):
            elements, answer = await self._scripts.run(
                ("LRANGE", turns_key(session.key), max(low - first, 0), high - first),
                self._scripts.command(session.key, calls.Read()),
            )
            again = _found(session.key, answer)
            if again.created_ms != session.created_ms:
                raise SessionNotFound(session.key.session_id)
            wanted = [element for element in elements if low <= number_of(element) <= high]
            if again.first_turn > high or (
                wanted
                and number_of(wanted[0]) <= max(low, again.first_turn)
                and number_of(wanted[-1]) == min(high, again.last_turn)
            ):
                return wanted
            if again.first_turn == first:
                raise TurnDamaged(max(low, first))  # they are not there, though nobody has dropped them
            first = again.first_turn
        raise RedisUnavailable

    async def _read(
        self, project: str, index: str, candidates: Sequence[Candidate]
    ) -> list[tuple[Candidate, Session | None]]:
        """Returns each candidate's session, None for one that is gone; those are removed from the index.

        One that is damaged is left out, and stays.
        """
        if not candidates:
            return []
        keys = [SessionKey(project, member) for member, _ in candidates]
        answers = await self._scripts.run_each(*(self._scripts.command(key, calls.Read()) for key in keys))
        read: list[tuple[Candidate, Session | None]] = []
        for candidate, key, answer in zip(candidates, keys, answers, strict=True):
            if isinstance(answer, SessionDamaged):
                continue
            reply = reply_of(calls.Read, answer)
            with contextlib.suppress(SessionDamaged):
                read.append((candidate, session_of(key, reply.session) if type(reply) is replies.SessionOk else None))
        await self._sweep(index, [candidate for candidate, session in read if session is None])
        return read

    async def _sweep(self, index: str, gone: Sequence[Candidate]) -> None:
        if gone:
            pairs = [value for candidate in gone for value in candidate]
            await self._scripts.run(self._scripts.index_command(index, calls.Sweep(SWEEP_GRACE_MS), *pairs))

    def _delete_command(self, key: SessionKey, purge: Purge, *, by_key: bool = False) -> Command:
        # Whose a damaged session is can't be read: it goes where the index by which it is found says that, or all go.
        exact = purge.idle_longer_than_ms is None and not (purge.user_id and (by_key or purge.agent_id))
        idle = "" if purge.idle_longer_than_ms is None else purge.idle_longer_than_ms
        call = calls.Delete(
            agent_id=purge.agent_id,
            agent_uid=purge.agent_uid,
            user=purge.user_id,
            idle_ms=idle,
            claim_ms=self._limits.claim_ms,
            damaged=int(exact),
        )
        return self._scripts.command(key, call)


def _found(key: SessionKey, answer: Sequence[Reply]) -> Session:
    reply = reply_of(calls.Read, answer)  # as that of an update
    if type(reply) is not replies.SessionOk:
        raise SessionNotFound(key.session_id)
    return session_of(key, reply.session)


def _fits(session: Session, query: SessionQuery) -> bool:
    return (not query.agent_id or session.agent_id == query.agent_id) and (
        not query.user_id or session.user_id == query.user_id
    )
