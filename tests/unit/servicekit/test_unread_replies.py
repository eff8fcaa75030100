"""Replies that callers do not read: their number of bytes is bounded, and those who read get theirs."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from servicekit import unread, unread_replies
from servicekit.rpc_status import from_rpc_error
from servicekit.server import CallerBounds
from servicekit.unread import STREAM_BYTES
from servicekit.unread_replies import UnreadReplies, UnreadReply
from tests.hostile import frames
from tests.unit.servicekit.conftest import SERVICE, serve

WINDOW_UPDATE = 8
LARGE = StringValue(value="a" * 100_000)
SMALL = StringValue(value="a")


def bounds(max_unread_bytes: int) -> CallerBounds:
    return CallerBounds(
        max_streams=100, max_calls_per_source=100, longest_call_seconds=60.0, max_unread_bytes=max_unread_bytes
    )


def unread_calls(connection: frames.Connection, method: str, count: int) -> None:
    for number in range(count):
        connection.call(2 * number + 1, f"/{SERVICE}/{method}".encode())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


async def status_of(connection: frames.Connection) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    async with asyncio.timeout(30):
        while not found:
            found = await asyncio.to_thread(connection.statuses, 1.0)
    return found


class Streams:
    """Streams without an end, and how each of them ended."""

    def __init__(self) -> None:
        self.open = 0
        self.ended = 0

    async def large(self, _: Any, context: Any) -> AsyncIterator[StringValue]:
        self.open += 1
        try:
            while True:
                yield LARGE
        finally:
            self.ended += 1

    async def written(self, _: Any, context: Any) -> None:
        self.open += 1
        try:
            while True:
                await context.write(LARGE)
        except UnreadReply:
            self.ended += 1
            raise


@pytest.mark.parametrize("method", ["large", "written"])
async def test_streams_that_nobody_reads_end_once_they_hold_too_much(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 0.2)
    monkeypatch.setattr(unread_replies, "_CHECK_SECONDS", 0.1)
    streams = Streams()
    methods = {"Stream": ("unary_stream", getattr(streams, method))}
    async with serve(methods, callers=bounds(3 * STREAM_BYTES)) as peer:
        reading = peer.method("Stream", "unary_stream")(SMALL, timeout=60)
        with frames.Connection(peer.server.port) as connection:
            unread_calls(connection, "Stream", 8)
            await until(lambda: streams.open == 9)
            async with asyncio.timeout(30):
                while streams.ended < 5:
                    assert (await reading.read()).value == LARGE.value
            for _ in range(50):
                assert (await reading.read()).value == LARGE.value
            assert streams.ended in (5, 6), "as many as it takes, and not the one who reads"
            for stream in range(0, 16):
                connection.send(frames.frame(WINDOW_UPDATE, 0, stream, (1 << 20).to_bytes(4)))
            ends = await status_of(connection)
            assert set(ends.values()) == {b"8"}, "who reads after all gets RESOURCE_EXHAUSTED"
        reading.cancel()


async def test_a_message_that_waits_too_long_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_replies, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(unread_replies, "_CHECK_SECONDS", 0.1)
    streams = Streams()
    async with serve({"Stream": ("unary_stream", streams.large)}, callers=bounds(1 << 30)) as peer:
        with frames.Connection(peer.server.port) as connection:
            unread_calls(connection, "Stream", 2)
            await until(lambda: streams.ended == 2)


async def test_large_replies_that_nobody_reads_leave_no_room_for_more_of_them() -> None:
    async def reply(request: StringValue, context: Any) -> StringValue:
        return SMALL if request.value == "small" else LARGE

    async with serve({"Reply": ("unary_unary", reply)}, callers=bounds(1_000_000)) as peer:
        with frames.Connection(peer.server.port) as connection:
            unread_calls(connection, "Reply", 12)
            refused: dict[int, bytes] = {}
            async with asyncio.timeout(30):
                while len(refused) < 5:
                    refused |= await asyncio.to_thread(connection.statuses, 1.0)
            assert set(refused.values()) == {b"8"}, "RESOURCE_EXHAUSTED beyond three quarters of a megabyte"
            with pytest.raises(grpc.aio.AioRpcError) as another:
                await peer.method("Reply")(StringValue(value="large"), timeout=30)
            error = from_rpc_error(another.value)
            assert (error.reason, error.metadata["scope"]) == ("TOO_MANY_CALLS", "address")
            assert await peer.method("Reply")(StringValue(value="small"), timeout=30) == SMALL
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await peer.method("Reply")(StringValue(value="large"), timeout=30) == LARGE
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
                else:
                    break


async def test_a_refused_reply_is_not_kept_by_its_refusal() -> None:
    """The cycles of an error and its frames may stay for long: two hundred clients made half a gigabyte of them."""

    async def reply(request: bytes, context: Any) -> bytes:
        return b"a" * 100_000

    context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1", add_done_callback=lambda _: None)
    handler = grpc.unary_unary_rpc_method_handler(reply)
    bounded = UnreadReplies(150_000)._wrap_handler("/a/b", handler)
    assert len(await bounded.unary_unary(b"", context)) == 100_000
    with pytest.raises(UnreadReply) as refused:
        await bounded.unary_unary(b"", context)
    [frame] = [one for one, _ in traceback.walk_tb(refused.tb) if one.f_code.co_name == "serialized"]
    assert not frame.f_locals.keys() & {"data", "reply"}
