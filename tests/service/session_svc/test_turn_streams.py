"""TurnService.Turns: what a call gets on a stream is what its own method would give."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
import pytest
from prometheus_client import REGISTRY

from callstream.server import MAX_BATCH_BYTES, MAX_CALLS, CallStreams
from parley.session.v1 import message_pb2
from parley.session.v1 import turn_service_pb2 as pb
from parley.session.v1.turn_service_pb2_grpc import TurnServiceStub
from servicekit.errors import ServiceError
from servicekit.rpc_status import from_rpc_error, from_status
from session_svc.edge.turn_servicer import TURNS
from tests.service.session_svc.replica import UID, WAIT, Replica, refused, replica, say, texts


class Line:
    """One stream, and what came back on it by the call's id."""

    def __init__(self, stub: Any) -> None:
        self._rpc = stub.Turns()
        self._next = 0
        self.messages: list[pb.TurnsResponse] = []

    async def __aenter__(self) -> Self:
        assert (await self._receive()) == pb.TurnsResponse(), "the first message is empty"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._rpc.cancel()

    async def send(self, *requests: Any, timeout_ms: int = 60_000, cancelled: tuple[int, ...] = ()) -> list[int]:
        """Sends requests in one message; returns their ids."""
        names = {pb.BeginTurnRequest: "begin", pb.RenewTurnRequest: "renew", pb.CommitTurnRequest: "commit"}
        ids = [self._next + n for n in range(len(requests))]
        self._next += len(requests)
        calls = [
            pb.TurnCall(id=i, timeout_ms=timeout_ms, **{names.get(type(request), "abort"): request})
            for i, request in zip(ids, requests, strict=True)
        ]
        await self._rpc.write(pb.TurnsRequest(calls=calls, cancelled_ids=cancelled))
        return ids

    async def write(self, message: pb.TurnsRequest) -> None:
        await self._rpc.write(message)

    async def result(self, call_id: int) -> pb.TurnResult:
        """Waits for the answer to one call."""
        while True:
            for message in self.messages:
                for result in message.results:
                    if result.id == call_id:
                        return result
            await self._receive()

    async def ask(self, request: Any) -> pb.TurnResult:
        """Sends one request and waits for its answer."""
        [call_id] = await self.send(request)
        return await self.result(call_id)

    async def draining(self) -> None:
        """Waits until the server asks to leave."""
        while not any(message.draining for message in self.messages):
            await self._receive()

    async def leave(self) -> None:
        """Closes this side and waits for the stream's end."""
        await self._rpc.done_writing()
        while await self._rpc.read() is not grpc.aio.EOF:
            pass

    async def _receive(self) -> pb.TurnsResponse:
        async with asyncio.timeout(10):
            message = await self._rpc.read()
        assert message is not grpc.aio.EOF, "the stream ended"
        self.messages.append(message)
        return message


@pytest.fixture
async def line(svc: Replica) -> AsyncIterator[Line]:
    async with Line(svc.turns) as opened:
        yield opened


def begin(session: str = "s1", **fields: Any) -> pb.BeginTurnRequest:
    values: dict[str, Any] = {"agent_id": "hello", "agent_uid": UID, "turn_id": uuid.uuid4().hex}
    return pb.BeginTurnRequest(session_id=session, **(values | {"window_messages": 1000} | fields))


def commit(begun: pb.BeginTurnResponse, text: str = "hi") -> pb.CommitTurnRequest:
    return pb.CommitTurnRequest(lease=begun.lease, turn=message_pb2.Turn(messages=say(text)))


def failure(result: pb.TurnResult) -> ServiceError:
    assert result.WhichOneof("outcome") == "failure", result
    return from_status(result.failure)


async def test_turns_are_those_of_the_unary_methods(svc: Replica, line: Line) -> None:
    await svc.turn(text="one")
    begun = (await line.ask(begin())).begin
    assert texts(begun) == ["one"]
    assert begun.lease.lasts_ms > 0
    renewed = (await line.ask(pb.RenewTurnRequest(lease=begun.lease))).renew
    assert renewed.expire_time.seconds > 0
    assert renewed.lasts_ms > 0
    assert (await line.ask(commit(begun, "two"))).commit.turn_number == 2
    again = await svc.begin()
    assert texts(again) == ["one", "two"]
    assert (await line.ask(pb.AbortTurnRequest(lease=again.lease))).HasField("abort")
    assert (await svc.begin()).lease.token > again.lease.token, "the abort gave the lease back"


async def test_many_calls_of_one_message_are_all_answered(svc: Replica, line: Line) -> None:
    ids = await line.send(*(begin(f"s{n}") for n in range(50)))
    results = [await line.result(call_id) for call_id in ids]
    assert [result.begin.session.id for result in results] == [f"s{n}" for n in range(50)]
    assert len(line.messages) < 25, "answers share messages"


async def test_a_refusal_is_the_unary_methods_own(svc: Replica, line: Line) -> None:
    with refused("SESSION_NOT_FOUND") as unary:
        await svc.begin("nowhere", session_must_exist=True)
    error = failure(await line.ask(begin("nowhere", session_must_exist=True)))
    for name in ("code", "reason", "message", "metadata", "retry_after"):
        assert getattr(error, name) == getattr(unary.error, name)
    invalid = failure(await line.ask(begin("not an id", agent_id="")))
    assert {violation.field for violation in invalid.violations} == {"session_id", "agent_id"}


async def test_a_call_that_waits_holds_up_no_other(svc: Replica, line: Line) -> None:
    running = (await line.ask(begin())).begin
    [waiting, other] = await line.send(begin(busy=WAIT), begin("s2"))
    assert (await line.result(other)).begin.session.id == "s2"
    await line.ask(commit(running, "first"))
    assert texts((await line.result(waiting)).begin) == ["first"]


async def test_a_wait_ends_before_its_callers_deadline(
    svc: Replica, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_svc.turns.ANSWER_MARGIN", 30.0)
    await svc.begin()
    [waiting] = await line.send(begin(busy=WAIT), timeout_ms=30_250)
    assert failure(await line.result(waiting)).reason == "SESSION_BUSY"


@pytest.mark.parametrize("way", ["id", "id in the same message", "end of the stream"])
async def test_a_call_that_is_given_up_leaves_no_place_in_the_queue(svc: Replica, way: str) -> None:
    running = await svc.begin()
    async with Line(svc.turns) as line:
        if way == "id in the same message":
            await line.send(begin(busy=WAIT), cancelled=(0,))
        else:
            [waiting] = await line.send(begin(busy=WAIT))
            await asyncio.sleep(0.1)
            if way == "id":
                await line.write(pb.TurnsRequest(cancelled_ids=[waiting]))
        await asyncio.sleep(0.1)
    await svc.commit(running)
    async with asyncio.timeout(50):  # less than the lease that a forgotten waiter would have got
        await svc.turn(text="next", busy=WAIT)


async def test_large_windows_come_in_messages_of_their_own(svc: Replica, line: Line) -> None:
    for n in range(3):
        await svc.turn(f"s{n}", text="x" * MAX_BATCH_BYTES)
    ids = await line.send(*(begin(f"s{n}") for n in range(3)))
    assert [len(texts((await line.result(call_id)).begin)[0]) for call_id in ids] == [MAX_BATCH_BYTES] * 3
    assert max(len(message.results) for message in line.messages) == 1


async def test_a_call_counts_for_its_method(svc: Replica, line: Line) -> None:
    def count(method: str, code: str) -> float:
        labels = {"rpc_method": f"parley.session.v1.TurnService/{method}", "rpc_response_status_code": code}
        return REGISTRY.get_sample_value("rpc_server_call_duration_seconds_count", labels) or 0

    before = count("BeginTurn", "OK"), count("BeginTurn", "NOT_FOUND")
    await line.ask(begin())
    await line.ask(begin("nowhere", session_must_exist=True))
    assert (count("BeginTurn", "OK"), count("BeginTurn", "NOT_FOUND")) == (before[0] + 1, before[1] + 1)


async def test_a_stop_asks_to_leave_and_answers_what_it_was_asked(redis_url: str) -> None:
    async with replica(redis_url, drain_timeout=60) as svc:
        running = await svc.begin()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{svc.port}")  # the replica's own goes before it stops
        line = await Line(TurnServiceStub(channel)).__aenter__()
        [waiting] = await line.send(begin(busy=WAIT))
        await asyncio.sleep(0.1)

        async def leave() -> None:
            await line.draining()
            assert (await line.ask(commit(running, "last"))).commit.turn_number == 1
            assert failure(await line.result(waiting)).reason == "DRAINING", "nobody's turn comes here any more"
            await line.leave()

        leaving = asyncio.create_task(leave())
        begin_time = asyncio.get_running_loop().time()
    await leaving
    await channel.close()
    assert asyncio.get_running_loop().time() - begin_time < 30, "the stop waits no longer than for its streams"


async def test_streams_are_refused_while_calls_are_not_taken() -> None:
    streams = CallStreams(TURNS, {}, name="session_svc")
    streams.set_serving(False)
    with pytest.raises(ServiceError) as caught:
        await streams.serve(None, None)  # type: ignore[arg-type]
    assert caught.value.reason == "DRAINING"


async def test_calls_beyond_the_bound_are_refused(svc: Replica, line: Line) -> None:
    await svc.begin()
    lease = (await line.ask(begin("held"))).begin.lease
    held = [pb.RenewTurnRequest(lease=lease, hold={"seconds": 30}) for _ in range(MAX_CALLS)]
    await line.send(*held)
    error = failure(await line.ask(begin("s2")))
    assert (error.reason, error.retry_after) == ("PEER_UNAVAILABLE", 0.5)


async def test_what_is_no_call_is_refused(svc: Replica, line: Line) -> None:
    await line.write(pb.TurnsRequest(calls=[pb.TurnCall(id=7)]))
    assert failure(await line.result(7)).reason == "NOT_IMPLEMENTED"
    lease = (await line.ask(begin())).begin.lease
    held = pb.TurnCall(id=8, renew=pb.RenewTurnRequest(lease=lease, hold={"seconds": 30}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await line.write(pb.TurnsRequest(calls=[held, held]))
        await line.result(8)
    assert from_rpc_error(caught.value).reason == "INVALID_FIELD"
