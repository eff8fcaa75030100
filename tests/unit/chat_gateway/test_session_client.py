"""What the client of session_svc does when a replica stops while a turn waits there."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from chat_gateway.clients.session_client import SessionClient
from chat_gateway.clients.turn_calls import turn_calls
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.tools import ClientTool
from chat_gateway.model.turn import Message, TurnRequest
from contract.enums import Role
from parley.session.v1 import message_pb2, turn_service_pb2_grpc
from parley.session.v1 import turn_service_pb2 as pb
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
        self.lasts_ms = 0
        self.window: list[message_pb2.Turn] = []
        self.window_messages: list[int] = []

    async def BeginTurn(self, request: pb.BeginTurnRequest, context: Any) -> pb.BeginTurnResponse:  # noqa: N802
        self.asked.append(request.turn_id)
        self.left.append(context.time_remaining())
        await asyncio.sleep(self.delay)
        if self.refusals:
            raise self.refusals.pop(0)
        self.window_messages.append(request.window_messages)
        lease = pb.TurnLease(turn_id=request.turn_id, token=1, lasts_ms=self.lasts_ms)
        return pb.BeginTurnResponse(lease=lease, created=True, window=self.window)


async def begin(turns: Turns, config: AgentConfig | None = None) -> Any:
    add = turn_service_pb2_grpc.add_TurnServiceServicer_to_server
    async with (
        serving(ServiceSettings(drain_timeout=0), add=[(add, turns)], service_names=[]) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        # A longer deadline is rounded to seconds on the wire.
        client = SessionClient(turn_calls(channel), timeout=9, wait_timeout=9)
        return await client.begin(REQUEST, config or make_config(), "t1", b"")


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


def stored(text: str, steps: int = 0) -> message_pb2.Turn:
    calls = [message_pb2.ToolCall(id=f"c{n}", name="read", arguments="{}") for n in range(steps)]
    user, assistant, tool = message_pb2.ROLE_USER, message_pb2.ROLE_ASSISTANT, message_pb2.ROLE_TOOL
    turn = message_pb2.Turn(id=text, messages=[message_pb2.Message(role=user, content=text)])
    for call in calls:
        turn.messages.add(role=assistant, tool_calls=[call])
        turn.messages.add(role=tool, tool_call_id=call.id, content="x")
    turn.messages.add(role=assistant, content=f"{text}!")
    if steps:
        turn.answer_start = 1
    return turn


async def test_a_turn_with_many_steps_counts_as_what_its_caller_sees_of_it() -> None:
    turns = Turns()
    turns.window = [stored("old"), stored("long", steps=30), stored("new", steps=2)]
    config = make_config(window_messages=4, tools=(ClientTool("f"),))
    begun = await begin(turns, config)
    assert [one.content for one in begun.window if one.content not in ("", "x")] == ["long", "long!", "new", "new!"]
    assert len(begun.window) == 2 + 60 + 2 + 4
    assert turns.window_messages == [4 * 4 + 2 * 16]
    plain = Turns()
    await begin(plain, make_config(window_messages=4))
    assert plain.window_messages == [4]


async def test_a_lease_ends_no_later_than_it_lasts_from_when_its_request_was_sent() -> None:
    turns = Turns(Draining())
    turns.lasts_ms = 15_000
    before = time.monotonic()
    lease = (await begin(turns)).lease
    assert before < lease.ends - 15 < time.monotonic()
    assert not lease.has_ended
    turns.lasts_ms = 1
    turns.delay = 0.01
    assert (await begin(turns)).lease.has_ended, "the answer took longer than the lease lasted"


async def test_an_older_session_svc_does_not_say_how_long_a_lease_lasts() -> None:
    lease = (await begin(Turns())).lease
    assert lease.ends is None
    assert lease.has_ended, "as its expire_time says"
