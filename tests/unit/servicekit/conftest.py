"""A real gRPC server in this process whose methods are plain functions of the test, with strings as messages."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import CollectorRegistry

from servicekit.channels import open_channel
from servicekit.server import GrpcServer, serving
from servicekit.settings import ServiceSettings
from tests.servers import ports

SERVICE = "test.Echo"


class Peer:
    """The running server and a client of it."""

    def __init__(self, server: GrpcServer, channel: grpc.aio.Channel, registry: CollectorRegistry) -> None:
        self.server = server
        self.channel = channel
        self.registry = registry

    def method(self, name: str, kind: str = "unary_unary", *, raw: bool = False) -> Any:
        make = getattr(self.channel, kind)
        serialize = None if raw else StringValue.SerializeToString
        return make(f"/{SERVICE}/{name}", request_serializer=serialize, response_deserializer=StringValue.FromString)

    def calls(self, name: str, code: str) -> float | None:
        labels = {"rpc_method": f"{SERVICE}/{name}", "rpc_response_status_code": code}
        return self.registry.get_sample_value("rpc_server_call_duration_seconds_count", labels)


def handler(kind: str, behavior: Callable[..., Any]) -> Any:
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        behavior, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
    )


@contextlib.asynccontextmanager
async def serve(
    methods: dict[str, tuple[str, Callable[..., Any]]],
    *,
    settings: ServiceSettings | None = None,
    **options: Any,
) -> AsyncIterator[Peer]:
    handlers = {name: handler(kind, behavior) for name, (kind, behavior) in methods.items()}

    def add(_: object, server: Any) -> None:
        server.add_registered_method_handlers(SERVICE, handlers)

    registry = CollectorRegistry()
    async with (
        serving(
            settings or ServiceSettings(drain_timeout=1),
            add=[(add, None)],
            service_names=[SERVICE],
            registry=registry,
            **options,
        ) as server,
        open_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield Peer(server, channel, registry)


async def read_until_error(responses: AsyncIterator[Any]) -> tuple[list[Any], Exception | None]:
    """Returns what a stream sent and how it failed; None when it ended well."""
    received: list[Any] = []
    try:
        async for response in responses:
            received.append(response)  # noqa: PERF401 - what came before the error counts
    except Exception as error:
        return received, error
    return received, None


@pytest.fixture
def outcome() -> Callable[..., Any]:
    return read_until_error


@pytest.fixture
def start() -> Callable[..., Any]:
    return serve


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[int], grpc.aio.Channel]]:
    """Opens channels that outlive a server of the test."""
    opened: list[grpc.aio.Channel] = []

    def to_port(port: int) -> grpc.aio.Channel:
        opened.append(open_channel(f"127.0.0.1:{port}"))
        return opened[-1]

    yield to_port
    for channel in opened:
        await channel.close(None)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of this machine that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
