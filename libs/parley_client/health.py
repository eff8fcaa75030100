"""Health checks of servers (`grpc.health.v1`)."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley_client.errors import ParleyError

ASK_SECONDS = 5.0


def is_serving(channel: grpc.Channel, service: str = "", *, timeout: float = ASK_SECONDS) -> bool:
    """Returns whether the server behind a channel reports a service as serving; "" is the whole server."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        return _serves(health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout))
    except ParleyError:
        return False


async def is_serving_async(channel: grpc.aio.Channel, service: str = "", *, timeout: float = ASK_SECONDS) -> bool:
    """As `is_serving`, for asyncio."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        return _serves(await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout))
    except ParleyError:
        return False


def _serves(answer: Any) -> bool:
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
