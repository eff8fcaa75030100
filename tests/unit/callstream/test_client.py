"""The calling end, against servers that do as the test says."""

import asyncio
from typing import Any

import pytest

from callstream.client import MAX_CALL_BYTES, ROUND_SECONDS, Stream
from servicekit.errors import Code, DeadlineExceeded, RemoteError, Unavailable
from tests.unit.callstream import echo
from tests.unit.callstream.echo import COUNT, ECHO, PROTOCOL
from tests.unit.callstream.echo_server import answer_of, asking, calling, serving, until
from tests.unit.event_loop import settle


async def test_what_is_asked_for_together_shares_a_message() -> None:
    async with serving() as server, calling(server) as calls:
        answers = await asyncio.gather(*(calls.call(ECHO, *asking("new" if n % 2 else "old")) for n in range(20)))
        assert [answer.text for answer in answers] == ["new" if n % 2 else "old" for n in range(20)]
        assert (server.calls, server.unary) == (20, 0)
        assert len(server.messages) <= 2


async def test_a_call_carries_its_deadline_and_an_error_arrives_whole() -> None:
    async with serving() as server, calling(server) as calls:
        with pytest.raises(RemoteError) as caught:
            await calls.call(ECHO, *asking("busy", timeout=61.5))
        assert (caught.value.code, caught.value.reason, caught.value.retry_after) == (Code.ABORTED, "SESSION_BUSY", 2)
        assert server.messages[0].calls[0].timeout_ms == 61_500


async def test_batches_go_round_the_streams() -> None:
    async with serving() as server, calling(server, streams=4) as calls:
        for _ in range(8):
            await calls.call(ECHO, *asking())
            await asyncio.sleep(ROUND_SECONDS)
        assert sorted(server.by_stream) == [1, 2, 3, 4]
        assert set(server.by_stream.values()) == {2}


async def test_a_stream_that_still_writes_is_passed_over() -> None:
    async with serving() as server, calling(server, streams=3) as calls:
        stuck = calls.streams[1]
        stuck.writing = True
        for _ in range(6):
            await calls.call(ECHO, *asking())
            await asyncio.sleep(ROUND_SECONDS)
        assert sorted(server.by_stream.values()) == [3, 3]
        stuck.writing = False


async def test_every_replica_has_its_share_within_the_age_of_streams() -> None:
    async with serving() as one, serving() as two, calling(one, two, streams=2, age=0.1) as calls:
        async with asyncio.timeout(60):
            while min(one.calls, two.calls) < 10:
                await calls.call(ECHO, *asking())
                await asyncio.sleep(ROUND_SECONDS)


async def test_a_caller_that_leaves_gives_its_call_up() -> None:
    async with serving() as server, calling(server) as calls:
        server.silent = True
        task = asyncio.create_task(calls.call(ECHO, *asking()))
        await until(lambda: server.calls == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(server.messages) == 2)
        assert list(server.messages[1].cancelled_ids) == [server.messages[0].calls[0].id]


async def test_a_silent_peer_costs_the_deadline_and_then_has_another_stream() -> None:
    async with serving() as server, calling(server) as calls:
        server.silent = True
        with pytest.raises(DeadlineExceeded):
            await calls.call(ECHO, *asking(timeout=1.0))
        await until(lambda: len(server.messages) == 2)
        assert list(server.messages[1].cancelled_ids) == [server.messages[0].calls[0].id]
        server.silent = False
        await until(lambda: server.streams == 2 and server.ended == 1 and len(calls.streams) == 1)
        assert await calls.call(ECHO, *asking())


@pytest.mark.slow
async def test_a_deadline_of_one_call_leaves_the_others_their_stream() -> None:
    async with serving() as server, calling(server) as calls:
        server.silent = True
        late = asyncio.create_task(calls.call(ECHO, *asking(timeout=2.0)))
        await until(lambda: server.calls == 1)
        server.silent = False
        assert await calls.call(ECHO, *asking())
        with pytest.raises(DeadlineExceeded):
            await late
        assert (server.streams, len(calls.streams)) == (1, 1)


async def test_open_calls_of_a_stream_that_breaks_are_unavailable() -> None:
    async with serving() as server, calling(server) as calls:
        server.silent = True
        task = asyncio.create_task(calls.call(COUNT, echo.CountRequest(), 60))
        await until(lambda: server.calls == 1)
        with pytest.raises(Unavailable):
            await calls.call(ECHO, *asking("break"))
        with pytest.raises(Unavailable):
            await task
        await until(lambda: len(calls.streams) == 1 and server.streams == 2)
        server.silent = False
        assert await calls.call(ECHO, *asking())


async def test_a_draining_server_gets_no_more_calls_and_answers_those_it_has() -> None:
    async with serving() as server, calling(server) as calls:
        server.silent = True
        waiting = asyncio.create_task(calls.call(ECHO, *asking("new")))
        await until(lambda: server.calls == 1)
        await server.contexts[0].write(echo.Answers(draining=True))
        await until(lambda: server.streams == 2 and len(calls.streams) == 1)
        assert server.ended == 0
        server.silent = False
        assert await calls.call(ECHO, *asking())
        await server.contexts[0].write(echo.Answers(results=[answer_of(server.messages[0].calls[0])]))
        assert (await waiting).text == "new"
        await until(lambda: server.ended == 1)


async def test_an_old_stream_is_replaced_without_a_call_failing() -> None:
    async with serving() as server, calling(server, streams=2, age=0.2) as calls:
        async with asyncio.timeout(60):
            while server.ended < 4:
                await calls.call(ECHO, *asking())
                await asyncio.sleep(0.005)


async def test_a_peer_without_streams_is_called_method_by_method() -> None:
    async with serving(with_streams=False) as server, calling(server, up=0) as calls:
        assert (await calls.call(ECHO, *asking())).text == "unary"
        assert (await calls.call(COUNT, echo.CountRequest(text="four"), 60)).number == 4
        assert server.unary == 2


async def test_a_request_that_is_very_large_goes_by_itself() -> None:
    async with serving() as server, calling(server) as calls:
        request = echo.CountRequest(text="x" * MAX_CALL_BYTES)
        assert (await calls.call(COUNT, request, 60)).number == MAX_CALL_BYTES
        assert (server.calls, server.unary) == (0, 1)


async def test_nobody_there_fails_fast() -> None:
    async with serving() as server:
        pass
    async with calling(server, up=0) as calls:
        with pytest.raises(Unavailable):
            await calls.call(ECHO, *asking())


async def test_leaving_ends_what_is_open_and_leaves_no_task() -> None:
    async with serving() as server:
        before = asyncio.all_tasks()
        async with calling(server, streams=2) as calls:
            server.silent = True
            task = asyncio.create_task(calls.call(ECHO, *asking()))
            await until(lambda: server.calls == 1)
        with pytest.raises(Unavailable):
            await task
        await until(lambda: server.ended == 2)
        assert not {t for t in asyncio.all_tasks() - before if t.get_name() in ("call stream", "stream calls")}


class Rpc:
    """A stream whose answers the test gives, and which notes when it is asked for the next one."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self.answers: asyncio.Queue[Any] = asyncio.Queue()

    async def read(self) -> Any:
        self._seen.append("asked")
        return await self.answers.get()

    async def write(self, data: bytes) -> None:
        """Takes it."""

    def cancel(self) -> None:
        """Nothing is open."""


async def test_who_is_answered_goes_on_before_the_next_message_is_asked_for() -> None:
    seen: list[str] = []
    rpc = Rpc(seen)
    stream = Stream(PROTOCOL, rpc, "echo_svc")
    serving = asyncio.create_task(stream.serve())

    async def caller() -> None:
        await stream.call(ECHO, b"", 60)
        seen.append("went on")

    callers = asyncio.gather(caller(), caller())
    await settle()
    results = [echo.Result(id=number, echo=echo.EchoResponse()) for number in (1, 2)]
    rpc.answers.put_nowait(echo.Answers(results=results))
    await asyncio.wait_for(callers, 60)
    await settle()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert seen == ["asked", "went on", "went on", "asked"]


async def test_a_stream_that_nobody_uses_is_left_as_it_is_until_somebody_does() -> None:
    async with serving() as server, calling(server, streams=2, age=0.02) as calls:
        await asyncio.sleep(0.2)
        assert (server.streams, server.ended) == (2, 0)
        assert (await calls.call(ECHO, *asking("late"))).text == "late"
        await until(lambda: server.streams == 3 and server.ended == 1 and len(calls.streams) == 2)


async def test_a_stream_that_ends_while_nobody_uses_it_is_replaced() -> None:
    async with serving() as server, calling(server) as calls:
        await server.contexts[0].write(echo.Answers(draining=True))
        await until(lambda: server.streams == 2 and server.ended == 1 and len(calls.streams) == 1)


def test_a_method_that_the_messages_do_not_carry_is_refused() -> None:
    for name, field, response in (("None", "none", echo.EchoResponse), ("Echo", "echo", echo.CountResponse)):
        with pytest.raises(ValueError, match="does not carry"):
            PROTOCOL.method(name, field, response)
