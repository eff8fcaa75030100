import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from servicekit import reflection
from servicekit.channels import call, stream
from servicekit.errors import RemoteError, StartupError
from servicekit.server import STARTED, check_port, serving
from servicekit.settings import ServiceSettings

Start = Callable[..., Any]
Connect = Callable[[int], grpc.aio.Channel]
HELLO = StringValue(value="hello")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(peer: Any, service: str) -> Any:
    stub = health_pb2_grpc.HealthStub(peer.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)).status


async def forever(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
    yield StringValue(value="one")
    await asyncio.Event().wait()


async def test_health_is_told_for_each_service_and_overall(start: Start) -> None:
    async with start({}) as peer:
        assert await health(peer, "") == SERVING
        assert await health(peer, "test.Echo") == SERVING
        await peer.server.set_serving("test.Echo", False)
        assert await health(peer, "test.Echo") == NOT_SERVING
        assert await health(peer, "") == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(peer, "test.Unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_may_start_unready(start: Start) -> None:
    async with start({}, ready=False) as peer:
        assert [await health(peer, name) for name in ("", "test.Echo")] == [NOT_SERVING, NOT_SERVING]
        await peer.server.set_serving("", True)
        assert await health(peer, "") == SERVING


async def test_who_has_started_stays_so_until_the_drain_whatever_a_service_says(start: Start) -> None:
    async with start({}, ready=False) as peer:
        assert await health(peer, STARTED) == NOT_SERVING
        assert not peer.server.started
        await peer.server.set_serving("test.Echo", True)
        assert await health(peer, STARTED) == SERVING
        await peer.server.set_serving("test.Echo", False)
        assert (await health(peer, STARTED), peer.server.started) == (SERVING, True)
        await peer.server.retire()
        assert (await health(peer, STARTED), peer.server.started) == (NOT_SERVING, False)
        await peer.server.set_started()
        assert (await health(peer, STARTED), peer.server.started) == (NOT_SERVING, False)
    async with start({}) as peer:
        assert await health(peer, STARTED) == SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(start: Start, version: str) -> None:
    async with start({}) as peer:
        reflect = peer.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answer = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = {s.name for a in [r async for r in answer] for s in a.list_services_response.service}
    assert {"test.Echo", "grpc.health.v1.Health", *reflection.SERVICES} == listed


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_can_be_turned_off(start: Start, version: str) -> None:
    async with start({}, settings=ServiceSettings(reflection=False)) as peer:
        reflect = peer.channel.unary_unary(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflect(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_taken_port_is_named(taken_port: int) -> None:
    settings = ServiceSettings(grpc_port=taken_port)
    with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{taken_port} is taken"):
        async with serving(settings, add=[], service_names=[]):
            pass


@pytest.mark.parametrize("free_when_asked", [False, True])
async def test_two_servers_never_share_a_port(monkeypatch: pytest.MonkeyPatch, free_when_asked: bool) -> None:
    if free_when_asked:  # and taken a moment later
        monkeypatch.setattr("servicekit.server.check_port", lambda host, port: None)
    async with serving(ServiceSettings(), add=[], service_names=[]) as first:
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{first.port} is taken"):
            async with serving(ServiceSettings(grpc_port=first.port), add=[], service_names=[]):
                pass


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(StartupError, match=r"cannot listen on 192\.0\.2\.1:0"):
        check_port("192.0.2.1", 0)


async def test_a_drain_lets_running_calls_finish(start: Start, connect: Connect) -> None:
    entered = asyncio.Event()

    async def slow(request: StringValue, context: Any) -> StringValue:
        entered.set()
        await asyncio.sleep(0.3)
        return request

    settings = ServiceSettings(drain_timeout=60)
    async with start({"Slow": ("unary_unary", slow)}, settings=settings) as peer:
        channel = connect(peer.server.port)
        method = channel.unary_unary(
            "/test.Echo/Slow",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        running = asyncio.ensure_future(call(method, HELLO, timeout=60))
        await entered.wait()
    assert await running == HELLO


async def test_a_drain_is_bounded_and_callers_hear_that_it_is_one(start: Start, connect: Connect) -> None:
    async with start({"Watch": ("unary_stream", forever)}, settings=ServiceSettings(drain_timeout=0.3)) as peer:
        responses = watch_on(connect(peer.server.port))
        await anext(responses)
        begin = time.monotonic()
    assert 0.3 <= time.monotonic() - begin < 30
    with pytest.raises(RemoteError) as caught:
        async for _ in responses:
            pass
    assert caught.value.reason == "DRAINING"


async def test_a_drain_does_not_wait_for_endless_calls(start: Start, connect: Connect) -> None:
    settings = ServiceSettings(drain_timeout=60)
    async with start({"Watch": ("unary_stream", forever)}, settings=settings, endless=["/test.Echo/Watch"]) as peer:
        responses = watch_on(connect(peer.server.port))
        await anext(responses)
        begin = time.monotonic()
    assert time.monotonic() - begin < 30
    with pytest.raises(RemoteError) as caught:
        await anext(responses)
    assert caught.value.reason == "DRAINING"


async def test_who_watches_the_health_hears_of_the_drain(start: Start, connect: Connect, outcome: Start) -> None:
    async with start({}, settings=ServiceSettings(drain_timeout=60)) as peer:
        stub = health_pb2_grpc.HealthStub(connect(peer.server.port))
        watch = aiter(stub.Watch(health_pb2.HealthCheckRequest(service="test.Echo")))
        assert (await anext(watch)).status == SERVING
    heard, error = await outcome(watch)
    assert [response.status for response in heard] == [NOT_SERVING]
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
async def test_calls_are_served_on_while_a_drain_gives_notice(start: Start, connect: Connect) -> None:
    async def echo(request: StringValue, _: Any) -> StringValue:
        return request

    ended = asyncio.Event()
    settings = ServiceSettings(drain_notice=4.0, drain_timeout=60)
    begin = time.monotonic()
    async with start({"Echo": ("unary_unary", echo)}, settings=settings, on_end=ended.set) as peer:
        channel = connect(peer.server.port)
        method = channel.unary_unary(
            "/test.Echo/Echo",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="test.Echo")))
        assert (await anext(watch)).status == SERVING

        async def calls_once_not_serving() -> bool:
            assert (await anext(watch)).status == NOT_SERVING
            assert await call(method, HELLO, timeout=60) == HELLO
            return ended.is_set()

        calling = asyncio.ensure_future(calls_once_not_serving())
        begin = time.monotonic()
    assert time.monotonic() - begin >= 4.0
    assert await calling is False, "the notice was not over when the call was answered"
    assert ended.is_set()


def watch_on(channel: grpc.aio.Channel) -> Any:
    method = channel.unary_stream(
        "/test.Echo/Watch",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    return stream(method, HELLO, timeout=None)
