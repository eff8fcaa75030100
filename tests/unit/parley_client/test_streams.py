"""A turn's stream over broken connections: nothing twice, nothing lost, and an end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley_client import Answer, AsyncClient, Client, Conflict, Servers, Unavailable, turn_input
from parley_client.chat import MAX_FRUITLESS_TRIES, MAX_PAUSE_SECONDS, FollowedTurn
from tests.unit.parley_client.scripted import Scripted, fails, reason

Collected = list[pb.StreamCompleteResponse]
BROKEN = fails(grpc.StatusCode.UNAVAILABLE, message="Connection reset by peer")


def started() -> pb.StreamCompleteResponse:
    return pb.StreamCompleteResponse(started=pb.TurnStarted(turn_id="t", session_id="s"), event_id="1-0")


def said(text: str, number: int) -> pb.StreamCompleteResponse:
    return pb.StreamCompleteResponse(delta=pb.MessageDelta(content=text), event_id=f"{number}-0")


FINISHED = pb.StreamCompleteResponse(finished=pb.TurnOutcome(turn_id="t", turn_number=1), event_id="9-0")


def sends(*events: Any, then: Any = None) -> Any:
    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from events
        if then is not None:
            then(request, context)

    return answer


def watched(*events: pb.StreamCompleteResponse) -> list[pb.WatchTurnResponse]:
    return [pb.WatchTurnResponse(), *(pb.WatchTurnResponse(event=event) for event in events)]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


def threaded(server: Scripted, **fields: Any) -> Collected:
    with Client(Servers(server.target)) as client:
        return list(client.stream("support", "hi", timeout=60, **fields))


async def with_asyncio(server: Scripted, **fields: Any) -> Collected:
    async with AsyncClient(Servers(server.target)) as client:
        return [event async for event in client.stream("support", "hi", timeout=60, **fields)]


async def run(how: Callable[..., Any], server: Scripted, **fields: Any) -> Collected:
    collected: Collected = how(server, **fields) if how is threaded else await how(server, **fields)
    return collected


both = pytest.mark.parametrize("how", [threaded, with_asyncio])


def text_of(events: Collected) -> str:
    answer = Answer()
    for event in events:
        answer.add(event)
    assert answer.outcome is not None
    return answer.text


@both
async def test_a_stream_goes_on_behind_the_last_event(how: Any, server: Scripted) -> None:
    server.answers["StreamComplete"] = [sends(started(), said("Hel", 2), then=BROKEN)]
    server.answers["WatchTurn"] = [
        sends(*watched(said("lo ", 3)), then=BROKEN),
        sends(then=BROKEN),
        sends(*watched(said("there", 4))),  # ends as if a proxy had cut it
        sends(*watched(FINISHED)),
    ]
    events = await run(how, server, resumable=True, user_id="ada", project="acme")
    assert text_of(events) == "Hello there"
    assert len([event for event in events if event.HasField("started")]) == 1
    watches = server.requests("WatchTurn")
    assert [watch.after_event_id for watch in watches] == ["2-0", "3-0", "3-0", "4-0"]
    assert {(one.session_id, one.turn_id, one.user_id, one.project) for one in watches} == {("s", "t", "ada", "acme")}


@both
async def test_before_its_start_a_turn_is_asked_for_again(how: Any, server: Scripted) -> None:
    cut_off = sends()
    server.answers["StreamComplete"] = [cut_off, sends(started(), said("Hello", 2), FINISHED)]
    assert text_of(await run(how, server)) == "Hello"
    first, second = server.requests("StreamComplete")
    assert first == second
    assert first.input.request_id


@both
async def test_a_turn_that_is_not_resumable_fails(how: Any, server: Scripted) -> None:
    server.answers["StreamComplete"] = [sends(started(), said("Hel", 2), then=BROKEN)]
    with pytest.raises(Unavailable):
        await run(how, server)
    assert not server.requests("WatchTurn")


@both
async def test_the_turns_own_failure_is_final(how: Any, server: Scripted) -> None:
    lost = fails(grpc.StatusCode.ABORTED, reason("LEASE_LOST", session_id="s"))
    server.answers["StreamComplete"] = [sends(started(), then=BROKEN)]
    server.answers["WatchTurn"] = [sends(then=lost)]
    with pytest.raises(Conflict) as caught:
        await run(how, server, resumable=True)
    assert caught.value.reason == "LEASE_LOST"


def test_a_server_that_stays_unreachable_is_given_up() -> None:
    error = Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE)
    followed = FollowedTurn(turn_input("support", "hi"), 600)
    pauses = [followed.pause_after(error) for _ in range(MAX_FRUITLESS_TRIES)]
    assert pauses[0] < pauses[-1] < 1.2 * MAX_PAUSE_SECONDS
    with pytest.raises(Unavailable):
        followed.pause_after(error)


def test_what_the_deadline_has_no_room_for_is_not_waited_for() -> None:
    error = Unavailable("stopping", code=grpc.StatusCode.UNAVAILABLE, retry_delay=30)
    with pytest.raises(Unavailable):
        FollowedTurn(turn_input("support", "hi"), 20).pause_after(error)
    assert FollowedTurn(turn_input("support", "hi"), 60).pause_after(error) >= 30


def test_a_turn_of_somebody_else_is_watched(server: Scripted) -> None:
    server.answers["WatchTurn"] = [
        sends(*watched(started(), said("Hello", 2)), then=BROKEN),
        sends(*watched(said(" you", 3), FINISHED)),
    ]
    with Client(Servers(server.target)) as client:
        events = list(client.watch("s", "t", user_id="ada", timeout=60))
    assert text_of(events) == "Hello you"
    assert [one.after_event_id for one in server.requests("WatchTurn")] == ["", "2-0"]


async def test_leaving_early_cancels_the_turn(server: Scripted) -> None:
    left = threading.Event()

    def endless(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(left.set)
        yield started()
        left.wait(30)

    server.answers["StreamComplete"] = [endless]
    async with AsyncClient(server.target) as client, aclosing(client.stream("support", "hi")) as events:
        await anext(events)
    assert left.wait(30)
    left.clear()
    with Client(server.target) as client:
        stream = client.stream("support", "hi")
        next(stream)
        stream.close()
        assert left.wait(30)


def test_calls_of_tools_are_put_together() -> None:
    answer = Answer()
    pieces = [(0, "a", "first", '{"x"'), (1, "b", "second", "{"), (0, "", "", ": 1}"), (1, "", "", "}")]
    for index, call_id, name, arguments in pieces:
        delta = pb.ToolCallDelta(index=index, id=call_id, name=name, arguments=arguments)
        answer.add(pb.StreamCompleteResponse(delta=pb.MessageDelta(tool_calls=[delta])))
    calls = [(call.id, call.name, call.arguments) for call in answer.tool_calls]
    assert calls == [("a", "first", '{"x": 1}'), ("b", "second", "{}")]


def test_a_step_that_another_gateway_asks_for_again_counts_once() -> None:
    answer = Answer()
    resumed = pb.StreamCompleteResponse(turn_resumed=pb.TurnResumed(step=2, attempt=2))
    step = pb.StreamCompleteResponse(step_finished=pb.StepFinished(step=1))
    called = pb.MessageDelta(content="Half an", tool_calls=[pb.ToolCallDelta(id="c", name="n")])
    half = pb.StreamCompleteResponse(delta=called)
    for event in (started(), said("Looking. ", 2), step, half, resumed, said("Found.", 3), FINISHED):
        answer.add(event)
    assert (answer.text, answer.tool_calls) == ("Looking. Found.", [])
