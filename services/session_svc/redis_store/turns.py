"""Turns in Redis. Each operation is one round trip; only scripts decide."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from contract.errors import SessionAgentMismatch
from session_svc.model.errors import (
    AgentDeleted,
    IdempotencyKeyReused,
    JournalFull,
    LeaseLost,
    SessionBusy,
    SessionFull,
    SessionNotFound,
    SessionPartsFull,
    TurnCancelled,
    TurnDamaged,
    TurnInterrupted,
    TurnQueueFull,
)
from session_svc.model.session import LONGEST_LIFETIME_MS, SessionBounds, SessionKey, WhenFull
from session_svc.model.turn import BeginTurn, Begun, Committed, CommitTurn, Joined, Lease, Replayed, Waiting
from session_svc.redis_client.link import Command, RedisUnavailable, Reply
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.children import Children
from session_svc.redis_store.durability import Durability, TooFewReplicas
from session_svc.redis_store.indexes import IndexAdditions, KnownAgents, now_ms
from session_svc.redis_store.keys import children_index, fence_key, index_keys, turns_key
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.session_codec import metadata_text, session_of
from session_svc.redis_store.turn_codec import IsTurn, body_of, id_sum, stored_turn
from session_svc.redis_store.waiting_turns import WaitingTurns
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.redis_store.window import Windows

MAX_TRIES = 3
_ADOPTED = 2
"""What the script answers as `created` where the session was made without an agent, and now is the turn's."""


class RedisTurns:
    """The `TurnStore` on Redis. With `compressing`, turns are stored compressed where that pays. Reads both kinds."""

    def __init__(
        self,
        scripts: RedisScripts,
        wakes: RedisWakes,
        limits: SessionBounds,
        index_additions: IndexAdditions,
        durability: Durability | None = None,
        *,
        compressing: bool = True,
        is_turn: IsTurn = lambda data: True,
        large: Durability | None = None,
        waiting: WaitingTurns | None = None,
    ) -> None:
        """Commits with contents of parts go by `large`."""
        self._scripts = scripts
        self._is_turn = is_turn
        self._wakes = wakes
        self._limits = limits
        self._agents = KnownAgents(scripts)
        self._children = Children(scripts)
        self._index_additions = index_additions
        self._windows = Windows(scripts, limits.window_bytes, is_turn)
        self._durability = durability or Durability([scripts])
        self._large = large or self._durability
        self._compressing = compressing
        self._waiting = waiting or WaitingTurns(scripts, limits)

    def new_waiter_id(self) -> str:
        return self._wakes.new_waiter_id()

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        await self._wakes.wait(waiter_id, timeout)

    async def begin(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> Begun | Replayed | Joined | Waiting:
        for _ in range(MAX_TRIES):
            asked = time.monotonic()
            answer, elements, fenced, orphaned = await self._begin(turn, waiter_id, wait_ms)
            if not turn.must_exist and (type(answer) is not replies.BeginOk or answer.created):
                # Also what is refused may have made an index, which is removed only by sweeping.
                self._index_additions.note(turn.key.project, index_keys(turn.key.project, turn.agent_id, turn.user_id))
            if fenced or orphaned:
                await self._remove_leftovers(turn.key, turn.agent_uid, waiter_id)
                raise AgentDeleted(turn.agent_id) if fenced else SessionNotFound(turn.parent_id)
            if type(answer) is replies.BeginOk and answer.children:
                await self._children.keep(turn.key, session_of(turn.key, answer.session).expire_ms)
            if type(answer) is replies.BeginOk and answer.created == _ADOPTED:
                answer = answer._replace(created=0)
                await self._adopt(turn, waiter_id)
            outcome = await self._outcome(turn, answer, elements, asked)
            if outcome is not None:
                return outcome
        raise RedisUnavailable

    async def _adopt(self, turn: BeginTurn, waiter_id: str) -> None:
        """Puts a session that was made without an agent among those of the turn's. Raises `AgentDeleted`."""
        score = now_ms()
        indexes = index_keys(turn.key.project, turn.agent_id, turn.user_id)
        agent = self._agents.command(turn.key.project, turn.agent_id, turn.agent_uid)
        *_, fenced = await self._run(
            [*(("ZADD", key, score, turn.key.session_id) for key in indexes), *((agent,) if agent else ())],
            # After the indexes: whoever sets it later finds the session there.
            [("GET", fence_key(turn.key.project, turn.agent_uid))],
        )
        self._index_additions.note(turn.key.project, indexes)
        if fenced:
            await self._remove_leftovers(turn.key, turn.agent_uid, waiter_id)
            raise AgentDeleted(turn.agent_id)

    async def replayed(self, turn: BeginTurn) -> Replayed | None:
        request = turn.request
        if request is None:
            return None
        call = calls.Replayed(
            turn_id=turn.turn_id,
            agent_uid=turn.agent_uid,
            user=turn.user_id,
            request=request.name,
            digest=request.digest,
        )
        [answer] = await self._run([self._scripts.command(turn.key, call)])
        replay = reply_of(calls.Replayed, answer)
        return await self._replayed(turn.key, replay) if type(replay) is replies.Replay else None

    async def _begin(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> tuple[Any, list[bytes], bool, bool]:
        """Returns the script's answer, the newest stored turns, whether the agent is fenced, and the parent gone."""
        indexes = self._index_commands(turn)
        read = self._windows.first_read(turn)
        rest: list[list[Command]] = [
            [self._begin_command(turn, waiter_id, wait_ms), *((read,) if read else ())],
            # After the script: a fence that is not seen here was set after the session was in the indexes, so that
            # whoever set it finds and removes the session.
            [("GET", fence_key(turn.key.project, turn.agent_uid))],
        ]
        if turn.parent_id:  # as the fence: who deletes the parent later finds this session in its index
            parent = SessionKey(turn.key.project, turn.parent_id)
            rest[1].append(self._scripts.command(parent, calls.Adopt()))
        try:
            answered = (await self._run(indexes, *rest))[len(indexes) :]
        except RedisUnavailable as error:
            self._agents.forget(turn.key.project, turn.agent_id, turn.agent_uid)
            if error.stage != 0:
                raise
            # The indexes are on a server that is unreachable. One that is there has been in them since it was made.
            rest[0][0] = self._begin_command(replace(turn, must_exist=True), waiter_id, wait_ms)
            answered = await self._run([], *rest)
            if type(reply_of(calls.Begin, answered[0])) is replies.Missing and not turn.must_exist:
                raise
        orphaned = bool(turn.parent_id) and not answered.pop()
        answer, *elements, fenced = answered
        return reply_of(calls.Begin, answer), elements[0] if elements else [], bool(fenced), orphaned

    async def leave(self, key: SessionKey, waiter_id: str) -> None:
        await self._scripts.run(self._scripts.command(key, calls.Leave(waiter_id, self._limits.claim_ms)))

    async def renew(self, lease: Lease, waiter_id: str = "") -> Lease:
        call = calls.Renew(
            token=lease.token, turn_id=lease.turn_id, lease_ms=self._limits.lease_ms, waiter_id=waiter_id
        )
        ends = time.monotonic() + self._limits.lease_ms / 1000
        [answer] = await self._run([self._scripts.command(lease.key, call)])
        match reply_of(calls.Renew, answer):
            case replies.RenewOk(expire_ms, picked_up):
                if picked_up:
                    self._waiting.note(lease)
                return Lease(lease.key, lease.turn_id, lease.token, expire_ms, ends=ends)
            case replies.Cancelled():
                raise TurnCancelled(lease.key.session_id)
            case replies.Interrupted():
                raise TurnInterrupted(lease.key.session_id)
        raise LeaseLost(lease.key.session_id)

    async def commit(self, commit: CommitTurn) -> Committed:
        """A lost connection is followed by one repeat, which says what happened."""
        command = self._commit_command(commit)
        durability = self._large if commit.parts else self._durability
        try:
            answer, kept = await durability.run(command)
        except RedisUnavailable:
            answer, kept = await durability.run(command)
        session_id = commit.lease.key.session_id
        reply = reply_of(calls.Commit, answer)
        if type(reply) is replies.CommitOk:
            if not kept:
                raise TooFewReplicas
            if reply.children:
                await self._children.keep(commit.lease.key, reply.expire_ms)
            if commit.end_event:
                self._waiting.forget(commit.lease)
            return Committed(reply.number, reply.expire_ms, reply.event_id.decode())
        match reply:
            case replies.SessionIsFull():
                raise SessionFull(session_id, self._limits.turns_per_session)
            case replies.PartsFull():
                raise SessionPartsFull(session_id, self._limits.part_bytes)
            case replies.JournalFull():
                raise JournalFull(commit.lease.turn_id, self._limits.journal.max_bytes)
            case replies.Interrupted():
                raise TurnInterrupted(session_id)
        raise LeaseLost(session_id)

    async def abort(self, lease: Lease, end_event: bytes = b"") -> None:
        call = calls.Abort(
            token=lease.token,
            turn_id=lease.turn_id,
            claim_ms=self._limits.claim_ms,
            end_event=end_event,
            keep_ms=self._limits.journal.keep_ms,
        )
        [was_held] = await self._run([self._scripts.command(lease.key, call)])
        if end_event and was_held:
            self._waiting.forget(lease)

    async def _run(self, *stages: Sequence[Command]) -> list[Reply]:
        # Once more after a connection broke: each operation repeated is what it was the first time, so that the second
        # answer says what became of the first.
        try:
            return await self._scripts.run_in_order(*stages)
        except RedisUnavailable:
            return await self._scripts.run_in_order(*stages)

    def _index_commands(self, turn: BeginTurn) -> list[Command]:
        # The score is this machine's clock, not Redis': it only orders lists.
        score, session_id = now_ms(), turn.key.session_id
        keys = index_keys(turn.key.project, turn.agent_id, turn.user_id)
        if turn.parent_id:
            index = children_index(turn.key.project, turn.parent_id)
            return [
                *(("ZADD", key, score, session_id) for key in (*keys, index)),
                ("PEXPIRE", index, LONGEST_LIFETIME_MS),
            ]
        if turn.must_exist:
            return [("ZADD", key, "XX", score, session_id) for key in keys]
        commands: list[Command] = [("ZADD", key, score, session_id) for key in keys]
        agent = self._agents.command(turn.key.project, turn.agent_id, turn.agent_uid)
        return commands if agent is None else [*commands, agent]

    def _begin_command(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> Command:
        limits, request = self._limits, turn.request
        # `__new__`, here and below: a call of the class first makes a dict of so many arguments, at twice the cost.
        call = calls.Begin.__new__(
            calls.Begin,
            turn_id=turn.turn_id,
            waiter_id=waiter_id,
            wait_ms=wait_ms,
            policy=turn.busy.value,
            max_waiters=limits.queue_per_session,
            lease_ms=limits.lease_ms,
            claim_ms=limits.claim_ms,
            agent_id=turn.agent_id,
            agent_uid=turn.agent_uid,
            user=turn.user_id,
            must_exist=int(turn.must_exist),
            idle_ms=turn.idle_ms,
            lifetime_ms=turn.lifetime_ms,
            request=request.name if request else b"",
            digest=request.digest if request else b"",
            metadata=metadata_text(turn.metadata),
            max_turns=limits.turns_per_session if limits.when_full is WhenFull.REFUSE and not turn.may_cut else 0,
            joins=int(turn.join_repeat),
            keep_ms=limits.journal.keep_ms,
        )
        return self._scripts.command(turn.key, call)

    def _commit_command(self, commit: CommitTurn) -> Command:
        limits, request, usage = self._limits, commit.request, commit.usage
        body, flags = body_of(commit.turn, continues=commit.continues, compressing=self._compressing)
        call = calls.Commit.__new__(
            calls.Commit,
            token=commit.lease.token,
            turn_id=commit.lease.turn_id,
            turn=body,
            messages=commit.message_count,
            flags=flags,
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens,
            cached=usage.cached_tokens,
            reasoning=usage.reasoning_tokens,
            cache_write=usage.cache_write_tokens,
            revision=commit.agent_revision,
            idle_ms=commit.idle_ms,
            request=request.name if request else b"",
            digest=request.digest if request else b"",
            replay_ms=limits.replay_ms,
            max_replays=limits.replays_per_session,
            max_turns=limits.turns_per_session,
            drop_oldest=int(limits.when_full is WhenFull.DROP_OLDEST),
            claim_ms=limits.claim_ms,
            id_sum=id_sum(commit.lease.turn_id),
            history=commit.history_digest,
            cut_after="-" if commit.cut_after is None else commit.cut_after,
            end_event=commit.end_event,
            keep_ms=limits.journal.keep_ms,
            max_part_bytes=limits.part_bytes,
            max_bytes=limits.journal.max_bytes,
            first_event=commit.first_event,
            events=len(commit.events),
        )
        contents = [one for part in commit.parts for one in (part.digest, part.content)] if commit.parts else ()
        return self._scripts.command(commit.lease.key, call, *commit.events, *contents)

    async def _outcome(
        self, turn: BeginTurn, answer: Any, elements: list[bytes], asked: float
    ) -> Begun | Replayed | Joined | Waiting | None:
        """Returns what the answer of a script that ran after `asked` means, None to ask again; raises what it refused
        with.
        """
        key = turn.key
        if type(answer) is replies.BeginOk:
            ends = asked + answer.left_ms / 1000
            lease = Lease(key, turn.turn_id, answer.token, answer.expire_ms, ends=ends)
            session = session_of(key, answer.session)
            window = await self._windows.complete(turn, lease, elements, session)
            full = self._limits.when_full is WhenFull.REFUSE and session.turn_count >= self._limits.turns_per_session
            return Begun(session, lease, window, bool(answer.created), full=full)
        match answer:
            case replies.Replay():
                return await self._replayed(key, answer)
            case replies.Wait(ms):
                return Waiting(ms)
            case replies.Joined(turn_id):
                # It may be one that was begun and never answered: whoever repeats its request learns that it runs.
                self._waiting.note(Lease(key, turn_id.decode(), 0))
                return Joined(key, turn_id.decode())
            case replies.Mismatch(agent_uid):
                if await self._belongs_to_deleted(key, agent_uid.decode()):
                    return None
                raise SessionAgentMismatch(key.session_id, turn.agent_id)
            case replies.Busy(ms):
                raise SessionBusy(key.session_id, ms / 1000)
            case replies.QueueFull(ms):
                raise TurnQueueFull(key.session_id, self._limits.queue_per_session, ms / 1000)
            case replies.SessionIsFull():
                raise SessionFull(key.session_id, self._limits.turns_per_session)
            case replies.Reused():
                raise IdempotencyKeyReused(turn.request.request_id if turn.request else "")
            case replies.Lost():
                raise LeaseLost(key.session_id)
        raise SessionNotFound(key.session_id)

    async def _replayed(self, key: SessionKey, replay: replies.Replay) -> Replayed | None:
        session = session_of(key, replay.session)
        element, answer = await self._scripts.run(
            ("LINDEX", turns_key(key), replay.number - replay.first), self._scripts.command(key, calls.Read())
        )
        reply = reply_of(calls.Read, answer)
        if type(reply) is not replies.SessionOk:
            return None
        again = session_of(key, reply.session)
        if again.created_ms != session.created_ms:
            return None
        if element is None:
            if again.first_turn <= replay.number:
                raise TurnDamaged(replay.number)
            return None
        found = stored_turn(element)
        if found.number != replay.number:
            return None
        turn = found.turn(self._is_turn)
        if self._durability.replicas:
            # Its first commit may have been answered with too few replicas: this answer acknowledges it.
            await self._durability.keep(self._scripts.command(key, calls.Confirm()))
        return Replayed(session, turn)

    async def _belongs_to_deleted(self, key: SessionKey, agent_uid: str) -> bool:
        [fenced] = await self._scripts.run(("GET", fence_key(key.project, agent_uid)))
        if fenced:
            await self._remove_leftovers(key, agent_uid)
        return bool(fenced)

    async def _remove_leftovers(self, key: SessionKey, agent_uid: str, waiter_id: str = "") -> None:
        claim_ms = self._limits.claim_ms
        delete = calls.Delete(agent_id="", agent_uid=agent_uid, user="", idle_ms="", claim_ms=claim_ms, damaged=0)
        leave = (self._scripts.command(key, calls.Leave(waiter_id, claim_ms)),) if waiter_id else ()
        await self._scripts.run(self._scripts.command(key, delete), *leave)
