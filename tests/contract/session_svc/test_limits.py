"""Limits on turns: what every adapter promises, and random histories against a model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from servicekit.errors import ServiceError
from session_svc.model.errors import LimitQueueFull, RateLimited
from session_svc.model.limits import LimitedTurn, LimitTaken, LimitWait, TurnLimit
from session_svc.model.session import SessionKey
from session_svc.model.turn import BeginTurn, RequestMark
from tests.contract.session_svc.bench import LIMITS, UID, Bench, limit_times, memory_bench, redis_bench

MINUTE = 60_000
TIMES = limit_times(LIMITS)
KEY, AGENT = "key:ak-1", "agent:uid-1"


def by_rate(limit: int, subject: str = KEY) -> TurnLimit:
    return TurnLimit(subject, requests_per_minute=limit)


def by_turns(limit: int, subject: str = AGENT, *, wait: bool = False) -> TurnLimit:
    return TurnLimit(subject, concurrent_turns=limit, wait=wait)


async def take(
    bench: Bench, turn_id: str, *limits: TurnLimit, wait: bool = True, counted: bool = False, project: str = "default"
) -> LimitTaken | LimitWait | ServiceError:
    turn = LimitedTurn(project, turn_id, limits)
    try:
        return await bench.turn_limits.take(turn, bench.turns.new_waiter_id(), wait=wait, counted=counted)
    except ServiceError as error:
        return error


async def free(bench: Bench, turn_id: str, *limits: TurnLimit) -> None:
    await bench.turn_limits.free(LimitedTurn("default", turn_id, limits))


async def test_so_many_a_minute_and_no_more(bench: Bench) -> None:
    limit = by_rate(3)
    for number in range(3):
        taken = await take(bench, f"t{number}", limit)
        assert isinstance(taken, LimitTaken)
        assert [(s.subject, s.requests_per_minute, s.remaining) for s in taken.states] == [(KEY, 3, 2 - number)]
        assert taken.states[0].reset_ms == MINUTE
        await bench.pass_time(10_000)
    refused = await take(bench, "t3", limit)
    assert isinstance(refused, RateLimited)
    assert refused.metadata | {"reset": ""} == {
        "scope": "key", "bound": "requests_per_minute", "limit": "3", "reset": "",
    }  # fmt: skip
    assert refused.retry_after is not None
    assert 20 < refused.retry_after <= 30
    reset = float(refused.metadata["reset"])
    assert 40 < reset <= 50
    assert reset - refused.retry_after >= 20 - 0.001
    assert refused.quota_subject == KEY
    await bench.pass_time(int(refused.retry_after * 1000) + 1)
    assert isinstance(await take(bench, "t4", limit), LimitTaken)
    assert isinstance(await take(bench, "t5", limit), RateLimited)


async def test_a_turn_counts_once_however_often_it_asks(bench: Bench) -> None:
    for _ in range(5):
        taken = await take(bench, "t1", by_rate(2))
        assert isinstance(taken, LimitTaken)
        assert taken.states[0].remaining == 1
    assert isinstance(await take(bench, "t2", by_rate(2)), LimitTaken)
    assert isinstance(await take(bench, "t1", by_rate(2)), LimitTaken)


async def test_what_was_counted_before_is_not_counted_again(bench: Bench) -> None:
    await take(bench, "t1", by_rate(1))
    await bench.pass_time(MINUTE + 1)
    await take(bench, "t2", by_rate(1))
    assert isinstance(await take(bench, "t1", by_rate(1), counted=True), LimitTaken)


async def test_a_turn_that_runs_for_more_than_a_minute_is_not_counted_again(bench: Bench) -> None:
    limit = TurnLimit(KEY, requests_per_minute=1, concurrent_turns=2)
    await take(bench, "t1", limit)
    for _ in range(5):
        await bench.pass_time(TIMES.hold_ms - 10_000)
        await bench.turn_limits.keep(LimitedTurn("default", "t1", (limit,)))
    assert isinstance(await take(bench, "t2", limit), LimitTaken)
    assert isinstance(await take(bench, "t1", limit), LimitTaken)
    assert isinstance(await take(bench, "t3", limit), RateLimited)


async def test_a_turn_that_is_given_back_was_never_begun(bench: Bench) -> None:
    limits = (by_rate(1), by_turns(1))
    await take(bench, "t1", *limits)
    for _ in range(2):
        await bench.turn_limits.roll_back(LimitedTurn("default", "t1", limits))
    assert isinstance(await take(bench, "t2", *limits), LimitTaken)


async def test_so_many_at_once_and_no_more(bench: Bench) -> None:
    limit = by_turns(2)
    for number in range(2):
        assert isinstance(await take(bench, f"t{number}", limit), LimitTaken)
        assert isinstance(await take(bench, f"t{number}", limit), LimitTaken)  # and again
    refused = await take(bench, "t2", limit)
    assert isinstance(refused, RateLimited)
    assert (refused.metadata["scope"], refused.metadata["bound"]) == ("agent", "concurrent_turns")
    await free(bench, "t0", limit)
    assert isinstance(await take(bench, "t2", limit), LimitTaken)
    assert isinstance(await take(bench, "t0", limit), RateLimited)


async def test_the_place_of_a_holder_that_died_is_free_after_its_lease(bench: Bench) -> None:
    limit = by_turns(1)
    await take(bench, "t1", limit)
    await bench.pass_time(TIMES.hold_ms - 10_000)
    assert isinstance(await take(bench, "t2", limit), RateLimited)
    await bench.turn_limits.keep(LimitedTurn("default", "t1", (limit,)))
    await bench.pass_time(TIMES.hold_ms - 10_000)
    assert isinstance(await take(bench, "t2", limit), RateLimited)
    await bench.pass_time(10_000)
    assert isinstance(await take(bench, "t2", limit), LimitTaken)
    await bench.turn_limits.keep(LimitedTurn("default", "t1", (limit,)))  # too late: it has no place to keep
    await free(bench, "t2", limit)
    assert isinstance(await take(bench, "t3", limit), LimitTaken)


async def test_all_limits_are_taken_or_none(bench: Bench) -> None:
    rate, turns = by_rate(1), by_turns(1)
    await take(bench, "t0", turns)
    assert isinstance(await take(bench, "t1", rate, turns), RateLimited)
    assert isinstance(await take(bench, "t2", rate), LimitTaken)  # t1 took nothing of it
    await free(bench, "t0", turns)
    assert isinstance(await take(bench, "t3", turns, rate), RateLimited)
    assert isinstance(await take(bench, "t4", turns), LimitTaken)  # and t3 no place


async def test_a_refused_turn_leaves_what_it_had_before_too(bench: Bench) -> None:
    """A waiter whose key is out of turns in the meantime, say, must not keep its place with the agent."""
    agent, key = by_turns(1, wait=True), by_turns(1, KEY)
    await take(bench, "t0", agent)
    assert isinstance(await take(bench, "t1", agent, key), LimitWait)
    await free(bench, "t1", key)
    await take(bench, "t2", key)
    assert isinstance(await take(bench, "t1", agent, key, counted=True), RateLimited)
    await free(bench, "t0", agent)
    assert isinstance(await take(bench, "t3", agent), LimitTaken)


async def test_turns_wait_first_come_first_served_and_so_many(bench: Bench) -> None:
    limit = by_turns(1, wait=True)
    await take(bench, "t0", limit)
    for name in ("t1", "t2"):
        waiting = await take(bench, name, limit)
        assert isinstance(waiting, LimitWait)
        assert 0 < waiting.check_in_ms <= TIMES.stand_ms / 2
        await bench.pass_time(2)
    assert isinstance(await take(bench, "t3", limit), LimitQueueFull)
    assert isinstance(await take(bench, "t3", limit, wait=False), RateLimited)
    await free(bench, "t0", limit)
    assert isinstance(await take(bench, "t2", limit), LimitWait)
    assert isinstance(await take(bench, "t3", limit, wait=False), RateLimited)  # nobody passes those that wait
    assert isinstance(await take(bench, "t1", limit), LimitTaken)
    await free(bench, "t1", limit)
    assert isinstance(await take(bench, "t2", limit), LimitTaken)


async def test_who_waits_and_does_not_ask_again_loses_its_place(bench: Bench) -> None:
    limit = by_turns(1, wait=True)
    await take(bench, "t0", limit)
    await take(bench, "dead", limit)
    await bench.pass_time(TIMES.stand_ms // 2 + 1)
    await take(bench, "alive", limit)
    await free(bench, "t0", limit)
    assert isinstance(await take(bench, "alive", limit), LimitWait)
    await bench.pass_time(TIMES.stand_ms // 2)
    assert isinstance(await take(bench, "alive", limit), LimitTaken)


async def test_each_place_that_is_freed_wakes_another_waiter(bench: Bench) -> None:
    limit = by_turns(2, wait=True)
    await take(bench, "t0", limit)
    await take(bench, "t1", limit)
    waiters = [bench.turns.new_waiter_id(), bench.turns.new_waiter_id()]
    for number, waiter_id in enumerate(waiters):
        turn = LimitedTurn("default", f"w{number}", (limit,))
        assert isinstance(await bench.turn_limits.take(turn, waiter_id, wait=True, counted=False), LimitWait)
    waits = [asyncio.create_task(bench.turn_limits.wait_for_wakeup(waiter_id, 600)) for waiter_id in waiters]
    await asyncio.sleep(0.05)
    await free(bench, "t0", limit)
    await asyncio.wait_for(waits[0], 60)
    assert not waits[1].done()
    await free(bench, "t1", limit)  # the first has not come yet
    await asyncio.wait_for(waits[1], 60)


async def test_projects_and_subjects_do_not_share_limits(bench: Bench) -> None:
    assert isinstance(await take(bench, "t1", by_rate(1)), LimitTaken)
    assert isinstance(await take(bench, "t2", by_rate(1), project="other"), LimitTaken)
    assert isinstance(await take(bench, "t3", by_rate(1, AGENT)), LimitTaken)


async def test_a_lower_limit_holds_at_once(bench: Bench) -> None:
    for number in range(4):
        await take(bench, f"t{number}", TurnLimit(KEY, requests_per_minute=4, concurrent_turns=4))
        await bench.pass_time(5000)
    refused = await take(bench, "t5", by_rate(2))
    assert isinstance(refused, RateLimited)
    assert refused.retry_after is not None
    assert 40 < refused.retry_after <= 50  # when the third has left the minute
    assert isinstance(await take(bench, "t5", by_turns(3, KEY)), RateLimited)


class LimitMachine(RuleBasedStateMachine):
    """Takes, keeps, frees and gives back, while time passes; never more begin or run than may, and nothing leaks."""

    opened: contextlib.AbstractAsyncContextManager[Bench]
    RATE, AT_ONCE = 5, 2

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.bench = self.runner.run(self.stack.enter_async_context(self.open()))
        self.now = 0
        self.begun: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.queue: dict[str, int] = {}
        self.limits = (
            TurnLimit(KEY, requests_per_minute=self.RATE),
            TurnLimit(AGENT, concurrent_turns=self.AT_ONCE, wait=True),
        )

    def open(self) -> contextlib.AbstractAsyncContextManager[Bench]:
        raise NotImplementedError

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def _let_time_tell(self) -> None:
        self.begun = {turn: at for turn, at in self.begun.items() if at > self.now - MINUTE}
        self.held = {turn: until for turn, until in self.held.items() if until > self.now}
        self.queue = {turn: until for turn, until in self.queue.items() if until > self.now}

    @rule(turn=st.sampled_from([f"t{n}" for n in range(8)]))
    def take(self, turn: str) -> None:
        outcome = self.runner.run(take(self.bench, turn, *self.limits))
        self._let_time_tell()
        known = turn in self.begun
        before = list(self.queue).index(turn) if turn in self.queue else len(self.queue)
        if not known and len(self.begun) >= self.RATE:
            assert isinstance(outcome, RateLimited), outcome
            self._forget(turn)
        elif turn in self.held or before < self.AT_ONCE - len(self.held):
            assert isinstance(outcome, LimitTaken), outcome
            self.begun.setdefault(turn, self.now)
            self.queue.pop(turn, None)
            self.held[turn] = self.now + TIMES.hold_ms
            assert outcome.states[0].remaining == self.RATE - len(self.begun)
        elif turn in self.queue or len(self.queue) < TIMES.places:
            assert isinstance(outcome, LimitWait), outcome
            self.begun.setdefault(turn, self.now)
            self.queue[turn] = self.now + TIMES.stand_ms
        else:
            assert isinstance(outcome, LimitQueueFull), outcome
            self._forget(turn)
        self._pass(2)  # whoever comes next comes later

    @rule(turn=st.sampled_from([f"t{n}" for n in range(8)]))
    def free(self, turn: str) -> None:
        self.runner.run(free(self.bench, turn, *self.limits))
        self.held.pop(turn, None)
        self.queue.pop(turn, None)

    @rule(turn=st.sampled_from([f"t{n}" for n in range(8)]))
    def roll_back(self, turn: str) -> None:
        self.runner.run(self.bench.turn_limits.roll_back(LimitedTurn("default", turn, self.limits)))
        self._forget(turn)

    @rule(turn=st.sampled_from([f"t{n}" for n in range(8)]))
    def keep(self, turn: str) -> None:
        self.runner.run(self.bench.turn_limits.keep(LimitedTurn("default", turn, self.limits)))
        self._let_time_tell()
        if turn in self.held:
            self.held[turn] = self.now + TIMES.hold_ms

    # However these add up, no time of a limit runs out within the next 8 seconds, which is what a stall may take.
    @rule(ms=st.sampled_from([16_000, 32_000, 48_000, 64_000]))
    def time_passes(self, ms: int) -> None:
        self._pass(ms)

    @invariant()
    def nobody_exceeds(self) -> None:
        self._let_time_tell()
        assert len(self.begun) <= self.RATE
        assert len(self.held) <= self.AT_ONCE

    def _forget(self, turn: str) -> None:
        for known in (self.begun, self.held, self.queue):
            known.pop(turn, None)

    def _pass(self, ms: int) -> None:
        self.now += ms
        self.runner.run(self.bench.pass_time(ms))


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[Bench]:
    yield memory_bench()


def test_random_histories_in_memory() -> None:
    class Machine(LimitMachine):
        def open(self) -> contextlib.AbstractAsyncContextManager[Bench]:
            return in_memory()

    few = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Machine, settings=few)  # type: ignore[no-untyped-call]


def test_random_histories_in_redis(redis_url: str) -> None:
    class Machine(LimitMachine):
        def open(self) -> contextlib.AbstractAsyncContextManager[Bench]:
            with redis.Redis.from_url(redis_url) as client:
                client.flushdb()
            return redis_bench(redis_url)

    few = settings(max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Machine, settings=few)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("replicas", [3])
async def test_replicas_that_ask_at_the_same_time_get_so_many_and_no_more(redis_url: str, replicas: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        benches = [await stack.enter_async_context(redis_bench(redis_url)) for _ in range(replicas)]
        limits = (by_rate(40), by_turns(7, KEY + "b"))
        outcomes = await asyncio.gather(
            *(take(benches[number % replicas], f"t{number}", by_rate(40)) for number in range(200))
        )
        assert sum(isinstance(outcome, LimitTaken) for outcome in outcomes) == 40
        outcomes = await asyncio.gather(
            *(take(benches[number % replicas], f"u{number}", limits[1]) for number in range(100))
        )
        assert sum(isinstance(outcome, LimitTaken) for outcome in outcomes) == 7


async def test_what_begin_would_replay_can_be_asked_for_alone(bench: Bench) -> None:
    mark = RequestMark("r1", b"digest")
    await bench.commit(await bench.begun("t1", request=mark, user="ann"), request=mark)
    turn = BeginTurn(SessionKey("default", "s1"), "hello", UID, "t2", user_id="ann", request=mark)
    replayed = await bench.turns.replayed(turn)
    assert replayed is not None
    assert replayed.turn.rpartition(b"\x10")[0] == b"t1"
    for other in (
        replace(turn, user_id=""),
        replace(turn, agent_uid="another"),
        replace(turn, key=SessionKey("default", "s2")),
        replace(turn, request=RequestMark("r1", b"another")),
        replace(turn, request=RequestMark("r2", b"digest")),
        replace(turn, request=None),
    ):
        assert await bench.turns.replayed(other) is None
    await bench.begun("t3", user="ann")  # nobody took the lease, or a place
