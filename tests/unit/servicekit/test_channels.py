import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from servicekit.channels import Peer, call, open_channel, resolvable, stream
from servicekit.errors import DeadlineExceeded, StartupError, Unavailable
from servicekit.settings import ServiceSettings

Start = Callable[..., Any]
HELLO = StringValue(value="hello")


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("localhost:50052", "dns:///localhost:50052"),
        ("127.0.0.1:50052", "dns:///127.0.0.1:50052"),
        ("[::1]:50052", "dns:///[::1]:50052"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("dns:///config:50052", "dns:///config:50052"),
        ("unix:/run/config.sock", "unix:/run/config.sock"),
    ],
)
def test_targets(target: str, uri: str) -> None:
    assert resolvable(target) == uri


@pytest.mark.parametrize(
    "target",
    [
        "",
        "config",
        "config:",
        ":1",
        "a:0",
        "a:70000",
        "a:1,b:2",
        "10.0.0.1:1,[::1]:1",
        "[]:1",
        "http://a:1",
        "a b:1",
        "a\n:1",
        "dns:///a b:1",
    ],
)
def test_what_is_no_target_is_refused_by_name(target: str) -> None:
    with pytest.raises(StartupError) as caught:
        resolvable(target)
    assert repr(target) in str(caught.value)


async def test_nobody_there_is_unavailable_and_names_the_peer(free_port: int) -> None:
    async with open_channel(f"127.0.0.1:{free_port}") as channel:
        with pytest.raises(Unavailable, match="config_svc is unavailable"):
            await call(echo_on(channel), HELLO, timeout=60, peer="config_svc")


async def test_a_bound_peer_names_itself_and_bounds_what_says_nothing_else(start: Start) -> None:
    async def forever(request: StringValue, context: Any) -> StringValue:
        await asyncio.Event().wait()
        return request

    async with (
        start({"Echo": ("unary_unary", forever)}) as running,
        open_channel(f"127.0.0.1:{running.server.port}") as channel,
    ):
        with pytest.raises(DeadlineExceeded, match="config_svc"):
            await Peer("config_svc", 0.1).call(echo_on(channel), HELLO)
        with pytest.raises(DeadlineExceeded, match="config_svc"):
            await Peer("config_svc", 60.0).call(echo_on(channel), HELLO, timeout=0.1)


async def test_a_peer_that_comes_back_is_found_again_quickly(start: Start, free_port: int) -> None:
    settings = ServiceSettings(grpc_port=free_port, drain_timeout=0)
    async with open_channel(f"127.0.0.1:{free_port}") as channel:
        for _ in range(2):
            async with start({"Echo": ("unary_unary", echo)}, settings=settings), asyncio.timeout(30):
                while True:
                    try:
                        assert await call(echo_on(channel), HELLO, timeout=60) == HELLO
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            with pytest.raises(Unavailable):
                await call(echo_on(channel), HELLO, timeout=60)


async def test_calls_go_round_a_list_of_peers(start: Start) -> None:
    methods = {"Echo": ("unary_unary", echo)}
    async with start(methods) as one, start(methods) as two, asyncio.timeout(60):
        channel = open_channel(f"127.0.0.1:{one.server.port},127.0.0.1:{two.server.port}")
        while not (one.calls("Echo", "OK") and two.calls("Echo", "OK")):
            await call(echo_on(channel), HELLO, timeout=60)
        await channel.close(None)


async def test_a_closed_channel_ends_a_call_without_cancelling_its_task(start: Start) -> None:
    async def forever(request: StringValue, context: Any) -> StringValue:
        await asyncio.Event().wait()
        return request

    async with start({"Echo": ("unary_unary", forever)}) as peer:
        channel = open_channel(f"127.0.0.1:{peer.server.port}")
        running = asyncio.ensure_future(call(echo_on(channel), HELLO, timeout=30, peer="config_svc"))
        await asyncio.sleep(0.1)
        await channel.close(None)
        with pytest.raises(Unavailable, match="config_svc"):
            await running


async def test_a_cancelled_task_is_cancelled(start: Start) -> None:
    async def forever(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield request
        await asyncio.Event().wait()

    async def read(peer: Any) -> None:
        async for _ in stream(peer.method("Watch", "unary_stream"), HELLO, timeout=None):
            started.set()

    started = asyncio.Event()
    async with start({"Watch": ("unary_stream", forever)}) as peer:
        reading = asyncio.ensure_future(read(peer))
        await started.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def echo(request: StringValue, context: Any) -> StringValue:
    return request


def echo_on(channel: Any) -> Any:
    return channel.unary_unary(
        "/test.Echo/Echo",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
