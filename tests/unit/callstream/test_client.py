"""The gateway's side of TurnService.Turns, against servers that do as the test says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from chat_gateway.clients.stubs import make_stubs
from chat_gateway.clients.turn_streams import (
    BEGIN,
    COMMIT,
    LARGEST_CALL_BYTES,
    ROUND_SECONDS,
    NotSent,
    Stream,
    TurnStreams,
)
from parley.session.v1 import message_pb2
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.channels import open_channel
from servicekit.errors import Code, DeadlineExceeded, RemoteError, ServiceError, Unavailable
from servicekit.rpc_status import to_status


class Busy(ServiceError):
    code = Code.ABORTED
    reason = "SESSION_BUSY"


class Server:
    """A session_svc of few words: answers what `silent` is not, and remembers how it was asked."""

    def __init__(self) -> None:
        self.streams = 0
        self.ended = 0
        self.messages: list[pb.TurnsRequest] = []
        self.unary = 0
        self.left = 0.0
        self.silent = False
        self.by_stream: Counter[int] = Counter()
        self.contexts: list[Any] = []
        self.port = 0

    @property
    def calls(self) -> int:
        return sum(len(message.calls) for message in self.messages)

    async def turns(self, requests: AsyncIterator[pb.TurnsRequest], context: Any) -> None:
        self.streams += 1
        number = self.streams
        self.contexts.append(context)
        try:
            await context.write(pb.TurnsResponse())
            async for message in requests:
                self.messages.append(message)
                self.by_stream[number] += len(message.calls)
                if any(call.begin.session_id == "break" for call in message.calls):
                    await context.abort(grpc.StatusCode.INTERNAL, "broken")
                if not self.silent:
                    await context.write(pb.TurnsResponse(results=[_answer(call) for call in message.calls]))
        finally:
            self.ended += 1

    async def begin(self, request: pb.BeginTurnRequest, context: Any) -> pb.BeginTurnResponse:
        self.unary += 1
        self.left = context.time_remaining()
        return pb.BeginTurnResponse(created=True)

    async def commit(self, request: pb.CommitTurnRequest, context: Any) -> pb.CommitTurnResponse:
        self.unary += 1
        return pb.CommitTurnResponse(turn_number=1)


def _answer(call: pb.TurnCall) -> pb.TurnResult:
    if call.begin.session_id == "busy":
        return pb.TurnResult(id=call.id, failure=to_status(Busy("busy", retry_after=2)).SerializeToString())
    return pb.TurnResult(id=call.id, begin=pb.BeginTurnResponse(created=call.begin.session_id == "new"))


@asynccontextmanager
async def serving(*, with_streams: bool = True) -> AsyncIterator[Server]:
    made, server = Server(), grpc.aio.server()
    handlers = {
        "BeginTurn": grpc.unary_unary_rpc_method_handler(
            made.begin, pb.BeginTurnRequest.FromString, pb.BeginTurnResponse.SerializeToString
        ),
        "CommitTurn": grpc.unary_unary_rpc_method_handler(
            made.commit, pb.CommitTurnRequest.FromString, pb.CommitTurnResponse.SerializeToString
        ),
    }
    if with_streams:
        handlers["Turns"] = grpc.stream_stream_rpc_method_handler(
            made.turns, pb.TurnsRequest.FromString, pb.TurnsResponse.SerializeToString
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("parley.session.v1.TurnService", handlers),))
    made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)


@asynccontextmanager
async def calling(
    *servers: Server, streams: int = 1, up: int | None = None, age: float = 60
) -> AsyncIterator[TurnStreams]:
    async with AsyncExitStack() as stack:
        target = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        channel = await stack.enter_async_context(open_channel(target))
        opened = await stack.enter_async_context(
            TurnStreams(make_stubs(channel, channel), streams=streams, age=age).open()
        )
        await until(lambda: len(opened.streams) == (streams if up is None else up))
        yield opened


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def begin(session: str = "s1", timeout: float = 5) -> Any:
    return pb.BeginTurnRequest(session_id=session), timeout


async def test_what_is_asked_for_together_shares_a_message() -> None:
    async with serving() as server, calling(server) as turns:
        answers = await asyncio.gather(*(turns.call(BEGIN, *begin("new" if n % 2 else "old")) for n in range(20)))
        assert [answer.created for answer in answers] == [bool(n % 2) for n in range(20)]
        assert (server.calls, server.unary) == (20, 0)
        assert len(server.messages) <= 2


async def test_a_call_carries_its_deadline_and_an_error_arrives_whole() -> None:
    async with serving() as server, calling(server) as turns:
        with pytest.raises(RemoteError) as caught:
            await turns.call(BEGIN, *begin("busy", timeout=1.5))
        assert (caught.value.code, caught.value.reason, caught.value.retry_after) == (Code.ABORTED, "SESSION_BUSY", 2)
        assert server.messages[0].calls[0].timeout_ms == 1500


async def test_batches_go_round_the_streams() -> None:
    async with serving() as server, calling(server, streams=4) as turns:
        for _ in range(8):
            await turns.call(BEGIN, *begin())
            await asyncio.sleep(ROUND_SECONDS)
        assert sorted(server.by_stream) == [1, 2, 3, 4]
        assert set(server.by_stream.values()) == {2}


async def test_a_stream_that_still_writes_is_passed_over() -> None:
    async with serving() as server, calling(server, streams=3) as turns:
        stuck = turns.streams[1]
        stuck.writing = True
        for _ in range(6):
            await turns.call(BEGIN, *begin())
            await asyncio.sleep(ROUND_SECONDS)
        assert sorted(server.by_stream.values()) == [3, 3]
        stuck.writing = False


async def test_every_replica_has_its_share_within_the_age_of_streams() -> None:
    async with serving() as one, serving() as two, calling(one, two, streams=2, age=0.1) as turns:
        async with asyncio.timeout(10):
            while min(one.calls, two.calls) < 10:
                await turns.call(BEGIN, *begin())
                await asyncio.sleep(ROUND_SECONDS)


async def test_a_caller_that_leaves_gives_its_call_up() -> None:
    async with serving() as server, calling(server) as turns:
        server.silent = True
        task = asyncio.create_task(turns.call(BEGIN, *begin()))
        await until(lambda: server.calls == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(server.messages) == 2)
        assert list(server.messages[1].cancelled_ids) == [server.messages[0].calls[0].id]


class StuckRpc:
    """A stream whose first message does not get into the connection until it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.messages: list[pb.TurnsRequest] = []
        self.cancelled = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.let.wait()
        self.messages.append(pb.TurnsRequest.FromString(data))

    async def read(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled.set()


async def test_a_call_that_is_given_up_before_it_was_sent_is_not_sent() -> None:
    rpc = StuckRpc()
    stream = Stream(rpc)
    serving_task = asyncio.create_task(stream.serve())
    first, second = (asyncio.create_task(stream.call(BEGIN, b"", 5)) for _ in range(2))
    await asyncio.sleep(0.01)
    third = asyncio.create_task(stream.call(BEGIN, b"", 5))
    await asyncio.sleep(0.01)
    third.cancel()
    await asyncio.sleep(0.01)
    rpc.let.set()
    await asyncio.sleep(0.01)
    assert [len(message.calls) for message in rpc.messages] == [2]
    serving_task.cancel()
    outcomes = await asyncio.gather(first, second, third, serving_task, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:3]] == [Unavailable, Unavailable, asyncio.CancelledError]


async def test_a_call_that_its_stream_did_not_send_goes_another_way() -> None:
    rpc = StuckRpc()
    stream = Stream(rpc)
    serving_task = asyncio.create_task(stream.serve())
    sent = asyncio.create_task(stream.call(BEGIN, b"", 5))
    await asyncio.sleep(0.01)
    unsent = asyncio.create_task(stream.call(BEGIN, b"", 5))
    await asyncio.sleep(0.01)
    serving_task.cancel()
    outcomes = await asyncio.gather(sent, unsent, stream.call(BEGIN, b"", 5), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, NotSent, NotSent]


async def test_a_call_that_goes_another_way_has_the_time_that_is_left() -> None:
    async with serving() as server, calling(server, up=1) as turns:
        stuck = Stream(StuckRpc())
        serving_task = asyncio.create_task(stuck.serve())
        sent = asyncio.create_task(stuck.call(BEGIN, b"", 5))
        await asyncio.sleep(0.01)
        turns._up.clear()
        turns._up.append(stuck)
        unsent = asyncio.create_task(turns.call(BEGIN, *begin(timeout=5)))
        await asyncio.sleep(0.5)
        serving_task.cancel()
        await asyncio.gather(sent, unsent, serving_task, return_exceptions=True)
        assert unsent.result().created
        assert 0 < server.left < 4.7


async def test_a_stream_that_takes_nothing_any_more_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_gateway.clients.turn_streams.LEAVE_SECONDS", 0.05)
    rpc = StuckRpc()
    stream = Stream(rpc)
    serving_task = asyncio.create_task(stream.serve())
    with pytest.raises(DeadlineExceeded):
        await stream.call(BEGIN, b"", 0.1)
    await asyncio.wait_for(rpc.cancelled.wait(), 2)
    serving_task.cancel()
    await asyncio.gather(serving_task, return_exceptions=True)


async def test_a_silent_peer_costs_the_deadline_and_then_has_another_stream() -> None:
    async with serving() as server, calling(server) as turns:
        server.silent = True
        with pytest.raises(DeadlineExceeded):
            await turns.call(BEGIN, *begin(timeout=0.1))
        await until(lambda: len(server.messages) == 2)
        assert list(server.messages[1].cancelled_ids) == [server.messages[0].calls[0].id]
        server.silent = False
        await until(lambda: server.streams == 2 and server.ended == 1 and len(turns.streams) == 1)
        assert await turns.call(BEGIN, *begin())


async def test_a_deadline_of_one_call_leaves_the_others_their_stream() -> None:
    async with serving() as server, calling(server) as turns:
        server.silent = True
        late = asyncio.create_task(turns.call(BEGIN, *begin(timeout=0.3)))
        await until(lambda: server.calls == 1)
        server.silent = False
        assert await turns.call(BEGIN, *begin())
        with pytest.raises(DeadlineExceeded):
            await late
        assert (server.streams, len(turns.streams)) == (1, 1)


async def test_open_calls_of_a_stream_that_breaks_are_unavailable() -> None:
    async with serving() as server, calling(server) as turns:
        server.silent = True
        task = asyncio.create_task(turns.call(COMMIT, pb.CommitTurnRequest(), 5))
        await until(lambda: server.calls == 1)
        with pytest.raises(Unavailable):
            await turns.call(BEGIN, *begin("break"))
        with pytest.raises(Unavailable):
            await task
        await until(lambda: len(turns.streams) == 1 and server.streams == 2)
        server.silent = False
        assert await turns.call(BEGIN, *begin())


async def test_a_draining_server_gets_no_more_calls_and_answers_those_it_has() -> None:
    async with serving() as server, calling(server) as turns:
        server.silent = True
        waiting = asyncio.create_task(turns.call(BEGIN, *begin("new")))
        await until(lambda: server.calls == 1)
        await server.contexts[0].write(pb.TurnsResponse(draining=True))
        await until(lambda: server.streams == 2 and len(turns.streams) == 1)
        assert server.ended == 0
        server.silent = False
        assert await turns.call(BEGIN, *begin())
        await server.contexts[0].write(pb.TurnsResponse(results=[_answer(server.messages[0].calls[0])]))
        assert (await waiting).created
        await until(lambda: server.ended == 1)


async def test_an_old_stream_is_replaced_without_a_call_failing() -> None:
    async with serving() as server, calling(server, streams=2, age=0.2) as turns:
        async with asyncio.timeout(10):
            while server.ended < 4:
                await turns.call(BEGIN, *begin())
                await asyncio.sleep(0.005)


async def test_a_peer_without_streams_is_called_method_by_method() -> None:
    async with serving(with_streams=False) as server, calling(server, up=0) as turns:
        assert (await turns.call(BEGIN, *begin())).created
        assert (await turns.call(COMMIT, pb.CommitTurnRequest(), 5)).turn_number == 1
        assert server.unary == 2


async def test_a_request_that_is_very_large_goes_by_itself() -> None:
    async with serving() as server, calling(server) as turns:
        message = message_pb2.Message(content="x" * LARGEST_CALL_BYTES)
        request = pb.CommitTurnRequest(turn=message_pb2.Turn(messages=[message]))
        assert (await turns.call(COMMIT, request, 5)).turn_number == 1
        assert (server.calls, server.unary) == (0, 1)


async def test_nobody_there_fails_fast() -> None:
    async with serving() as server:
        pass
    async with calling(server, up=0) as turns:
        with pytest.raises(Unavailable):
            await turns.call(BEGIN, *begin())


async def test_leaving_ends_what_is_open_and_leaves_no_task() -> None:
    async with serving() as server:
        before = asyncio.all_tasks()
        async with calling(server, streams=2) as turns:
            server.silent = True
            task = asyncio.create_task(turns.call(BEGIN, *begin()))
            await until(lambda: server.calls == 1)
        with pytest.raises(Unavailable):
            await task
        await until(lambda: server.ended == 2)
        assert not {t for t in asyncio.all_tasks() - before if t.get_name() in ("turn stream", "turn calls")}


class Rpc:
    """A stream whose answers the test gives, and which notes when it is asked for the next one."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self.answers: asyncio.Queue[pb.TurnsResponse] = asyncio.Queue()

    async def read(self) -> pb.TurnsResponse:
        self._seen.append("asked")
        return await self.answers.get()

    async def write(self, data: bytes) -> None:
        """Takes it."""

    def cancel(self) -> None:
        """Nothing is open."""


async def test_who_is_answered_goes_on_before_the_next_message_is_asked_for() -> None:
    seen: list[str] = []
    rpc = Rpc(seen)
    stream = Stream(rpc)
    serving = asyncio.create_task(stream.serve())

    async def turn() -> None:
        await stream.call(BEGIN, b"", 5)
        seen.append("went on")

    turns = asyncio.gather(turn(), turn())
    await asyncio.sleep(0.01)
    results = [pb.TurnResult(id=number, begin=pb.BeginTurnResponse()) for number in (1, 2)]
    rpc.answers.put_nowait(pb.TurnsResponse(results=results))
    await asyncio.wait_for(turns, 5)
    await asyncio.sleep(0.01)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert seen == ["asked", "went on", "went on", "asked"]
