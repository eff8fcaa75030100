import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.healthcheck import target
from servicekit.settings import ServiceSettings
from tests.servers.ports import free_port

Start = Callable[..., Any]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def settings_with_health_port() -> ServiceSettings:
    return ServiceSettings(drain_timeout=1, health_port=free_port())


async def ask(port: int) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)).status


async def test_the_health_port_tells_what_the_service_tells(start: Start) -> None:
    settings = settings_with_health_port()
    async with start({}, settings=settings, ready=False) as peer:
        assert await ask(settings.health_port) == NOT_SERVING
        await peer.server.set_serving("", True)
        assert await ask(settings.health_port) == SERVING


async def test_liveness_does_not_follow_readiness(start: Start) -> None:
    async with start({}, ready=False) as peer:
        stub = health_pb2_grpc.HealthStub(peer.channel)
        request = health_pb2.HealthCheckRequest(service="grpc.health.v1.Health")
        assert (await stub.Check(request, timeout=60)).status == SERVING
        assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)).status == NOT_SERVING


async def test_the_health_port_answers_nothing_else(start: Start) -> None:
    async def echo(request: Any, context: Any) -> Any:
        return request

    settings = settings_with_health_port()
    async with (
        start({"Echo": ("unary_unary", echo)}, settings=settings),
        grpc.aio.insecure_channel(f"127.0.0.1:{settings.health_port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Echo/Echo")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def run(prefix: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "servicekit.healthcheck", prefix, "--timeout", "5"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.slow
async def test_the_check_exits_with_what_the_service_says(start: Start) -> None:
    settings = settings_with_health_port()
    environment = {"PARLEY_TEST_HEALTH_PORT": str(settings.health_port), "PARLEY_TEST_GRPC_PORT": "1"}
    async with start({}, settings=settings) as peer:
        assert (await asyncio.to_thread(run, "PARLEY_TEST_", environment)).returncode == 0
        await peer.server.set_serving("", False)
        said = await asyncio.to_thread(run, "PARLEY_TEST_", environment)
    assert (said.returncode, said.stderr) == (1, "NOT_SERVING\n")


@pytest.mark.slow
def test_the_check_fails_when_nobody_answers() -> None:
    port = free_port()
    said = run("PARLEY_TEST_", {"PARLEY_TEST_GRPC_PORT": str(port)})
    assert (said.returncode, said.stderr) == (1, f"no answer from 127.0.0.1:{port}: UNAVAILABLE\n")


def test_the_check_prefers_the_port_without_tls() -> None:
    assert target("P_", {"P_GRPC_PORT": "2"}) == "127.0.0.1:2"
    assert target("P_", {"P_GRPC_PORT": "2", "P_HEALTH_PORT": "3"}) == "127.0.0.1:3"
    assert target("P_", {"P_GRPC_PORT": "2", "P_HEALTH_PORT": "0"}) == "127.0.0.1:2"
    with pytest.raises(ValueError, match="neither P_HEALTH_PORT nor P_GRPC_PORT"):
        target("P_", {})
