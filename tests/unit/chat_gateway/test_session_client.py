"""What the client of session_svc does when a replica stops while a turn waits there."""

import asyncio
from typing import Any

import grpc
import pytest

from chat_gateway.clients.session_client import SessionClient
from chat_gateway.clients.turn_calls import turn_calls
from chat_gateway.model.turn import Message, TurnRequest
from contract.enums import Role
from parley.session.v1 import turn_service_pb2 as pb
from parley.session.v1 import turn_service_pb2_grpc
from servicekit.errors import Draining, RemoteError, ServiceError, Unavailable
from servicekit.server import serving
from servicekit.settings import ServiceSettings
from tests.unit.chat_gateway.world import make_config

REQUEST = TurnRequest(agent_id="hello", session_id="s", messages=(Message(Role.USER, "hi"),))


class Turns(turn_service_pb2_grpc.TurnServiceServicer):
    """Refuses with what is in the list, then takes the turn."""

    def __init__(self, *refusals: ServiceError) -> None:
        self.refusals = list(refusals)
        self.asked: list[str] = []
        self.left: list[float] = []
        self.delay = 0.0

    async def BeginTurn(self, request: pb.BeginTurnRequest, context: Any) -> pb.BeginTurnResponse:  # noqa: N802
        self.asked.append(request.turn_id)
        self.left.append(context.time_remaining())
        await asyncio.sleep(self.delay)
        if self.refusals:
            raise self.refusals.pop(0)
        return pb.BeginTurnResponse(lease=pb.TurnLease(turn_id=request.turn_id, token=1), created=True)


async def begin(turns: Turns) -> Any:
    add = turn_service_pb2_grpc.add_TurnServiceServicer_to_server
    async with (
        serving(ServiceSettings(drain_timeout=0), add=[(add, turns)], service_names=[]) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        client = SessionClient(turn_calls(channel), timeout=5, wait_timeout=5)
        return await client.begin(REQUEST, make_config(), "t1", b"")


async def test_a_turn_whose_replica_stops_is_begun_at_the_next() -> None:
    turns = Turns(Draining(), Draining())
    assert (await begin(turns)).lease.token == 1
    assert turns.asked == ["t1"] * 3


async def test_a_turn_that_is_begun_again_has_the_time_that_is_left() -> None:
    turns = Turns(Draining())
    turns.delay = 0.5
    await begin(turns)
    first, second = turns.left
    assert second < first - 0.4


async def test_replicas_that_all_stop_are_not_asked_for_ever() -> None:
    turns = Turns(*[Draining()] * 9)
    with pytest.raises(RemoteError) as caught:
        await begin(turns)
    assert caught.value.reason == "DRAINING"
    assert len(turns.asked) == 4


async def test_a_begin_of_unknown_outcome_is_not_asked_again() -> None:
    turns = Turns(Unavailable("redis"))
    with pytest.raises(RemoteError) as caught:
        await begin(turns)
    assert caught.value.reason == "PEER_UNAVAILABLE"
    assert len(turns.asked) == 1
