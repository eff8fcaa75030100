"""What calls may hold before anybody knows who makes them, against callers that make frames of HTTP/2 themselves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from servicekit import bounded_calls, server
from servicekit.bounded_calls import LargeRequests, TooManyCalls
from servicekit.channels import open_channel
from servicekit.errors import ServiceError
from servicekit.rpc_status import from_rpc_error
from servicekit.server import CallerBounds
from servicekit.settings import ServiceSettings
from tests.hostile import frames
from tests.unit.servicekit.conftest import SERVICE, Peer, serve

ECHO = f"/{SERVICE}/Echo".encode()


async def echo(request: StringValue, context: Any) -> StringValue:
    if request.value == "slow":
        await asyncio.sleep(30)
    return request


@contextlib.asynccontextmanager
async def echoing(*, settings: ServiceSettings | None = None, **bounds: Any) -> AsyncIterator[Peer]:
    values: dict[str, Any] = {"max_streams": 100, "max_calls_per_source": 64, "longest_call_seconds": 60.0} | bounds
    async with serve({"Echo": ("unary_unary", echo)}, settings=settings, callers=CallerBounds(**values)) as peer:
        yield peer


async def says(peer: Peer, text: str = "hi") -> str:
    return str((await peer.method("Echo")(StringValue(value=text), timeout=60)).value)


async def status_of(connection: frames.Connection) -> dict[int, bytes]:
    return await asyncio.to_thread(connection.statuses)


@pytest.mark.parametrize(
    "path",
    [b"/\xff\xfe/x", b"/a\x00b/c", b"/a\nb/c", b"x", b"", b"/" + b"a" * 5000, b"/\x1b[31m/x", b"/unknown/Method"],
)
async def test_no_path_ends_the_server(path: bytes) -> None:
    async with echoing() as peer:
        with frames.Connection(peer.server.port) as connection:
            connection.call(1, path)
            assert (await status_of(connection)).get(1, b"12") in (b"12", b"13", b"3")
        assert await says(peer) == "hi"


@pytest.mark.slow
async def test_a_call_whose_request_does_not_come_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_calls.BoundedCalls.__init__, "__kwdefaults__", {"request_seconds": 2.0})
    async with echoing() as peer:
        with frames.Connection(peer.server.port) as connection:
            connection.call(1, ECHO, request=None)
            assert await status_of(connection) == {1: b"4"}, "DEADLINE_EXCEEDED"
            connection.call(3, ECHO, request=b"")
            assert await status_of(connection) == {3: b"3"}, "INVALID_ARGUMENT"
        assert await says(peer) == "hi"
        assert peer.calls("Echo", "DEADLINE_EXCEEDED") == 1


@pytest.mark.slow
async def test_calls_that_wait_for_their_requests_leave_room_for_others() -> None:
    async with echoing(settings=ServiceSettings(max_concurrent_rpcs=16, drain_timeout=0.1)) as peer:
        with frames.Connection(peer.server.port) as connection:
            for number in range(12):
                connection.call(2 * number + 1, ECHO, request=None)
            assert set((await status_of(connection)).values()) == {b"4"}, "the oldest are refused"
            assert await says(peer) == "hi"


async def test_one_address_has_so_many_calls_open() -> None:
    async with echoing(max_calls_per_source=8) as peer:
        calls = [asyncio.create_task(says(peer, "slow")) for _ in range(9)]
        [ninth], _ = await asyncio.wait(calls, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        error = ninth.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        refusal = from_rpc_error(error)
        assert isinstance(refusal, ServiceError)
        assert (refusal.reason, refusal.metadata) == ("TOO_MANY_CALLS", {"scope": "address", "limit": "8"})
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    if await says(peer) == "hi":
                        break


class Memory:
    """A budget of so many requests, which the others are refused."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.sizes: list[int] = []

    @contextlib.asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        if not self.places:
            raise TooManyCalls("memory", 0)
        self.places -= 1
        self.sizes.append(size)
        yield
        self.places += 1


@pytest.mark.slow
async def test_large_requests_that_come_slowly_are_few_and_small_ones_pass_them() -> None:
    large = LargeRequests(Memory(8), arriving=4)
    async with echoing(large=large) as peer:
        with frames.Connection(peer.server.port) as connection:
            for number in range(8):
                connection.call(2 * number + 1, ECHO, request=None)
                begun = frames.message(bytes(1_000_000))[:10_000]
                connection.send(frames.frame(frames.DATA, 0, 2 * number + 1, begun))
            refused: dict[int, bytes] = {}
            async with asyncio.timeout(60):
                while len(refused) < 5:
                    refused |= await asyncio.to_thread(connection.statuses, 1.0)
            assert set(refused.values()) == {b"8"}, "RESOURCE_EXHAUSTED"
            refused |= await asyncio.to_thread(connection.statuses, 1.0)
            assert len(refused) == 5, "three quarters of the places are one address's"
            assert await says(peer) == "hi"
        async with asyncio.timeout(60):
            while await refused_while_arriving(peer):  # those of the connection that has ended leave their places
                await asyncio.sleep(0.05)


async def refused_while_arriving(peer: Peer) -> bool:
    with frames.Connection(peer.server.port) as connection:
        connection.call(1, ECHO, request=None)
        return bool(await asyncio.to_thread(connection.statuses, 1.5))


async def test_a_large_request_takes_memory_and_a_small_one_none() -> None:
    memory = Memory(1)
    async with echoing(large=LargeRequests(memory, arriving=4)) as peer:
        assert await says(peer) == "hi"
        assert memory.sizes == []
        text = "a" * 100_000
        assert await says(peer, text) == text
        assert len(memory.sizes) == 1
        assert memory.sizes[0] > 100_000
        memory.places = 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await says(peer, text)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await says(peer) == "hi"


async def test_nothing_is_read_of_whom_nobody_knows() -> None:
    async def admit(method: str, context: Any) -> None:
        if not dict(context.invocation_metadata()).get("x-key"):
            raise TooManyCalls("stranger", 0)

    async with echoing(admit=admit) as peer:
        with frames.Connection(peer.server.port) as connection:
            connection.call(1, ECHO, request=None)
            assert await status_of(connection) == {1: b"8"}, "though its request has not come"
            connection.call(3, ECHO, frames.literal(b"x-key", b"1"), request=frames.message(b"\x0a\x02hi"))
            assert await status_of(connection) == {3: b"0"}


async def test_bytes_that_are_no_message_are_refused_by_name() -> None:
    async with echoing() as peer:
        with frames.Connection(peer.server.port) as connection:
            connection.call(1, ECHO, request=frames.message(b"\xff\xff"))
            assert await status_of(connection) == {1: b"3"}, "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "path", [b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"/grpc.health.v1.Health/Watch"]
)
async def test_what_anybody_may_open_for_ever_is_bounded(path: bytes) -> None:
    each = bounded_calls.CallBounds(None, 1).endless_each // 4
    async with echoing(max_calls_per_source=10_000) as peer:
        with frames.Connection(peer.server.port) as connection:
            streams = range(1, 2 * (each + 5), 2)
            for stream in streams[:90]:
                connection.call(stream, path, request=frames.message(b"") if b"health" in path else None)
            assert set((await status_of(connection)).values()) == {b"8"}, "RESOURCE_EXHAUSTED"
        assert await says(peer) == "hi"


@pytest.mark.slow
async def test_connections_are_bounded_and_those_that_say_nothing_end(monkeypatch: pytest.MonkeyPatch) -> None:
    options = tuple(
        (name, 2000 if name == "grpc.server_handshake_timeout_ms" else value) for name, value in server._SERVER_OPTIONS
    )
    monkeypatch.setattr(server, "_SERVER_OPTIONS", options)
    async with echoing(settings=ServiceSettings(max_grpc_connections=8, drain_timeout=0.1)) as peer:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", peer.server.port))) for _ in range(20)]
            for one in silent:
                one.settimeout(30)
                assert await asyncio.to_thread(_until_closed, one), "closed: too many, or without a word in time"
            assert await says(peer) == "hi"
            async with open_channel(f"127.0.0.1:{peer.server.port}") as other:
                await asyncio.wait_for(other.channel_ready(), 60)


def _until_closed(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


async def test_a_burst_of_calls_is_answered_and_not_cancelled_at_random() -> None:
    # gRPC ends some of more than 1,000 calls that nobody has looked at, as CANCELLED, unless it is told otherwise.
    async with echoing(max_calls_per_source=10_000, max_streams=10_000) as peer:
        answers = await asyncio.gather(*(says(peer) for _ in range(2000)), return_exceptions=True)
    assert {str(answer) for answer in answers} == {"hi"}
