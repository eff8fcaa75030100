"""Random histories of a few sessions, checked step by step against a model that is only dictionaries and lists."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from contract.enums import BusyPolicy
from servicekit.errors import ServiceError
from session_svc.model.errors import (
    AgentDeleted,
    LeaseLost,
    SessionBusy,
    SessionNotFound,
    TurnInterrupted,
    TurnQueueFull,
)
from session_svc.model.session import AgentIncarnation, SessionKey, SessionQuery
from session_svc.model.turn import Begun, TurnQuery, Waiting
from tests.contract.session_svc.bench import LIMITS, UID, Bench, memory_bench, redis_bench

SESSIONS = ("s1", "s2")
IDLE_MS = 10**8  # however often it runs out in one history, fences do not
LIFETIME_MS = 10**10
OpenBench = Callable[[], AbstractAsyncContextManager[Bench]]


@dataclass
class Expected:
    """A session as the model has it."""

    committed: list[str] = field(default_factory=list)
    holder: str | None = None
    new: bool = True
    interrupted: set[str] = field(default_factory=set)


class TurnMachine(RuleBasedStateMachine):
    """Begins, waits, commits, aborts, renews, interrupts, deletes, fences, and lets leases and sessions run out."""

    open_bench: OpenBench

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.bench: Bench = self.runner.run(self.stack.enter_async_context(self.open_bench()))
        self.sessions: dict[str, Expected] = {}
        self.queues: dict[str, list[str]] = {name: [] for name in SESSIONS}
        self.leases: dict[str, tuple[str, Begun]] = {}
        self.fenced = False
        self.count = 0

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def _attempt(self, session: str, turn_id: str, busy: BusyPolicy, wait_ms: int) -> object:
        try:
            begin = self.bench.begin(
                turn_id, session, busy=busy, wait_ms=wait_ms, idle_ms=IDLE_MS, lifetime_ms=LIFETIME_MS
            )
            return self.runner.run(begin)
        except ServiceError as error:
            return type(error)

    def _expect_begun(self, session: str, turn_id: str, outcome: object) -> None:
        expected = self.sessions.setdefault(session, Expected())
        assert isinstance(outcome, Begun), outcome
        assert [turn.rpartition(b"\x10")[0].decode() for turn in outcome.window] == expected.committed
        assert outcome.created == expected.new
        expected.holder = turn_id
        self.leases[turn_id] = (session, outcome)

    @rule(session=st.sampled_from(SESSIONS), busy=st.sampled_from(BusyPolicy))
    def begin(self, session: str, busy: BusyPolicy) -> None:
        self.count += 1
        turn_id = f"t{self.count}"
        outcome = self._attempt(session, turn_id, busy, 10**9)
        expected, queue = self.sessions.get(session), self.queues[session]
        held = expected is not None and expected.holder is not None
        if self.fenced:
            assert outcome is AgentDeleted
            self._forget(session)
        elif busy is BusyPolicy.INTERRUPT or not (held or queue):
            if held:
                assert expected is not None
                assert expected.holder is not None
                expected.interrupted.add(expected.holder)
            self._expect_begun(session, turn_id, outcome)
        elif busy is BusyPolicy.REJECT:
            assert outcome is SessionBusy
        elif len(queue) >= LIMITS.queue_per_session:
            assert outcome is TurnQueueFull
        else:
            assert isinstance(outcome, Waiting), outcome
            queue.append(turn_id)

    @precondition(lambda self: any(self.queues.values()))
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from([name for name, queue in self.queues.items() if queue]))
        queue = self.queues[session]
        turn_id = data.draw(st.sampled_from(queue))
        outcome = self._attempt(session, turn_id, BusyPolicy.WAIT, 10**9)
        expected = self.sessions.get(session)
        if self.fenced:
            assert outcome is AgentDeleted
            queue.remove(turn_id)
            self._forget(session)
        elif (expected is not None and expected.holder is not None) or queue[0] != turn_id:
            assert isinstance(outcome, Waiting), outcome
        else:
            queue.pop(0)
            self._expect_begun(session, turn_id, outcome)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        turn_id = data.draw(st.sampled_from(sorted(self.leases)))
        session, begun = self.leases[turn_id]
        expected = self.sessions.get(session)
        if expected is None or (expected.holder != turn_id and turn_id not in expected.committed):
            # Only the last four interrupted holders are remembered as such.
            interrupted = expected is not None and turn_id in expected.interrupted and len(expected.interrupted) <= 4
            with pytest.raises(TurnInterrupted if interrupted else (LeaseLost, TurnInterrupted)):
                self.runner.run(self.bench.commit(begun, idle_ms=IDLE_MS))
            return
        number = self.runner.run(self.bench.commit(begun, idle_ms=IDLE_MS)).turn_number
        if turn_id in expected.committed:
            assert number == expected.committed.index(turn_id) + 1
            return
        assert expected.holder == turn_id
        expected.committed.append(turn_id)
        expected.holder, expected.new = None, False
        assert number == len(expected.committed)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        turn_id = data.draw(st.sampled_from(sorted(self.leases)))
        session, begun = self.leases[turn_id]
        self.runner.run(self.bench.turns.abort(begun.lease))
        expected = self.sessions.get(session)
        if expected is not None and expected.holder == turn_id:
            self._release(session, expected)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        turn_id = data.draw(st.sampled_from(sorted(self.leases)))
        session, begun = self.leases[turn_id]
        expected = self.sessions.get(session)
        if expected is not None and expected.holder == turn_id:
            assert self.runner.run(self.bench.turns.renew(begun.lease)).token == begun.lease.token
            return
        with pytest.raises((LeaseLost, TurnInterrupted)):
            self.runner.run(self.bench.turns.renew(begun.lease))

    @rule(session=st.sampled_from(SESSIONS))
    def delete(self, session: str) -> None:
        with contextlib.nullcontext() if session in self.sessions else pytest.raises(SessionNotFound):
            self.runner.run(self.bench.sessions.delete(SessionKey("default", session)))
        self._forget(session)

    @rule()
    def leases_run_out(self) -> None:
        """Also the reservations of waiters, who then lose their place; so they are asked to come at once."""
        for session in SESSIONS:
            expected = self.sessions.get(session)
            queue = self.queues[session]
            if queue and not self.fenced and (expected is None or expected.holder is None):
                self._expect_begun(session, queue[0], self._attempt(session, queue[0], BusyPolicy.WAIT, 10**9))
                queue.pop(0)
        self.runner.run(self.bench.pass_time(LIMITS.lease_ms))
        for session, expected in list(self.sessions.items()):
            if expected.holder is not None:
                self._release(session, expected)

    @precondition(lambda self: not any(self.queues.values()))
    @rule()
    def sessions_run_out(self) -> None:
        self.runner.run(self.bench.pass_time(IDLE_MS))
        self.sessions.clear()

    @precondition(lambda self: not any(self.queues.values()))
    @rule(fenced=st.booleans())
    def fence(self, fenced: bool) -> None:
        life = AgentIncarnation("default", "hello", UID)
        self.fenced = fenced
        self.runner.run(self.bench.agents.fence(life) if fenced else self.bench.agents.unfence(life))

    @invariant()
    def the_store_holds_exactly_what_was_committed(self) -> None:
        for session in SESSIONS:
            expected, key = self.sessions.get(session), SessionKey("default", session)
            if expected is None:
                with pytest.raises(SessionNotFound):
                    self.runner.run(self.bench.sessions.get(key))
                continue
            stored = self.runner.run(self.bench.sessions.get(key))
            assert stored.turn_count == len(expected.committed)
            assert stored.message_count == 2 * len(expected.committed)
            page = self.runner.run(self.bench.sessions.turns(TurnQuery(key, size=100)))
            assert [turn.rpartition(b"\x10")[0].decode() for turn in page.turns] == expected.committed
        listed = self.runner.run(self.bench.sessions.list_sessions(SessionQuery("default"), 10))
        assert {found.key.session_id for found in listed.sessions} == set(self.sessions)

    def _forget(self, session: str) -> None:
        self.sessions.pop(session, None)

    def _release(self, session: str, expected: Expected) -> None:
        expected.holder = None
        if expected.new:
            self._forget(session)


def run_machine(open_bench: OpenBench, examples: int) -> None:
    machine = type("Machine", (TurnMachine,), {"open_bench": staticmethod(open_bench)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_memory_follows_the_model() -> None:
    @contextlib.asynccontextmanager
    async def open_bench() -> AsyncIterator[Bench]:
        yield memory_bench()

    run_machine(open_bench, 150)


def test_redis_follows_the_model(redis_url: str) -> None:
    @contextlib.asynccontextmanager
    async def open_bench() -> AsyncIterator[Bench]:
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()
        async with redis_bench(redis_url) as bench:
            yield bench

    run_machine(open_bench, 60)
