"""`Sessions` in memory, as tests/contract/chat_gateway holds it and SessionClient to be."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from chat_gateway.limits import held
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.journal import CallRecorded, JournalEntry, UnwrittenEntries
from chat_gateway.model.pairing import continues, task_of
from chat_gateway.model.stored_turn import Begun, Committed, Lease, Turn, begun_stateless
from chat_gateway.model.tools import CallStarted, ToolOutcome
from chat_gateway.model.turn import LimitState, Message, TurnLimit, TurnRequest
from contract.enums import BusyPolicy
from servicekit.errors import Code, RemoteError, ServiceError
from session_svc.model.window import fit_window

LEASE = timedelta(seconds=15)


def remote(reason: str, code: Code) -> RemoteError:
    return RemoteError(reason.lower(), code=code, reason=reason)


@dataclass
class _Session:
    uid: str
    token: int = 0
    holder: Lease | None = None
    """Whose turn is under way."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: set[str] = field(default_factory=set)
    """Turns that had to make room for another."""
    waiting: list[str] = field(default_factory=list)
    requests: dict[str, tuple[bytes, Turn]] = field(default_factory=dict)


class _Fitting(NamedTuple):
    messages: tuple[Message, ...]
    continues: bool
    number: int
    size: int = 0

    @property
    def message_count(self) -> int:
        return len(self.messages)


@dataclass
class FakeSessions:
    """Errors are queued by a test and raised once each; `replay`, where set, is the answer to every begin."""

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    """What is stored, by session."""
    begin_errors: list[ServiceError] = field(default_factory=list)
    commit_errors: list[ServiceError] = field(default_factory=list)
    renew_errors: list[ServiceError] = field(default_factory=list)
    abort_errors: list[ServiceError] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    renewed: int = 0
    begun_uids: list[str] = field(default_factory=list)
    pinned_revision: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    replay: Turn | None = None
    append_errors: list[ServiceError] = field(default_factory=list)
    journals: dict[str, list[JournalEntry]] = field(default_factory=dict)
    """What turns have written, by their ids."""
    begun_calls: dict[str, set[str]] = field(default_factory=dict)
    """By session: the calls of its newest turn that turns which were not stored have begun."""
    ended: dict[str, Turn | ServiceError | None] = field(default_factory=dict)
    """How turns with a journal ended."""
    commits: int = 0
    max_turns: int = 0
    """Turns that a session may have; 0 is no bound."""
    histories: int = 0
    """How often a whole history was read."""
    limits: list[tuple[TurnLimit, ...]] = field(default_factory=list)
    states: tuple[LimitState, ...] = ()
    aborted_limits: list[tuple[str, ...]] = field(default_factory=list)
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _places: Counter[str] = field(default_factory=Counter)
    _made: int = 0

    async def begin(
        self,
        request: TurnRequest,
        config: AgentConfig,
        turn_id: str,
        digest: bytes,
        limits: tuple[TurnLimit, ...] = (),
    ) -> Begun:
        self.begun_uids.append(config.uid)
        self.limits.append(limits)
        if self.begin_errors:
            raise self.begin_errors.pop(0)
        session_id, session = self._session(request, config)
        stored = self.replay or self._replayed(session, request, digest)
        lease = None
        if stored is None:
            self._take_places(limits)
            try:
                lease = await self._lease(session, request, session_id, turn_id, held(limits))
            except BaseException:
                self._places.subtract(held(limits))
                raise
            # Another turn of the same request may have been committed while this one waited.
            stored = self._replayed(session, request, digest)
            if stored is not None:
                self._release(session, lease)
                lease = None
        stored_turns = self.turns.get(session_id, [])
        numbered = [_Fitting(turn.messages, continues(turn.messages), n) for n, turn in enumerate(stored_turns)]
        fitting = fit_window(
            numbered[::-1],
            config.window_messages,
            sys.maxsize,
            continues=bool(request.approvals) or continues(request.messages),
            within_chain=True,
        )
        if len(fitting) > 1 and fitting[0].number + 1 != fitting[1].number:
            fitting[0] = fitting[0]._replace(messages=task_of(fitting[0].messages))
        window = tuple(message for turn in fitting for message in turn.messages)
        return Begun(
            session_id=session_id,
            created=session_id not in self.turns,
            message_count=sum(len(turn.messages) for turn in stored_turns),
            pinned_revision=self.pinned_revision,
            metadata=self.metadata,
            expire_time=datetime.now(UTC),
            lease=lease,
            window=window,
            replayed=stored,
            limits=self.states,
            history_digest=stored_turns[-1].history_digest if stored_turns else b"",
            full_turns=self.max_turns if self.max_turns and len(stored_turns) >= self.max_turns else 0,
            awaiting=stored_turns[-1].awaiting if fitting else (),
            handed_to=stored_turns[-1].handed_to if fitting else (),
            awaiting_servers={run.call_id: run.server for run in stored_turns[-1].runs} if fitting else {},
            begun_calls=tuple(sorted(self.begun_calls.get(session_id, ()))),
        )

    async def history(
        self, begun: Begun, request: TurnRequest, config: AgentConfig, digest: bytes
    ) -> tuple[Turn, ...] | None:
        self.histories += 1
        return tuple(replace(turn, number=n) for n, turn in enumerate(self.turns.get(begun.session_id, []), 1))

    async def take_limits(self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...]) -> Begun:
        self.limits.append(limits)
        if self.begin_errors:
            raise self.begin_errors.pop(0)
        self._take_places(limits)
        lease = Lease(request.project, "", turn_id, 0, datetime.now(UTC) + LEASE, held(limits))
        return begun_stateless(request, lease, self.states)

    async def renew(self, lease: Lease, hold: float) -> Lease:
        self.renewed += 1
        if self.renew_errors:
            raise self.renew_errors.pop(0)
        if not lease.session_id:
            await asyncio.sleep(hold)
            return replace(lease, expire_time=datetime.now(UTC) + LEASE)
        end = asyncio.get_running_loop().time() + hold
        while True:
            session = self._held(lease)
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return replace(lease, expire_time=datetime.now(UTC) + LEASE)
            await self._changed(session, left)

    async def commit(
        self,
        lease: Lease,
        turn: Turn,
        config: AgentConfig,
        request_id: str,
        digest: bytes,
        rest: UnwrittenEntries | None = None,
    ) -> Committed:
        self.commits += 1
        if self.commit_errors:
            raise self.commit_errors.pop(0)
        stored = self.turns.setdefault(lease.session_id, [])
        numbers = [number for number, one in enumerate(stored, 1) if one.id == turn.id]
        if not numbers:
            try:
                session = self._held(lease)
            except ServiceError:
                if not stored:
                    del self.turns[lease.session_id]
                raise
            if rest is not None:
                await self.append(lease, rest.first, rest.entries)
            if turn.cut_after is not None:
                del stored[turn.cut_after :]
            stored.append(turn)
            self.begun_calls.pop(lease.session_id, None)
            numbers = [len(stored)]
            if request_id:
                session.requests[request_id] = (digest, replace(turn, number=numbers[0]))
            self._release(session, lease)
            if lease.journaled:
                self.ended[turn.id] = turn
        event_id = f"1-{len(self.journals.get(lease.turn_id, ()))}"
        return Committed(numbers[0], datetime.now(UTC) + timedelta(minutes=30), event_id)

    async def append(self, lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        if self.append_errors:
            raise self.append_errors.pop(0)
        self._held(lease)
        journal = self.journals.setdefault(lease.turn_id, [])
        assert first == len(journal) + 1
        journal += entries
        early = [one for one in entries if isinstance(one, CallStarted | CallRecorded)]
        for one in early:
            if isinstance(one, CallStarted):
                if not one.step:
                    self.begun_calls.setdefault(lease.session_id, set()).add(one.call_id)
            elif one.event.outcome is ToolOutcome.DENIED:
                self.begun_calls.get(lease.session_id, set()).discard(one.event.call_id)
        return f"1-{len(journal)}"

    async def abort(self, lease: Lease, error: ServiceError | None = None) -> None:
        if self.abort_errors:
            raise self.abort_errors.pop(0)
        if lease.journaled:
            self.ended[lease.turn_id] = error
        self.aborted.append(lease.turn_id)
        self.aborted_limits.append(lease.limits)
        session = self._sessions.get(lease.session_id)
        if session is None:
            self._places.subtract(lease.limits)
        elif session.holder is not None and session.holder.turn_id == lease.turn_id:
            self._release(session, session.holder)
            if lease.session_id not in self.turns and not session.waiting:
                del self._sessions[lease.session_id]  # it was made for this turn

    def _session(self, request: TurnRequest, config: AgentConfig) -> tuple[str, _Session]:
        session = self._sessions.get(request.session_id)
        if session is not None:
            if session.uid != config.uid:
                raise remote("SESSION_AGENT_MISMATCH", Code.FAILED_PRECONDITION)
            return request.session_id, session
        if request.session_must_exist:
            raise remote("SESSION_NOT_FOUND", Code.NOT_FOUND)
        self._made += 1
        session_id = request.session_id or f"made-{self._made}"
        session = self._sessions[session_id] = _Session(config.uid)
        return session_id, session

    def _replayed(self, session: _Session, request: TurnRequest, digest: bytes) -> Turn | None:
        known = session.requests.get(request.request_id)
        if known is not None and known[0] != digest:
            raise remote("IDEMPOTENCY_KEY_REUSED", Code.ALREADY_EXISTS)
        return known[1] if known is not None else None

    async def _lease(
        self, session: _Session, request: TurnRequest, session_id: str, turn_id: str, places: tuple[str, ...]
    ) -> Lease:
        if session.holder is not None and session.holder.turn_id == turn_id:
            return session.holder
        if session.holder is not None or session.waiting:
            if request.busy is BusyPolicy.REJECT:
                raise remote("SESSION_BUSY", Code.ABORTED)
            if request.busy is BusyPolicy.INTERRUPT and session.holder is not None:
                session.interrupted.add(session.holder.turn_id)
                self._release(session, session.holder)
            await self._wait(session, turn_id)
        session.token += 1
        until = datetime.now(UTC) + LEASE
        session.holder = Lease(request.project, session_id, turn_id, session.token, until, places)
        return session.holder

    async def _wait(self, session: _Session, turn_id: str) -> None:
        session.waiting.append(turn_id)
        try:
            while session.holder is not None or session.waiting[0] != turn_id:
                await self._changed(session, None)
        finally:
            session.waiting.remove(turn_id)

    async def _changed(self, session: _Session, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await session.changed.wait()
        except TimeoutError:
            return

    def _held(self, lease: Lease) -> _Session:
        session = self._sessions.get(lease.session_id)
        holder = session.holder if session is not None else None
        if session is None or holder is None or (holder.turn_id, holder.token) != (lease.turn_id, lease.token):
            if session is not None and lease.turn_id in session.interrupted:
                raise remote("TURN_INTERRUPTED", Code.ABORTED)
            raise remote("LEASE_LOST", Code.ABORTED)
        return session

    def _release(self, session: _Session, lease: Lease) -> None:
        session.holder = None
        self._places.subtract(lease.limits)
        session.changed.set()
        session.changed = asyncio.Event()

    def _take_places(self, limits: tuple[TurnLimit, ...]) -> None:
        if any(limit.concurrent_turns and self._places[limit.subject] >= limit.concurrent_turns for limit in limits):
            raise remote("RATE_LIMITED", Code.RESOURCE_EXHAUSTED)
        self._places.update(held(limits))
