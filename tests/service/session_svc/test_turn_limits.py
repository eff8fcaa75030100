"""Limits of turns over real gRPC and real Redis, with more than one replica."""

import asyncio
import contextlib
import uuid
from typing import Any

import grpc
import pytest

from parley.session.v1 import turn_service_pb2 as pb
from servicekit.errors import Code
from session_svc.model.limits import LimitTimes
from session_svc.model.session import SessionBounds
from tests.contract.session_svc.bench import pass_time
from tests.service.session_svc.replica import LEASE_SECONDS, REJECT, Replica, refused, replica

BURST = 60


def limit(subject: str = "key:ak-1", rate: int = 0, turns: int = 0, *, wait: bool = False) -> pb.TurnLimit:
    return pb.TurnLimit(subject=subject, requests_per_minute=rate, concurrent_turns=turns, wait=wait)


async def attempt(svc: Replica, limits: list[pb.TurnLimit], **fields: Any) -> Any:
    try:
        return await svc.begin(uuid.uuid4().hex, limits=limits, **fields)
    except grpc.aio.AioRpcError as error:
        return error.code()


@pytest.fixture
async def pair(redis_url: str) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(redis_url)) for _ in range(2)]


async def test_a_burst_over_two_replicas_gets_exactly_what_the_limits_say(pair: list[Replica]) -> None:
    rate, turns = limit(rate=20), limit("agent:uid-1", turns=7)
    begun = await asyncio.gather(*(attempt(pair[number % 2], [rate]) for number in range(BURST)))
    assert sum(not isinstance(one, grpc.StatusCode) for one in begun) == 20
    assert {one for one in begun if isinstance(one, grpc.StatusCode)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    begun = await asyncio.gather(*(attempt(pair[number % 2], [turns]) for number in range(BURST)))
    assert sum(not isinstance(one, grpc.StatusCode) for one in begun) == 7


async def test_what_is_left_is_told_and_so_is_why_not(svc: Replica) -> None:
    begun = await svc.begin(limits=[limit(rate=2, turns=5)])
    assert list(begun.lease.limits) == ["key:ak-1"]
    [state] = begun.limits
    assert (state.subject, state.requests_per_minute, state.remaining) == ("key:ak-1", 2, 1)
    assert state.reset.ToMilliseconds() == 60_000
    await svc.begin("s2", limits=[limit(rate=2, turns=5)])
    with refused("RATE_LIMITED") as outcome:
        await svc.begin("s3", limits=[limit(rate=2, turns=5)])
    error = outcome.error
    assert (error.code, error.quota_subject) == (Code.RESOURCE_EXHAUSTED, "key:ak-1")
    assert error.metadata["scope"] == "key"
    assert 30 < error.retry_after <= 60


async def test_places_are_held_by_renewal_freed_by_commit_and_run_out_with_the_lease(
    pair: list[Replica], redis_url: str
) -> None:
    one, two = pair
    limits = [limit(turns=1)]
    begun = await one.begin(limits=limits)
    for _ in range(5):
        await pass_time(redis_url, LEASE_SECONDS * 500)
        await one.renew(begun)
        assert await attempt(two, limits) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await two.commit(begun)
    begun = await two.begin("s2", limits=limits)
    await one.abort(begun)
    await two.begin("s3", limits=limits)  # and whoever took it dies
    assert await attempt(one, limits) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await pass_time(redis_url, LEASE_SECONDS * 2000)
    assert not isinstance(await attempt(one, limits), grpc.StatusCode)


@pytest.fixture
def nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a place in a limit looks again when it is woken, and not by itself."""
    times = LimitTimes(hold_ms=LEASE_SECONDS * 2000, stand_ms=LEASE_SECONDS * 2000)
    monkeypatch.setattr(SessionBounds, "limit_times", lambda bounds: times)


@pytest.mark.usefixtures("nobody_looks_again")
async def test_a_turn_waits_for_its_agent_across_replicas(redis_url: str) -> None:
    async with replica(redis_url) as one, replica(redis_url) as two:
        await waits_for_its_agent(one, two)


async def waits_for_its_agent(one: Replica, two: Replica) -> None:
    limits = [limit("agent:uid-1", turns=1, wait=True)]
    begun = await one.begin(limits=limits)
    waits = asyncio.create_task(two.begin("s2", limits=limits))
    await asyncio.sleep(0.2)
    assert not waits.done()
    await one.commit(begun)
    await asyncio.wait_for(waits, 50)


async def test_a_repeat_with_the_same_turn_id_counts_once(pair: list[Replica]) -> None:
    limits = [limit(rate=2, turns=1)]
    for number in range(4):
        begun = await pair[number % 2].begin(turn_id="t1", limits=limits)
        assert begun.limits[0].remaining == 1


async def test_a_turn_without_a_session_only_takes_its_limits(svc: Replica) -> None:
    request = pb.BeginTurnRequest(turn_id="t1", stateless=True, limits=[limit(rate=5, turns=1)])
    begun = await svc.turns.BeginTurn(request, timeout=60)
    assert not begun.HasField("session")
    assert (begun.lease.session_id, begun.lease.token, list(begun.lease.limits)) == ("", 0, ["key:ak-1"])
    assert begun.limits[0].remaining == 4
    assert await attempt(svc, [limit(turns=1)]) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await svc.renew(begun)
    await svc.abort(begun)
    await svc.begin(limits=[limit(turns=1)])
    with refused("INVALID_FIELD"):
        await svc.commit(begun)
    with refused("INVALID_FIELD"):
        await svc.turns.BeginTurn(pb.BeginTurnRequest(turn_id="t2", stateless=True), timeout=60)


async def test_a_turn_that_was_asked_for_and_never_heard_of_is_aborted_with_its_limits(svc: Replica) -> None:
    limits = [limit(turns=1)]
    begun = await svc.begin(limits=limits)
    lease = pb.TurnLease(session_id="s1", turn_id=begun.lease.turn_id, limits=["key:ak-1"])
    await svc.turns.AbortTurn(pb.AbortTurnRequest(lease=lease), timeout=60)
    again = await svc.begin(limits=limits, busy=REJECT)
    assert again.lease.token > begun.lease.token
