"""When a gateway asks for turns to take over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from access.caller import ANONYMOUS, Caller, CallerLimits
from chat_gateway.limits import turn_limits
from chat_gateway.metrics import PickupMetrics
from chat_gateway.model.background import ClaimedTurn, NothingClaimed, ResumableTurn
from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.stored_turn import Lease
from chat_gateway.pickup import Pickups, PickupTimes
from servicekit.errors import Code
from servicekit.supervision import cancel_and_wait
from tests.doubles.chat_gateway.sessions import remote
from tests.unit.chat_gateway.world import World, asks, make_config

TURN = ClaimedTurn(Lease("default", "s", "t", 7, datetime.now(UTC) + timedelta(days=1)), None)
"""Of a later release: it is handed over at once, which shows that it was claimed."""


class HoldingClaims:
    """Has the turns of `now`, and answers a held call with what a test puts into `answers`."""

    def __init__(self, *now: ClaimedTurn) -> None:
        self.answers: asyncio.Queue[ClaimedTurn | NothingClaimed] = asyncio.Queue()
        self.now = list(now)
        self.holds: list[float] = []
        self.handed_over: list[str] = []

    async def claim(self, hold: float) -> ClaimedTurn | NothingClaimed:
        self.holds.append(hold)
        if hold:
            return await self.answers.get()
        return self.now.pop() if self.now else NothingClaimed()

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        self.handed_over.append(lease.turn_id)


class NoEntries:
    """Journals of turns that have done nothing yet."""

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[None]:
        for nothing in ():
            yield nothing


@contextlib.asynccontextmanager
async def following(claims: Any, world: World | None = None, **times: Any) -> AsyncIterator[Pickups]:
    """A gateway that takes over turns."""
    world, journals = world or World(), NoEntries()
    metrics = PickupMetrics(CollectorRegistry())
    pickups = Pickups(world.runner, claims, journals, world.scheduler, PickupTimes(**times), metrics)  # type: ignore[arg-type]
    task = asyncio.create_task(pickups.follow())
    await settled()
    try:
        yield pickups
    finally:
        await cancel_and_wait(task)
        await pickups.close()


async def settled() -> None:
    """Lets everything run that waits for no time."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_idle_gateway_has_one_call_that_is_held() -> None:
    claims = HoldingClaims()
    async with following(claims, hold=10.0, interval=60.0, min_pause=0.0):
        assert claims.holds == [0.0, 10.0]
        claims.now.append(TURN)
        claims.answers.put_nowait(NothingClaimed(held=True))
        await settled()
        assert claims.holds == [0.0, 10.0, 0.0, 10.0], "it claims at once"
        assert claims.handed_over == ["t"]


async def test_a_session_svc_that_holds_no_calls_is_asked_once_in_an_interval() -> None:
    claims = HoldingClaims()
    async with following(claims, hold=10.0, interval=60.0, min_pause=0.0):
        claims.answers.put_nowait(NothingClaimed(held=False))
        await settled()
        assert claims.holds == [0.0, 10.0]


async def test_a_turn_that_an_earlier_release_gives_for_a_held_call_is_taken_over() -> None:
    claims = HoldingClaims()
    async with following(claims, hold=10.0, interval=60.0):
        claims.answers.put_nowait(TURN)
        await settled()
        assert claims.handed_over == ["t"]


async def test_a_turn_that_is_queued_here_is_claimed_at_once_beside_the_held_call() -> None:
    claims = HoldingClaims()
    async with following(claims, hold=10.0, interval=60.0) as pickups:
        claims.now.append(TURN)
        pickups.wake()
        await settled()
        assert claims.holds == [0.0, 10.0, 0.0]
        assert claims.handed_over == ["t"]


async def test_a_gateway_that_stops_claims_nothing() -> None:
    world, claims = World(), HoldingClaims()
    async with following(claims, world, hold=10.0, interval=0.0, min_pause=0.0) as pickups:
        await world.scheduler.drain(0)
        claims.now.append(TURN)
        claims.answers.put_nowait(NothingClaimed(held=True))
        pickups.wake()
        await settled()
        assert claims.holds == [0.0, 10.0]
        assert claims.handed_over == []


async def test_a_turn_counts_in_the_limits_of_its_own_caller() -> None:
    world = World()
    caller = Caller("key-1", "default", frozenset({"chat"}), limits=CallerLimits(10, 2))
    turn = ResumableTurn(asks(session_id="s"), caller, 1, b"", datetime.now(UTC))
    async with following(HoldingClaims(replace(TURN, turn=turn)), world, interval=60.0), asyncio.timeout(60):
        while not world.sessions.limits:
            await asyncio.sleep(0.01)
    assert world.sessions.limits == [turn_limits(caller, make_config())]
    assert world.sessions.limits[0]


@pytest.mark.parametrize("handed_over", [True, False])
async def test_a_gateway_that_cannot_go_on_with_a_turn_leaves_it_to_others_for_a_while(handed_over: bool) -> None:
    """Otherwise it would come back at once, again and again."""
    world = World()
    claims = HoldingClaims()
    world.aborts._claims = claims  # type: ignore[assignment]
    world.sessions.begin_errors = [remote("SESSION_BUSY", Code.ABORTED) if handed_over else AgentNotFound("hello")]
    lease = replace(TURN.lease, journaled=True, goes_on=True)
    turn = ResumableTurn(asks(session_id="s"), ANONYMOUS, 1, b"", datetime.now(UTC))
    async with following(claims, world, hold=10.0, interval=3600.0, min_pause=0.0) as pickups, asyncio.timeout(60):
        claims.now.append(ClaimedTurn(lease, turn))
        pickups.wake()
        while world.sessions.begin_errors or pickups._running:
            await asyncio.sleep(0.01)
        asked = len(claims.holds)
        claims.now.append(TURN)
        pickups.wake()
        await settled()
        assert (len(claims.holds) == asked) is handed_over
        assert len(claims.now) == handed_over
