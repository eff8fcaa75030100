"""Calls between being asked for and being on the wire."""

import asyncio
from typing import Any

import pytest

from callstream.client import NotSent, Stream
from servicekit.errors import DeadlineExceeded, Unavailable
from tests.unit.callstream import echo
from tests.unit.callstream.echo import ECHO, PROTOCOL
from tests.unit.callstream.echo_server import asking, calling, serving
from tests.unit.event_loop import settle


class StuckRpc:
    """A stream whose first message does not get into the connection until it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.messages: list[Any] = []
        self.cancelled = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.let.wait()
        self.messages.append(echo.Calls.FromString(data))

    async def read(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled.set()


async def test_a_call_that_is_given_up_before_it_was_sent_is_not_sent() -> None:
    rpc = StuckRpc()
    stream = Stream(PROTOCOL, rpc, "echo_svc")
    serving_task = asyncio.create_task(stream.serve())
    first, second = (asyncio.create_task(stream.call(ECHO, b"", 60)) for _ in range(2))
    await settle()
    third = asyncio.create_task(stream.call(ECHO, b"", 60))
    await settle()
    third.cancel()
    await settle()
    rpc.let.set()
    await settle()
    assert [len(message.calls) for message in rpc.messages] == [2]
    serving_task.cancel()
    outcomes = await asyncio.gather(first, second, third, serving_task, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:3]] == [Unavailable, Unavailable, asyncio.CancelledError]


async def test_a_call_that_its_stream_did_not_send_goes_another_way() -> None:
    rpc = StuckRpc()
    stream = Stream(PROTOCOL, rpc, "echo_svc")
    serving_task = asyncio.create_task(stream.serve())
    sent = asyncio.create_task(stream.call(ECHO, b"", 60))
    await settle()
    unsent = asyncio.create_task(stream.call(ECHO, b"", 60))
    await settle()
    serving_task.cancel()
    outcomes = await asyncio.gather(sent, unsent, stream.call(ECHO, b"", 60), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, NotSent, NotSent]


async def test_a_call_that_goes_another_way_has_the_time_that_is_left() -> None:
    async with serving() as server, calling(server, up=1) as calls:
        stuck = Stream(PROTOCOL, StuckRpc(), "echo_svc")
        serving_task = asyncio.create_task(stuck.serve())
        sent = asyncio.create_task(stuck.call(ECHO, b"", 60))
        await settle()
        calls._up.clear()
        calls._up.append(stuck)
        unsent = asyncio.create_task(calls.call(ECHO, *asking(timeout=9)))
        await asyncio.sleep(0.5)
        serving_task.cancel()
        await asyncio.gather(sent, unsent, serving_task, return_exceptions=True)
        assert unsent.result().text == "unary"
        assert 0 < server.left < 8.7


async def test_a_stream_that_takes_nothing_any_more_is_cut_off() -> None:
    rpc = StuckRpc()
    stream = Stream(PROTOCOL, rpc, "echo_svc", leave_seconds=0.05)
    serving_task = asyncio.create_task(stream.serve())
    with pytest.raises(DeadlineExceeded):
        await stream.call(ECHO, b"", 0.1)
    await asyncio.wait_for(rpc.cancelled.wait(), 60)
    serving_task.cancel()
    await asyncio.gather(serving_task, return_exceptions=True)
