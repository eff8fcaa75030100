"""Calls that wait until there may be a turn to take over, on every store. They take none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from servicekit.supervision import cancel_and_wait
from session_svc.claim_waits import ClaimWaits
from session_svc.claims import Claims
from session_svc.metrics import Metrics
from session_svc.model.journal import ClaimedTurn, NewEvents, NothingClaimed
from session_svc.model.turn import Lease
from session_svc.turn_limits import TurnLimiter
from tests.contract.session_svc.bench import Bench

HOLD = 60.0
"""Longer than any test waits: what ends such a call is something else."""
WAIT_SECONDS = 30.0


@contextlib.asynccontextmanager
async def replica(bench: Bench, *, max_waits: int = 10, look: float = 0.05) -> AsyncIterator[Claims]:
    """One replica of session_svc on the stores."""
    assert bench.claims is not None
    waits = ClaimWaits(bench.claims, max_waits=max_waits, look=look)
    limits = TurnLimiter(bench.turn_limits, lease_ms=bench.limits.lease_ms)
    looking = asyncio.create_task(waits.look_out())
    try:
        yield Claims(bench.claims, limits, Metrics(CollectorRegistry()), waits)
    finally:
        await cancel_and_wait(looking)


async def begun(bench: Bench, turn_id: str = "t1", session: str = "s1") -> Lease:
    turn = await bench.begun(turn_id, session)
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",), b"request"))
    return turn.lease


async def waiting(claims: Claims) -> "asyncio.Task[ClaimedTurn | NothingClaimed]":
    """Makes a call that is held."""
    held = claims._waits._waits
    before, call = len(held), asyncio.create_task(claims.claim(HOLD, None))
    async with asyncio.timeout(WAIT_SECONDS):
        while len(held) == before:
            await asyncio.sleep(0)
    return call


async def soon(call: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> Any:
    return await asyncio.wait_for(call, WAIT_SECONDS)


async def test_when_a_turn_may_be_taken_over_is_known_before(bench: Bench) -> None:
    claims = bench.claims
    assert claims is not None
    assert await claims.next_due() is None
    await begun(bench)
    due = await claims.next_due()
    assert due is not None
    assert 0 < due <= bench.limits.lease_ms / 1000
    await bench.pass_time(bench.limits.lease_ms + 1)
    assert await claims.next_due() == 0
    assert await claims.next_due() == 0, "to ask takes nothing"
    claimed = await claims.claim()
    assert claimed is not None
    assert await claims.next_due() != 0
    await claims.hand_over(claimed.lease, queued=True)
    assert await claims.next_due() == 0


async def test_a_held_call_ends_when_a_turn_is_handed_over_and_the_next_one_gets_it(bench: Bench) -> None:
    lease = await begun(bench)
    async with replica(bench, look=WAIT_SECONDS) as claims:
        call = await waiting(claims)
        await claims.hand_over(lease, queued=False)
        assert await soon(call) == NothingClaimed(held=True)
        claimed = await claims.claim(None, None)
    assert isinstance(claimed, ClaimedTurn)
    assert claimed.lease.turn_id == "t1"


@pytest.mark.parametrize("queued", [False, True])
async def test_a_turn_that_another_replica_hands_over_is_seen(bench: Bench, queued: bool) -> None:
    lease = await begun(bench)
    async with replica(bench) as claims, replica(bench) as other:
        call = await waiting(claims)
        await other.hand_over(lease, queued=queued)
        assert await soon(call) == NothingClaimed(held=True)


async def test_a_call_that_waits_takes_nothing_that_is_there(bench: Bench) -> None:
    lease = await begun(bench)
    async with replica(bench) as claims:
        await claims.hand_over(lease, queued=False)
        for _ in range(2):
            assert await soon(claims.claim(HOLD, None)) == NothingClaimed(held=True)
        assert isinstance(await claims.claim(None, None), ClaimedTurn)


async def test_a_turn_whose_gateway_is_lost_ends_a_wait(bench: Bench) -> None:
    await begun(bench)
    async with replica(bench) as claims:
        call = await waiting(claims)
        await bench.pass_time(bench.limits.lease_ms + 1)
        assert await soon(call) == NothingClaimed(held=True)
        assert isinstance(await claims.claim(None, None), ClaimedTurn)


async def test_a_gateway_that_is_lost_while_it_waits_takes_no_turn_with_it(bench: Bench) -> None:
    lease = await begun(bench)
    async with replica(bench) as claims:
        first, second = await waiting(claims), await waiting(claims)
        await claims.hand_over(lease, queued=False)
        await soon(first)  # and is not heard of again
        assert await soon(second) == NothingClaimed(held=True)
        assert isinstance(await soon(claims.claim(None, None)), ClaimedTurn)


async def test_a_call_whose_caller_leaves_waits_no_more(bench: Bench) -> None:
    async with replica(bench, max_waits=1) as claims:
        await cancel_and_wait(await waiting(claims))
        await cancel_and_wait(await waiting(claims))


async def test_a_wait_ends_with_its_time(bench: Bench) -> None:
    async with replica(bench) as claims:
        assert await soon(claims.claim(0.01, None)) == NothingClaimed(held=True)
        assert await soon(claims.claim(HOLD, 0.2)) == NothingClaimed(held=True)
        for hold, time_left in ((0.0, None), (-1.0, None), (HOLD, 0.0)):
            assert await soon(claims.claim(hold, time_left)) == NothingClaimed(held=False)


async def test_only_so_many_calls_wait_and_none_where_a_replica_stops(bench: Bench) -> None:
    async with replica(bench, max_waits=2) as claims:
        calls = [await waiting(claims), await waiting(claims)]
        assert await soon(claims.claim(HOLD, None)) == NothingClaimed(held=False)
        claims.drain()
        assert [await soon(call) for call in calls] == [NothingClaimed(held=False)] * 2
        assert await soon(claims.claim(HOLD, None)) == NothingClaimed(held=False)
