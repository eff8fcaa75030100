"""ClaimTurn over the wire: calls that are held, and those of gateways that do not ask for that."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import grpc

from parley.session.v1 import turn_event_pb2
from parley.session.v1 import turn_service_pb2 as pb
from parley.session.v1.turn_service_pb2_grpc import TurnServiceStub
from tests.service.session_svc.replica import Replica, replica, seconds


async def claim(svc: Replica, hold: float = 0.0) -> Any:
    request = pb.ClaimTurnRequest(hold=seconds(hold) if hold else None)
    return await svc.turns.ClaimTurn(request, timeout=hold + 30)


async def hand_over(svc: Replica) -> None:
    """Begins a turn and hands it over to whichever gateway is free."""
    lease = (await svc.begin()).lease
    begun = turn_event_pb2.TurnEvent(begun=turn_event_pb2.TurnBegun(agent_id="hello", request=b"request"))
    await svc.turns.AppendTurnEvents(
        pb.AppendTurnEventsRequest(lease=lease, first_sequence=1, events=[begun]), timeout=30
    )
    await svc.turns.HandOverTurn(pb.HandOverTurnRequest(lease=lease, queued=True), timeout=30)


async def test_a_held_call_hears_of_a_turn_and_the_next_one_gets_it(redis_url: str) -> None:
    async with replica(redis_url) as svc, replica(redis_url) as other:
        assert await claim(svc) == pb.ClaimTurnResponse(), "a call of an earlier release is answered at once"
        held = asyncio.create_task(claim(svc, 50))
        await hand_over(other)
        assert await held == pb.ClaimTurnResponse(held=True)
        claimed = await claim(svc)
        assert (claimed.attempt, claimed.request) == (1, b"request")


async def test_a_replica_that_ends_answers_the_calls_that_it_holds(redis_url: str) -> None:
    async with contextlib.AsyncExitStack() as channels:
        async with replica(redis_url, drain_timeout=10) as ending:
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{ending.port}"))
            staying = replace(ending, turns=TurnServiceStub(channel))
            held = asyncio.create_task(claim(staying, 50))
            await asyncio.sleep(0)
            assert await claim(staying, 0.01) == pb.ClaimTurnResponse(held=True), "behind the other, which is there now"
        assert await held == pb.ClaimTurnResponse(held=False)
