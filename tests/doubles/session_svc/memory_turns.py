"""Turns in memory: the twin of the Redis adapter, for tests and as the shortest statement of what the scripts do."""

import asyncio
import contextlib
import itertools
from dataclasses import replace

from contract.enums import BusyPolicy
from contract.errors import SessionAgentMismatch
from session_svc.model.errors import (
    AgentDeleted,
    IdempotencyKeyReused,
    LeaseLost,
    SessionBusy,
    SessionFull,
    SessionNotFound,
    TurnCancelled,
    TurnInterrupted,
    TurnQueueFull,
)
from session_svc.model.journal import JournalEvent, UnheardEnd
from session_svc.model.session import SessionKey, Usage, WhenFull
from session_svc.model.turn import (
    BeginTurn,
    Begun,
    Committed,
    CommitTurn,
    Joined,
    Lease,
    Replayed,
    Waiting,
)
from session_svc.model.window import fit_window
from tests.doubles.session_svc.memory_state import HeadedTurn, MemoryState, Outcome, Stored, Ticket

_NUMBER_TAG = b"\x10"
_OLD_DIGEST = 32


class MemoryTurns:
    """The `TurnStore` in memory."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._numbers = itertools.count(1)

    def new_waiter_id(self) -> str:
        return f"memory.{next(self._numbers)}"

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        event = self._state.wakeups.setdefault(waiter_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()
        self._state.wakeups.pop(waiter_id, None)

    async def begin(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> Begun | Replayed | Joined | Waiting:
        state, key = self._state, turn.key
        if not turn.must_exist:
            state.touch(key, turn.agent_id, turn.agent_uid)
        stored = state.load(key)
        if turn.parent_id:
            parent = SessionKey(key.project, turn.parent_id)
            if state.load(parent) is None:
                state.remove(key)
                raise SessionNotFound(turn.parent_id)
            state.parents[key] = parent
        if (key.project, turn.agent_uid) in state.fences:
            state.give_up(key, turn_id=turn.turn_id)
            if stored is not None and stored.session.agent_uid == turn.agent_uid:
                state.remove(key)
                state.hand_over(key)
            raise AgentDeleted(turn.agent_id)
        if stored is not None and stored.session.user_id == turn.user_id:
            owner = stored.session.agent_uid
            if owner != turn.agent_uid and (key.project, owner) in state.fences:
                state.remove(key)
                stored = None
        try:
            answered = self._answer_without_lease(turn, waiter_id, stored)
        except Exception:
            state.give_up(key, turn_id=turn.turn_id)
            raise
        if answered is not None:
            return answered
        return self._wait_or_take(turn, waiter_id, wait_ms, stored)

    async def replayed(self, turn: BeginTurn) -> Replayed | None:
        stored = self._state.load(turn.key)
        if stored is None or (stored.session.user_id, stored.session.agent_uid) != (turn.user_id, turn.agent_uid):
            return None
        try:
            number = self._number_of_request(turn, stored)
        except IdempotencyKeyReused:
            return None
        return (
            None if number is None else Replayed(stored.session, stored.turns[number - stored.session.first_turn].turn)
        )

    def _answer_without_lease(self, turn: BeginTurn, waiter_id: str, stored: Stored | None) -> Begun | Replayed | None:
        state, key = self._state, turn.key
        known = state.journals.get(key, {}).get(turn.turn_id)
        is_over = known is not None and (known.ended_ms or stored is None or stored.turn_id != turn.turn_id)
        if stored is None:
            if known is not None and known.user_id == turn.user_id:
                raise LeaseLost(key.session_id)
            if turn.must_exist:
                raise SessionNotFound(key.session_id)
            return None
        if stored.session.user_id != turn.user_id:
            raise SessionNotFound(key.session_id)
        if stored.session.agent_uid not in ("", turn.agent_uid) and turn.agent_uid:
            raise SessionAgentMismatch(key.session_id, turn.agent_id)
        number = self._number_of_request(turn, stored)
        if number is not None:
            state.give_up(key, turn_id=turn.turn_id)
            return Replayed(stored.session, stored.turns[number - stored.session.first_turn].turn)
        is_own = state.held(stored) and stored.turn_id == turn.turn_id
        if is_own and stored.until_ms <= state.now() and stored.pickup is not None and not stored.pickup.released:
            stored.until_ms = state.running[key, turn.turn_id] = state.now() + state.limits.lease_ms
        if is_own and stored.until_ms > state.now():
            stored.waiter_id = waiter_id
            return self._begun(turn, stored)
        if is_own or is_over:
            raise LeaseLost(key.session_id)
        limits = state.limits
        if not turn.may_cut and self._full(stored):
            raise SessionFull(key.session_id, limits.turns_per_session)
        return None

    def _number_of_request(self, turn: BeginTurn, stored: Stored) -> int | None:
        if stored.done == turn.turn_id:
            return stored.session.last_turn
        if turn.request is None:
            return None
        outcome = stored.outcomes.get(turn.request.request_id)
        if outcome is None or outcome.expire_ms <= self._state.now() or outcome.number < stored.session.first_turn:
            return None
        if not _same_request(outcome.digest, turn.request.digest):
            raise IdempotencyKeyReused(turn.request.request_id)
        return outcome.number

    def _wait_or_take(
        self, turn: BeginTurn, waiter_id: str, wait_ms: int, stored: Stored | None
    ) -> Begun | Joined | Waiting:
        state, key, policy = self._state, turn.key, turn.busy
        free_at = 0
        if stored is not None and state.held(stored):
            if turn.request and stored.request and turn.request.request_id == stored.request.request_id:
                if not _same_request(turn.request.digest, stored.request.digest):
                    state.give_up(key, turn_id=turn.turn_id)
                    raise IdempotencyKeyReused(turn.request.request_id)
                if turn.join_repeat:
                    state.running[key, stored.turn_id] = state.now() + state.limits.lease_ms
                    return Joined(key, stored.turn_id)
                policy = BusyPolicy.WAIT
            if policy is BusyPolicy.INTERRUPT:
                stored.interrupted = [stored.token, *stored.interrupted][:4]
                state.wake(stored.waiter_id)
            else:
                free_at = state.busy_until(stored)
        else:
            first = state.first_waiter(key)
            if first is not None and first.turn_id != turn.turn_id and policy is not BusyPolicy.INTERRUPT:
                free_at = state.hand_over(key)
        if free_at:
            if policy is BusyPolicy.WAIT and wait_ms > 0:
                return self._wait(turn, waiter_id, wait_ms, free_at)
            state.give_up(key, turn_id=turn.turn_id)
            if stored is not None and stored.until_ms > state.now():
                free_at = stored.until_ms
            raise SessionBusy(key.session_id, (free_at - state.now()) / 1000)
        state.take_ticket(key, turn_id=turn.turn_id)
        first = state.first_waiter(key)
        if first is not None:
            first.reserved_ms = 0
        return self._take(turn, waiter_id, stored)

    def _wait(self, turn: BeginTurn, waiter_id: str, wait_ms: int, free_at: int) -> Waiting:
        state, now = self._state, self._state.now()
        queue = state.queues.setdefault(turn.key, [])
        own = next((ticket for ticket in queue if ticket.turn_id == turn.turn_id), None)
        if own is not None:
            own.waiter_id, own.deadline_ms = waiter_id, now + wait_ms
        else:
            limit = state.limits.queue_per_session
            if sum(ticket.deadline_ms > now for ticket in queue) >= limit:
                raise TurnQueueFull(turn.key.session_id, limit, (free_at - now) / 1000)
            queue.append(Ticket(turn.turn_id, waiter_id, now + wait_ms))
        return Waiting(free_at - now)

    def _take(self, turn: BeginTurn, waiter_id: str, stored: Stored | None) -> Begun:
        state, now = self._state, self._state.now()
        if stored is None:
            left = state.journals.get(turn.key, {})
            if any(journal.user_id != turn.user_id for journal in left.values()):
                state.journals.pop(turn.key)
        elif stored.turn_id != turn.turn_id:
            why = UnheardEnd.INTERRUPTED if state.held(stored) else UnheardEnd.LOST
            state.end_unheard(turn.key, stored.turn_id, why)
            stored.pickup = None
        if stored is None:
            stored = state.add(turn.key, turn)
        elif stored.new:
            # What an interrupted first turn made goes with it, but who was interrupted is still told so.
            before, stored = stored, state.add(turn.key, turn)
            stored.token, stored.interrupted = before.token, before.interrupted
        else:
            if turn.agent_uid and not stored.session.agent_uid:
                state.change(stored, agent_id=turn.agent_id, agent_uid=turn.agent_uid)
            expire_ms = min(now + turn.idle_ms, stored.session.created_ms + turn.lifetime_ms)
            state.change(
                stored, activity_ms=now, idle_ms=turn.idle_ms, lifetime_ms=turn.lifetime_ms, expire_ms=expire_ms
            )
            state.keep_children(turn.key, expire_ms)
        stored.token = max(now, stored.token + 1)
        stored.turn_id, stored.waiter_id, stored.request = turn.turn_id, waiter_id, turn.request
        stored.until_ms = now + state.limits.lease_ms
        return self._begun(turn, stored)

    def _begun(self, turn: BeginTurn, stored: Stored) -> Begun:
        newest_first = reversed(stored.turns)
        window = fit_window(
            newest_first,
            turn.window_messages,
            self._state.limits.window_bytes,
            continues=turn.continues,
            within_chain=turn.within_chain,
        )
        lease = Lease(turn.key, turn.turn_id, stored.token, stored.until_ms)
        return Begun(stored.session, lease, [fitting.turn for fitting in window], stored.new, full=self._full(stored))

    def _full(self, stored: Stored) -> bool:
        limits = self._state.limits
        return limits.when_full is WhenFull.REFUSE and len(stored.turns) >= limits.turns_per_session

    async def leave(self, key: SessionKey, waiter_id: str) -> None:
        state = self._state
        state.wakeups.pop(waiter_id, None)
        state.give_up(key, waiter_id=waiter_id)
        stored = state.load(key)
        had = stored is not None and stored.pickup is not None and stored.pickup.ms > 0
        if stored is not None and state.held(stored) and stored.waiter_id == waiter_id and not had:
            state.undo(key, stored)

    async def renew(self, lease: Lease, waiter_id: str = "") -> Lease:
        stored = self._state.load(lease.key)
        if stored is None or not self._state.holds(stored, lease):
            raise lost(stored, lease)
        if stored.pickup is not None and stored.pickup.cancelled:
            raise TurnCancelled(lease.key.session_id)
        if stored.pickup is not None and stored.pickup.ms:
            self._state.running[lease.key, lease.turn_id] = self._state.now() + self._state.limits.lease_ms
        stored.until_ms = self._state.now() + self._state.limits.lease_ms
        stored.waiter_id = waiter_id or stored.waiter_id
        return Lease(lease.key, lease.turn_id, lease.token, stored.until_ms)

    async def commit(self, commit: CommitTurn) -> Committed:
        state, lease = self._state, commit.lease
        stored = state.load(lease.key)
        if stored is None or not state.holds(stored, lease) or stored.until_ms <= state.now():
            if stored is not None and (lease.token, lease.turn_id) in stored.leases:
                number = stored.session.first_turn + stored.leases.index((lease.token, lease.turn_id))
                journal = state.journals.get(lease.key, {}).get(lease.turn_id)
                event_id = journal.events[-2].id if commit.events and journal is not None else ""
                return Committed(number, stored.session.expire_ms, event_id)
            raise lost(stored, lease)
        event_id = state.add_events(stored, lease, commit.first_event, commit.events) if commit.events else ""
        limits = state.limits
        kept = [turn for turn in stored.turns if commit.cut_after is None or turn.number <= commit.cut_after]
        if limits.when_full is WhenFull.REFUSE and len(kept) >= limits.turns_per_session:
            raise SessionFull(lease.key.session_id, limits.turns_per_session)
        if commit.cut_after is not None:
            self._cut(commit.cut_after, stored)
        self._append(commit, stored)
        session = stored.session
        state.release(lease.key, stored)
        end = JournalEvent("", commit.end_event, session.last_turn, session.expire_ms)
        state.end_journal(lease, end, is_held=True)
        state.running.pop((lease.key, lease.turn_id), None)
        state.keep_children(lease.key, session.expire_ms)
        return Committed(session.last_turn, session.expire_ms, event_id)

    def _cut(self, last: int, stored: Stored) -> None:
        while stored.turns and stored.turns[-1].number > last:
            stored.turns.pop()
            stored.leases.pop()
        self._state.change(stored, last_turn=max(last, stored.session.first_turn - 1))
        for request_id in [one for one, outcome in stored.outcomes.items() if outcome.number > last]:
            del stored.outcomes[request_id]

    def _append(self, commit: CommitTurn, stored: Stored) -> None:
        state, session, now = self._state, stored.session, self._state.now()
        number = session.last_turn + 1
        numbered = commit.turn + _NUMBER_TAG + _varint(number)
        stored.turns.append(HeadedTurn(commit.message_count, commit.continues, number, numbered))
        stored.leases.append((commit.lease.token, commit.lease.turn_id))
        while len(stored.turns) > state.limits.turns_per_session:
            stored.turns.pop(0)
            stored.leases.pop(0)
        usage, added = session.usage, commit.usage
        state.change(
            stored,
            first_turn=stored.turns[0].number,
            last_turn=number,
            message_count=sum(turn.message_count for turn in stored.turns),
            activity_ms=now,
            idle_ms=commit.idle_ms,
            expire_ms=min(now + commit.idle_ms, session.created_ms + session.lifetime_ms),
            agent_revision=commit.agent_revision or session.agent_revision,
            history_digest=commit.history_digest,
            begun_calls=(),
            usage=Usage(
                usage.prompt_tokens + added.prompt_tokens,
                usage.completion_tokens + added.completion_tokens,
                usage.cached_tokens + added.cached_tokens,
                usage.reasoning_tokens + added.reasoning_tokens,
                usage.cache_write_tokens + added.cache_write_tokens,
            ),
        )
        stored.done = commit.lease.turn_id
        if commit.request is not None:
            outcomes = stored.outcomes
            outcomes.pop(commit.request.request_id, None)
            outcomes[commit.request.request_id] = Outcome(number, now + state.limits.replay_ms, commit.request.digest)
            while len(outcomes) > state.limits.replays_per_session:
                outcomes.pop(next(iter(outcomes)))

    async def abort(self, lease: Lease, end_event: bytes = b"") -> None:
        state = self._state
        if not lease.token:
            state.give_up(lease.key, turn_id=lease.turn_id)
        stored = state.load(lease.key)
        if stored is not None and not lease.token:
            lease = replace(lease, token=stored.token)
        is_held = state.holds(stored, lease)
        if is_held or stored is None or stored.turn_id != lease.turn_id or stored.pickup is None:
            state.end_journal(lease, JournalEvent("", end_event), is_held=is_held)
        if stored is not None and is_held:
            state.end_unheard(lease.key, lease.turn_id, UnheardEnd.LOST)
            state.undo(lease.key, stored)
            state.running.pop((lease.key, lease.turn_id), None)


def lost(stored: Stored | None, lease: Lease) -> LeaseLost | TurnInterrupted:
    if stored is not None and lease.token in stored.interrupted:
        return TurnInterrupted(lease.key.session_id)
    return LeaseLost(lease.key.session_id)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _same_request(one: bytes, other: bytes) -> bool:
    """Whether two digests are of the same request; those of the previous release are the first 32 bytes of others."""
    return one == other or (
        len(one) != len(other) and min(len(one), len(other)) == _OLD_DIGEST and one[:_OLD_DIGEST] == other[:_OLD_DIGEST]
    )
