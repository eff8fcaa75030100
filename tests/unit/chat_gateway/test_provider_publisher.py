"""What a gateway publishes of its providers: at once, again and again, and never after it has withdrawn it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from chat_gateway.clients.provider_publisher import ProviderPublisher
from chat_gateway.clients.stubs import make_stubs
from parley.config.v1 import provider_service_pb2 as pb
from parley.config.v1 import provider_service_pb2_grpc
from servicekit.errors import Code, RemoteError
from servicekit.interceptors import ErrorMapping

MODELS = {"local": ("small",), "any": ()}


class Peer:
    """Remembers what was published; raises what stands in `failures` first."""

    def __init__(self) -> None:
        self.requests: list[pb.PublishProvidersRequest] = []
        self.failures: list[Exception] = []

    async def PublishProviders(self, request: pb.PublishProvidersRequest, _: Any) -> pb.PublishProvidersResponse:  # noqa: N802
        self.requests.append(request)
        if self.failures:
            raise self.failures.pop(0)
        return pb.PublishProvidersResponse()

    async def ListProviders(self, *_: Any) -> None: ...  # noqa: N802


@asynccontextmanager
async def publishing(peer: Peer | None, ttl: float = 60.0) -> AsyncIterator[ProviderPublisher]:
    server = grpc.aio.server(interceptors=[ErrorMapping()])
    if peer is not None:
        provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(peer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ProviderPublisher(make_stubs(channel, channel), MODELS, ttl, pause=0.01)
    finally:
        await server.stop(None)


async def test_providers_are_published_with_their_models_until_taken_back() -> None:
    peer = Peer()
    async with publishing(peer, ttl=1.5) as publisher:
        await publisher.publish()
        first = peer.requests[0]
        assert [(one.name, list(one.models)) for one in first.providers] == [("local", ["small"]), ("any", [])]
        assert first.ttl.ToMilliseconds() == 1500
        assert uuid.UUID(first.gateway_id)
        repeating = asyncio.create_task(publisher.repeat())
        async with asyncio.timeout(60):
            while len(peer.requests) < 3:
                await asyncio.sleep(0.01)
        assert peer.requests == [first] * 3
        await publisher.withdraw()
        count = len(peer.requests)
        assert not peer.requests[-1].providers
        async with asyncio.timeout(60):
            while len(peer.requests) == count:
                await asyncio.sleep(0.01)
        repeating.cancel()
        assert {one.gateway_id for one in peer.requests} == {first.gateway_id}
        assert not peer.requests[-1].providers, "a late repetition does not bring it back"


async def test_a_config_svc_that_is_unavailable_is_asked_again() -> None:
    peer = Peer()
    peer.failures = [RemoteError("x", code=Code.UNAVAILABLE, reason="PEER_UNAVAILABLE")] * 2
    async with publishing(peer) as publisher, asyncio.timeout(60):
        await publisher.publish()
    assert len(peer.requests) == 3


async def test_an_older_config_svc_keeps_no_gateway_from_starting() -> None:
    async with publishing(None) as publisher, asyncio.timeout(60):
        with structlog.testing.capture_logs() as logs:
            await publisher.publish()
        await publisher.withdraw()
    assert [line["event"] for line in logs] == ["providers_not_published"]
