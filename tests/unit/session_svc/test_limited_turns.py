"""Turns with limits: what counts, what is given back, and who waits for what."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from contract.enums import BusyPolicy
from contract.errors import SessionAgentMismatch
from servicekit.errors import Draining, InvalidArgument, ServiceError, Unavailable
from session_svc.metrics import Metrics
from session_svc.model.errors import IdempotencyKeyReused, LimitQueueFull, RateLimited, SessionBusy
from session_svc.model.limits import LimitedTurn, LimitTaken, LimitTimes, LimitWait, TurnLimit
from session_svc.model.rules import check_begin
from session_svc.model.session import SessionBounds, SessionKey
from session_svc.model.turn import BeginTurn, Begun, CommitTurn, Replayed, RequestMark, Waiting
from session_svc.turn_limits import TurnLimiter
from session_svc.turns import Turns
from tests.doubles.session_svc.memory_limits import MemoryLimits
from tests.doubles.session_svc.memory_state import MemoryState
from tests.doubles.session_svc.memory_turns import MemoryTurns
from tests.unit.event_loop import settle

KEY = TurnLimit("key:ak-1", requests_per_minute=3, concurrent_turns=2)
AGENT = TurnLimit("agent:uid", concurrent_turns=1, wait=True)
FEW = 4.0


class BreakableTurns(MemoryTurns):
    """Raises `error` instead of beginning a turn."""

    error: ServiceError | None = None

    async def begin(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> Begun | Replayed | Waiting:
        if self.error is not None:
            raise self.error
        return await super().begin(turn, waiter_id, wait_ms)


class StandingLimits(MemoryLimits):
    """While it `stands`, nothing that is asked of it is done; while it has a `fault`, all that is asked fails."""

    stands: asyncio.Event | None = None
    fault: Exception | None = None

    async def keep(self, turn: LimitedTurn) -> int:
        await self._trouble()
        return await super().keep(turn)

    async def free(self, turn: LimitedTurn) -> None:
        await self._trouble()
        await super().free(turn)

    async def _trouble(self) -> None:
        if self.stands is not None:
            await self.stands.wait()
        if self.fault is not None:
            raise self.fault


class World:
    def __init__(self) -> None:
        state = MemoryState(SessionBounds())
        self.store = BreakableTurns(state)
        self.limits = StandingLimits(LimitTimes(places=4), state.now, state.wake, self.store.wait_for_wakeup)
        self.turns = Turns(self.store, TurnLimiter(self.limits, lease_ms=15_000), Metrics(CollectorRegistry()))

    async def begin(
        self, turn_id: str, *limits: TurnLimit, session: str = "s1", left: float = FEW, **more: object
    ) -> Begun:
        turn = BeginTurn(SessionKey("default", session), "hello", "uid", turn_id, limits=limits, **more)  # type: ignore[arg-type]
        outcome = await self.turns.begin(turn, left)
        assert isinstance(outcome, Begun)
        return outcome

    async def free_turns(self, limit: TurnLimit) -> int:
        """How many turns the limit has left to begin (or else: to run)."""
        for number in range(100):
            probe = LimitedTurn("default", f"probe-{number}", (TurnLimit(limit.subject, 3, limit.concurrent_turns),))
            try:
                assert not isinstance(await self.limits.take(probe, "probe.1", wait=False, counted=False), LimitWait)
            except RateLimited:
                break
        for taken in range(number):
            probe = LimitedTurn("default", f"probe-{taken}", (limit,))
            await self.limits.roll_back(probe)
        return number


@pytest.fixture
def world() -> World:
    return World()


def commit_of(begun: Begun, request: RequestMark | None = None) -> CommitTurn:
    return CommitTurn(lease=begun.lease, turn=b"x", message_count=2, request=request)


async def test_a_turn_counts_until_it_is_committed_or_aborted(world: World) -> None:
    one = await world.begin("t1", KEY)
    assert one.lease.limits == (KEY.subject,)
    assert [(state.subject, state.remaining) for state in one.limits] == [(KEY.subject, 2)]
    two = await world.begin("t2", KEY, session="s2")
    with pytest.raises(RateLimited, match="under way"):
        await world.begin("t3", KEY, session="s3")
    await world.turns.commit(commit_of(one))
    await world.turns.abort(two.lease)
    await world.begin("t4", KEY, session="s4")
    with pytest.raises(RateLimited, match="3 turns a minute"):
        await world.begin("t5", KEY, session="s5")


async def test_a_turn_without_limits_asks_for_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("take", "keep", "free", "roll_back"):
        monkeypatch.setattr(world.limits, name, None)
    begun = await world.begin("t1")
    renewed = await world.turns.renew(begun.lease, 0)
    await world.turns.commit(commit_of(begun))
    await world.turns.abort(renewed)
    with pytest.raises(SessionBusy):
        await asyncio.gather(*(world.begin(f"t{n}", session="s2", busy=BusyPolicy.REJECT) for n in range(2)))


@pytest.mark.parametrize("why", ["busy", "mismatch", "reused", "replayed", "queue"])
async def test_a_turn_that_does_not_begin_counts_nowhere(world: World, why: str) -> None:
    mark = RequestMark("r1", b"digest")
    await world.turns.commit(commit_of(await world.begin("t0", request=mark), mark))
    held = await world.begin("t1")
    match why:
        case "busy":
            with pytest.raises(SessionBusy):
                await world.begin("t2", KEY, AGENT, busy=BusyPolicy.REJECT)
        case "queue":
            with pytest.raises(SessionBusy):
                await world.begin("t2", KEY, AGENT, left=0.3)
        case "mismatch":
            turn = BeginTurn(SessionKey("default", "s1"), "hello", "other", "t2", limits=(KEY, AGENT))
            with pytest.raises(SessionAgentMismatch):
                await world.turns.begin(turn, FEW)
        case "reused":
            with pytest.raises(IdempotencyKeyReused):
                await world.begin("t2", KEY, AGENT, request=RequestMark("r1", b"another"))
        case "replayed":
            turn = BeginTurn(SessionKey("default", "s1"), "hello", "uid", "t2", limits=(KEY, AGENT), request=mark)
            assert isinstance(await world.turns.begin(turn, FEW), Replayed)
    await world.turns.abort(held.lease)
    assert await world.free_turns(KEY) == 2
    assert await world.free_turns(TurnLimit(KEY.subject, 3)) == 3
    assert await world.free_turns(AGENT) == 1


async def test_a_replay_needs_no_limit(world: World) -> None:
    mark, once = RequestMark("r1", b"digest"), TurnLimit("key:once", requests_per_minute=1, concurrent_turns=1)
    await world.turns.commit(commit_of(await world.begin("t0", once, request=mark), mark))
    turn = BeginTurn(SessionKey("default", "s1"), "hello", "uid", "t1", limits=(once,), request=mark)
    assert isinstance(await world.turns.begin(turn, FEW), Replayed)
    with pytest.raises(RateLimited):
        await world.begin("t2", once, request=RequestMark("r2", b"digest"))


async def test_a_limited_turn_touches_no_session(world: World) -> None:
    await world.begin("t1", AGENT)
    other = TurnLimit("key:other", concurrent_turns=1)
    await world.begin("t2", other, session="s2")
    with pytest.raises(RateLimited):
        await world.begin("t3", other, session="s1", busy=BusyPolicy.INTERRUPT)
    with pytest.raises(RateLimited):
        await world.begin("t4", other, session="s3")
    assert world.store._state.load(SessionKey("default", "s3")) is None
    held = world.store._state.load(SessionKey("default", "s1"))
    assert held is not None
    assert not held.interrupted


async def test_after_an_unknown_outcome_the_turn_counts_until_it_is_aborted(world: World) -> None:
    """It may have begun: whoever asked either asks again with the same turn id, or aborts it."""
    world.store.error = Unavailable("redis")
    with pytest.raises(Unavailable):
        await world.begin("t1", AGENT)
    world.store.error = None
    assert await world.free_turns(AGENT) == 0
    begun = await world.begin("t1", AGENT)
    await world.turns.abort(begun.lease)
    assert await world.free_turns(AGENT) == 1


async def test_turns_wait_for_their_agent_and_not_for_their_key(world: World) -> None:
    first = await world.begin("t1", KEY, AGENT)
    waits = asyncio.create_task(world.begin("t2", KEY, AGENT, session="s2"))
    await settle()
    with pytest.raises(RateLimited):  # the one that waits counts for its key
        await world.begin("t3", KEY, session="s3", left=0.3)
    assert not waits.done()
    await world.turns.commit(commit_of(first))
    second = await asyncio.wait_for(waits, 60)  # woken, long before its time to look again
    assert second.lease.limits == (KEY.subject, AGENT.subject)


async def test_a_wait_for_the_agent_ends_before_the_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_svc.turns.ANSWER_MARGIN", 30.0)
    await world.begin("t1", AGENT)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(RateLimited, match="this agent has all of its 1 turns under way"):
        await world.begin("t2", KEY, AGENT, session="s2", left=30.25)
    assert 0.2 < asyncio.get_running_loop().time() - begin < 30
    assert await world.free_turns(KEY) == 2


async def test_a_turn_that_waits_for_its_session_does_not_hold_up_the_agent(world: World) -> None:
    agent = TurnLimit(AGENT.subject, concurrent_turns=2, wait=True)
    running = await world.begin("t1", agent)
    waits = asyncio.create_task(world.begin("t2", agent))
    await settle()
    elsewhere = await asyncio.wait_for(world.begin("t3", agent, session="s2"), 60)
    await world.turns.abort(elsewhere.lease)
    await world.turns.commit(commit_of(running))
    assert (await asyncio.wait_for(waits, 60)).lease.limits == (AGENT.subject,)


async def test_a_wait_is_counted_once_however_long(world: World) -> None:
    limit = TurnLimit(AGENT.subject, requests_per_minute=3, concurrent_turns=1, wait=True)
    first = await world.begin("t1", limit)
    waits = asyncio.create_task(world.begin("t2", limit))
    await settle()
    await world.turns.commit(commit_of(first))
    assert (await asyncio.wait_for(waits, 60)).limits[0].remaining == 1


async def test_who_waits_was_counted_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it waits so long that the minute it was counted in is over, and its place in the queue was lost."""
    asked: list[bool] = []

    async def take(turn: LimitedTurn, waiter_id: str, *, wait: bool, counted: bool) -> LimitTaken | LimitWait:
        asked.append(counted)
        return LimitTaken((), 0) if len(asked) == 3 else LimitWait(1)

    monkeypatch.setattr(world.limits, "take", take)
    await world.begin("t1", AGENT)
    assert asked == [False, True, True]


async def test_a_drain_ends_the_wait_for_a_limit(world: World) -> None:
    await world.begin("t1", AGENT)
    waits = asyncio.create_task(world.begin("t2", AGENT, KEY, session="s2"))
    await settle()
    world.turns.drain()
    with pytest.raises(Draining):
        await asyncio.wait_for(waits, 60)
    assert await world.free_turns(KEY) == 2


async def test_a_turn_without_a_session_counts_too(world: World) -> None:
    turn = BeginTurn(SessionKey("default", ""), "", "", "t1", limits=(KEY, AGENT), stateless=True)
    check_begin(turn)
    admitted = await world.turns.begin_stateless(turn, FEW)
    assert admitted.lease.limits == (KEY.subject, AGENT.subject)
    assert [state.remaining for state in admitted.limits] == [2]
    with pytest.raises(RateLimited):
        await world.begin("t2", AGENT, left=0.3)
    renewed = await world.turns.renew(admitted.lease, 0.05)
    assert renewed.expire_ms >= admitted.lease.expire_ms
    await world.turns.abort(renewed)
    await world.begin("t2", AGENT)


@pytest.mark.parametrize("fault", [Unavailable("redis"), RuntimeError("a script failed")])
async def test_a_turn_that_is_stored_is_not_failed_by_its_limits(world: World, fault: Exception) -> None:
    begun = await world.begin("t1", KEY)
    world.limits.fault = fault
    renewed = await world.turns.renew(begun.lease, 0)
    assert (await world.turns.commit(commit_of(replace(begun, lease=renewed)))).turn_number == 1
    other = await world.begin("t2", KEY)
    await world.turns.abort(other.lease)
    assert await world.begin("t3")


async def test_a_turn_that_is_stored_does_not_wait_for_limits_that_stand_still(world: World) -> None:
    begun = await world.begin("t1", AGENT)
    world.limits.stands = asyncio.Event()
    async with asyncio.timeout(60):
        renewed = await world.turns.renew(begun.lease, 0)
        assert (await world.turns.commit(commit_of(replace(begun, lease=renewed)))).turn_number == 1
    world.limits.stands.set()
    await world.turns.close()
    assert await world.free_turns(AGENT) == 1


@pytest.mark.parametrize("stateless", [False, True])
async def test_a_call_that_is_cancelled_while_it_waits_for_a_limit_leaves_no_place(
    world: World, stateless: bool
) -> None:
    running = await world.begin("t1", AGENT)
    turn = BeginTurn(SessionKey("default", "" if stateless else "s2"), "hello", "uid", "t2", limits=(KEY, AGENT))
    turn = replace(turn, stateless=stateless)
    first = asyncio.create_task(world.turns.begin_stateless(turn, FEW) if stateless else world.turns.begin(turn, FEW))
    await settle()
    second = asyncio.create_task(world.begin("t3", AGENT, session="s3"))
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await world.turns.close()
    assert await world.free_turns(KEY) == 2
    await world.turns.abort(running.lease)
    assert (await asyncio.wait_for(second, 60)).lease.limits == (AGENT.subject,)


async def test_who_is_refused_by_a_limit_while_it_waits_leaves_its_place_in_the_session(world: World) -> None:
    one, two = await world.begin("t1", AGENT), replace(AGENT, concurrent_turns=2)
    waits = asyncio.create_task(world.begin("t2", two))
    await settle()
    elsewhere = await world.begin("t3", two, session="s2")
    more = [asyncio.create_task(world.begin(f"m{n}", two, session=f"m{n}")) for n in range(4)]
    await settle()
    await world.turns._store.abort(one.lease)  # the session is free, and the agent's queue full
    with pytest.raises(LimitQueueFull):
        await asyncio.wait_for(waits, 60)
    assert await world.begin("t4", busy=BusyPolicy.REJECT)
    for task in more:
        task.cancel()
    await asyncio.gather(*more, return_exceptions=True)
    await world.turns.abort(elsewhere.lease)


@pytest.mark.parametrize(
    "limit",
    [
        TurnLimit("ak-1"),
        TurnLimit("key:"),
        TurnLimit("key:a b"),
        TurnLimit("key:" + "x" * 200),
        TurnLimit("key:a", requests_per_minute=-1),
        TurnLimit("key:a", concurrent_turns=100_001),
    ],
)
def test_limits_that_are_none_are_refused(limit: TurnLimit) -> None:
    with pytest.raises(InvalidArgument, match="limits"):
        check_begin(BeginTurn(SessionKey("default", "s"), "hello", "uid", "t1", limits=(limit,)))
    with pytest.raises(InvalidArgument, match="limits"):
        check_begin(BeginTurn(SessionKey("default", ""), "", "", "t1", stateless=True))
    with pytest.raises(InvalidArgument, match="limits"):
        check_begin(BeginTurn(SessionKey("default", "s"), "hello", "uid", "t1", limits=(KEY, KEY)))
